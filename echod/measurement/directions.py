"""Loss, duplicates, reordering and delay variation of each direction, from what a responder reports.

Owns the arithmetic of the counts. A responder counts the requests that arrive (TR-143, TestRespSN and
TestRespReplyFailureCount; the sequence number of a stateful STAMP reflector, RFC 8762). What was sent and is not
counted was lost on the way out, and what is counted and did not come was lost on the way back. Times of two clocks are
never compared, only their differences are (RFC 3393). Invariants: of two replies, the order in which their requests
arrived is that of their counts; what lies before the first reply of a responder that may have counted before, or behind
the last reply, is in no direction.
"""

from bisect import bisect_left
from collections import OrderedDict, deque
from copy import deepcopy
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from typing import Final

from echod.measurement.events import Event, Kind
from echod.measurement.latency import Latency, Variation
from echod.measurement.reordering import Order
from echod.measurement.responder import Report

_KEPT: Final = 4096
"""Counts and probes that are remembered, to recognize the duplicates of each direction."""

_WAIT: Final = 256
"""Replies that wait for those to requests that arrived before theirs: replies may overtake one another."""

_FIRST: Final = frozenset({Kind.REPLY, Kind.LATE})


@dataclass(slots=True, kw_only=True)
class Direction:
    """What happened in one direction."""

    lost: int = 0
    duplicates: int = 0
    order: Order = field(default_factory=Order)
    variation: Variation = field(default_factory=Variation)
    """Differences of consecutive delays (RFC 3393)."""
    delays: Latency = field(default_factory=Latency)
    """Delays beyond an unknown one, the same for all."""

    @property
    def spread(self) -> int:
        """Return by how much 99.9% of all delays exceeded the least one, at most (RFC 5481, PDV), in ns."""
        return self.delays.quantile(0.999) - self.delays.min


@dataclass(slots=True, kw_only=True)
class Directions:
    """Both directions of one source port, or the sum of several."""

    out: Direction = field(default_factory=Direction)
    back: Direction = field(default_factory=Direction)
    counted: bool = False
    """Whether the responder counts, so that losses and reordering have directions."""
    failures: int = 0
    """Requests that arrived and that the responder could not reply to."""
    contradictory: bool = False
    """Whether a responder counted more requests than there were: also those of others."""

    def merge(self, other: "Directions") -> None:
        """Add the numbers of another source port, or of an earlier responder."""
        for mine, its in ((self.out, other.out), (self.back, other.back)):
            mine.lost += its.lost
            mine.duplicates += its.duplicates
            mine.order.merge(its.order)
            mine.variation.merge(its.variation)
            for value, weight in its.delays.weights():
                mine.delays.add(value - its.delays.min, weight)
        self.counted |= other.counted
        self.failures += other.failures
        self.contradictory |= other.contradictory


class Tally:
    """The replies of one source port, and what they say of the directions."""

    def __init__(self, *, fresh: bool = True) -> None:
        """Start without any reply. `fresh` is whether nothing was sent from this source port before."""
        self._before = Directions()
        """Of the responders before this one."""
        self._responder = _Account(fresh=fresh)

    def add(self, index: int, event: Event) -> None:
        """Add a reply with a report, whole or damaged, from the address probed.

        Its probe is the `index`-th of the source port, from 1.
        """
        if event.report is None:
            return
        if event.new_responder:
            self._before = self.directions
            self._responder = _Account(fresh=False)
        self._responder.add(index, event, event.report)

    def unsent(self, index: int) -> None:
        """Note that this host did not send a probe."""
        self._responder.add_unsent(index)

    @property
    def lost(self) -> tuple[int, int] | None:
        """Return the losses out and back by now; None if they have no direction."""
        now, before = Directions(), self._before
        self._responder.count(now)
        if not now.counted or now.contradictory or before.contradictory:
            return None
        return before.out.lost + now.out.lost, before.back.lost + now.back.lost

    @property
    def directions(self) -> Directions:
        """Return what is known by now."""
        total = Directions()
        total.merge(self._before)
        total.merge(self._responder.directions())
        return total


