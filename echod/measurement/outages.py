"""Gaps without replies: the longest time in which no probe had one.

Owns the runs of consecutive unanswered probes. Invariant: a probe is in at most one run, and one that was answered late
is in none, as long as its run is remembered.
"""

from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import Final

from echod.measurement.events import NEVER, Moment

_KEPT: Final = 4096
"""Runs that a late reply can still split. Of older ones only the longest is remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """Consecutive probes without an answer, `first` to `last`.

    `start` is when the first was sent, `end` when the next probe after the last was. If no such probe is known, the
    outage is `open` and `end` is when the last was sent: the wait for its answer says nothing about the path.
    """

    first: int
    last: int
    start: Moment
    end: Moment
    open: bool = False

    @property
    def probes(self) -> int:
        """Return how many probes were lost in it."""
        return self.last - self.first + 1

    @property
    def duration(self) -> int:
        """Return the duration in ns, by the monotonic clock; a lower bound if the outage is open."""
        return self.end.clock - self.start.clock


class Outages:
    """The runs of unanswered probes."""

    def __init__(self) -> None:
        """Start empty."""
        self._runs: list[Outage] = []
        self._longest: Outage | None = None

    def lost(self, sequence: int, start: Moment, end: Moment, count: int = 1) -> None:
        """Add unanswered probes, `count` in a row: when they were sent, and when the next one was, `NEVER` if not yet.

        Probes are given up in the order of their numbers, or nearly so.
        """
        at = bisect_right(self._runs, sequence, key=lambda run: run.first)
        if at and self._runs[at - 1].last >= sequence:
            return
        after, known = sequence + count, end != NEVER
        run = Outage(first=sequence, last=after - 1, start=start, end=end if known else start, open=not known)
        if at < len(self._runs) and self._runs[at].first == after:
            run = replace(self._runs.pop(at), first=sequence, start=start)
        if at and self._runs[at - 1].last == sequence - 1:
            at -= 1
            previous = self._runs.pop(at)
            run = replace(run, first=previous.first, start=previous.start)
        self._runs.insert(at, run)
        if len(self._runs) > _KEPT:
            self._forget(self._runs.pop(0))

    def settled(self, sequence: int, sent: Moment) -> None:
        """Note when a probe was sent: an open outage right before it ended then."""
        at = bisect_right(self._runs, sequence - 1, key=lambda run: run.first) - 1
        if at >= 0 and self._runs[at].open and self._runs[at].last == sequence - 1:
            self._runs[at] = replace(self._runs[at], end=sent, open=False)

    def answered(self, sequence: int, start: Moment, end: Moment, count: int = 1) -> None:
        """Remove probes that were answered late, `count` of one run. Times as in `lost`."""
        at = bisect_right(self._runs, sequence, key=lambda run: run.first) - 1
        if at < 0 or self._runs[at].last < sequence:
            return
        run, after = self._runs.pop(at), sequence + count
        if run.last >= after:
            self._runs.insert(at, replace(run, first=after, start=end))
        if run.first < sequence:
            self._runs.insert(at, replace(run, last=sequence - 1, end=start, open=False))

    def _forget(self, run: Outage) -> None:
        if self._longest is None or run.duration > self._longest.duration:
            self._longest = run

    @property
    def longest(self) -> Outage | None:
        """Return the longest outage, the first of several equal ones, or None if every probe was answered."""
        candidates = [*([self._longest] if self._longest else []), *self._runs]
        return max(candidates, key=lambda run: run.duration, default=None)
