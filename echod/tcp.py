"""Echo on one TCP listener: accept, echo until the peer half-closes, send all that is left, close.

Owns the connections of one listener in one worker, and their limits. A connection holds at most what one receive
read and the kernel would not take, and while it holds that, it is not read from: so a peer that does not read can
fill nothing but its own window. Never blocks, never logs, never raises for what a peer does. Invariant: every
connection accepted is open or has ended in exactly one `Close`.
"""

import errno
import socket
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from math import inf
from typing import Final

from echod.core.admission import Access
from echod.core.connections import ConnectionLedger
from echod.core.counters import Close, TcpField
from echod.core.tally import Tally
from echod.poll import READ, SHARED, WRITE, Poll
from echod.sockets import TCP_BACKLOG

MAX_ACCEPTS_PER_WAKEUP: Final = 16

READ_BYTES: Final = 65_536
"""Bytes of one receive, at most. The buffer is the worker's, so it stays in the CPU's cache from receive to send."""

MAX_READS_PER_WAKEUP: Final = 4
"""Receives of one connection in one turn of the loop: 256 KiB."""
_READS: Final = range(MAX_READS_PER_WAKEUP)

ACCEPT_PAUSE_SECONDS: Final = 1.0
"""With no descriptor or memory left to accept with, the backlog waits so long, or until a connection ends."""

QUIET_SECONDS: Final = 1.0
"""While draining, a connection on which nothing moved for so long has nothing under way."""

# As plain numbers: see udp.py.
_RECEIVED_BYTES: Final = int(TcpField.RECEIVED_BYTES)
_SENT_BYTES: Final = int(TcpField.SENT_BYTES)

_OF_ONE_CONNECTION: Final = frozenset(
    {
        errno.ECONNABORTED,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EINTR,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENONET,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
        errno.EPROTO,
    }
)
"""What accept(2) says of a connection that broke while it waited; the next may be whole. All else is of the process
or the host, as EMFILE is, and needs time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds after which a connection ends: with nothing coming, and with nothing taken that is due."""

    idle: float
    stall: float


class TcpEcho:
    """One TCP listener of a worker, with the connections accepted from it."""

    def __init__(  # noqa: PLR0913 - each is a part that the worker owns and shares out
        self,
        listener: socket.socket,
        *,
        poll: Poll,
        buffer: memoryview,
        access: Access,
        ledger: ConnectionLedger,
        row: memoryview,
        tally: Tally,
        timeouts: Timeouts,
        test_port: int | None = None,
    ) -> None:
        """Share the worker's poll, access lists, ledger and buffer of READ_BYTES.

        Count into this listener's row, and into its tally of the refused. Self tests come from `test_port`.
        """
        self.poll = poll
        self.buffer = buffer
        self.row = row
        self._open: set[Connection] = set()
        self._look_at = inf
        """No connection's time is up before. To keep them in order would cost each message more than a few looks do."""
        self._listener: socket.socket | None = listener
        self._access = access
        self._ledger = ledger
        self._tally = tally
        self._timeouts = timeouts
        self.stall_seconds = timeouts.stall
        self._test_port = test_port
        self._paused_until: float | None = None
        self._drain_until: float | None = None

    # -- accepting

    def listen(self) -> None:
        """Begin, or begin again, to wait for connections."""
        if self._listener is not None:
            self.poll.register(self._listener.fileno(), SHARED, self.on_acceptable)
        self._paused_until = None

    def on_acceptable(self, now: float, most: int = MAX_ACCEPTS_PER_WAKEUP) -> None:
        """Accept what waits in the backlog, at most so many connections."""
        for _ in range(most):
            if self._listener is None:
                return
            try:
                sock, address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _OF_ONE_CONNECTION:
                    continue
                self._pause(now)
                return
            sock.setblocking(False)
            self._take(sock, address[0], address[1], now)

    def _pause(self, now: float) -> None:
        """Stop accepting for a while: with the listener in the poll, the loop would spin."""
        if self._listener is not None and self._paused_until is None:
            self.row[TcpField.ACCEPT_FAILED] += 1
            self.poll.unregister(self._listener.fileno())
            self._paused_until = now + ACCEPT_PAUSE_SECONDS

    def _take(self, sock: socket.socket, host: str, port: int, now: float) -> None:
        """Take a connection on, or close it at once where its source may not be answered or there are too many."""
        self.row[TcpField.ACCEPTED] += 1
        # Nobody but this host itself can have a handshake with the address that it asks as its own.
        self_test = port == self._test_port and sock.getsockname()[0] == host
        if not (self_test or self._access.admits(host)):
            self._refuse(sock, host, Close.ACCESS)
            return
        key = self._ledger.key(host)
        place = self._ledger.enter(key)
        refusal = self._ledger.over_limit(key)
        if refusal is not None:
            self._ledger.leave(place)
            self._refuse(sock, host, refusal)
            return
        connection = Connection(self, sock, place, now, self_test=self_test)
        try:
            self.poll.register(sock.fileno(), READ, connection.on_ready)
        except OSError:  # no memory, or no watch left (epoll_ctl(2))
            self._ledger.leave(place)
            self._refuse(sock, host, Close.NO_MEANS)
            return
        self._open.add(connection)
        self.look_at(now + self._idle_seconds)

    def _refuse(self, sock: socket.socket, host: str, refusal: Close) -> None:
        """Close a connection that was not taken on."""
        self.row[TcpField.CLOSED + refusal] += 1
        self._tally.add(refusal, ip_address(host.partition("%")[0]).packed, 1)
        sock.close()

    def end(self, connection: "Connection", reason: Close) -> None:
        """End a connection: what the kernel took still goes out, then FIN."""
        self.row[TcpField.CLOSED + (Close.SELF_TEST if connection.self_test else reason)] += 1
        self._ledger.leave(connection.place)
        self._open.remove(connection)
        self.poll.unregister(connection.sock.fileno())
        with suppress(OSError):
            # What a peer does not take must not stay in the kernel for as long as it says so (tcp(7)).
            patience = int(self._timeouts.stall * 1000)
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, patience)
            connection.sock.shutdown(socket.SHUT_WR)
        connection.sock.close()
        if self._paused_until is not None:
            self.listen()

    # -- time

    def drain(self, now: float, until: float) -> None:
        """Take what waits in the backlog, accept no more, and end all connections, the last at `until`."""
        if self._listener is not None:
            if self._paused_until is None:
                self.on_acceptable(now, TCP_BACKLOG)
            if self._paused_until is None:
                self.poll.unregister(self._listener.fileno())
            self._listener.close()
            self._listener = None
        self._paused_until = None
        self._drain_until = until
        self._look_at = now

    @property
    def connections(self) -> int:
        """Return how many connections are open."""
        return len(self._open)

    def look_at(self, time: float) -> None:
        """See to it that `on_deadline` looks at the connections at that time or before."""
        self._look_at = min(self._look_at, time)

    def next_deadline(self) -> float | None:
        """Return the monotonic time, in seconds, when `on_deadline` has something to do."""
        times = [self._paused_until, *((self._look_at, self._drain_until) if self._open else ())]
        return min((time for time in times if time is not None), default=None)

    @property
    def _idle_seconds(self) -> float:
        return self._timeouts.idle if self._drain_until is None else QUIET_SECONDS

    def on_deadline(self, now: float) -> None:
        """End the connections whose time is up; accept again where that was put off."""
        if self._paused_until is not None and now >= self._paused_until:
            self.listen()
        over = self._drain_until is not None and now >= self._drain_until
        if over or now >= self._look_at:
            self._end_late(now, all_of_them=over)

    def _end_late(self, now: float, *, all_of_them: bool) -> None:
        """Look at all connections; end those whose time is up."""
        idle = Close.IDLE if self._drain_until is None else Close.DRAINED
        self._look_at = inf
        for connection in tuple(self._open):
            seconds, reason = (self._timeouts.stall, Close.STALLED) if connection.holds else (self._idle_seconds, idle)
            until = connection.moved + seconds
            if all_of_them or now >= until:
                self.end(connection, reason if now >= until else Close.DRAINED)
            else:
                self.look_at(until)


