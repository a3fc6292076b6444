"""When the path was down: the longest time in which no probe was answered.

Owns the runs of probes in a row that were not answered. Invariant: a probe is in at most one run, and one that was
answered after all is in none, as long as its run is remembered.
"""

from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import Final

_KEPT: Final = 4096
"""Runs that a late reply can still part. Of older ones only the longest is remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """Probes in a row without an answer, `first` to `last`.

    From the sending of the first of them to that of the next probe, in ns since 1970. Where none is known to have gone
    it is `open`, and `end` the sending of the last: for how long an answer was waited for says nothing of the path.
    """

    first: int
    last: int
    start: int
    end: int
    open: bool = False

    @property
    def probes(self) -> int:
        """Return how many probes were lost in it."""
        return self.last - self.first + 1

    @property
    def duration(self) -> int:
        """Return how long it was, or at least was where it is open, in ns."""
        return self.end - self.start


class Outages:
    """The runs."""

    def __init__(self) -> None:
        """Begin with none."""
        self._runs: list[Outage] = []
        self._longest: Outage | None = None

    def lost(self, sequence: int, start: int, end: int) -> None:
        """Take a probe that was not answered: when it was sent, and when the next one was, 0 where none was yet.

        Probes are given up in the order of their numbers, or nearly so.
        """
        at = bisect_right(self._runs, sequence, key=lambda run: run.first)
        if at and self._runs[at - 1].last >= sequence:
            return
        run = Outage(first=sequence, last=sequence, start=start, end=end or start, open=not end)
        if at < len(self._runs) and self._runs[at].first == sequence + 1:
            run = replace(self._runs.pop(at), first=sequence, start=start)
        if at and self._runs[at - 1].last == sequence - 1:
            at -= 1
            before = self._runs.pop(at)
            run = replace(run, first=before.first, start=before.start)
        self._runs.insert(at, run)
        if len(self._runs) > _KEPT:
            self._forget(self._runs.pop(0))

    def settled(self, sequence: int, sent: int) -> None:
        """Take when a probe was sent of which something is known now: an outage right before it ended with that."""
        at = bisect_right(self._runs, sequence - 1, key=lambda run: run.first) - 1
        if at >= 0 and self._runs[at].open and self._runs[at].last == sequence - 1:
            self._runs[at] = replace(self._runs[at], end=sent, open=False)

    def answered(self, sequence: int, start: int, end: int) -> None:
        """Take it back: that probe was answered after all. Times as in `lost`."""
        at = bisect_right(self._runs, sequence, key=lambda run: run.first) - 1
        if at < 0 or self._runs[at].last < sequence:
            return
        run = self._runs.pop(at)
        if run.last > sequence:
            self._runs.insert(at, replace(run, first=sequence + 1, start=end))
        if run.first < sequence:
            self._runs.insert(at, replace(run, last=sequence - 1, end=start, open=False))

    def _forget(self, run: Outage) -> None:
        if self._longest is None or run.duration > self._longest.duration:
            self._longest = run

    @property
    def longest(self) -> Outage | None:
        """Return the longest outage, the first of several equal ones, or None where every probe was answered."""
        candidates = [*([self._longest] if self._longest else []), *self._runs]
        return max(candidates, key=lambda run: run.duration, default=None)
