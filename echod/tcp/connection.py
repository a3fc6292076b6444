"""One TCP connection: every byte back, in order, and a FIN after the last.

Owns the socket, and the part of one receive that the kernel would not take to send, never more. While it holds that,
it does not read, so a peer that does not read can fill only its own window. Timeouts and readiness are handled by
`Streams`. Never blocks, never logs, never raises for what a peer does.
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

MAX_READS_PER_LOOK: Final = 4
"""Most receives from one connection each time that it is ready: 256 KiB."""
_READS: Final = range(MAX_READS_PER_LOOK)

_MORE_BEHIND: Final = EPOLLRDHUP | EPOLLPRI | EPOLLHUP | EPOLLERR
"""A receive that does not fill its buffer has read everything (epoll(7)), except data after urgent data, and the end
of the stream."""

# As plain integers: see udp.py.
_RECEIVED_BYTES: Final = int(TcpField.RECEIVED_BYTES)
_SENT_BYTES: Final = int(TcpField.SENT_BYTES)

_NOT_NOW: Final = (-errno.EAGAIN, -errno.EINTR)

_SIOCINQ: Final = FIONREAD
_SIOCOUTQ: Final = TIOCOUTQ
"""Return the number of bytes that were not read, and of those that the peer has not acknowledged (tcp(7)). These are
the names of the same requests for terminals: the numbers differ between architectures."""
_TCP_CLOSE: Final = 7
"""The state of a connection that no longer exists (`enum tcp_state`, netinet/tcp.h)."""


class After(Enum):
    """How a connection continues, if it does not end."""

    TOLD = auto()
    """As before: the kernel will report the next event."""
    AGAIN = auto()
    """There may be more data, which the kernel will not report unless the descriptor is armed again."""
    FULL = auto()
    """Like AGAIN, and the last receive filled its buffer."""
    HELD = auto()
    """It holds data, and waits until that can be sent."""
    RELEASED = auto()
    """It holds no data any more."""
    SENT_ALL = auto()
    """The peer has sent FIN, and the kernel has taken all data due to the peer."""


TOLD: Final = After.TOLD
"""A name without the attribute lookup on the class, because this is the most frequent outcome."""


class Connection:
    """An accepted connection."""

    __slots__ = ("_most", "fd", "finished", "held", "place", "self_test", "sock", "streaming")

    def __init__(self, sock: socket.socket, place: int, *, self_test: bool) -> None:
        """Take a non-blocking socket, its place in the ledger, and whether it is echod's own probe."""
        self.sock = sock
        self.fd = sock.fileno()
        self.place = place
        self.self_test = self_test
        self.held = b""
        """Data that was received and that the kernel has not yet taken to send."""
        self.streaming = False
        """Whether it once used up MAX_READS_PER_LOOK; it is then served alone."""
        self.finished = False
        """Whether FIN was sent, with data before it still due."""
        self._most = READ_BYTES
        """Most bytes of a receive."""

    def on_ready(self, event: int, buffer: memoryview, row: memoryview) -> After | Close | None:
        """Move as many bytes as the peer and the kernel take; return the outcome, None if none moved.

        Count them into the row of the listener. `buffer` has READ_BYTES.
        """
        try:
            if self.finished:
                return self._see_off()
            if self.held:
                return self._flush(row)
            return self._echo_back(buffer, row, more=bool(event & _MORE_BEHIND))
        except BlockingIOError:
            return None
        except OSError:
            return Close.RESET

    def _echo_back(self, buffer: memoryview, row: memoryview, *, more: bool) -> After:
        """Echo at most MAX_READS_PER_LOOK receives.

        Stop at a receive that does not fill the buffer or, with `more` (see `_MORE_BEHIND`), when nothing is left.
        """
        sock, most = self.sock, self._most
        for _ in _READS:
            try:
                received = sock.recv_into(buffer, most)
            except BlockingIOError:
                return TOLD
            if not received:
                return After.SENT_ALL
            row[_RECEIVED_BYTES] += received
            try:
                sent = sock.send(buffer[:received])
            except BlockingIOError:
                sent = 0
            row[_SENT_BYTES] += sent
            if sent < received:
                self.held = bytes(buffer[sent:received])
                return After.HELD
            if received < most and not more:
                return TOLD
        self._most = whole_segments(sock)  # segments may grow while the stream continues
        self.streaming = True
        return After.AGAIN

    def judge(self, received: int, sent: int, slot: memoryview) -> After | Close:
        """Return the outcome of a receive into a slot and the send from it: bytes each, or a negative errno."""
        if not received:
            return After.SENT_ALL
        if received in _NOT_NOW:
            return After.AGAIN
        if received < 0 or (sent < 0 and sent not in _NOT_NOW):
            return Close.RESET
        if sent < received:
            self.held = bytes(slot[max(0, sent) : received])
            return After.HELD
        return After.FULL

    def _flush(self, row: memoryview) -> After:
        """Send the held data."""
        sent = self.sock.send(self.held)
        row[_SENT_BYTES] += sent
        self.held = self.held[sent:]
        return TOLD if self.held else After.RELEASED

    # -- the end

    def finish(self, patience: float) -> bool:
        """Send FIN after all data that the kernel has taken; return whether the peer has yet to take some of it.

        The kernel gives up when the peer has taken nothing for `patience` seconds. OSError: not connected any more.
        """
        due = self._ask(_SIOCOUTQ)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(patience * 1000))
        self.sock.shutdown(socket.SHUT_WR)
        self.finished = True
        return due > 0

    def has_unread(self) -> bool:
        """Tell whether bytes have come that were not read yet."""
        return self._ask(_SIOCINQ) > 0

    def _ask(self, question: int) -> int:
        """Return the answer of ioctl(2), a C int."""
        return int.from_bytes(fcntl.ioctl(self.fd, question, bytes(4)), "little")

    def _see_off(self) -> Close | None:
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