class _Account:
    """The replies of one responder to one source port."""

    def __init__(self, *, fresh: bool) -> None:
        self._fresh = fresh
        """Whether a count that is small enough began with the run: otherwise its first requests may be older ones."""
        self._least: tuple[int, int] | None = None
        """The least probe and the least count."""
        self._greatest = (0, 0)
        self._failures = (0, 0)
        """At the first reply and by now."""
        self._counts: OrderedDict[int, None] = OrderedDict()
        self._probes: OrderedDict[int, None] = OrderedDict()
        self._heard = self._answered = self._copies = 0
        """Replies without duplicates of the way back, probes with a reply, and duplicates of the way back."""
        self._out, self._back = Direction(), Direction()
        self._arrivals = _Arrivals()
        self._origins: tuple[int, int] | None = None
        self._revealed = 0
        self._unsent: deque[tuple[int, int]] = deque()
        """The first and the last of each row of probes that this host did not send."""

    def add_unsent(self, index: int) -> None:
        first = self._unsent.pop()[0] if self._unsent and self._unsent[-1][1] == index - 1 else index
        self._unsent.append((first, index))
        if len(self._unsent) > _KEPT:
            self._unsent.popleft()

    def add(self, index: int, event: Event, report: Report) -> None:
        if event.new_responder:
            self._revealed = index
        if index < self._revealed:  # of the responder before, or of this one while it was not known yet
            return
        if event.settles and event.kind in _FIRST:
            self._add_delays(index, event, report)
        if report.count is None:
            return
        new_probe, new_count = _note(self._probes, index), _note(self._counts, report.count)
        self._answered += new_probe
        self._copies += not new_count
        if not new_count:
            return
        if self._least is None:
            self._least, self._failures = (index, report.count), (report.failures, report.failures)
        self._least = min(self._least[0], index), min(self._least[1], report.count)
        self._greatest = max(self._greatest[0], index), max(self._greatest[1], report.count)
        self._failures = min(self._failures[0], report.failures), max(self._failures[1], report.failures)
        self._heard += 1
        self._back.order.add(report.count, event.clock)
        if new_probe:
            self._arrivals.add(report.count, index, report.received)

    def directions(self) -> Directions:
        """Return what is known by now."""
        found = Directions(out=replace(self._out, order=self._arrivals.order()), back=replace(self._back))
        self.count(found)
        return found

    def count(self, found: Directions) -> None:
        """Fill in the losses and the duplicates."""
        if self._least is None:
            return
        found.counted = True
        (first, begin), (last, end) = self._least, self._greatest
        failed_before = self._failures[0]
        if self._fresh and 1 <= begin <= first:  # it began to count with this run
            first, begin, failed_before = 1, 1, 0
        found.failures = self._failures[1] - failed_before
        arrived = end - begin + 1
        unsent = sum(max(0, min(after, last) - max(before, first) + 1) for before, after in self._unsent)
        sent = last - first + 1 - unsent
        found.out.duplicates = self._heard - self._answered
        found.back.duplicates = self._copies
        found.back.lost = arrived - self._heard - found.failures
        found.out.lost = sent - (arrived - found.out.duplicates)
        if min(found.out.lost, found.back.lost, found.out.duplicates) < 0:
            found.contradictory = True
            found.out.lost = found.back.lost = found.out.duplicates = 0

    def _add_delays(self, index: int, event: Event, report: Report) -> None:
        out, back = report.received - event.sent.clock, event.clock - report.replied
        if self._origins is None:
            self._origins = out, back
        for direction, delay, origin in zip((self._out, self._back), (out, back), self._origins, strict=True):
            beyond = (delay - origin + report.wraps // 2) % report.wraps - report.wraps // 2
            direction.variation.add(index, beyond)
            direction.delays.add(beyond)


class _Arrivals:
    """The order in which requests arrived at the responder."""

    def __init__(self) -> None:
        self._order = Order()
        self._waiting: list[tuple[int, int, int]] = []
        self._counts: list[int] = []
        """Of requests that arrived before all later probes."""
        self._probes: list[int] = []

    def add(self, count: int, index: int, received: int) -> None:
        heappush(self._waiting, (count, index, received))
        if len(self._waiting) <= _WAIT:
            return
        count, index, received = heappop(self._waiting)
        at = bisect_left(self._counts, count)
        if at < len(self._counts):  # its reply was late: its place is among those that have been judged
            self._insert(at, count, index)
            return
        self._order.add(index, received)
        if not self._probes or index > self._probes[-1]:
            self._counts.append(count)
            self._probes.append(index)
            if len(self._counts) > 2 * _KEPT:
                del self._counts[:_KEPT], self._probes[:_KEPT]

    def _insert(self, at: int, count: int, index: int) -> None:
        """Take a request whose reply was late: it may be behind others, and others behind it."""
        self._order.arrived += 1
        if at > 0 and self._probes[at - 1] > index:
            self._order.reordered += 1
            return
        while at < len(self._probes) and self._probes[at] < index:
            del self._counts[at], self._probes[at]
            self._order.reordered += 1
        self._counts.insert(at, count)
        self._probes.insert(at, index)

    def order(self) -> Order:
        """Return what is known by now, with those that wait."""
        order = deepcopy(self._order)
        for _, index, received in sorted(self._waiting):
            order.add(index, received)
        return order


def _note(known: OrderedDict[int, None], number: int) -> bool:
    """Remember a number; return whether it is new."""
    if number in known:
        return False
    known[number] = None
    if len(known) > _KEPT:
        known.popitem(last=False)
    return True
