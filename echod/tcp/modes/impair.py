"""An echo over TCP behind a slow path: `impair.delay` and `impair.rate`. Loss and the like are TCP's own to repair.

Each byte meets the path once, between its receive and its send. Each connection has a link of its own, so none waits
for another. Owns what is on its way, and which of it is due first. Invariants: a connection has at most `MOST_OCTETS`,
and all together `MOST_OCTETS_IN_ALL` on their way, else they are not read from, so that TCP slows the peer down; what
was on its way to a connection that has ended is forgotten; the work of a turn is bounded.
"""

import heapq
import socket
from collections import deque
from dataclasses import replace
from functools import partial
from itertools import count, islice
from math import inf
from select import EPOLLERR, EPOLLHUP
from time import monotonic_ns
from typing import Final, cast

from echod.linux.poll import Poll
from echod.net.link import Link
from echod.net.mode import Impairment
from echod.stats.outcomes import Close
from echod.tcp.connection import READ_BYTES, READS, RECEIVED_BYTES, SENT_BYTES, WAIT_READ, Connection, IoState
from echod.tcp.connections import Connections, IoBuffers, OnClose, Timeouts

MOST_OCTETS: Final = 1 << 20
MOST_OCTETS_IN_ALL: Final = 64 << 20
"""Most bytes on their way: of one connection, and of all of a listener in one worker."""

_FEWEST_OCTETS: Final = 64 << 10
"""On a slow link: no more than the path itself holds, and this, so that a FIN is not minutes behind."""

CHUNK_OCTETS: Final = 256
"""What a receive costs in memory beside its bytes, about."""

_CHUNKS_IN_A_SECOND: Final = 100
_SMALLEST_READ: Final = 1448
"""On a slow link a receive takes a hundredth of a second at most, so that bytes do not arrive in big lumps; but at
least a segment (of a path with an MTU of 1,500 bytes, with timestamps)."""

MOST_CHUNKS_OF_A_TURN: Final = 64
"""Most receives that are sent in one turn, and most connections that are looked at for whether they may read again."""


class ImpairedConnection(Connection):
    """An accepted connection, some of whose bytes are on their way."""

    __slots__ = ("chunks", "ended", "link", "on_way", "path")

    def __init__(self, sock: socket.socket, entry: int, *, self_test: bool, path: "ImpairedConnections") -> None:
        """Put what it receives on this path."""
        super().__init__(sock, entry, self_test=self_test)
        # Its bytes may be on their way for long: that its peer takes none is noticed meanwhile (tcp(7)).
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(path.stall * 1000))
        self.path = path
        self.link = Link(path.rate)
        self.chunks: deque[tuple[int, bytes]] = deque()
        """What was received and is on its way, and when it is due."""
        self.on_way = 0
        """Bytes on their way, with what they cost beside."""
        self.ended = False
        """Whether the peer has sent FIN."""

    def on_ready(self, event: int, buffer: memoryview, row: memoryview) -> IoState | Close | None:
        """Move bytes; but one that broke ends at once, whatever is on its way, and although it may not be read from."""
        broken = self._close_reason() if event & (EPOLLERR | EPOLLHUP) else None
        return broken or super().on_ready(event, buffer, row)

    def move(self, buffer: memoryview, row: memoryview, *, more: bool) -> IoState:
        """Put what has come on its way, as much of it as there is room for."""
        if self.self_test:
            return super().move(buffer, row, more=more)
        for _ in READS:
            most = self.path.room(self)
            if most <= 0:
                return WAIT_READ
            try:
                received = self.sock.recv_into(buffer, most)
            except BlockingIOError:
                return WAIT_READ
            if not received:
                self.ended = self.on_way > 0
                return WAIT_READ if self.ended else IoState.END_OF_STREAM
            row[RECEIVED_BYTES] += received
            self.path.carry(self, bytes(buffer[:received]))
            if received < most and not more:
                return WAIT_READ
        self.streaming = True
        return IoState.REARM

    def has_unread(self) -> bool:
        """Tell whether bytes have come that were not read yet, or not sent yet: the connection is not idle."""
        return self.on_way > 0 or super().has_unread()

    def arrive(self, data: bytes, row: memoryview) -> IoState | Close:
        """Send what has come to the end of its way, behind what is unsent."""
        if self.unsent:
            self.unsent += data
            return WAIT_READ
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except TimeoutError:
            return Close.STALLED
        except OSError:
            return Close.RESET
        row[SENT_BYTES] += sent
        if sent < len(data):
            self.unsent = data[sent:]
            return IoState.WAIT_WRITE
        return IoState.END_OF_STREAM if self.ended and not self.on_way else WAIT_READ


