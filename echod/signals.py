"""Signals as something to wait for, and a set of those that came.

Owns the handlers, which note the signal's number and do nothing else; the loop acts on it when it gets there.
Invariant: however many signals come at once, each that came is taken.
"""

import signal
import socket
from contextlib import suppress
from typing import Final

CAUGHT: Final = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD})
"""The signals that the loop acts on; to be blocked until `Signals`."""


def block() -> None:
    """Put the signals off until `Signals`, but for SIGINT: Ctrl-C ends a start that hangs."""
    signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT - {signal.SIGINT})


class Signals:
    """The signals that came and were not taken yet. There may be one in a process."""

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
        """Return a descriptor that is ready to be read where there is something to take."""
        return self._wake.fileno()

    def take(self) -> set[int]:
        """Return the numbers of those that came since the last call, each once."""
        with suppress(BlockingIOError):
            while self._wake.recv(4096):
                pass
        # The handlers of all whose bytes were read have run: the interpreter runs them before it goes on after a call.
        taken = set()
        while self._came:  # one by one, for more may come meanwhile
            taken.add(self._came.pop())
        return taken
