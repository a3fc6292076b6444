"""Signals as a descriptor to wait for, and the set of those that arrived.

Owns the handlers, which record the signal's number and do nothing else; the loop acts on it in its next turn.
Invariant: however many signals arrive at once, none is missed.
"""

import os
import signal
import socket
from contextlib import suppress
from typing import Final

CAUGHT: Final = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD})
"""The signals that the loop acts on; block them until `Signals` exists."""


_STRAY: Final = (
    *(signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGIO, signal.SIGPWR, signal.SIGSTKFLT),
    *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
)
"""Signals that mean nothing to echod, and whose default action would end it (signal(7))."""


def block() -> None:
    """Block the signals until `Signals` exists, except SIGINT: Ctrl-C ends a start that hangs. Ignore stray ones."""
    signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT - {signal.SIGINT})
    for number in _STRAY:
        signal.signal(number, signal.SIG_IGN)


def end_at_once() -> None:
    """Let SIGINT and SIGHUP end the process as they end a program in C, until it sets handlers.

    Python's own handler of SIGINT waits until the C library returns, which takes long if a name server does not reply.
    """
    # The kernel ignores default actions in the first process of a container: there Python's handler is better.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler and os.getpid() != 1:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


class Signals:
    """The signals that arrived and were not taken yet. A process may have only one."""

    def __init__(self) -> None:
        """Catch from now on."""
        self._came: set[int] = set()
        self._wake, write = socket.socketpair()
        self._wake.setblocking(False)
        write.setblocking(False)
        # The interpreter writes a byte for each signal. A full buffer loses bytes, but neither the wake-up nor the set.
        signal.set_wakeup_fd(write.detach(), warn_on_full_buffer=False)
        for number in CAUGHT:
            signal.signal(number, lambda number, _frame: self._came.add(number))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, CAUGHT)

    def fileno(self) -> int:
        """Return a descriptor that is readable when there is something to take."""
        return self._wake.fileno()

    def take(self) -> set[int]:
        """Return the numbers of the signals since the last call, each once."""
        with suppress(BlockingIOError):
            while self._wake.recv(4096):
                pass
        # The handlers of all signals whose bytes were read have run: the interpreter runs them before a call returns.
        taken = set()
        while self._came:  # one by one, because more may arrive meanwhile
            taken.add(self._came.pop())
        return taken
