"""What the daemon's commands and its log write where a stream is no UTF-8, or a name is no text."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
from support.daemon import ECHOD, REPOSITORY, Daemon, environment
from support.ports import free_port

from echod.cli import status
from echod.status.overview import Overview
from echod.status.tables import Table

encodings = pytest.mark.parametrize(
    ("variables", "encoding"),
    [
        ({"LC_ALL": "C"}, "utf-8"),  # PEP 540
        ({"LC_ALL": "POSIX"}, "utf-8"),
        ({"PYTHONIOENCODING": "ascii"}, "ascii"),
        ({"PYTHONIOENCODING": "latin-1"}, "latin-1"),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "ascii"),
    ],
)


def run(variables: dict[str, str], encoding: str, *words: object) -> str:
    """Run a command with these variables; return what it wrote, which is in this encoding."""
    command = [*ECHOD, *map(str, words)]
    env = environment(**variables)
    found = subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, check=False, timeout=30)
    assert found.stderr == b""
    return found.stdout.decode(encoding)


@encodings
def test_the_caret_of_check_stands_below_its_place(tmp_path: Path, variables: dict[str, str], encoding: str) -> None:
    """Also where the line before it has characters that the stream has not, which are written out."""
    path = tmp_path / "echod.yaml"
    path.write_text('{"\u00fc\u4e2d": 1, workers: 0}\n', encoding="utf-8")
    lines = run(variables, encoding, "check", "--config", path).splitlines()
    place = next(number for number, line in enumerate(lines) if "error: workers: " in line)
    excerpt, caret = lines[place + 1 : place + 3]
    wide = "\u4e2d" in excerpt  # two columns on a terminal
    assert excerpt[len(caret) - 1 - wide :] == "0}"
    assert ("\u00fc" in excerpt) is (encoding != "ascii")


@encodings
def test_status_is_whole_whatever_the_config_is_called(
    echod: Callable[..., Daemon], tmp_path: Path, variables: dict[str, str], encoding: str
) -> None:
    """JSON is ASCII and names the file; so do the lines, as far as the stream has its characters."""
    path = tmp_path / "\u00fcb\u4e2d.yaml"
    path.write_text(f"listeners: [udp://127.0.0.1:{free_port()}]\nworkers: 1\n")
    daemon = echod(command=("run", "--config", str(path)))
    variables |= {"RUNTIME_DIRECTORY": str(daemon.status_path)}
    listed = run(variables, encoding, "status", "--json")
    assert (listed.isascii(), json.loads(listed)["config"]) == (True, str(path))
    shown = str(path).encode(encoding, "backslashreplace").decode(encoding)
    assert f"\nconfig: {shown}, read " in run(variables, encoding, "status")


def test_columns_stand_in_line_though_a_name_is_written_out() -> None:
    """The name of an interface that the stream cannot write is as long as it looks there."""
    names = ("udp://[fe80::1%\u00fcber0]:7", "udp://[fe80::1%eth0]:7")
    table = Table(head=("listener", "n"), left=1, rows=tuple((name, "1") for name in names))
    out = BytesIO()
    stream = TextIOWrapper(out, encoding="ascii", errors="strict")
    status.show(Overview(lines=("config: \u4e2d.yaml",), tables=(table,)), stream)
    stream.flush()
    lines = out.getvalue().decode().splitlines()
    assert lines[0] == "config: \\u4e2d.yaml"
    assert lines[3] == "udp://[fe80::1%\\xfcber0]:7  1"
    assert {len(line) for line in lines[2:]} == {len(lines[3])}


def test_the_journal_takes_a_name_that_is_no_text(tmp_path: Path) -> None:
    """A byte that is no character is written out, in the message and in its field; nothing is raised."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        journal.settimeout(15)
        script = (
            "import os, sys, structlog\n"
            "from functools import partial\n"
            "from echod import logs\n"
            "logs.Journal = partial(logs.Journal, path=sys.argv[1])\n"
            "logs.configure(level='info', destination='journal')\n"
            "structlog.get_logger().info('bound', interface=os.fsdecode(bytes([0xff])))\n"
        )
        command = [sys.executable, "-c", script, str(tmp_path / "journal")]
        subprocess.run(command, cwd=REPOSITORY, env=environment(), check=True, timeout=30)
        entry = journal.recv(4096).decode()
    assert "MESSAGE=bound: interface \\udcff\n" in entry
    assert "ECHOD_INTERFACE=\\udcff\n" in entry