class ImpairedConnections(Connections):
    """The connections of one listener in one worker, and what is on its way."""

    def __init__(  # noqa: PLR0913 - as `Connections`, and two more
        self,
        impairment: Impairment,
        poll: Poll,
        *,
        io: IoBuffers,
        row: memoryview,
        timeouts: Timeouts,
        on_close: OnClose,
    ) -> None:
        """Send what is due when the poll says so."""
        # Without the io_uring, whose batches send what they have received.
        io, connection = replace(io, io_uring=None), partial(ImpairedConnection, path=self)
        super().__init__(io=io, row=row, timeouts=timeouts, on_close=on_close, connection=connection)
        self.stall = timeouts.stall
        self.rate = rate = impairment.rate
        self._delay = impairment.delay
        self._most_read = max(_SMALLEST_READ, min(READ_BYTES, rate // 8 // _CHUNKS_IN_A_SECOND)) if rate else READ_BYTES
        self._most = MOST_OCTETS
        if rate:
            self._most = min(MOST_OCTETS, _FEWEST_OCTETS + rate * impairment.delay // 8_000_000_000)
        self._next: list[tuple[int, int, ImpairedConnection]] = []
        """A heap of the connections that have something on its way, and when the first of that is due. Those that have
        ended since may be there still."""
        self._order = count()
        self._octets = 0
        self._full: dict[ImpairedConnection, None] = {}
        """Connections that are not read from, in the order in which they are looked at."""
        self._poll = poll
        self._call_at = inf
        """When the poll calls."""

    def room(self, connection: ImpairedConnection) -> int:
        """Return how many bytes of a connection may be read; if none, it is read from when there is room again."""
        room = min(self._most - connection.on_way, MOST_OCTETS_IN_ALL - self._octets) - CHUNK_OCTETS
        if room <= 0:
            self._full[connection] = None
        return min(self._most_read, room)

    def carry(self, connection: ImpairedConnection, data: bytes) -> None:
        """Put bytes of a connection on their way."""
        connection.on_way += CHUNK_OCTETS + len(data)
        self._octets += CHUNK_OCTETS + len(data)
        connection.chunks.append((connection.link.carry(monotonic_ns(), len(data)) + self._delay, data))
        if len(connection.chunks) == 1:
            self._wait_for(connection)

    def _wait_for(self, connection: ImpairedConnection) -> None:
        """Send the first of a connection's when it is due."""
        due = connection.chunks[0][0]
        heapq.heappush(self._next, (due, next(self._order), connection))
        self._call_by(due)

    def _call_by(self, at: float) -> None:
        """Be called at this time, or before."""
        if at < self._call_at:
            self._call_at = at
            self._poll.call_at(at, self._on_due)

    def close(self, connection: Connection, reason: Close) -> None:
        """End a connection; what is on its way to it is due to nobody, and its room is for others."""
        super().close(connection, reason)
        ended = cast("ImpairedConnection", connection)
        self._octets -= ended.on_way
        ended.on_way = 0
        ended.chunks.clear()
        self._full.pop(ended, None)
        if len(self._next) > 2 * len(self.open) + MOST_CHUNKS_OF_A_TURN:
            self._next = [each for each in self._next if each[2].chunks]
            heapq.heapify(self._next)
        if self._full:
            self._call_by(monotonic_ns())

    def _on_due(self, now: float) -> None:
        """Send what is due, and read again where there is room."""
        self._call_at = inf
        self._send_due(now, monotonic_ns())
        for connection in tuple(islice(self._full, MOST_CHUNKS_OF_A_TURN)):
            del self._full[connection]
            if not connection.unsent and self.room(connection) > 0:
                self._apply(connection, IoState.REARM, now)
        if self._next:
            self._call_by(self._next[0][0])
        elif self._full:
            self._call_by(monotonic_ns())

    def _send_due(self, now: float, until: float, most: float = MOST_CHUNKS_OF_A_TURN) -> None:
        """Send what is due until then, at most so many receives."""
        while self._next and self._next[0][0] <= until and most > 0:
            most -= 1
            connection = heapq.heappop(self._next)[2]
            if not connection.chunks:
                continue
            data = connection.chunks.popleft()[1]
            connection.on_way -= CHUNK_OCTETS + len(data)
            self._octets -= CHUNK_OCTETS + len(data)
            if not connection.unsent:
                self.active_at[connection.fd] = now
            state = connection.arrive(data, self._row)
            if state is not WAIT_READ:
                self._apply(connection, state, now)
            if connection.chunks:
                self._wait_for(connection)

    def on_deadline(self, now: float) -> None:
        """End the connections that have timed out; at the end of a drain, send what is still on its way before."""
        if self._drain_until is not None and now >= self._drain_until:
            self._send_due(now, inf, inf)
        super().on_deadline(now)
