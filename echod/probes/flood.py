"""A session that floods its target: it sends trains (UDP_SEGMENT), receives trains (UDP_GRO) and verifies every byte.

Owns the socket of a flood. `measurement.flood` decides what a reply means. Invariant: at most a window is in flight,
and one train more after each `STALL`: without it a flood that lost a whole window would stop.
"""

import errno
import select
import socket
from contextlib import ExitStack, suppress
from secrets import randbits
from struct import Struct
from time import monotonic_ns, time_ns
from typing import Final

from echod.errors import UsageError
from echod.linux.mmsg import Vector
from echod.linux.mmsg_layout import CONTROL_BYTES, MAX_JOINED, MAX_PAYLOAD, SLOTS
from echod.linux.sockopt import UDP_GRO, UDP_SEGMENT
from echod.measurement.events import Event, Kind, Moment
from echod.measurement.flood import Flood
from echod.measurement.flood_ring import Ring
from echod.measurement.icmp import NetworkError, local_error
from echod.measurement.in_flight import ProbeError, probe_error
from echod.measurement.pacing import MAX_BEHIND
from echod.measurement.payload import SEQUENCE_BYTES, Payloads
from echod.measurement.round_trip import Response
from echod.probes.loop import Loop
from echod.probes.session import Session, Watcher
from echod.probes.settings import ProbeSettings
from echod.probes.sockets import RECEIVE_TOS, RECEIVE_TTL, open_probe_socket, read_clocks, set_option
from echod.probes.target import Target, endpoint
from echod.probes.udp import TRIES, UdpTransport

STALL: Final = 10_000_000
"""Ns without a reply after which a train is sent nevertheless: the flood of ping sends at least 100 times a second."""

_KEPT_WINDOWS: Final = 8
_KEPT_TRAINS: Final = 64
"""Trains that are remembered: those of so many windows, and those that stalls send until a probe is given up."""

_KEPT_BYTES: Final = 256 << 20
"""Most bytes of probes that are remembered; two windows always fit."""

_BURST: Final = 16
"""Most trains that are sent in a row; then received data is read."""

_STAMPED: Final = 32
"""`msg_controllen` of a datagram: SO_TIMESTAMPNS alone."""
_STAMPED_TRAIN: Final = 56
"""... of a train: UDP_GRO behind it."""

_SEGMENT: Final = Struct("=H")
_NO_TRAIN: Final = (errno.EIO, errno.EINVAL, errno.EMSGSIZE)
_FULL: Final = local_error(errno.EAGAIN)


