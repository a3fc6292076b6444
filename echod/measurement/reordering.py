"""Whether replies arrive in the order in which their probes were sent (RFC 4737).

Owns the counts of reordering. It takes only the first reply to each probe, so duplicates do not count. Invariant: a
stream that arrives in order has no reordering, with or without loss.
"""

from bisect import bisect_right
from typing import Final

_KEPT: Final = 4096
"""Replies in order that are remembered, to find how far an overtaken one is behind."""


class Order:
    """Counts of the Type-P-Reordered singleton (RFC 4737, 3) and its sizes (4.2.2, 4.2.3)."""

    def __init__(self) -> None:
        """Start empty."""
        self.arrived = 0
        self.reordered = 0
        self.max_extent = 0
        """The greatest extent: arrivals between a reply and the first that overtook it."""
        self.max_late = 0
        """The greatest time in ns between a reply and the first that overtook it, by the monotonic clock."""
        self._next_expected = 0
        self._peaks: list[int] = []
        self._positions: list[tuple[int, int]] = []

    def add(self, index: int, time: int, count: int = 1) -> None:
        """Add the first reply to a probe, or to `count` probes in a row; `time` of arrival, monotonic, in ns."""
        if index >= self._next_expected:
            self._next_expected = index + count
            self._peaks.append(index + count - 1)
            self._positions.append((self.arrived, time))
            if len(self._peaks) > 2 * _KEPT:
                del self._peaks[:_KEPT], self._positions[:_KEPT]
        elif index < self._peaks[-1]:
            self.reordered += count
            # The first arrival with a higher index is the oldest higher peak, because peaks ascend.
            position, then = self._positions[bisect_right(self._peaks, index)]
            self.max_extent = max(self.max_extent, self.arrived + count - 1 - position)
            self.max_late = max(self.max_late, time - then)
        self.arrived += count

    def merge(self, other: "Order") -> None:
        """Add the counts of another stream."""
        self.arrived += other.arrived
        self.reordered += other.reordered
        self.max_extent = max(self.max_extent, other.max_extent)
        self.max_late = max(self.max_late, other.max_late)

    @property
    def ratio(self) -> float:
        """Return the share of reordered replies among all."""
        return self.reordered / self.arrived if self.arrived else 0.0
