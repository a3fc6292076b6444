"""One TCP connection: every byte back, in order, and a FIN after the last.

Owns the socket, and the part of one receive that the kernel would not take to send, never more. While it has that, it
does not read, so a peer that does not read can fill only its own window. Timeouts and readiness are handled by
`Connections`. Never blocks, never logs, never raises for what a peer does.
"""

import errno
import fcntl
import socket
from enum import Enum, auto
from select import EPOLLERR, EPOLLHUP, EPOLLPRI, EPOLLRDHUP
from termios import FIONREAD, TIOCOUTQ
from typing import Final

from echod.stats.counters import TcpField
from echod.stats.outcomes import Close

READ_BYTES: Final = 65_536
"""Most bytes of one receive. All connections of a worker share the buffer, so it stays in the CPU's cache."""

MAX_READS_PER_TURN: Final = 4
"""Most receives from one connection in one turn: 256 KiB."""
READS: Final = range(MAX_READS_PER_TURN)

_MORE_TO_READ: Final = EPOLLRDHUP | EPOLLPRI | EPOLLHUP | EPOLLERR
"""A receive that does not fill its buffer has read everything (epoll(7)), except data after urgent data, and the end
of the stream."""

# As plain integers: an enum as an index costs as much as the counting.
RECEIVED_BYTES: Final = int(TcpField.RECEIVED_BYTES)
SENT_BYTES: Final = int(TcpField.SENT_BYTES)

_NOT_NOW: Final = (-errno.EAGAIN, -errno.EINTR)

_TCP_CLOSE: Final = 7
"""The state of a connection that no longer exists (`enum tcp_state`, netinet/tcp.h)."""


class IoState(Enum):
    """What a connection waits for, if it does not end."""

    WAIT_READ = auto()
    """The next event, which the kernel will report."""
    REARM = auto()
    """To be armed again: there may be more data, which the kernel will not report without that."""
    BUFFER_FULL = auto()
    """As REARM; the last receive filled its buffer."""
    WAIT_WRITE = auto()
    """It has unsent data, and waits until that can be sent."""
    FLUSHED = auto()
    """It has no unsent data any more."""
    END_OF_STREAM = auto()
    """The peer has sent FIN, and the kernel has taken all data due to the peer."""


WAIT_READ: Final = IoState.WAIT_READ
"""A name without the attribute lookup on the class, because this is the most frequent outcome."""


class Connection:
    """An accepted connection."""

    __slots__ = ("_read_bytes", "entry", "fd", "finished", "self_test", "sock", "streaming", "unsent")

    def __init__(self, sock: socket.socket, entry: int, *, self_test: bool) -> None:
        """Take a non-blocking socket, its entry in the ledger, and whether it is echod's own probe."""
        self.sock = sock
        self.fd = sock.fileno()
        self.entry = entry
        self.self_test = self_test
        self.unsent = b""
        """Data that was received and that the kernel has not yet taken to send."""
        self.streaming = False
        """Whether it once used up MAX_READS_PER_TURN; it is then not served in a batch."""
        self.finished = False
        """Whether FIN was sent, with data before it still due."""
        self._read_bytes = READ_BYTES
        """Most bytes of a receive."""

    def on_ready(self, event: int, buffer: memoryview, row: memoryview) -> IoState | Close | None:
        """Move as many bytes as the peer and the kernel take; return its state or end, None if none moved.

        Count them into the row of the listener. `buffer` has READ_BYTES.
        """
        try:
            if self.finished:
                return self._close_reason()
            if self.unsent:
                sent = self.sock.send(self.unsent)
                row[SENT_BYTES] += sent
                self.unsent = self.unsent[sent:]
                return WAIT_READ if self.unsent else IoState.FLUSHED
            return self.move(buffer, row, more=bool(event & _MORE_TO_READ))
        except BlockingIOError:
            return None
        except TimeoutError:
            return Close.STALLED
        except OSError:
            return Close.RESET

    def move(self, buffer: memoryview, row: memoryview, *, more: bool) -> IoState:
        """Echo at most MAX_READS_PER_TURN receives.

        Stop at a receive that does not fill the buffer or, with `more` (see `_MORE_TO_READ`), when nothing is left.
        """
        sock, read_bytes = self.sock, self._read_bytes
        for _ in READS:
            try:
                received = sock.recv_into(buffer, read_bytes)
            except BlockingIOError:
                return WAIT_READ
            if not received:
                return IoState.END_OF_STREAM
            row[RECEIVED_BYTES] += received
            try:
                sent = sock.send(buffer[:received])
            except BlockingIOError:
                sent = 0
            row[SENT_BYTES] += sent
            if sent < received:
                self.unsent = bytes(buffer[sent:received])
                return IoState.WAIT_WRITE
            if received < read_bytes and not more:
                return WAIT_READ
        self._read_bytes = whole_segments(sock)  # segments may grow while the stream continues
        self.streaming = True
        return IoState.REARM

    def after_transfer(self, received: int, sent: int, slot: memoryview) -> IoState | Close:
        """Return the state or end after a receive into a slot and the send from it: bytes each, or a negative errno."""
        if not received:
            return IoState.END_OF_STREAM
        if received in _NOT_NOW:
            return IoState.REARM
        if received < 0 or (sent < 0 and sent not in _NOT_NOW):
            return Close.RESET
        if sent < received:
            self.unsent = bytes(slot[max(0, sent) : received])
            return IoState.WAIT_WRITE
        return IoState.BUFFER_FULL

    # -- the end

    def finish(self, timeout: float) -> bool:
        """Send FIN after all data that the kernel has taken; return whether the peer has yet to take some of it.

        The kernel gives up when the peer has taken nothing for `timeout` seconds. OSError: not connected any more.
        """
        due = self._ioctl(TIOCOUTQ)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(timeout * 1000))
        self.sock.shutdown(socket.SHUT_WR)
        self.finished = True
        return due > 0

    def has_unread(self) -> bool:
        """Tell whether bytes have come that were not read yet."""
        return self._ioctl(FIONREAD) > 0

    def _ioctl(self, request: int) -> int:
        """Return the bytes that were not read (FIONREAD), or that the peer has not acknowledged (TIOCOUTQ): a C int.

        tcp(7) has them as SIOCINQ and SIOCOUTQ; these are the names of the same requests for terminals.
        """
        return int.from_bytes(fcntl.ioctl(self.fd, request, bytes(4)), "little")

    def _close_reason(self) -> Close | None:
        """Return how it ended, None before that: the peer has taken all data and the FIN, or never will."""
        if self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _TCP_CLOSE:
            return None
        error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not error:
            return Close.FINISHED
        return Close.STALLED if error == errno.ETIMEDOUT else Close.RESET


def whole_segments(sock: socket.socket) -> int:
    """Return the bytes of a receive whose echo fills whole segments, of the connection's present segment size.

    A remainder would go out as a short segment, because without Nagle's algorithm it does not wait for more.
    """
    segment = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
    return READ_BYTES - READ_BYTES % segment if 0 < segment < READ_BYTES else READ_BYTES
