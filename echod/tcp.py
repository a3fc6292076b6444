"""Echo on one TCP listener: accept, echo until the peer half-closes, send all that is left, close.

Owns the connections of one listener in one worker, and their limits. A connection holds at most what one receive
read and the kernel would not take, and while it holds that, it is not read from: so a peer that does not read can
fill nothing but its own window. Never blocks, never logs, never raises for what a peer does. Invariant: every
connection accepted is open or has ended in exactly one `Close`.
"""

import errno
import socket
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from echod.core.admission import Access
from echod.core.connections import ConnectionLedger
from echod.core.counters import Close, TcpField
from echod.core.tally import Tally
from echod.poll import READ, SHARED, WRITE, Poll
from echod.sockets import TCP_BACKLOG

MAX_ACCEPTS_PER_WAKEUP: Final = 16

READ_BYTES: Final = 65_536
"""Bytes of one receive. The buffer is the worker's, so it stays in the CPU's cache from receive to send."""

MAX_READS_PER_WAKEUP: Final = 4
"""Receives of one connection in one turn of the loop: 256 KiB."""

ACCEPT_PAUSE_SECONDS: Final = 1.0
"""With no descriptor or memory left to accept with, the backlog waits so long, or until a connection ends."""

QUIET_SECONDS: Final = 1.0
"""While draining, a connection on which nothing moved for so long has nothing under way."""

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
        # When each connection last moved, longest ago first: those that we wait for to send, and to read.
        self.reading: OrderedDict[Connection, float] = OrderedDict()
        self.writing: OrderedDict[Connection, float] = OrderedDict()
        self._listener: socket.socket | None = listener
        self._access = access
        self._ledger = ledger
        self._tally = tally
        self._timeouts = timeouts
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
            self._open(sock, address[0], address[1], now)

    def _pause(self, now: float) -> None:
        """Stop accepting for a while: with the listener in the poll, the loop would spin."""
        if self._listener is not None and self._paused_until is None:
            self.row[TcpField.ACCEPT_FAILED] += 1
            self.poll.unregister(self._listener.fileno())
            self._paused_until = now + ACCEPT_PAUSE_SECONDS

    def _open(self, sock: socket.socket, host: str, port: int, now: float) -> None:
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
        connection = Connection(self, sock, place, self_test=self_test)
        try:
            self.poll.register(sock.fileno(), READ, connection.on_ready)
        except OSError:  # no memory, or no watch left (epoll_ctl(2))
            self._ledger.leave(place)
            self._refuse(sock, host, Close.NO_MEANS)
            return
        self.reading[connection] = now

    def _refuse(self, sock: socket.socket, host: str, refusal: Close) -> None:
        """Close a connection that was not taken on."""
        self.row[TcpField.CLOSED + refusal] += 1
        self._tally.add(refusal, ip_address(host.partition("%")[0]).packed, 1)
        sock.close()

    def end(self, connection: "Connection", reason: Close) -> None:
        """End a connection: what the kernel took still goes out, then FIN."""
        self.row[TcpField.CLOSED + (Close.SELF_TEST if connection.self_test else reason)] += 1
        self._ledger.leave(connection.place)
        self.reading.pop(connection, None)
        self.writing.pop(connection, None)
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

    @property
    def connections(self) -> int:
        """Return how many connections are open."""
        return len(self.reading) + len(self.writing)

    def next_deadline(self) -> float | None:
        """Return the monotonic time, in seconds, when `on_deadline` has something to do."""
        times = [self._paused_until, self._drain_until if self.connections else None]
        times += [next(iter(self.reading.values())) + self._idle_seconds] if self.reading else []
        times += [next(iter(self.writing.values())) + self._timeouts.stall] if self.writing else []
        return min((time for time in times if time is not None), default=None)

    @property
    def _idle_seconds(self) -> float:
        return self._timeouts.idle if self._drain_until is None else QUIET_SECONDS

    def on_deadline(self, now: float) -> None:
        """End the connections whose time is up; accept again where that was put off."""
        if self._paused_until is not None and now >= self._paused_until:
            self.listen()
        if self._drain_until is None:
            self._expire(self.reading, now - self._timeouts.idle, Close.IDLE)
        else:
            self._expire(self.reading, now - QUIET_SECONDS, Close.DRAINED)
        self._expire(self.writing, now - self._timeouts.stall, Close.STALLED)
        if self._drain_until is not None and now >= self._drain_until:
            self._expire(self.reading, now, Close.DRAINED)
            self._expire(self.writing, now, Close.DRAINED)

    def _expire(self, moved: "OrderedDict[Connection, float]", before: float, reason: Close) -> None:
        """End the connections that last moved at that time or earlier."""
        while moved:
            connection, time = next(iter(moved.items()))
            if time > before:
                return
            self.end(connection, reason)


class Connection:
    """One accepted connection. `held` is what was received and the kernel has not yet taken to send."""

    __slots__ = ("_echo", "_held", "place", "self_test", "sock")

    def __init__(self, echo: TcpEcho, sock: socket.socket, place: int, *, self_test: bool) -> None:
        """Take a non-blocking socket, its place in the ledger, and whether it is echod's own probe."""
        self._echo = echo
        self.self_test = self_test
        self._held = b""
        self.sock = sock
        self.place = place

    def on_ready(self, now: float) -> None:
        """Move bytes, as far as the peer and the kernel take them."""
        try:
            reason = self._flush(now) if self._held else self._receive_and_send(now)
        except OSError:
            reason = Close.RESET
        if reason is not None:
            self._echo.end(self, reason)

    def _receive_and_send(self, now: float) -> Close | None:
        """Echo at most MAX_READS_PER_WAKEUP receives; return how the connection ended, if it did."""
        echo, sock = self._echo, self.sock
        buffer, row = echo.buffer, echo.row
        echo.reading[self] = now
        echo.reading.move_to_end(self)
        for _ in range(MAX_READS_PER_WAKEUP):
            try:
                received = sock.recv_into(buffer)
            except BlockingIOError:
                return None
            if not received:
                return Close.FINISHED
            row[TcpField.RECEIVED_BYTES] += received
            try:
                sent = sock.send(buffer[:received])
            except BlockingIOError:
                sent = 0
            row[TcpField.SENT_BYTES] += sent
            if sent < received:
                self._hold(bytes(buffer[sent:received]), now)
                return None
            if received < READ_BYTES:
                return None
        return None

    def _hold(self, left: bytes, now: float) -> None:
        """Stop reading until the peer has taken what is due to it."""
        self._held = left
        del self._echo.reading[self]
        self._echo.writing[self] = now
        self._echo.poll.modify(self.sock.fileno(), WRITE)

    def _flush(self, now: float) -> Close | None:
        """Send what is held; once it is gone, read again."""
        echo = self._echo
        try:
            sent = self.sock.send(self._held)
        except BlockingIOError:
            return None
        echo.row[TcpField.SENT_BYTES] += sent
        self._held = self._held[sent:]
        if self._held:
            echo.writing[self] = now
            echo.writing.move_to_end(self)
        else:
            del echo.writing[self]
            echo.reading[self] = now
            echo.poll.modify(self.sock.fileno(), READ)
        return None
