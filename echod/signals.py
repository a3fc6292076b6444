"""Signals as bytes on a socket.

Owns the handlers, which do nothing: the interpreter writes the signal's number to the socket, and the loop acts on
it when it gets there. Invariant: no code of echod runs inside a signal handler.
"""

import signal
import socket
from typing import Final

CAUGHT: Final = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD})
"""The signals that the loop acts on; to be blocked until `catch`."""


def block() -> None:
    """Put the signals off until `catch`, but for SIGINT: Ctrl-C ends a start that hangs."""
    signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT - {signal.SIGINT})


def catch() -> socket.socket:
    """Let each signal write its number to a socket; return the other, non-blocking end."""
    read, write = socket.socketpair()
    read.setblocking(False)
    write.setblocking(False)
    # A full buffer loses numbers, but not the wake-up; SIGCHLD is looked for once a second besides.
    signal.set_wakeup_fd(write.detach(), warn_on_full_buffer=False)
    for number in CAUGHT:
        signal.signal(number, lambda _number, _frame: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, CAUGHT)
    return read
