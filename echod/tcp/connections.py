"""The connections of one TCP listener in one worker: which are ready, which go first, and when each has to end.

Owns the connections and their timeouts. Those that send little are served together, with two calls for all; one that
sends a stream, or holds unsent data, is served alone. The bytes received in one turn are bounded, so that connections
starve no datagram. A connection counts until its peer has taken all data, also what is still in the kernel. Never
blocks, never logs, never raises for what a peer does. Invariant: every connection taken is open or has ended in exactly
one `Close`.
"""

import socket
from array import array
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from select import EPOLLET, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP, EPOLLRDNORM
from typing import Final

from echod.linux.epoll_set import Crowd
from echod.linux.io_uring import SLOT_BYTES, STREAMS, Ring
from echod.stats.counters import TcpField
from echod.stats.outcomes import Close
from echod.tcp.connection import TOLD, After, Connection

FEWEST_TOGETHER: Final = 12
"""Serving fewer connections together costs more than it saves."""

MAX_LOOKS_PER_WAKEUP: Final = 4
"""Looks at readiness in one turn of the loop, each at no more than STREAMS connections."""
_LOOKS: Final = range(MAX_LOOKS_PER_WAKEUP)

ENOUGH_BYTES: Final = 1 << 20
"""Bytes received in one turn of the loop. Beyond that, ready connections wait for the next turn, after everything else
that this worker serves. At most about a millisecond of work. (The kernel alone would report first the connections that
were just served and already have more.)"""

PASSED_OVER: Final = 8
"""After an empty look, so many small sets of ready connections are not followed by another look: see udp.py."""

QUIET_SECONDS: Final = 1.0
"""While draining, a connection without traffic for so long has nothing under way."""

LOOKS_APART: Final = 0.25
"""Seconds from one look at the time of all to the next, at the least: where each has its own, as many would come."""

_TOGETHER: Final = EPOLLIN
_ALONE: Final = EPOLLRDNORM
"""Equivalent to EPOLLIN in the kernel (poll(2)); it marks the connections that send streams."""
_HELD_UP: Final = EPOLLOUT

_ONCE: Final = EPOLLET | EPOLLRDHUP | EPOLLPRI
"""Edge-triggered: checking every served connection again costs 3% of a small message. So a connection that was not read
until it was empty must be armed again."""

_ALL_TOGETHER: Final = memoryview(array("i", [_TOGETHER] * STREAMS))

