"""The connections of one TCP listener in one worker: which are ready, which go first, and when each has to end.

Owns the connections and their timeouts. Those that send little are served in batches, with two calls for all; one that
sends a stream, or has unsent data, is served by itself. The bytes received in one turn are bounded, so that connections
starve no datagram. A connection counts until its peer has taken all data, also what is still in the kernel. Never
blocks, never logs, never raises for what a peer does. Invariant: every connection added is open or has ended in exactly
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

from echod.linux.epoll_set import EpollSet
from echod.linux.io_uring import SLOT_BYTES, SLOTS, IoUring
from echod.stats.counters import TcpField
from echod.stats.outcomes import Close
from echod.tcp.connection import RECEIVED_BYTES, SENT_BYTES, WAIT_READ, Connection, IoState

MIN_BATCH: Final = 12
"""Serving fewer connections in a batch costs more than it saves."""

MAX_POLLS_PER_TURN: Final = 4
"""Polls for ready connections in one turn of the loop, each of which reports at most SLOTS."""
_POLLS: Final = range(MAX_POLLS_PER_TURN)

MAX_BYTES_PER_TURN: Final = 1 << 20
"""Bytes received in one turn of the loop. Beyond that, ready connections wait for the next turn, after everything else
that this worker serves. At most about a millisecond of work. (The kernel alone would report first the connections that
were just served and already have more.)"""

SKIPPED_POLLS: Final = 8
"""After a poll that found none, so many small sets of ready connections are not followed by another poll: those that
were just served are rarely ready again at once."""

QUIET_SECONDS: Final = 1.0
"""While draining, a connection without traffic for so long has nothing under way."""

SCAN_INTERVAL: Final = 0.25
"""Least seconds between two scans of all connections for timeouts: each has its own time, so as many would be due."""

_BATCHED: Final = EPOLLIN
_STREAMING: Final = EPOLLRDNORM
"""Equivalent to EPOLLIN in the kernel (poll(2)); it marks the connections that send streams."""
_BLOCKED: Final = EPOLLOUT

_EDGE: Final = EPOLLET | EPOLLRDHUP | EPOLLPRI
"""Edge-triggered: checking every served connection again costs 3% of a small message. So a connection that was not read
until it was empty must be armed again."""

_ALL_BATCHED: Final = memoryview(array("i", [_BATCHED] * SLOTS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds until a connection ends: `idle` without received data, `stall` if the peer takes none of the data due."""

    idle: float
    stall: float


@dataclass(frozen=True, slots=True, kw_only=True)
class IoBuffers:
    """What all connections of a worker share: a buffer of READ_BYTES, and an io_uring, if this host offers one."""

    buffer: memoryview
    io_uring: IoUring | None


OnClose = Callable[[int], None]
"""Takes the entry in the ledger of a connection that has ended."""


