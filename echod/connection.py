"""One TCP connection: every byte back, in order, and a FIN behind the last.

Owns the socket, and what one receive read and the kernel would not take, never more; while it holds that, it is not
read from, so a peer that does not read can fill nothing but its own window. It knows no time and waits for nothing:
`Streams` does. Never blocks, never logs, never raises for what a peer does.
"""

import errno
import fcntl
import socket
from enum import Enum, auto
from select import EPOLLERR, EPOLLHUP, EPOLLPRI, EPOLLRDHUP
from termios import FIONREAD, TIOCOUTQ
from typing import Final

from echod.core.counters import Close, TcpField

READ_BYTES: Final = 65_536
"""Bytes of one receive, at most. The buffer is the worker's, so it stays in the CPU's cache from receive to send."""

MAX_READS_PER_LOOK: Final = 4
"""Receives of one connection each time that it is looked at: 256 KiB."""
_READS: Final = range(MAX_READS_PER_LOOK)

_MORE_BEHIND: Final = EPOLLRDHUP | EPOLLPRI | EPOLLHUP | EPOLLERR
"""A receive that leaves room has read all (epoll(7)), but for what is behind urgent data, and for the end."""

# As plain numbers: see udp.py.
_RECEIVED_BYTES: Final = int(TcpField.RECEIVED_BYTES)
_SENT_BYTES: Final = int(TcpField.SENT_BYTES)

_NOT_NOW: Final = (-errno.EAGAIN, -errno.EINTR)

_SIOCINQ: Final = FIONREAD
_SIOCOUTQ: Final = TIOCOUTQ
"""Ask for the bytes that were not read, and for those that the peer has not acknowledged (tcp(7)). By the names that
they have of terminals, for the numbers are not the same on every architecture."""
_TCP_CLOSE: Final = 7
"""The state in which a connection is no more (`enum tcp_state`, netinet/tcp.h)."""


class After(Enum):
    """How a connection goes on, other than by its end."""

    TOLD = auto()
    """As before: the kernel tells of what it waits for."""
    AGAIN = auto()
    """There may be more, of which nothing will be told: it has to be asked for."""
    FULL = auto()
    """The same, and it would have been more than there was room for."""
    HELD = auto()
    """It holds something, and is to be told when that can be sent."""
    RELEASED = auto()
    """It holds nothing any more."""
    SENT_ALL = auto()
    """The peer has no more to say, and the kernel has taken all that is due to it."""


TOLD: Final = After.TOLD
"""By a name that takes no look at the class: so most ends."""


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
        """What was received and the kernel has not yet taken to send."""
        self.streaming = False
        """Whether it has sent as much at once as it may; then it is served by itself."""
        self.finished = False
        """Whether FIN has gone out, and what is before it is still due."""
        self._most = READ_BYTES
        """Bytes of a receive."""

    def on_ready(self, event: int, buffer: memoryview, row: memoryview) -> After | Close | None:
        """Move bytes, as far as the peer and the kernel take them; return what comes of it, None if none moved.

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

        Until a receive leaves room; where there is `more` behind what that reads, until nothing is left.
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
        self._most = whole_segments(sock)  # the kernel lets them grow while the stream goes on
        self.streaming = True
        return After.AGAIN

    def judge(self, received: int, sent: int, slot: memoryview) -> After | Close:
        """Say what comes of a receive into a slot, and of the send from it: bytes, or the negative of an errno."""
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
        """Send what is held."""
        sent = self.sock.send(self.held)
        row[_SENT_BYTES] += sent
        self.held = self.held[sent:]
        return TOLD if self.held else After.RELEASED

    # -- the end

    def finish(self, patience: float) -> bool:
        """Send FIN behind all that the kernel has taken; return whether the peer has yet to take something of that.

        It has so many seconds for each byte that it takes, then the kernel gives up. OSError: there is no connection.
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
        """Return how it ended, once it has: the peer has taken all, the FIN included, or will not."""
        if self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _TCP_CLOSE:
            return None
        error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not error:
            return Close.FINISHED
        return Close.STALLED if error == errno.ETIMEDOUT else Close.RESET


def whole_segments(sock: socket.socket) -> int:
    """Return the bytes of a receive whose echo goes out in full segments, of the size that the connection has now.

    What is left over would be a segment of its own, for without Nagle's algorithm it does not wait for more.
    """
    segment = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
    return READ_BYTES - READ_BYTES % segment if 0 < segment < READ_BYTES else READ_BYTES
