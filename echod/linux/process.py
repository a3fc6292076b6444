"""A forked process: which descriptors it keeps, which user it becomes, and how it ends.

Owns the fork and the exit; the caller provides what runs in between. Invariant: the supervisor's code never continues
in the child, and the child keeps no descriptors but those named, stdin and stdout.
"""

import errno
import gc
import os
import pickle
import signal
import time
import traceback
from collections.abc import Callable, Container, Iterable
from contextlib import suppress
from typing import BinaryIO, Final, Generic, TypeVar

from setproctitle import setproctitle

from echod.errors import EchodError, ExitCode, StartFailedError
from echod.linux import prctl
from echod.linux.cgroups import exhausted_limit
from echod.linux.privileges import Account, become

_IGNORED: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Signals of a terminal or a service manager are handled by the supervisor."""
_CPUCLOCK_SCHED: Final = 2

_PART_BYTES: Final = 1 << 16

_Answer = TypeVar("_Answer")


def fork(name: str, keep: Iterable[int], run: Callable[[], None], report: Callable[[str], None]) -> int:
    """Fork a process that calls `run` and exits; return its id. It keeps these descriptors, stdin and stdout.

    What `run` raises is reported: in plain lines on stderr, because the journal may not find the unit of a process
    that is gone. Raises OSError if the host has no process left; its text names the limit.
    """
    try:
        pid = os.fork()
    except OSError as error:
        if error.errno == errno.EAGAIN:
            raise OSError(error.errno, f"{error.strerror}: {exhausted_limit()}") from None
        raise
    if pid == 0:
        _run_and_exit(name, keep, run, report)
    return pid


class Child(Generic[_Answer]):
    """A forked process that answers once, and ends. What it imports and takes is free then."""

    def __init__(self, name: str, work: Callable[[], _Answer], report: Callable[[str], None]) -> None:
        """Fork it; it calls `work`. The report is as in `fork`, as is OSError."""
        self._name, self._pickled = name, b""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        self._pipe = os.fdopen(reader, "rb", buffering=0)
        with os.fdopen(writer, "wb") as end:
            try:
                self._pid = fork(name, [2, writer], lambda: _answer(end, work), report)
            except OSError:
                self._pipe.close()
                raise

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is a part of the answer, or its end."""
        return self._pipe.fileno()

    def receive(self) -> bool:
        """Receive a part of the answer, for which it waits; return whether that was the end."""
        part = os.read(self._pipe.fileno(), _PART_BYTES)
        self._pickled += part
        return not part

    def answer(self) -> _Answer:
        """Wait for what `work` returned, and the end; raise the EchodError or OSError that it raised.

        Any other end is reported, and is a StartFailedError.
        """
        with self._pipe:
            while not self.receive():
                pass
        _, status = os.waitpid(self._pid, 0)
        if status != 0:
            raise StartFailedError(f"the {self._name} ended without an answer: {describe_exit(status)}")
        found: _Answer | EchodError | OSError = pickle.loads(self._pickled)  # noqa: S301 - from a copy of this process
        if isinstance(found, (EchodError, OSError)):
            raise found
        return found


def _answer(end: BinaryIO, work: Callable[[], object]) -> None:
    """Write what the work returns, or raises, for the process that asked; end if that is killed."""
    prctl.prctl(prctl.PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        found = work()
    except (EchodError, OSError) as error:
        found = error
    with suppress(BrokenPipeError):  # that process has ended
        pickle.dump(found, end)
        end.flush()


def set_up_child(supervisor: int, title: str, account: Account | None) -> bool:
    """Become a process of this supervisor, given by its id; return whether it still runs. Call this first.

    With an account, it becomes that user, without any capability. Raises EchodError if it cannot.
    """
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    if account is not None:
        become(account)
    # If the supervisor is killed, this process must die too: a new supervisor must find the ports free. (A change of
    # user would undo this.)
    prctl.prctl(prctl.PR_SET_PDEATHSIG, signal.SIGKILL)
    setproctitle(title)
    return os.getppid() == supervisor


def kill(pid: int) -> bool:
    """Kill a child at once; return whether that was allowed.

    `find_account` ensures that at the start. Where a security module still forbids it, no loop ends because of that.
    """
    try:
        os.kill(pid, signal.SIGKILL)
    except PermissionError:
        return False
    return True


def reap_inherited(own: Container[int | None]) -> None:
    """Reap children that have exited and are not `own`.

    The first process of a container inherits the orphans of all others (pid_namespaces(7)); a launcher may leave some.
    """
    with suppress(ChildProcessError):
        while (exited := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and exited.si_pid not in own:
            os.waitpid(exited.si_pid, 0)


def describe_exit(status: int) -> str:
    """Describe how a process ended, from its wait status (waitpid(2))."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"  # only the first and the last real-time signal have names


def cpu_seconds(pid: int | None) -> float:
    """Return the CPU time of a process from its clock (clock_getcpuclockid(3)): one call, without reading /proc."""
    if pid is None:
        return 0.0
    try:
        return round(time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED), 2)
    except OSError:
        return 0.0  # it has just exited


def _run_and_exit(name: str, keep: Iterable[int], run: Callable[[], None], report: Callable[[str], None]) -> None:
    """Be the new process, and never return."""
    code: int = ExitCode.SOFTWARE
    try:
        # A copy of any other descriptor would keep a port bound, or a channel open, that the supervisor has closed.
        signal.set_wakeup_fd(-1)
        # Garbage of the supervisor must not be collected here. It may own a mapping that this process does not have
        # (MADV_DONTFORK), and would unmap what has that address now.
        gc.freeze()
        _close_all_but({0, 1, *keep})
        run()
        code = ExitCode.OK
    except EchodError as error:
        code = error.exit_code
        report(f"echod: {name}: {error}")
    except BaseException:  # noqa: BLE001 - nothing may return from a forked copy of the supervisor
        report(f"echod: {name} crashed\n{traceback.format_exc()}")
    finally:
        # Not sys.exit: none of the supervisor's code may run here.
        os._exit(code)


def _close_all_but(keep: set[int]) -> None:
    """Close every other descriptor. The objects that own them remain in this process, but never run again."""
    first = 0
    for fd in sorted(keep):
        if first < fd:  # closerange(0, 0) would close everything: its end, -1, means the last to close_range(2)
            os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))
