"""Calls of a running process that fail because the test says so, by `strace --inject` (strace(1)).

Owns the tracer and ends it. Never guesses when it is at work: strace reports when it has interrupted the process (the
kernel names the tracer earlier, while calls still go through), and the trace has each call that failed. Invariant: the
call itself is not made, so what it would have taken or sent is still where it was.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest
from support.processes import is_stopped
from support.waiting import wait_until

needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None or os.geteuid() != 0,
    reason="strace, which makes calls fail, needs to be installed and to run as root",
)


class Fault:
    """One kind of call that fails with one error: the first so many calls after the tracer came."""

    def __init__(self, pid: int, folder: Path, call: str, error: str, times: int) -> None:
        """Trace the process, and wait until the tracer has it. The trace goes into the folder."""
        self._trace = folder / "trace"
        # A call that this machine does not have is passed over (?): epoll_wait is epoll_pwait on arm64.
        names = ",".join(f"?{name}" for name in call.split("/"))
        command = ["strace", "-o", str(self._trace), "-e", f"trace={names}"]
        inject = f"inject={names}:error={error}:when=1..{times}"
        printed = folder / "strace"
        with printed.open("wb") as stderr:
            self._process = subprocess.Popen([*command, "-e", inject, "-p", str(pid)], stderr=stderr)

        def at_work() -> bool:
            assert self._process.poll() is None, printed.read_text()
            return f"Process {pid} attached\n" in printed.read_text()

        wait_until(at_work, "the process was traced")

    def count(self) -> int:
        """Return how many calls have failed so far."""
        return self._trace.read_text().count("(INJECTED)") if self._trace.exists() else 0

    def wait(self, times: int) -> None:
        """Wait until so many calls have failed."""
        wait_until(lambda: self.count() >= times, f"{times} calls had failed")

    def __enter__(self) -> Self:
        """Go on."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Let go of the process, which carries on."""
        self._process.terminate()
        self._process.wait()


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Hold a process still, so that what is sent to it meanwhile waits for it all together."""
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: is_stopped(pid), "the process stood still")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