def whole_segments(sock: socket.socket) -> int:
    """Return the bytes of a receive whose echo goes out in full segments, of the size that the connection has now.

    What is left over would be a segment of its own, for without Nagle's algorithm it does not wait for more.
    """
    segment = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
    return READ_BYTES - READ_BYTES % segment if 0 < segment < READ_BYTES else READ_BYTES


class Connection:
    """One accepted connection. It `holds` what was received and the kernel has not yet taken to send."""

    __slots__ = ("_echo", "_held", "_most", "moved", "place", "self_test", "sock")

    def __init__(self, echo: TcpEcho, sock: socket.socket, place: int, now: float, *, self_test: bool) -> None:
        """Take a non-blocking socket, its place in the ledger, and whether it is echod's own probe."""
        self._echo = echo
        self.self_test = self_test
        self._held = b""
        self._most = READ_BYTES
        """Bytes of a receive."""
        self.sock = sock
        self.place = place
        self.moved = now
        """When the peer last sent, or, of what it is due, took a byte."""

    @property
    def holds(self) -> bool:
        """Whether bytes are due to the peer; it is not read from meanwhile."""
        return bool(self._held)

    def on_ready(self, now: float) -> None:
        """Move bytes, as far as the peer and the kernel take them."""
        try:
            if self._held:
                self._flush(now)
            else:
                self._echo_back(now)
        except BlockingIOError:
            return
        except OSError:
            self._echo.end(self, Close.RESET)

    def _echo_back(self, now: float) -> None:
        """Echo at most MAX_READS_PER_WAKEUP receives; end where the peer has no more to say."""
        self.moved = now
        sock, most, echo = self.sock, self._most, self._echo
        buffer, row = echo.buffer, echo.row
        for _ in _READS:
            received = sock.recv_into(buffer, most)
            if not received:
                echo.end(self, Close.FINISHED)
                return
            row[_RECEIVED_BYTES] += received
            try:
                sent = sock.send(buffer[:received])
            except BlockingIOError:
                sent = 0
            row[_SENT_BYTES] += sent
            if sent < received:
                self._hold(bytes(buffer[sent:received]), now)
                return
            if received < most:
                return
        self._most = whole_segments(sock)  # the kernel lets them grow while the stream goes on

    def _hold(self, left: bytes, now: float) -> None:
        """Stop reading until the peer has taken what is due to it."""
        self._held = left
        self._echo.look_at(now + self._echo.stall_seconds)
        self._echo.poll.modify(self.sock.fileno(), WRITE)

    def _flush(self, now: float) -> None:
        """Send what is held; once it is gone, read again."""
        sent = self.sock.send(self._held)
        self._echo.row[_SENT_BYTES] += sent
        self.moved = now
        self._held = self._held[sent:]
        if not self._held:
            self._echo.poll.modify(self.sock.fileno(), READ)
