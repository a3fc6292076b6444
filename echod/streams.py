"""The connections of one TCP listener in one worker: every byte back, in order, until each has ended.

Owns the connections and their time. One holds at most what one receive read and the kernel would not take, and while
it holds that, it is not read from: so a peer that does not read can fill nothing but its own window. Those that send
little are served together, with two calls for all; whoever sends a stream, or holds something, by itself. Never
blocks, never logs, never raises for what a peer does. Invariant: every connection taken is open or has ended in exactly
one `Close`.
"""

import errno
import socket
from array import array
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from select import EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP, EPOLLRDNORM
from typing import Final

from echod.core.counters import Close, TcpField
from echod.crowd import Crowd
from echod.ring import SLOT_BYTES, STREAMS, Ring

READ_BYTES: Final = 65_536
"""Bytes of one receive, at most. The buffer is the worker's, so it stays in the CPU's cache from receive to send."""

MAX_READS_PER_LOOK: Final = 4
"""Receives of one connection each time that it is looked at: 256 KiB."""
_READS: Final = range(MAX_READS_PER_LOOK)

FEWEST_TOGETHER: Final = 12
"""To serve fewer together costs more than it saves."""

MAX_LOOKS_PER_WAKEUP: Final = 4
"""Looks at who is ready in one turn of the loop, each at STREAMS connections at most."""
_LOOKS: Final = range(MAX_LOOKS_PER_WAKEUP)

PASSED_OVER: Final = 8
"""Few that are ready, after a look in vain, with no other look behind them: see udp.py."""

QUIET_SECONDS: Final = 1.0
"""While draining, a connection on which nothing moved for so long has nothing under way."""

_TOGETHER: Final = EPOLLIN
_ALONE: Final = EPOLLRDNORM
"""The same to the kernel (poll(2)); by it, those that send streams are told from the others."""
_HELD_UP: Final = EPOLLOUT

_ONCE: Final = EPOLLET | EPOLLRDHUP | EPOLLPRI
"""What has come is told of once: to look again at all that were served costs 3% of a small message. So who is not read
until there is no more has to be asked for again. A receive that leaves room has read all (epoll(7)), but for what is
behind urgent data, and for the end."""
_MORE_BEHIND: Final = EPOLLRDHUP | EPOLLPRI | EPOLLHUP | EPOLLERR

_ALL_TOGETHER: Final = memoryview(array("i", [_TOGETHER] * STREAMS))

# As plain numbers: see udp.py.
_RECEIVED_BYTES: Final = int(TcpField.RECEIVED_BYTES)
_SENT_BYTES: Final = int(TcpField.SENT_BYTES)

