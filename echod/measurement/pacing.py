"""When the next probe is sent: interval, count and window.

Owns the plan, never a clock: monotonic times in ns are passed in. Invariant: no probe is sent before its time, and a
late one does not delay those after it, so the rate is kept over the run.
"""

from typing import Final

MAX_BEHIND: Final = 1_000_000_000
"""A schedule that is further behind than this, in ns, restarts: the process slept, or the window was full."""


class Schedule:
    """The plan of one target."""

    def __init__(self, start: int, *, interval: int, window: int, count: int) -> None:
        """Start at `start`, when the first of `count` probes is due; the others follow at the interval, in ns.

        At most a window of probes is in flight. With an interval of zero a probe is sent whenever that has room.
        """
        self._due = start
        self._interval, self._window, self._left = interval, window, count

    @property
    def over(self) -> bool:
        """Whether the count is reached."""
        return self._left <= 0

    def next_due(self, in_flight: int) -> int | None:
        """Return when the next probe is due, or None while the window is full or after the last probe."""
        return None if self.over or in_flight >= self._window else self._due

    def sent(self, now: int) -> None:
        """Note that a probe was sent; a late one does not delay the next."""
        self._left -= 1
        self._due += self._interval
        if now - self._due > MAX_BEHIND or not self._interval:
            self._due = now
