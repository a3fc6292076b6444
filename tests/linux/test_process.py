"""A process that the supervisor forked, and the words for its end."""

import os
import signal
import subprocess
from collections.abc import Callable

import pytest
from support.daemon import Daemon, ask
from support.loopback import NOBODY, needs_root
from support.ports import free_port

from echod.linux.process import describe_exit, fork, kill

EchodFactory = Callable[..., Daemon]


@pytest.mark.parametrize(
    ("number", "how"),
    [
        (0, "exit code 0"),
        (signal.SIGKILL, "killed by SIGKILL"),
        (signal.SIGRTMIN, "killed by SIGRTMIN"),
        (40, "killed by signal 40"),
    ],
)
def test_an_end_has_its_words(number: int, how: str) -> None:
    """By exit code or signal, also one that has no name."""
    pid = fork("test", [], lambda: os.kill(os.getpid(), number))
    assert describe_exit(os.waitpid(pid, 0)[1]) == how


@needs_root
def test_a_kill_that_is_forbidden_is_told_and_raises_nothing() -> None:
    """Else one child that may not be signalled would end the loop of all."""
    child = subprocess.Popen(["sleep", "60"])
    try:
        os.setresuid(NOBODY, NOBODY, 0)
        assert not kill(child.pid)
    finally:
        os.setresuid(0, 0, 0)
    assert child.poll() is None
    assert kill(child.pid)
    assert child.wait() == -signal.SIGKILL


def test_a_worker_may_end_by_any_signal(echod: EchodFactory) -> None:
    """Killed by a real-time signal, it is replaced, and the supervisor goes on."""
    port = free_port()
    daemon = echod({"listeners": [f"udp://127.0.0.1:{port}"], "workers": 1})
    os.kill(daemon.workers()[0], 40)
    assert daemon.wait_for("worker_exited")["reason"] == "killed by signal 40"
    daemon.wait_for("worker_started", 2)
    assert ask(port) == b"hi"