class Connections:
    """The connections, and their I/O."""

    def __init__(
        self,
        *,
        io: IoBuffers,
        row: memoryview,
        timeouts: Timeouts,
        on_close: OnClose,
        connection: Callable[..., Connection] = Connection,
    ) -> None:
        """Share the worker's I/O buffers. Count into the listener's row; call `on_close` with each entry that ends.

        `connection` makes each: what else than an echo does has its own, and no io_uring.
        """
        self._connection = connection
        self._buffer = io.buffer
        self._io_uring = io.io_uring
        self._row = row
        self.open: dict[int, Connection] = {}
        """By descriptor."""
        self.active_at: dict[int, float] = {}
        """When the peer last sent a byte, or took one that was unsent; by descriptor."""
        self._epoll_set = EpollSet(SLOTS)
        self.epoll = self._epoll_set.epoll
        self._polls_to_skip = 0
        self._byte_limit = 0
        """The value of the row's RECEIVED_BYTES at which this turn has received enough."""
        self._deferred: dict[int, int] = {}
        """Ready connections deferred to the start of the next turn: their events, by descriptor."""
        self._timeouts = timeouts
        self._on_close = on_close
        self._scan_at = inf
        """No connection times out before. Keeping them sorted would cost each message more than a few scans do."""
        self._drain_until: float | None = None

    def add(self, sock: socket.socket, entry: int, now: float, *, self_test: bool) -> None:
        """Take on a non-blocking socket, with its entry in the ledger. OSError: no memory, or no epoll watch left."""
        fd = sock.fileno()
        self.epoll.register(fd, _BATCHED | _EDGE)
        self.open[fd] = self._connection(sock, entry, self_test=self_test)
        self.active_at[fd] = now
        self._scan_by(now + self._idle_seconds)

    def close(self, connection: Connection, reason: Close) -> None:
        """End a connection: the kernel still sends what it has taken, then FIN."""
        self._row[TcpField.CLOSED + (Close.SELF_TEST if connection.self_test else reason)] += 1
        del self.open[connection.fd], self.active_at[connection.fd]
        self._deferred.pop(connection.fd, None)
        if not connection.finished:
            with suppress(OSError):
                connection.finish(self._timeouts.stall)
        connection.sock.close()  # which also removes it from the epoll set (epoll(7))
        self._on_close(connection.entry)

    def __len__(self) -> int:
        """Return how many connections are open."""
        return len(self.open)

    # -- bytes

    def on_readable(self, now: float) -> None:
        """Serve ready connections, until this turn has received enough."""
        self._byte_limit = self._row[RECEIVED_BYTES] + MAX_BYTES_PER_TURN
        if self._deferred:
            waiting, self._deferred = self._deferred, {}
            self._serve_each(waiting.items(), now)
        if not self._deferred:
            self._serve_ready(now)
        for fd in self._deferred:
            # Re-arm until one certainly has unread bytes, so that the next turn comes at once.
            self._arm(self.open[fd])
            if self.open[fd].has_unread():
                return

    def _serve_ready(self, now: float) -> None:
        """Serve those that the kernel reports as ready."""
        for _ in _POLLS:
            descriptors, events = self._epoll_set.poll()
            ready = len(events)
            if not ready:
                self._polls_to_skip = SKIPPED_POLLS
                return
            if ready < MIN_BATCH or not self._serve_batch(descriptors, events, now):
                self._serve_each(zip(descriptors.tolist(), events.tolist(), strict=True), now)
            if self._row[RECEIVED_BYTES] >= self._byte_limit:
                return
            if ready < MIN_BATCH and self._polls_to_skip:
                self._polls_to_skip -= 1
                return

    def _serve_each(self, pairs: Iterable[tuple[int, int]], now: float) -> None:
        """Move bytes on these descriptors, each with its events, until this turn has received enough."""
        connections, active_at = self.open, self.active_at
        buffer, row, limit = self._buffer, self._row, self._byte_limit
        for fd, event in pairs:
            connection = connections[fd]
            if row[RECEIVED_BYTES] >= limit and not connection.unsent:
                self._deferred[fd] = event
                continue
            state = connection.on_ready(event, buffer, row)
            if state is not None:
                active_at[fd] = now
                if state is not WAIT_READ:
                    self._apply(connection, state, now)

    def _apply(self, connection: Connection, state: IoState | Close, now: float) -> None:
        """Set what a connection waits for from now on."""
        if isinstance(state, Close):
            self.close(connection, state)
        elif state is IoState.WAIT_WRITE:
            # Do not read until all is sent; watch for a stall.
            self.epoll.modify(connection.fd, _BLOCKED)
            self._scan_by(now + self._timeouts.stall)
        elif state is IoState.FLUSHED:
            self._arm(connection)
            self._scan_by(now + self._idle_seconds)
        elif state is IoState.BUFFER_FULL:
            self._serve_each([(connection.fd, _BATCHED)], now)
        elif state is IoState.END_OF_STREAM:
            # It stays until the peer has taken all data due to it.
            try:
                due = connection.finish(self._timeouts.stall)
            except OSError:
                self.close(connection, Close.RESET)
            else:
                if not due:
                    self.close(connection, Close.FINISHED)
        else:
            self._arm(connection)

    def _arm(self, connection: Connection) -> None:
        """Wait for data to read; arm again, so that data reported before is reported once more."""
        self.epoll.modify(connection.fd, (_STREAMING if connection.streaming else _BATCHED) | _EDGE)

    def _serve_batch(self, descriptors: memoryview, events: memoryview, now: float) -> bool:
        """Serve all of these, or return False if it cannot be done."""
        if self._io_uring is None:
            return False
        if events == _ALL_BATCHED[: len(events)]:
            return self._echo_batch(descriptors, now, self._io_uring)
        pairs = list(zip(descriptors.tolist(), events.tolist(), strict=True))
        together = [fd for fd, event in pairs if event == _BATCHED]
        if len(together) < MIN_BATCH or not self._echo_batch(memoryview(array("i", together)), now, self._io_uring):
            return False
        self._serve_each([pair for pair in pairs if pair[1] != _BATCHED], now)
        return True

    def _echo_batch(self, descriptors: memoryview, now: float, io_uring: IoUring) -> bool:
        """Receive from all, send to all. Return whether the kernel had the resources."""
        try:
            lengths = io_uring.receive(descriptors)
        except OSError:
            return False
        received, expected = lengths.tolist(), bytes(lengths)
        least = min(received)
        if least < 0:
            for index, length in enumerate(received):
                lengths[index] = max(0, length)
        results = io_uring.send(lengths)
        fds, active_at = descriptors.tolist(), self.active_at
        for fd in fds:
            active_at[fd] = now
        if bytes(results) == expected and least > 0 and max(received) < SLOT_BYTES:
            total = sum(received)
            self._row[RECEIVED_BYTES] += total
            self._row[SENT_BYTES] += total
            return True
        sent = results.tolist()
        self._row[RECEIVED_BYTES] += sum(length for length in received if length > 0)
        self._row[SENT_BYTES] += sum(length for length in sent if length > 0)
        for index, fd in enumerate(fds):
            if not 0 < received[index] == sent[index] < SLOT_BYTES:
                connection = self.open[fd]
                state = connection.after_transfer(received[index], sent[index], io_uring.slot(index))
                self._apply(connection, state, now)
        return True

    # -- time

    def drain(self, now: float, until: float) -> None:
        """End all connections, each when its traffic has stopped, the last at `until`."""
        self._drain_until = until
        self._scan_at = now

    def _scan_by(self, time: float) -> None:
        """Make `on_deadline` scan the connections at this time or before."""
        self._scan_at = min(self._scan_at, time)

    def next_deadline(self) -> float | None:
        """Return the monotonic time, in seconds, when `on_deadline` has something to do."""
        if not self.open:
            return None
        return self._scan_at if self._drain_until is None else min(self._scan_at, self._drain_until)

    @property
    def _idle_seconds(self) -> float:
        return self._timeouts.idle if self._drain_until is None else QUIET_SECONDS

    def on_deadline(self, now: float) -> None:
        """End the connections that have timed out."""
        over = self._drain_until is not None and now >= self._drain_until
        if not over and now < self._scan_at:
            return
        self._scan_at = inf
        for connection in tuple(self.open.values()):
            seconds, reason = self._idle_seconds, Close.IDLE if self._drain_until is None else Close.DRAINED
            if connection.unsent:
                seconds, reason = self._timeouts.stall, Close.STALLED
            elif connection.finished:  # the kernel has all data, and continues to send it
                reason = Close.FINISHED
            until = self.active_at[connection.fd] + seconds
            late = now >= until
            if late and not connection.unsent and connection.has_unread():
                # It is this worker that is late: the peer waits for its turn.
                self.active_at[connection.fd], until, late = now, now + seconds, False
            if over or late:
                self.close(connection, reason if late or connection.finished else Close.DRAINED)
            else:
                self._scan_by(until)
        self._scan_at = max(self._scan_at, now + SCAN_INTERVAL)
