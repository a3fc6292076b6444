"""Actions that are due at a time, and the delay before a process is started again.

Owns the order, never a clock: the time is passed in. Invariant: an action is returned once, at its time or later, in
the order of the times.
"""

import heapq
from collections.abc import Callable
from itertools import count
from typing import Final

MIN_BACKOFF_SECONDS: Final = 0.1
MAX_BACKOFF_SECONDS: Final = 5.0
STEADY_SECONDS: Final = 10.0
"""A process that lived this long did not fail at its start: the next one is started without delay."""

Action = Callable[[float], None]
"""Takes the monotonic time, in seconds, at which it is called."""


class Timers:
    """Actions by the monotonic time, in seconds, when they are due."""

    def __init__(self) -> None:
        """Start empty."""
        self._entries: list[tuple[float, int, Action]] = []
        self._order = count()

    def at(self, time: float, action: Action) -> None:
        """Add an action."""
        heapq.heappush(self._entries, (time, next(self._order), action))

    def due(self, now: float) -> list[Action]:
        """Remove and return the actions that are due."""
        actions = []
        while self._entries and self._entries[0][0] <= now:
            actions.append(heapq.heappop(self._entries)[2])
        return actions

    def seconds_left(self, now: float) -> float | None:
        """Return the time until an action is due, zero if one is, None if there is none."""
        return max(0.0, self._entries[0][0] - now) if self._entries else None


class Backoff:
    """The delay before a process is started again: it doubles with each failure in a row."""

    def __init__(self) -> None:
        """Start without a failure."""
        self._failures = 0

    def after(self, lived_seconds: float) -> float:
        """Return the delay in seconds after a process that lived so long, or 0 if it could not be started."""
        self._failures = 0 if lived_seconds >= STEADY_SECONDS else self._failures + 1
        if not self._failures:
            return 0.0
        return float(min(MAX_BACKOFF_SECONDS, MIN_BACKOFF_SECONDS * 2 ** min(self._failures - 1, 10)))
