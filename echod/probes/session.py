"""One target on the way: when its probes go, which are in flight, what they added up to.

Owns schedule, flight, survey and lines of a target, and tells every event to those who watch. Never waits and never
prints. Invariant: an event is counted before anybody is told of it.
"""

from contextlib import ExitStack
from functools import partial
from itertools import cycle
from secrets import randbits
from time import monotonic_ns
from typing import Final

from echod.measurement.events import Event
from echod.measurement.icmp import THIS_HOST, Complaint
from echod.measurement.in_flight import Flight, Obstacle
from echod.measurement.pacing import Pace, Schedule
from echod.measurement.payload import Payloads
from echod.measurement.round_trip import Arrival
from echod.measurement.statistics import Survey
from echod.net.listener import Protocol
from echod.probes.clock import read_clocks
from echod.probes.interfaces import Line, Watcher
from echod.probes.loop import Loop
from echod.probes.settings import ProbeSettings
from echod.probes.sockets import open_outlet
from echod.probes.target import Target
from echod.probes.tcp import TcpLine
from echod.probes.udp import UdpLine

_BURST: Final = 64
"""Probes that go at one go where many are due, before what came is looked at."""

MOST_HANDSHAKES: Final = 1024
"""Of one target, whose times are kept: the first of each source port, and some more."""

STAMPED_INTERVAL: Final = 100_000
"""Ns from one probe to the next from which on the kernel is asked when each went: that takes as long as the sending."""


class Course:
    """A target being asked."""

    def __init__(self, target: Target, settings: ProbeSettings, loop: Loop, *, watchers: list[Watcher]) -> None:
        """Begin with no line: they are added. The loop is to call the session again after each receive."""
        self.target = target
        self._loop = loop
        self.lines: list[Line] = []
        begun = read_clocks()
        payloads = Payloads(randbits(32), settings.pattern)
        offset = begun.wall - begun.clock
        self.flight = Flight(payloads, timeout=settings.timeout, history=settings.history, offset=offset)
        self.survey = Survey(sources=settings.source_ports)
        self.surveys = [Survey(sources=settings.source_ports) for _ in range(settings.source_ports)]
        self.handshakes: list[int] = []
        """Times that the connections took to stand, in ns."""
        self.started = self.ended = 0
        self._watchers = watchers
        self._sizes = cycle(settings.sizes)
        self._pace = Pace(interval=settings.interval, window=settings.window, count=settings.count)
        self._deadline = settings.deadline
        self._schedule = Schedule(self._pace, 0)

    def start(self, now: int) -> None:
        """Begin; `now` is monotonic, in ns."""
        self.started = self.ended = now
        self._schedule = Schedule(self._pace, now)

    @property
    def ports(self) -> list[int]:
        """Return the source ports."""
        return [line.port for line in self.lines]

    @property
    def elapsed(self) -> int:
        """Return how long it took, or has taken so far, in ns."""
        return self.ended - self.started

    def run_due(self, now: int) -> int | None:
        """Do what is due; return when to be called again, or None if all is done."""
        end = None if self._deadline is None else self.started + self._deadline
        if end is not None and now >= end:
            return None
        for _ in range(_BURST):
            due = self._schedule.next_due(self.flight.in_flight)
            if due is None or due > now:
                break
            self._send(now)
        if (expiry := self.flight.next_expiry()) is not None and expiry <= now:
            for event in self.flight.expire(read_clocks()):
                self.tell(event)
            expiry = self.flight.next_expiry()
        if self._schedule.over and not self.flight.in_flight:
            return None
        limits = (self._schedule.next_due(self.flight.in_flight), expiry, end)
        return min(limit for limit in limits if limit is not None)

    def finish(self) -> None:
        """Give up what has been in flight for much longer than any reply took; of the rest nothing is known."""
        for line in self.lines:
            self.survey.dropped += line.dropped
            if len(self.surveys) > 1:
                self.surveys[line.source].dropped = line.dropped
        if (patience := self.survey.patience) is not None:
            for event in self.flight.expire(read_clocks(), patience):
                self.tell(event)

    def hear(self, line: Line) -> None:
        """Take what has come on a line."""
        for news in line.receive():
            if isinstance(news, Arrival):
                self.tell(self.flight.land(news))
            elif isinstance(news, Obstacle):
                self.tell(self.flight.refuse(news))
            else:
                if len(self.handshakes) < MOST_HANDSHAKES:  # a peer may end one after the other
                    self.handshakes.append(news.took)
                self.flight.depart(news.moment, line.source)
        self.ended = monotonic_ns()
        self._loop.wake(self)

    def tell(self, event: Event) -> None:
        """Count an event and let everybody know."""
        self.survey.take(event)
        if len(self.surveys) > 1:
            self.surveys[event.source].take(event)
        for watcher in self._watchers:
            watcher(self, event)

    def _send(self, now: int) -> None:
        """Send the next probe, and remember it."""
        line = self.lines[(self.flight.next_sequence - 1) % len(self.lines)]
        size = next(self._sizes)
        clock = monotonic_ns()
        payload = self.flight.payload(clock, size)
        moment = read_clocks()
        complaint = line.send(payload)
        self.flight.launch(payload, clock, moment, left=line.left, source=line.source)
        self._schedule.sent(now)
        self.ended = now
        self.survey.sent += 1
        if len(self.surveys) > 1:
            self.surveys[line.source].sent += 1
        if complaint is not None:
            self._refuse(complaint, payload, line)
        if line.told:
            self.hear(line)

    def _refuse(self, complaint: Complaint, payload: bytes, line: Line) -> None:
        """Let the probe that could not go be one that was refused by this host."""
        obstacle = Obstacle(
            reason=complaint.reason,
            address=complaint.address or THIS_HOST,
            mtu=complaint.mtu,
            moment=read_clocks(),
            source=line.source,
            data=payload,
            unsent=not complaint.address,  # else it was sent, and refused at once by a peer on this host
        )
        self.tell(self.flight.refuse(obstacle))


def open_session(
    target: Target, settings: ProbeSettings, loop: Loop, watchers: list[Watcher], stack: ExitStack
) -> Course:
    """Make a session with a line for each source port, which the loop reads and the stack closes.

    Raises UsageError where the source cannot be had.
    """
    course = Course(target, settings, loop, watchers=watchers)
    for source in range(settings.source_ports):
        line = _open_line(course, settings, source, loop)
        stack.callback(line.close)
        course.lines.append(line)
    return course


def _open_line(course: Course, settings: ProbeSettings, source: int, loop: Loop) -> UdpLine | TcpLine:
    sock = open_outlet(course.target, settings.sockets, source)
    if course.target.protocol is Protocol.UDP:
        line = UdpLine(sock, course.target, source, stamps=settings.interval >= STAMPED_INTERVAL)
        loop.register(sock.fileno(), partial(course.hear, line))
        return line
    sock.close()  # a source that cannot be had is told before the first probe
    return TcpLine(course.target, source, settings, loop=loop, hear=course.hear)
