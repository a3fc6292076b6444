"""What the README tells an operator to do, done on booted hosts as printed."""

import re
from pathlib import Path

from support.system.host import Host
from support.system.installation import SOURCE, WHEELS, Release
from support.waiting import wait_until

README = Path(__file__).parents[2] / "README.md"
INSTALL = "packaging/install"


CURL = """#!/usr/bin/python3
import sys, urllib.request
sys.stdout.write(urllib.request.urlopen(sys.argv[-1]).read().decode())
"""
"""A Debian as small as this one has none."""


def dialogue() -> list[tuple[str, list[str]]]:
    """Return each command of "Operate" with the lines that the README shows below it, in order."""
    section = README.read_text().partition("\n## Operate\n")[2].partition("\n## ")[0]
    steps: list[tuple[str, list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```", section, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("# "):
                steps.append((line[2:], []))
            else:
                steps[-1][1].append(line.strip())
    return steps


def shape(text: str) -> str:
    """Put a sign in the place of numbers and of the room that they take: they differ from run to run."""
    return re.sub(r"[ \d.,:-]*\d[ \d.,:-]*| +", " ", text)


def is_shown(line: str, command: str, printed: str) -> bool:
    """Tell whether a line was printed: to the letter, but for the numbers of what is measured or counted."""
    return shape(line) in shape(printed) if re.search("echod (status|ping)", command) else line in printed


def test_every_command_of_operate_does_what_the_readme_shows(host: Host, release: Release) -> None:
    """Done one after the other on a fresh host, each command prints the lines shown; without network, from wheels."""
    release.bring(host)
    host.write("/usr/local/bin/curl", CURL, mode=0o755)
    steps = dialogue()
    assert len(steps) > 10
    assert steps[0][0].startswith(INSTALL)
    for command, lines in steps:
        command = command.replace(INSTALL, f"{INSTALL} --wheels {WHEELS}")  # noqa: PLW2901 - there is no network here

        def printed(command: str = command, lines: list[str] = lines) -> bool:
            """Run it; what it shows may take a second to come true, and running it again does no harm."""
            result = host.run(["sh", "-c", f"cd {SOURCE} && {command} 2>&1"], check=False)
            shown = all(is_shown(line, command, result.stdout) for line in lines)
            return shown if lines else result.returncode == 0

        wait_until(printed, f"{command!r} shows {lines}", seconds=20)
