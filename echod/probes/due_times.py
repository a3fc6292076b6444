"""When each session is due.

Owns a heap of times. Never reads a clock. Invariant: each key has one time, the one that was set last.
"""

from heapq import heapify, heappop, heappush
from itertools import count
from typing import Generic, TypeVar

Key = TypeVar("Key")


class DueTimes(Generic[Key]):
    """Keys by the time, monotonic in ns, at which each is due."""

    def __init__(self) -> None:
        """Start empty."""
        self._times: dict[Key, int] = {}
        self._heap: list[tuple[int, int, Key]] = []
        """Entries whose time is no longer that of their key are stale: they are skipped when they come to the top."""
        self._serial = count()

    def __contains__(self, key: Key) -> bool:
        """Return whether a key has a time."""
        return key in self._times

    def set(self, key: Key, time: int) -> None:
        """Set the time of a key."""
        if self._times.get(key) == time:
            return
        self._times[key] = time
        heappush(self._heap, (time, next(self._serial), key))
        if len(self._heap) > 2 * len(self._times):  # most entries are stale
            self._heap = [(time, next(self._serial), key) for key, time in self._times.items()]
            heapify(self._heap)

    def next_time(self) -> int | None:
        """Return the earliest time; None if there is no key."""
        while self._heap and self._times.get(self._heap[0][2]) != self._heap[0][0]:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take_due(self, now: int) -> list[Key]:
        """Remove the keys that are due now, and return them in the order of their times."""
        due = []
        while (time := self.next_time()) is not None and time <= now:
            _, _, key = heappop(self._heap)
            del self._times[key]
            due.append(key)
        return due
