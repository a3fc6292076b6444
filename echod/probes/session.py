"""A session: one target that is being probed; and the session that probes it by single probes.

Owns its schedule, its probes in flight, its statistics and its transports, and passes every event to the watchers.
Never waits and never prints. Invariants: an event is counted before a watcher gets it; output reads a session and
changes nothing in it.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import cycle
from secrets import randbits
from time import monotonic_ns
from typing import Final

from echod.measurement.events import Event
from echod.measurement.icmp import NetworkError
from echod.measurement.in_flight import InFlight, ProbeError, probe_error
from echod.measurement.pacing import Schedule
from echod.measurement.payload import Payloads
from echod.measurement.round_trip import Response
from echod.measurement.statistics import Statistics
from echod.net.listener import Protocol
from echod.net.mode import Mode
from echod.probes.loop import Loop
from echod.probes.settings import ProbeSettings
from echod.probes.sockets import open_probe_socket, read_clocks
from echod.probes.target import Target
from echod.probes.tcp import TcpTransport
from echod.probes.udp import UdpTransport

_BURST: Final = 64
"""Most probes that are sent in a row if many are due; then received data is read."""

MOST_HANDSHAKES: Final = 1024
"""Handshakes of one target whose times are kept: a peer may close one connection after the other."""

STAMPED_INTERVAL: Final = 100_000
"""Least interval in ns at which send timestamps are requested: reading one takes as long as sending a probe."""

Transport = UdpTransport | TcpTransport
"""What sends the probes of a source port, and receives what comes back."""


class Session:
    """A target that is being probed, by single probes (`ProbeSession`) or by a flood (`FloodSession`)."""

    def __init__(self, target: Target, settings: ProbeSettings, loop: Loop, watchers: list["Watcher"]) -> None:
        """Begin without transports: they are added. The loop calls the session again after each receive."""
        self.target = target
        self.transports: list[Transport] = []
        """One for each source port."""
        fresh = not settings.sockets.source_port  # from a port that is chosen an earlier run may have sent too
        numbers = range(settings.source_ports + 1)
        self.statistics, *self.port_statistics = [
            Statistics(source_ports=settings.source_ports, fresh=fresh) for _ in numbers
        ]
        """The statistics of each source port, if there are several."""
        self.handshakes: list[int] = []
        """Durations of the TCP handshakes, in ns."""
        self._settings, self._loop, self._watchers = settings, loop, watchers
        self._started = self._ended = 0

    def start(self, now: int) -> None:
        """Begin; `now` is monotonic, in ns."""
        self._started = self._ended = now

    @property
    def ports(self) -> list[int]:
        """Return the source ports."""
        return [transport.port for transport in self.transports]

    @property
    def mode(self) -> Mode:
        """Return what the probes are made for."""
        return self._settings.frame.mode if self._settings.frame else Mode.ECHO

    @property
    def sizes(self) -> tuple[int, ...]:
        """Return the sizes of the probes, in bytes of payload."""
        return self._settings.sizes

    @property
    def elapsed(self) -> int:
        """Return how long it took, or has taken so far, in ns."""
        return self._ended - self._started

    def _record(self, event: Event) -> None:
        """Count an event and pass it to the watchers."""
        self.statistics.add(event)
        if len(self.port_statistics) > 1:
            self.port_statistics[event.port_index].add(event)
        self._watch(event)

    def _watch(self, event: Event) -> None:
        for watcher in self._watchers:
            watcher(self, event)


Watcher = Callable[[Session, Event], None]
"""Gets every event after it was counted."""


class ProbeSession(Session):
    """A session of single probes."""

    def __init__(self, target: Target, settings: ProbeSettings, loop: Loop, watchers: list[Watcher]) -> None:
        """Begin without transports, as `Session` does."""
        super().__init__(target, settings, loop, watchers)
        begun = read_clocks()
        payloads = Payloads(randbits(32), settings.pattern, settings.frame)
        offset = begun.wall - begun.clock
        self.in_flight = InFlight(payloads, timeout=settings.timeout, history=settings.history, offset=offset)
        self._sizes = cycle(settings.sizes)
        self._schedule: Schedule  # from the start on

    def start(self, now: int) -> None:
        """Begin; `now` is monotonic, in ns."""
        super().start(now)
        settings = self._settings
        self._schedule = Schedule(now, interval=settings.interval, window=settings.window, count=settings.count)

    def run_due(self, now: int) -> int | None:
        """Do what is due; return when to be called again, or None if all is done."""
        deadline = self._settings.deadline
        end = None if deadline is None else self._started + deadline
        if end is not None and now >= end:
            return None
        for _ in range(_BURST):
            due = self._schedule.next_due(self.in_flight.count)
            if due is None or due > now:
                break
            self._send(now)
        if (expiry := self.in_flight.next_expiry()) is not None and expiry <= now:
            for event in self.in_flight.expire(read_clocks()):
                self._record(event)
            expiry = self.in_flight.next_expiry()
        if self._schedule.over and not self.in_flight.count:
            return None
        limits = (self._schedule.next_due(self.in_flight.count), expiry, end)
        return min(limit for limit in limits if limit is not None)

    def finish(self) -> None:
        """Give up the probes in flight for much longer than any reply took; the outcome of the others is unknown."""
        for transport in self.transports:
            self.statistics.dropped += transport.dropped
            if len(self.port_statistics) > 1:
                self.port_statistics[transport.port_index].dropped = transport.dropped
        if (patience := self.statistics.patience) is not None:
            for event in self.in_flight.expire(read_clocks(), patience):
                self._record(event)

    def receive(self, transport: Transport) -> None:
        """Handle what a transport has received."""
        for received in transport.receive():
            if isinstance(received, Response):
                self._record(self.in_flight.received(self._open(received)))
            elif isinstance(received, ProbeError):
                self._record(self.in_flight.failed(received))
            else:
                if len(self.handshakes) < MOST_HANDSHAKES:
                    self.handshakes.append(received.took)
                self.in_flight.connected(received.moment, transport.port_index)
        self._ended = monotonic_ns()
        self._loop.wake(self)

    def _open(self, response: Response) -> Response:
        """Read out of a reply what the responder wrote into it."""
        if self._settings.frame is None:
            return response
        data, report = self._settings.frame.open(response.data)
        return replace(response, data=data, report=report)

    def _send(self, now: int) -> None:
        """Send the next probe, and remember it."""
        transport = self.transports[(self.in_flight.next_sequence - 1) % len(self.transports)]
        size = next(self._sizes)
        clock = monotonic_ns()
        payload = self.in_flight.payload(clock, size)
        moment = read_clocks()
        error = transport.send(payload)
        self.in_flight.sent(payload, clock, moment, send_stamp=transport.send_stamp, port_index=transport.port_index)
        self._schedule.sent(now)
        self._ended = now
        self.statistics.sent += 1
        if len(self.port_statistics) > 1:
            self.port_statistics[transport.port_index].sent += 1
        if error is not None:
            self._failed(error, payload, transport)
        if transport.has_errors:
            self.receive(transport)

    def _failed(self, error: NetworkError, payload: bytes, transport: Transport) -> None:
        """Record that a probe could not be sent."""
        unsent = not error.address  # with an address it was sent, and a peer on this host refused it at once
        failure = probe_error(error, read_clocks(), payload, port_index=transport.port_index, unsent=unsent)
        self._record(self.in_flight.failed(failure))


def open_session(
    target: Target, settings: ProbeSettings, loop: Loop, watchers: list[Watcher], stack: ExitStack
) -> ProbeSession:
    """Open a session with a transport for each source port, which the loop reads and the stack closes.

    Raises UsageError if the source is not available.
    """
    session = ProbeSession(target, settings, loop, watchers)
    for port_index in range(settings.source_ports):
        transport = _open_transport(session, settings, port_index, loop)
        stack.callback(transport.close)
        session.transports.append(transport)
    return session


def _open_transport(session: ProbeSession, settings: ProbeSettings, port_index: int, loop: Loop) -> Transport:
    sock = open_probe_socket(session.target, settings.sockets, port_index)
    if session.target.protocol is Protocol.UDP:
        transport = UdpTransport(sock, session.target, port_index, stamps=settings.interval >= STAMPED_INTERVAL)
        loop.register(sock.fileno(), partial(session.receive, transport))
        return transport
    sock.close()  # a source that is not available is an error before the first probe
    return TcpTransport(session.target, port_index, settings, loop=loop, receive=session.receive)
