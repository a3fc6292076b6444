"""What the caller or the host withholds, streams, room or memory, is no reason not to serve."""

import errno
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import pytest
from support.daemon import ECHOD, REPOSITORY, Serve, StartDaemon, ask, environment
from support.ports import free_port
from support.waiting import wait_until

CLOSED = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
"""Runs a command without stdin, stdout and stderr."""


def run(
    words: Sequence[str | Path], variables: Mapping[str, str] | None = None, stdout: IO[str] | int | None = None
) -> tuple[int, str]:
    """Run a command; return its exit code and what it wrote to stderr."""
    env = environment(**(variables or {}))
    finished = subprocess.run(
        words, cwd=REPOSITORY, env=env, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, timeout=30
    )
    return finished.returncode, finished.stderr


def test_with_no_standard_stream_it_serves_and_no_socket_takes_their_place(serve: Serve) -> None:
    """What a library or the interpreter writes to stderr can then never reach a peer."""
    daemon, port = serve(workers=1, prefix=CLOSED, ready=False)
    wait_until(lambda: (daemon.status_path / "status.json").exists() and daemon.workers(), "it served")
    assert ask(port) == b"hi"
    for pid in (daemon.pid, *daemon.workers()):
        assert {str(Path(f"/proc/{pid}/fd/{number}").readlink()) for number in (0, 1, 2)} == {"/dev/null"}
    assert daemon.stop() == 0


@pytest.mark.parametrize("command", ["check", "run"])
def test_with_no_standard_stream_the_exit_code_is_the_same(tmp_path: Path, command: str) -> None:
    """Only the exit code can report what is wrong."""
    path = tmp_path / "echod.yaml"
    path.write_text("listeners: [")
    assert run([*CLOSED, *ECHOD, command, "--config", path])[0] == 78


@pytest.mark.parametrize("variables", [{}, {"PYTHONUNBUFFERED": "1"}])
@pytest.mark.parametrize("words", [("--version",), ("--help",), ("run", "--help")])
def test_help_that_cannot_be_written_exits_74(words: tuple[str, ...], variables: dict[str, str]) -> None:
    """As every other output that finds a full disk."""
    with Path("/dev/full").open("w") as full:
        result = run([*ECHOD, *words], variables, stdout=full)
    assert result == (74, "echod: the output cannot be written: No space left on device\n")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EPIPE])
def test_an_error_that_is_not_of_the_output_is_not_reported_as_one(number: int) -> None:
    """The kernel has ENOSPC also for a lack of epoll watches, and that is no full disk."""
    program = (
        "from echod.cli import main, run\n"
        f"def fail(self): raise OSError({number}, 'of no output')\n"
        "run.Supervisor.run = fail\n"
        "main.main(main.load(['run']))"
    )
    code, text = run([sys.executable, "-c", program])
    assert code == 70
    assert "this is a defect in echod" in text
    assert "of no output" in text


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    """As in `echod config | head -1`: code 0, and nothing on stderr."""
    reader, writer = os.pipe()
    os.close(reader)
    result = run([*ECHOD, "--help"], stdout=writer)
    os.close(writer)
    assert result == (0, "")


def test_a_config_for_which_there_is_no_memory_rejects_the_reload(echod: StartDaemon) -> None:
    """The old one goes on, and the next reload is as good as any."""
    port = free_port()
    config = {"listeners": [f"udp://127.0.0.1:{port}"], "workers": 1}
    daemon = echod(config)
    size = re.search(r"VmSize:\s+(\d+) kB", Path(f"/proc/{daemon.pid}/status").read_text())
    assert size is not None
    deny = [f"10.{number // 250}.{number % 250}.0/24" for number in range(3000)]
    _, hard = resource.prlimit(daemon.pid, resource.RLIMIT_AS, (int(size[1]) << 10, resource.RLIM_INFINITY))
    entry = daemon.reload({**config, "access": {"allow": ["127.0.0.0/8"], "deny": deny}})
    reason = f"there is not enough memory to read {daemon.config_path}: raise LimitAS="
    assert entry["message"] == f"reload REJECTED; the previous config stays in force: {reason}"
    assert ask(port) == b"hi"
    resource.prlimit(daemon.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, hard))
    assert daemon.reload()["event"] == "reloaded"
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
