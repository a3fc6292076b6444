"""How much a second, over the last 1, 10 and 60 seconds, from a count that only grows.

Owns the counts of the last minute and when they were read; the time is passed in. Invariant: between two looks that
found the same count nothing came, so a rate falls to exactly zero once its span is over.
"""

from bisect import bisect_right

from echod.core.snapshot import Rates

_SPANS = (1.0, 10.0, 60.0)


class History:
    """One count, as it was read about once a second. All times are monotonic, in seconds."""

    def __init__(self, count: int, now: float) -> None:
        """Begin with what the count is now."""
        self._times = [now]
        self._counts = [count]

    def note(self, count: int, now: float, before: float) -> None:
        """Take in what the count is now, and was not at the look before this one."""
        if before > self._times[-1]:
            # It stood still up to then, and has moved only since.
            self._times.append(before)
            self._counts.append(self._counts[-1])
        self._times.append(now)
        self._counts.append(count)
        # One that is older than the longest span is kept: in it that span begins.
        stale = bisect_right(self._times, now - _SPANS[-1]) - 1
        if stale > 0:
            del self._times[:stale], self._counts[:stale]

    def rates(self, now: float) -> Rates:
        """Return what came a second. Before the first reading nothing came."""
        return Rates(*(round((self._counts[-1] - self._count(now - span)) / span, 1) for span in _SPANS))

    def _count(self, time: float) -> float:
        """Return the count at a time, between two readings as if it had grown evenly."""
        after = bisect_right(self._times, time)
        if after == len(self._times):
            return self._counts[-1]
        if after == 0:
            return self._counts[0]
        begin, end = self._times[after - 1], self._times[after]
        share = (time - begin) / (end - begin)
        return self._counts[after - 1] + share * (self._counts[after] - self._counts[after - 1])
