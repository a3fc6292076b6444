"""What is to be done when: an agenda that is told the time, and how long to wait for the next try of what died.

Owns the order, never a clock. Invariant: what was put on the agenda is handed out once, at its time or later, in
the order of the times.
"""

import heapq
from collections.abc import Callable
from itertools import count
from typing import Final

MIN_BACKOFF_SECONDS: Final = 0.1
MAX_BACKOFF_SECONDS: Final = 5.0
STEADY_SECONDS: Final = 10.0
"""A process that lived so long did not die of its birth: the next one comes without delay."""

Action = Callable[[float], None]
"""Takes the monotonic time, in seconds, at which it is done."""


class Agenda:
    """Actions by the monotonic time, in seconds, when they are due."""

    def __init__(self) -> None:
        """Begin empty."""
        self._entries: list[tuple[float, int, Action]] = []
        self._order = count()

    def at(self, time: float, action: Action) -> None:
        """Put an action on the agenda."""
        heapq.heappush(self._entries, (time, next(self._order), action))

    def due(self, now: float) -> list[Action]:
        """Take off and return what is due by now."""
        actions = []
        while self._entries and self._entries[0][0] <= now:
            actions.append(heapq.heappop(self._entries)[2])
        return actions

    def seconds_left(self, now: float) -> float | None:
        """Return how long nothing is due, zero if something is, or None for ever."""
        return max(0.0, self._entries[0][0] - now) if self._entries else None


def backoff_seconds(deaths: int) -> float:
    """Return how long to wait before the next birth, after so many deaths in a row, each soon after birth."""
    if deaths == 0:
        return 0.0
    return float(min(MAX_BACKOFF_SECONDS, MIN_BACKOFF_SECONDS * 2 ** min(deaths - 1, 10)))