class FloodSession(Session):
    """A session of a flood."""

    def __init__(
        self, target: Target, settings: ProbeSettings, loop: Loop, watchers: list[Watcher], stack: ExitStack
    ) -> None:
        """Open the socket, which the loop reads and the stack closes.

        Raises UsageError if the sizes do not suit or the source is not available.
        """
        super().__init__(target, settings, loop, watchers)
        size = settings.sizes[0]
        if len(settings.sizes) > 1 or size < SEQUENCE_BYTES:
            raise UsageError(f"ping: -f sends probes of one size, {SEQUENCE_BYTES} bytes or more")
        if 2 * size * settings.window > _KEPT_BYTES:
            most = _KEPT_BYTES // (2 * size)
            raise UsageError(f"ping: -f remembers what is in flight: with -s {size} write --window {most} or less")
        self._sock = sock = stack.enter_context(open_probe_socket(target, settings.sockets))
        loop.register(sock.fileno(), self.receive)
        self._train = max(1, min(MAX_JOINED, MAX_PAYLOAD // size, settings.window))
        kept = -(-settings.window * _KEPT_WINDOWS // self._train) + _KEPT_TRAINS + settings.timeout // STALL
        kept = min(kept, _KEPT_BYTES // (size * self._train))
        ring = Ring(Payloads(randbits(32), settings.pattern), size=size, train=self._train, kept=kept)
        self._flood = Flood(ring, self.statistics, window=settings.window, timeout=settings.timeout)
        self._size = size
        self._joined = self._train > 1
        self._errors = UdpTransport(sock, target, 0)
        self.transports.append(self._errors)
        self._vector = Vector()
        self._writable = select.poll()  # the descriptor may be too great for select(2)
        self._writable.register(sock, select.POLLOUT)
        self._peer = _sockaddr(target)
        self._origin = self._progress = 0
        self._read = read_clocks()
        with suppress(OSError):  # kernels before 5.0 have no UDP_GRO: replies then come one by one
            sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        for received in (RECEIVE_TTL, RECEIVE_TOS):
            set_option(sock, received, 0)  # `Vector` has little room for control messages that a flood does not read

    def start(self, now: int) -> None:
        """Begin; `now` is monotonic, in ns."""
        super().start(now)
        self._origin = self._progress = now

    def run_due(self, now: int) -> int | None:
        """Send what may go; return when to be called again, or None if all is done."""
        flood, settings = self._flood, self._settings
        if settings.deadline is not None and now - self._started >= settings.deadline:
            return None
        flood.expire(now)
        left = settings.count - self.statistics.sent
        if not left:
            return flood.next_expiry()
        if settings.interval and (behind := now - self._due()) > MAX_BEHIND:
            self._origin += behind  # as other runs do, it does not catch up on seconds in which it could not send
        stalled = now - self._progress >= STALL and not flood.room
        if stalled:
            self._progress = now
            flood.stalled()
        for burst in range(_BURST):
            count = min(self._train, left)
            may = flood.room or (stalled and not burst)
            if not may or (due := self._due()) > now or not self._send(count):
                break
            left -= count
            if not left:
                break
        self._ended = monotonic_ns()
        due = max(self._due(), now) if flood.room else now + STALL
        return min(due, flood.next_expiry() or due)

    def finish(self) -> None:
        """Give up probes in flight, as `ProbeSession` does."""
        self.statistics.dropped = self._errors.dropped
        if (patience := self.statistics.patience) is not None:
            self._flood.expire(monotonic_ns(), patience)

    def receive(self) -> None:
        """Receive a vector of datagrams."""
        self._loop.wake(self)
        vector = self._vector
        vector.restore(vector.spans[SLOTS])
        count = vector.receive(self._sock.fileno())
        if count < 0:
            self._receive_errors()
            return
        span = vector.spans[count]
        peers = span.peers[self.target.family]()
        controls, lengths = span.control_length.tolist(), span.length.tolist()
        self._read = read_clocks()
        for slot in range(count):
            self._take(slot, lengths[slot], controls[slot], peers[slot])
        self._ended = self._progress = self._read.clock

    def _take(self, slot: int, length: int, control: int, peer: bytes) -> None:
        """Handle the datagram or train of a slot."""
        vector, from_target, stamp = self._vector, peer == self._peer, None
        at = vector.control_at + slot * CONTROL_BYTES
        if control in (_STAMPED, _STAMPED_TRAIN):
            stamp = vector.longs[at // 8 + 2] * 10**9 + vector.longs[at // 8 + 3]
        segment = vector.words[(at + _STAMPED + 16) // 4] if control == _STAMPED_TRAIN else max(1, length)
        data = vector.payload(slot, 0, length)
        trains = -(-length // (segment * self._train)) if segment == self._size else 0
        if from_target and trains == 1 and self._flood.received_train(data, segment, stamp, self._read):
            return
        for start in range(0, max(1, length), segment):
            part = data[start : start + segment]
            if not (from_target and self._flood.received_train(part, len(part), stamp, self._read)):
                self._receive_one(part, stamp, peer)

    def _receive_one(self, data: bytes, stamp: int | None, peer: bytes) -> None:
        """Handle one reply by itself; pass it to the watchers unless it is an ordinary one."""
        from_target = peer == self._peer
        address = self.target.endpoint if from_target else _endpoint(peer)
        response = Response(data=data, stamp=stamp, read=self._read, address=address, from_target=from_target)
        event = self._flood.received(response)
        if event.kind is not Kind.REPLY:
            self._watch(event)

    def _due(self) -> int:
        """Return when the next train is due: in the past if there is no rate."""
        return self._origin + self.statistics.sent * self._settings.interval

    def _send(self, count: int) -> bool:
        """Send a train; return whether the next may follow at once."""
        data = self._flood.next_train(time_ns(), count)
        sent = read_clocks()
        if not self._joined:
            return self._send_apart(data, sent, count)
        control = [(socket.IPPROTO_UDP, UDP_SEGMENT, _SEGMENT.pack(self._size))]
        for _ in range(TRIES):
            try:
                self._sock.sendmsg([data], control, 0, self.target.address)
            except OSError as error:
                number = error.errno or 0
                if number in _NO_TRAIN:
                    self._joined = False  # the route or the device does not support trains
                    return True
                if number == errno.EAGAIN:
                    return False
                self._receive_errors()  # the error of an earlier probe stopped this train
            else:
                self._flood.sent(sent, count)
                return True
        self._flood.sent(sent, count)
        for start in range(0, len(data), self._size):
            self._failed_here(local_error(number), data[start : start + self._size])
        return False

    def _send_apart(self, data: memoryview, sent: Moment, count: int) -> bool:
        """Send the probes of a train one by one; return whether the next train may follow at once."""
        for start in range(0, len(data), self._size):
            probe = bytes(data[start : start + self._size])
            error = self._errors.send(probe)
            if error == _FULL:  # without waiting, a part of the train would be lost
                self._writable.poll(STALL // 10**6)
                error = self._errors.send(probe)
            if not start:
                if error == _FULL:
                    return False
                self._flood.sent(sent, count)
            if error is not None:
                self._failed_here(error, probe)
        return True

    def _receive_errors(self) -> None:
        """Handle the errors in the error queue."""
        for error in self._errors.take_errors():
            self._failed(error)

    def _failed_here(self, error: NetworkError, probe: bytes | memoryview) -> None:
        """Record that a probe could not be sent."""
        self._failed(probe_error(error, read_clocks(), bytes(probe), unsent=True))

    def _failed(self, error: ProbeError) -> None:
        event = Event(
            kind=Kind.ERROR,
            time=error.moment.wall,
            clock=error.moment.clock,
            sequence=self._flood.failed(error.data, unsent=error.unsent),
            size=self._size,
            address=error.address,
            reason=error.reason,
            mtu=error.mtu,
        )
        self._record(event)


def _sockaddr(target: Target) -> bytes:
    """Return a target's address as `Vector.peers` has it."""
    port = target.address[1].to_bytes(2, "big")
    family = int(target.family).to_bytes(2, "little")
    packed = socket.inet_pton(target.family, target.ip.partition("%")[0])
    if target.family == socket.AF_INET:
        return family + port + packed
    scope = target.address[3] if len(target.address) > 3 else 0  # noqa: PLR2004 - (address, port, flow, scope)
    return family + port + bytes(4) + packed + scope.to_bytes(4, "little")


def _endpoint(peer: bytes) -> str:
    """Format the address in a `sockaddr`."""
    family = socket.AddressFamily(int.from_bytes(peer[:2], "little"))
    port = int.from_bytes(peer[2:4], "big")
    if family == socket.AF_INET:
        return endpoint((socket.inet_ntop(family, peer[4:8]), port))
    return endpoint((socket.inet_ntop(family, peer[8:24]), port, 0, int.from_bytes(peer[24:28], "little")))