# As plain integers: see udp.py.
_RECEIVED_BYTES: Final = int(TcpField.RECEIVED_BYTES)
_SENT_BYTES: Final = int(TcpField.SENT_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds until a connection ends: `idle` without received data, `stall` if the peer takes none of the data due."""

    idle: float
    stall: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What a worker moves bytes with: a buffer of READ_BYTES, and a ring, if this host offers one."""

    buffer: memoryview
    ring: Ring | None


class Streams:
    """The connections, and what moves their bytes."""

    def __init__(
        self,
        *,
        means: Means,
        row: memoryview,
        timeouts: Timeouts,
        on_end: Callable[[int], None],
    ) -> None:
        """Share the worker's means. Count into the listener's row; call `on_end` with the place of each that ended."""
        self._buffer = means.buffer
        self._ring = means.ring
        self._row = row
        self.open: dict[int, Connection] = {}
        """By descriptor."""
        self.moved: dict[int, float] = {}
        """When the peer last sent a byte, or took one that was held for it; by descriptor."""
        self._crowd = Crowd(STREAMS)
        self.epoll = self._crowd.epoll
        self._in_vain = 0
        self._enough = 0
        """The value of the row's RECEIVED_BYTES at which this turn has received enough."""
        self._put_off: dict[int, int] = {}
        """Ready connections deferred to the start of the next turn: their events, by descriptor."""
        self._timeouts = timeouts
        self._on_end = on_end
        self._look_at = inf
        """No connection times out before. Keeping them sorted would cost each message more than a few scans do."""
        self._drain_until: float | None = None

    def take(self, sock: socket.socket, place: int, now: float, *, self_test: bool) -> None:
        """Take on a non-blocking socket, with its place in the ledger. OSError: no memory, or no epoll watch left."""
        fd = sock.fileno()
        self.epoll.register(fd, _TOGETHER | _ONCE)
        self.open[fd] = Connection(sock, place, self_test=self_test)
        self.moved[fd] = now
        self._look(now + self._idle_seconds)

    def end(self, connection: Connection, reason: Close) -> None:
        """End a connection: the kernel still sends what it has taken, then FIN."""
        self._row[TcpField.CLOSED + (Close.SELF_TEST if connection.self_test else reason)] += 1
        del self.open[connection.fd], self.moved[connection.fd]
        self._put_off.pop(connection.fd, None)
        if not connection.finished:
            with suppress(OSError):
                connection.finish(self._timeouts.stall)
        connection.sock.close()  # which also removes it from the epoll set (epoll(7))
        self._on_end(connection.place)

    # -- bytes

    def on_readable(self, now: float) -> None:
        """Serve ready connections, until this turn has received enough."""
        self._enough = self._row[_RECEIVED_BYTES] + ENOUGH_BYTES
        if self._put_off:
            waiting, self._put_off = self._put_off, {}
            self._serve_each(waiting.items(), now)
        if not self._put_off:
            self._serve_ready(now)
        for fd in self._put_off:
            # Re-arm until one certainly has unread bytes, so that the next turn comes at once.
            self._wait(self.open[fd])
            if self.open[fd].has_unread():
                return

    def _serve_ready(self, now: float) -> None:
        """Serve those that the kernel reports as ready."""
        for _ in _LOOKS:
            descriptors, events = self._crowd.look()
            ready = len(events)
            if not ready:
                self._in_vain = PASSED_OVER
                return
            if ready < FEWEST_TOGETHER or not self._serve_together(descriptors, events, now):
                self._serve_each(zip(descriptors.tolist(), events.tolist(), strict=True), now)
            if self._row[_RECEIVED_BYTES] >= self._enough:
                return
            if ready < FEWEST_TOGETHER and self._in_vain:
                self._in_vain -= 1
                return

    def _serve_each(self, pairs: Iterable[tuple[int, int]], now: float) -> None:
        """Move bytes on these descriptors, each with its events, until this turn has received enough."""
        connections, moved, buffer, row, enough = self.open, self.moved, self._buffer, self._row, self._enough
        for fd, event in pairs:
            connection = connections[fd]
            if row[_RECEIVED_BYTES] >= enough and not connection.held:
                self._put_off[fd] = event
                continue
            after = connection.on_ready(event, buffer, row)
            if after is not None:
                moved[fd] = now
                if after is not TOLD:
                    self._go_on(connection, after, now)

    def _go_on(self, connection: Connection, after: After | Close, now: float) -> None:
        """Set what a connection waits for from now on."""
        if isinstance(after, Close):
            self.end(connection, after)
        elif after is After.HELD:
            # Do not read until it holds nothing; watch for a stall.
            self.epoll.modify(connection.fd, _HELD_UP)
            self._look(now + self._timeouts.stall)
        elif after is After.RELEASED:
            self._wait(connection)
            self._look(now + self._idle_seconds)
        elif after is After.FULL:
            self._serve_each([(connection.fd, _TOGETHER)], now)
        elif after is After.SENT_ALL:
            self._finish(connection)
        else:
            self._wait(connection)

    def _finish(self, connection: Connection) -> None:
        """Finish a connection whose peer has sent FIN; it stays until the peer has taken all data due to it."""
        try:
            due = connection.finish(self._timeouts.stall)
        except OSError:
            self.end(connection, Close.RESET)
        else:
            if not due:
                self.end(connection, Close.FINISHED)

    def _wait(self, connection: Connection) -> None:
        """Wait for data to read; arm again, so that data reported before is reported once more."""
        self.epoll.modify(connection.fd, (_ALONE if connection.streaming else _TOGETHER) | _ONCE)

    def _serve_together(self, descriptors: memoryview, events: memoryview, now: float) -> bool:
        """Serve all of these, or return False if it cannot be done."""
        if self._ring is None:
            return False
        if events == _ALL_TOGETHER[: len(events)]:
            return self._serve_all(descriptors, now, self._ring)
        pairs = list(zip(descriptors.tolist(), events.tolist(), strict=True))
        together = [fd for fd, event in pairs if event == _TOGETHER]
        if len(together) < FEWEST_TOGETHER or not self._serve_all(memoryview(array("i", together)), now, self._ring):
            return False
        self._serve_each([pair for pair in pairs if pair[1] != _TOGETHER], now)
        return True

    def _serve_all(self, descriptors: memoryview, now: float, ring: Ring) -> bool:
        """Receive from all, send to all. Return whether the kernel had the resources."""
        try:
            lengths = ring.receive(descriptors)
        except OSError:
            return False
        received, told = lengths.tolist(), bytes(lengths)
        least = min(received)
        if least < 0:
            for index, length in enumerate(received):
                lengths[index] = max(0, length)
        results = ring.send(lengths)
        fds, moved = descriptors.tolist(), self.moved
        for fd in fds:
            moved[fd] = now
        if bytes(results) == told and least > 0 and max(received) < SLOT_BYTES:
            total = sum(received)
            self._row[_RECEIVED_BYTES] += total
            self._row[_SENT_BYTES] += total
            return True
        sent = results.tolist()
        self._row[_RECEIVED_BYTES] += sum(length for length in received if length > 0)
        self._row[_SENT_BYTES] += sum(length for length in sent if length > 0)
        for index, fd in enumerate(fds):
            if not 0 < received[index] == sent[index] < SLOT_BYTES:
                connection = self.open[fd]
                self._go_on(connection, connection.judge(received[index], sent[index], ring.slot(index)), now)
        return True

    # -- time

    def drain(self, now: float, until: float) -> None:
        """End all connections, each when its traffic has stopped, the last at `until`."""
        self._drain_until = until
        self._look_at = now

    def _look(self, time: float) -> None:
        """Make `on_deadline` look at the connections at this time or before."""
        self._look_at = min(self._look_at, time)

    def next_deadline(self) -> float | None:
        """Return the monotonic time, in seconds, when `on_deadline` has something to do."""
        if not self.open:
            return None
        return self._look_at if self._drain_until is None else min(self._look_at, self._drain_until)

    @property
    def _idle_seconds(self) -> float:
        return self._timeouts.idle if self._drain_until is None else QUIET_SECONDS

    def on_deadline(self, now: float) -> None:
        """End the connections that have timed out."""
        over = self._drain_until is not None and now >= self._drain_until
        if over or now >= self._look_at:
            self._end_late(now, all_of_them=over)

    def _end_late(self, now: float, *, all_of_them: bool) -> None:
        """Look at all connections; end those that have timed out."""
        self._look_at = inf
        for connection in tuple(self.open.values()):
            seconds, reason = self._patience_with(connection)
            until = self.moved[connection.fd] + seconds
            late = now >= until
            if late and not connection.held and connection.has_unread():
                # It is this worker that is late: the peer waits for its turn.
                self.moved[connection.fd], until, late = now, now + seconds, False
            if all_of_them or late:
                self.end(connection, reason if late or connection.finished else Close.DRAINED)
            else:
                self._look(until)
        self._look_at = max(self._look_at, now + LOOKS_APART)

    def _patience_with(self, connection: Connection) -> tuple[float, Close]:
        """Return how long a connection may be without traffic, and how it ends then.

        Of a finished one the kernel has all data, and continues to send it.
        """
        if connection.held:
            return self._timeouts.stall, Close.STALLED
        if connection.finished:
            return self._idle_seconds, Close.FINISHED
        return self._idle_seconds, Close.IDLE if self._drain_until is None else Close.DRAINED
