"""When the next probe is sent: interval, count and window.

Owns the plan, never a clock: monotonic times in ns are passed in. Invariant: no probe is sent before its time, and a
late one does not delay those after it, so the rate is kept over the run.
"""

from dataclasses import dataclass
from typing import Final

MAX_BEHIND: Final = 1_000_000_000
"""A schedule that is further behind than this, in ns, restarts: the process slept, or the window was full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The rate and the limits: `interval` in ns, `window` in probes in flight.

    With an interval of zero a probe is sent whenever the window has room. A `count` of None is no limit.
    """

    interval: int
    window: int
    count: int | None = None


class Schedule:
    """The plan of one target."""

    def __init__(self, pace: Pace, start: int) -> None:
        """Start at `start`; the first probe is due then."""
        self._pace = pace
        self._due = start
        self._sent = 0

    @property
    def over(self) -> bool:
        """Whether the count is reached."""
        return self._pace.count is not None and self._sent >= self._pace.count

    def next_due(self, in_flight: int) -> int | None:
        """Return when the next probe is due, or None while the window is full or after the last probe."""
        return None if self.over or in_flight >= self._pace.window else self._due

    def sent(self, now: int) -> None:
        """Note that a probe was sent; a late one does not delay the next."""
        self._sent += 1
        self._due += self._pace.interval
        if now - self._due > MAX_BEHIND or not self._pace.interval:
            self._due = now
