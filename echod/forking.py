"""A process forked by the supervisor: what it keeps of it, and how it ends.

Owns the moment of the fork and the last one. What is done in between is the business of who asks. Invariant: nothing
of the supervisor's code runs on in the copy, and the copy holds none of the supervisor's descriptors but those named,
stdin, stdout and those of the log.
"""

import ctypes
import os
import signal
import traceback
from collections.abc import Callable, Iterable
from typing import Final

from setproctitle import setproctitle

from echod import logs
from echod.core.errors import ExitCode

_IGNORED: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Signals of a terminal or a service manager are the supervisor's business."""

_PR_SET_PDEATHSIG: Final = 1


def fork(name: str, keep: Iterable[int], life: Callable[[], None]) -> int:
    """Fork a process that lives this life and exits; return its id. It keeps these descriptors and those of the log.

    Raises OSError where the host has no process left.
    """
    pid = os.fork()
    if pid == 0:
        _live_and_exit(name, keep, life)
    return pid


def belong_to(supervisor: int, title: str) -> bool:
    """Become a process of this supervisor, by its id; tell whether it is still there. To be called first of all."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    # Should the supervisor die without a word, so must we: a new one must find the ports free.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    setproctitle(title)
    return os.getppid() == supervisor


def how_it_ended(status: int) -> str:
    """Say in words how a process ended, by its wait status (waitpid(2))."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"  # of the real-time signals only the first and the last have names


def _live_and_exit(name: str, keep: Iterable[int], life: Callable[[], None]) -> None:
    """Be the new process, and never return."""
    code: int = ExitCode.SOFTWARE
    try:
        # A copy of anything else would keep a port bound, or a channel open, that the supervisor has closed.
        signal.set_wakeup_fd(-1)
        _close_all_but({0, 1, *logs.descriptors(), *keep})
        life()
        code = ExitCode.OK
    except BaseException:  # noqa: BLE001 - nothing may return from a forked copy of the supervisor
        # On stderr, not as an entry of its own: the journal may not find the unit of a process that is gone.
        logs.last_words(f"echod: {name} crashed\n{traceback.format_exc()}")
    finally:
        # Not sys.exit: nothing of the supervisor's may run in here.
        os._exit(code)


def _close_all_but(keep: set[int]) -> None:
    """Close every other descriptor. The objects that had them live on in this copy, but never run again."""
    first = 0
    for fd in sorted(keep):
        if first < fd:  # closerange(0, 0) closes everything: to close_range(2) its end, -1, is the last there is
            os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))
