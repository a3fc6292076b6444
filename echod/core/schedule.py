"""When the next probe goes: interval, count and window.

Owns the plan, never a clock: monotonic times in ns are told. Invariant: no probe goes before its time, and one that
could not go at its time does not shift those behind it, so the rate is kept over the run.
"""

from dataclasses import dataclass
from typing import Final

MAX_BEHIND: Final = 1_000_000_000
"""A schedule that is further behind than this, in ns, begins anew: the process slept, or the window was full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast and how long: `interval` in ns, `window` in probes in flight.

    An interval of zero means that a probe goes whenever the window has room. None is no limit.
    """

    interval: int
    window: int
    count: int | None = None


class Schedule:
    """The plan of one target."""

    def __init__(self, pace: Pace, start: int) -> None:
        """Begin at `start`; the first probe is due then."""
        self._pace = pace
        self._due = start
        self._sent = 0

    @property
    def over(self) -> bool:
        """Whether the count is reached."""
        return self._pace.count is not None and self._sent >= self._pace.count

    def next_due(self, in_flight: int) -> int | None:
        """Return when the next probe is due, or None while the window is full or when all have gone."""
        return None if self.over or in_flight >= self._pace.window else self._due

    def sent(self, now: int) -> None:
        """Note that a probe went; one that went late does not delay the next."""
        self._sent += 1
        self._due += self._pace.interval
        if now - self._due > MAX_BEHIND or not self._pace.interval:
            self._due = now