_NOT_NOW: Final = (-errno.EAGAIN, -errno.EINTR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds after which a connection ends: with nothing coming, and with nothing taken that is due."""

    idle: float
    stall: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What a worker has to move bytes with: a buffer of READ_BYTES, and a ring, where this host has one."""

    buffer: memoryview
    ring: Ring | None


class Streams:
    """Connections, with all that moves their bytes."""

    def __init__(
        self,
        *,
        means: Means,
        row: memoryview,
        timeouts: Timeouts,
        on_end: Callable[[int], None],
    ) -> None:
        """Share the worker's means. Count into the listener's row; tell of each end the place of who has left."""
        self.buffer = means.buffer
        self._ring = means.ring
        self.row = row
        self.open: dict[int, Connection] = {}
        """By descriptor."""
        self.moved: dict[int, float] = {}
        """When the peer last sent, or, of what it is due, took a byte; by descriptor."""
        self._crowd = Crowd(STREAMS)
        self.epoll = self._crowd.epoll
        self._in_vain = 0
        self._timeouts = timeouts
        self._on_end = on_end
        self._look_at = inf
        """No connection's time is up before. To keep them in order would cost each message more than a few looks do."""
        self._drain_until: float | None = None

    def take(self, sock: socket.socket, place: int, now: float, *, self_test: bool) -> None:
        """Take on a non-blocking socket, with its place in the ledger. OSError: no memory, or no watch left."""
        fd = sock.fileno()
        self.epoll.register(fd, _TOGETHER | _ONCE)
        self.open[fd] = Connection(self, sock, place, self_test=self_test)
        self.moved[fd] = now
        self._look(now + self._idle_seconds)

    def end(self, connection: "Connection", reason: Close) -> None:
        """End a connection: what the kernel took still goes out, then FIN."""
        self.row[TcpField.CLOSED + (Close.SELF_TEST if connection.self_test else reason)] += 1
        del self.open[connection.fd], self.moved[connection.fd]
        with suppress(OSError):
            # What a peer does not take must not stay in the kernel for as long as it says so (tcp(7)).
            patience = int(self._timeouts.stall * 1000)
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, patience)
            connection.sock.shutdown(socket.SHUT_WR)
        connection.sock.close()  # and nothing waits for it any more (epoll(7))
        self._on_end(connection.place)

    # -- bytes

    def on_readable(self, now: float) -> None:
        """Serve those that are ready."""
        connections = self.open
        for _ in _LOOKS:
            descriptors, events = self._crowd.look()
            ready = len(events)
            if not ready:
                self._in_vain = PASSED_OVER
                return
            if ready < FEWEST_TOGETHER or not self._serve_together(descriptors, events, now):
                for fd, event in zip(descriptors.tolist(), events.tolist(), strict=True):
                    connections[fd].on_ready(event, now)
            if ready < FEWEST_TOGETHER and self._in_vain:
                self._in_vain -= 1
                return

    def _serve_together(self, descriptors: memoryview, events: memoryview, now: float) -> bool:
        """Serve all of these; return whether it was done."""
        if self._ring is None:
            return False
        if events == _ALL_TOGETHER[: len(events)]:
            return self._serve_all(descriptors, now, self._ring)
        pairs = list(zip(descriptors.tolist(), events.tolist(), strict=True))
        together = [fd for fd, event in pairs if event == _TOGETHER]
        if len(together) < FEWEST_TOGETHER or not self._serve_all(memoryview(array("i", together)), now, self._ring):
            return False
        for fd, event in pairs:
            if event != _TOGETHER:
                self.open[fd].on_ready(event, now)
        return True

    def _serve_all(self, descriptors: memoryview, now: float, ring: Ring) -> bool:
        """Receive from all, send to all. Return whether the kernel had the means for it."""
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
            self.row[_RECEIVED_BYTES] += total
            self.row[_SENT_BYTES] += total
            return True
        sent = results.tolist()
        self.row[_RECEIVED_BYTES] += sum(length for length in received if length > 0)
        self.row[_SENT_BYTES] += sum(length for length in sent if length > 0)
        for index, fd in enumerate(fds):
            if not 0 < received[index] == sent[index] < SLOT_BYTES:
                self.open[fd].go_on(received[index], sent[index], ring.slot(index), now)
        return True

    # -- time

    def drain(self, now: float, until: float) -> None:
        """End all, each when nothing moves any more, the last at `until`."""
        self._drain_until = until
        self._look_at = now

    def hold_up(self, connection: "Connection", now: float) -> None:
        """Read no more from a connection until it holds nothing; look whether it has stalled."""
        self.epoll.modify(connection.fd, _HELD_UP)
        self._look(now + self._timeouts.stall)

    def _look(self, time: float) -> None:
        """See to it that `on_deadline` looks at the connections at that time or before."""
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
        """End the connections whose time is up."""
        over = self._drain_until is not None and now >= self._drain_until
        if over or now >= self._look_at:
            self._end_late(now, all_of_them=over)

    def _end_late(self, now: float, *, all_of_them: bool) -> None:
        """Look at all connections; end those whose time is up."""
        idle = Close.IDLE if self._drain_until is None else Close.DRAINED
        self._look_at = inf
        for connection in tuple(self.open.values()):
            seconds, reason = (self._timeouts.stall, Close.STALLED) if connection.held else (self._idle_seconds, idle)
            until = self.moved[connection.fd] + seconds
            if all_of_them or now >= until:
                self.end(connection, reason if now >= until else Close.DRAINED)
            else:
                self._look(until)


