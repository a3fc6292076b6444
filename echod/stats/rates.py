"""Rates per second over the last 1, 10 and 60 seconds, from a count that only grows, and such a count of the kernel's.

Owns the counts of the last minute and the times they were read; the time is passed in. Invariant: between two readings
of the same count nothing came, so a rate falls to exactly zero when its span is over.
"""

from bisect import bisect_right
from dataclasses import dataclass

from echod.stats.snapshot import Rates

_SPANS = (1.0, 10.0, 60.0)


class History:
    """One count, read about once a second. All times are monotonic, in seconds."""

    def __init__(self, count: int, now: float) -> None:
        """Start with the present count."""
        self._times = [now]
        self._counts = [count]

    def note(self, count: int, now: float, before: float) -> None:
        """Add a reading that differs from the last one; `before` is when the count was last read unchanged."""
        if before > self._times[-1]:
            # The count was constant up to then, and has grown only since.
            self._times.append(before)
            self._counts.append(self._counts[-1])
        self._times.append(now)
        self._counts.append(count)
        # One reading older than the longest span is kept, because that span begins after it.
        stale = bisect_right(self._times, now - _SPANS[-1]) - 1
        if stale > 0:
            del self._times[:stale], self._counts[:stale]

    def rates(self, now: float) -> Rates:
        """Return the rates. Before the first reading they are taken as zero."""
        return Rates(*(round((self._counts[-1] - self._count(now - span)) / span, 1) for span in _SPANS))

    def _count(self, time: float) -> float:
        """Return the count at a time, interpolated between two readings."""
        after = bisect_right(self._times, time)
        if after == len(self._times):
            return self._counts[-1]
        if after == 0:
            return self._counts[0]
        begin, end = self._times[after - 1], self._times[after]
        share = (time - begin) / (end - begin)
        return self._counts[after - 1] + share * (self._counts[after] - self._counts[after - 1])


def unwrapped(total: int, reading: int) -> int:
    """Return the total of a counter that the kernel keeps in 32 bits, by the total at the reading before, at first 0.

    It is exact if less than 2**32 was counted between two readings.
    """
    return total + (reading - total) % 2**32


@dataclass(slots=True)
class Rate:
    """The count and the monotonic time, in seconds, of the last reading."""

    count: int = 0
    time: float | None = None

    def per_second(self, count: int, now: float) -> int:
        """Return the rate since the last reading, zero at the first, and remember this one."""
        elapsed = now - self.time if self.time is not None else 0.0
        rate = round((count - self.count) / elapsed) if elapsed > 0 else 0
        self.count, self.time = count, now
        return rate
