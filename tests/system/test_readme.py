"""What the README tells an operator to do, done on booted hosts as printed."""

import re
from pathlib import Path

import pytest
from support.system.installation import SOURCE, Release, serve_index
from support.system.operating import Host
from support.waiting import wait_until

README = Path(__file__).parents[2] / "README.md"
INSTALL = "packaging/install"

MEASURED = {"process", "CPU total", "/s, 1 s", "/s, 10 s", "/s, 60 s"}
"""Columns of `echod status` that differ from run to run."""

VARYING = re.compile(r"\d+:\d\d:\d\d|\d{4}-\d\d-\d\d|(?<=\bprocess )\d+|(?<![\w.])[\d./]+ ?(?:us|ms|s)\b")

CURL = """#!/usr/bin/python3
import sys, urllib.request
sys.stdout.write(urllib.request.urlopen(sys.argv[-1]).read().decode())
"""
"""A Debian as small as this one has none."""


def dialogue() -> list[tuple[str, list[str]]]:
    """Return each command of "Operate" with the lines that the README shows below it, in order.

    Those of the packages are run by `test_debian_packages`.
    """
    section = README.read_text().partition("\n## Operate\n")[2].partition("\n## ")[0]
    steps: list[tuple[str, list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```", section, re.MULTILINE | re.DOTALL):
        for line in () if block.startswith("# apt install") else block.splitlines():
            if line.startswith("# "):
                steps.append((line[2:], []))
            else:
                steps[-1][1].append(line.strip())
    return steps


def normal(text: str) -> list[str]:
    """Return the lines, with a sign in the place of what differs from run to run, and of nothing else.

    That is each duration, time, date and process id, and what the columns of MEASURED hold. A table begins with a
    line of its own, the names of its columns, and ends with an empty line; columns are two blanks apart or more.
    """
    lines: list[str] = []
    header: list[str] = []
    for line in text.splitlines():
        cells = re.split(" {2,}", line.strip())
        if cells == [""]:
            header = []
        elif not header:
            header = cells
        elif len(cells) == len(header):
            cells = ["#" if name in MEASURED else cell for name, cell in zip(header, cells, strict=True)]
        lines.append(VARYING.sub("#", "  ".join(cells)))
    return lines


def is_shown(shown: list[str], command: str, printed: str) -> bool:
    """Tell whether lines were printed, in their order: to the letter, but for what is measured."""
    if not re.search("echod (status|ping)", command):
        return all(line in printed for line in shown)
    rest = iter(normal(printed))
    return all(line in rest for line in normal("\n".join(shown)) if line)


RECEIVED = "100 packets transmitted, {} received, {}% packet loss, time {}"
TABLE = "UDP listener  received  /s, 10 s\n{}\n"


@pytest.mark.parametrize(
    ("line", "printed", "shown"),
    [
        (RECEIVED.format(100, 0, "198ms"), RECEIVED.format(0, 100, "198ms"), False),
        (RECEIVED.format(100, 0, "198ms"), RECEIVED.format(99, 1, "198ms"), False),
        (RECEIVED.format(100, 0, "198ms"), RECEIVED.format(100, 0, "1.2s"), True),
        (TABLE.format("udp://0.0.0.0:7   100   10.0"), TABLE.format("udp://0.0.0.0:7  100  9.8"), True),
        (TABLE.format("udp://0.0.0.0:7   100   10.0"), TABLE.format("udp://0.0.0.0:7  10  10.0"), False),
        (TABLE.format("udp://0.0.0.0:7   100   10.0"), TABLE.format("udp://0.0.0.0:7    10.0"), False),
        (TABLE.format("udp://0.0.0.0:7   100   10.0"), TABLE.format("udp://0.0.0.0:8  100  10.0"), False),
    ],
)
def test_only_what_is_measured_may_differ(line: str, printed: str, shown: bool) -> None:  # noqa: FBT001
    """Times may, measured columns, and the width of a column: it follows from the longest cell. Counts may not."""
    assert is_shown(line.splitlines(), "echod ping", printed) == shown


def test_every_command_of_operate_does_what_the_readme_shows(host: Host, release: Release) -> None:
    """Done one after the other on a fresh host with an index for pip, each command prints the lines shown.

    The README shows a host of two CPUs. So that the test needs none, the config is there before: it has two workers.
    """
    release.bring(host)
    serve_index(host)
    config = (release.source / "config/echod.yaml").read_text()
    assert config.count("workers: auto") == 1
    host.write("/etc/echod.yaml", config.replace("workers: auto", "workers: 2"))
    host.write("/usr/local/bin/curl", CURL, mode=0o755)
    steps = dialogue()
    assert len(steps) > 10
    outputs: list[str] = []
    assert steps[0][0].startswith(INSTALL)
    for command, lines in steps:

        def printed(command: str = command, lines: list[str] = lines) -> bool:
            """Run it; what it shows may take a second to come true, and running it again does no harm."""
            result = host.run(["sh", "-c", f"cd {SOURCE} && {command} 2>&1"], check=False)
            outputs.append(result.stdout)
            return is_shown(lines, command, result.stdout) if lines else result.returncode == 0

        try:
            wait_until(printed, f"{command!r} shows {lines}", seconds=30)
        except AssertionError as error:
            error.add_note(outputs[-1])
            raise