def whole_segments(sock: socket.socket) -> int:
    """Return the bytes of a receive whose echo goes out in full segments, of the size that the connection has now.

    What is left over would be a segment of its own, for without Nagle's algorithm it does not wait for more.
    """
    segment = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
    return READ_BYTES - READ_BYTES % segment if 0 < segment < READ_BYTES else READ_BYTES


class Connection:
    """One accepted connection."""

    __slots__ = ("_most", "_streams", "_way", "fd", "held", "place", "self_test", "sock")

    def __init__(self, streams: Streams, sock: socket.socket, place: int, *, self_test: bool) -> None:
        """Take a non-blocking socket, its place in the ledger, and whether it is echod's own probe."""
        self._streams = streams
        self.self_test = self_test
        self.held = b""
        """What was received and the kernel has not yet taken to send."""
        self._most = READ_BYTES
        """Bytes of a receive."""
        self._way = _TOGETHER | _ONCE
        """What it waits for while it holds nothing."""
        self.sock = sock
        self.fd = sock.fileno()
        self.place = place

    def on_ready(self, event: int, now: float) -> None:
        """Move bytes, as far as the peer and the kernel take them."""
        try:
            if self.held:
                self._flush(now)
            else:
                self._echo_back(now, more=bool(event & _MORE_BEHIND))
        except BlockingIOError:
            return
        except OSError:
            self._streams.end(self, Close.RESET)

    def _echo_back(self, now: float, *, more: bool) -> None:
        """Echo at most MAX_READS_PER_LOOK receives; end where the peer has no more to say.

        Until a receive leaves room; where there is `more` behind what that reads, until nothing is left.
        """
        sock, most, streams = self.sock, self._most, self._streams
        buffer, row = streams.buffer, streams.row
        streams.moved[self.fd] = now
        for _ in _READS:
            received = sock.recv_into(buffer, most)
            if not received:
                streams.end(self, Close.FINISHED)
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
            if received < most and not more:
                return
        self._be_a_stream()

    def _be_a_stream(self) -> None:
        """From now on, receive whole segments, and by itself; ask for what there may be already."""
        self._most = whole_segments(self.sock)  # the kernel lets them grow while the stream goes on
        self._way = _ALONE | _ONCE
        self._wait()

    def _wait(self) -> None:
        """Wait for what is to be read, also where it was told of before."""
        self._streams.epoll.modify(self.fd, self._way)

    def go_on(self, received: int, sent: int, slot: memoryview, now: float) -> None:
        """Go on from what became of a receive into a slot, and of the send from it: bytes, or a negative error."""
        if not received:
            self._streams.end(self, Close.FINISHED)
        elif received in _NOT_NOW:
            self._wait()
        elif received < 0 or (sent < 0 and sent not in _NOT_NOW):
            self._streams.end(self, Close.RESET)
        elif sent < received:
            self._hold(bytes(slot[max(0, sent) : received]), now)
        else:
            self.on_ready(_TOGETHER, now)  # there may be more than the slot had room for

    def _hold(self, left: bytes, now: float) -> None:
        """Stop reading until the peer has taken what is due to it."""
        self.held = left
        self._streams.hold_up(self, now)

    def _flush(self, now: float) -> None:
        """Send what is held; once it is gone, read again."""
        streams = self._streams
        sent = self.sock.send(self.held)
        streams.row[_SENT_BYTES] += sent
        streams.moved[self.fd] = now
        self.held = self.held[sent:]
        if not self.held:
            self._wait()
