"""A rate, from a count that only grows and the times at which it was read."""

from dataclasses import dataclass


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
