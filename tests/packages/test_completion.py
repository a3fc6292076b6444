"""bash, zsh and fish complete commands, options and files of echod and echod-ping, by what their parsers have."""

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.daemon import REPOSITORY

FOLDER = REPOSITORY / "packaging/completion"

SECONDS = 60.0
"""An answer takes a tenth of a second when idle."""

SHOW = 'echod() { printf \'{%s}\' "$@"; echo END$((1 + 1)); }; echod-ping() { echod "$@"; }'
"""In place of the commands: shows the words of a command line, and then a word that nobody has typed."""

SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], f". {FOLDER}/echod.bash; . {FOLDER}/echod-ping.bash"),
    "zsh": (["zsh", "-f", "-i"], f"fpath=({FOLDER} $fpath); autoload -U compinit; compinit -u -D"),
}

TYPED = [
    ("echod pi\t", ["ping"]),
    ("echod ping --sou\t", ["ping", "--source"]),
    ("echod ping --source-\t", ["ping", "--source-port"]),
    ("echod ping --compare t\t", ["ping", "--compare", "tcp"]),
    ("echod run --dae\t", ["run", "--daemonize"]),
    ("echod check --config long-\t", ["check", "--config", "long-name.yaml"]),
    ("echod ping 192.0.2.1 --compa\t", ["ping", "192.0.2.1", "--compare"]),
    ("echod-ping --sou\t", ["--source"]),
    ("echod-ping --vers\t", ["--version"]),
    ("echod-ping --compare t\t", ["--compare", "tcp"]),
    ("echod-ping --csv long-\t", ["--csv", "long-name.yaml"]),
    ("echod-ping 192.0.2.1 --compa\t", ["192.0.2.1", "--compare"]),
]
"""What is typed, and the words that the command then has."""

HOSTS = [("echod ping localh\t", ["ping", "localhost"]), ("echod-ping localh\t", ["localhost"])]
"""The same, where a host is due; fish offers no host of the loopback interface."""


def typed_in(shell: str, keys: str, folder: Path) -> list[str]:
    """Type into an interactive shell, as at a terminal; return the words of the command."""
    command, load = SHELLS[shell]
    if shutil.which(shell) is None:
        pytest.skip(f"not installed: {shell}")
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvpe(command[0], command, {"PATH": os.environ["PATH"], "TERM": "dumb", "HOME": str(folder)})  # noqa: S606
    try:
        os.write(terminal, f"{load}\n{SHOW}\n{keys}\n".encode())
        output, deadline = "", time.monotonic() + SECONDS
        while "END2" not in output and time.monotonic() < deadline:
            if select.select([terminal], [], [], 1)[0]:
                output += os.read(terminal, 65_536).decode(errors="replace")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)
    found = re.search(r"((?:\{[^{}]*\})+)END2", output)
    assert found, output
    return re.findall(r"\{([^{}]*)\}", found[1])


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("keys", "words"), TYPED + HOSTS)
def test_the_tab_key_completes(shell: str, keys: str, words: list[str], tmp_path: Path) -> None:
    """Commands, options, values of options, and names of files and hosts where one is due."""
    (tmp_path / "long-name.yaml").touch()
    assert typed_in(shell, keys, tmp_path) == words


@pytest.mark.parametrize(("keys", "words"), TYPED)
def test_fish_completes(keys: str, words: list[str], tmp_path: Path) -> None:
    """It has a command that shows what the tab key would offer."""
    if shutil.which("fish") is None:
        pytest.skip("not installed: fish")
    (tmp_path / "long-name.yaml").touch()
    script = f"source {FOLDER}/echod.fish; source {FOLDER}/echod-ping.fish; complete -C '{keys.rstrip()}'"
    variables = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    command = ["fish", "--no-config", "-c", script]
    printed = subprocess.run(
        command, cwd=tmp_path, env=variables, check=True, capture_output=True, text=True, timeout=60
    )
    offered = [line.partition("\t")[0] for line in printed.stdout.splitlines()]
    assert offered
    assert os.path.commonprefix(offered) == words[-1]  # noqa: RUF071 - of words, not of paths


def test_the_files_are_those_that_the_parsers_make(tmp_path: Path) -> None:
    """Another option, command or text is in them as soon as packaging/completion/make has run."""
    subprocess.run([sys.executable, FOLDER / "make", tmp_path], cwd=tmp_path, check=True, timeout=60)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_text() for path in FOLDER.iterdir() if path.name != "make"}
