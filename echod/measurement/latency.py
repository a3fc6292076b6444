"""Round-trip times in numbers: moments, quantiles, jitter.

Owns the arithmetic and a bounded memory of the measurements. Invariant: the result does not depend on how the weights
are split: n times the same value equals the value once with weight n (except for jitter, which compares neighbours).
"""

from collections import OrderedDict
from math import ceil, isqrt
from typing import Final

MAX_EXACT: Final = 65_536
"""Distinct values that are kept exactly: about 5 MiB. With more, values are rounded to `PRECISION_BITS`."""

PRECISION_BITS: Final = 11
"""Leading bits of a value that rounding keeps: an error below 0.05 %."""

_PAIRS_KEPT: Final = 1024
"""Round-trip times kept until their neighbour in sequence arrives."""

_JITTER_GAIN: Final = 16
"""RFC 3550, 6.4.1."""


class Latency:
    """Moments and quantiles of times in ns."""

    def __init__(self) -> None:
        """Start empty."""
        self.count = 0
        self.min = self.max = 0
        self._sum = self._squares = 0
        self._weights: dict[int, int] = {}
        self._exact = True

    def add(self, value: int, weight: int = 1) -> None:
        """Add a time, `weight` times."""
        self.min = min(self.min, value) if self.count else value
        self.max = max(self.max, value)
        self.count += weight
        self._sum += value * weight
        self._squares += value * value * weight
        if not self._exact:
            value = _rounded(value)
        self._weights[value] = self._weights.get(value, 0) + weight
        if self._exact and len(self._weights) > MAX_EXACT:
            self._round_all()

    @property
    def mean(self) -> float:
        """Return the mean; zero if empty."""
        return self._sum / self.count if self.count else 0.0

    @property
    def deviation(self) -> float:
        """Return the standard deviation of the population, which ping calls mdev; zero if empty."""
        if not self.count:
            return 0.0
        return isqrt(self.count * self._squares - self._sum * self._sum) / self.count

    def quantile(self, fraction: float) -> int:
        """Return the least time that this fraction of all times does not exceed; zero if empty.

        It is a time that occurred (numpy's method "inverted_cdf"); after more than `MAX_EXACT` distinct times, one
        within 0.05 % of it.
        """
        rank = max(1, ceil(round(fraction * self.count, 6)))
        seen = 0
        for value in sorted(self._weights):
            seen += self._weights[value]
            if seen >= rank:
                return min(max(value, self.min), self.max)
        return 0

    def weights(self) -> list[tuple[int, int]]:
        """Return each distinct time and how often it occurred, in ascending order of time."""
        return sorted(self._weights.items())

    def _round_all(self) -> None:
        self._exact = False
        weights, self._weights = self._weights, {}
        for value, weight in weights.items():
            value = _rounded(value)  # noqa: PLW2901 - only the rounded value is used from here on
            self._weights[value] = self._weights.get(value, 0) + weight


def _rounded(value: int) -> int:
    """Keep the leading bits, and return the middle of the range that shares them."""
    shift = value.bit_length() - PRECISION_BITS
    return value if shift <= 0 else (value >> shift << shift) + (1 << (shift - 1))


class Variation:
    """How round-trip times differ from one probe to the next, in ns.

    `jitter` is RFC 3550's running estimate over replies in the order of their arrival. Delay variation is RFC 3393's
    IPDV between consecutive probes that were both answered, whichever reply came first: the number of `pairs`, and the
    `sum` and `max` of its absolute value.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.jitter = 0.0
        self.count = 0
        self.pairs = 0
        self.sum = 0
        self.max = 0
        self._previous: int | None = None
        self._recent: OrderedDict[int, int] = OrderedDict()

    def add(self, index: int, rtt: int) -> None:
        """Add the round-trip time of the first reply to the probe with this index; indices have no gaps."""
        if self._previous is not None:
            self.jitter += (abs(rtt - self._previous) - self.jitter) / _JITTER_GAIN
        self._previous = rtt
        self.count += 1
        for neighbour in (index - 1, index + 1):
            if neighbour in self._recent:
                difference = abs(rtt - self._recent[neighbour])
                self.pairs += 1
                self.sum += difference
                self.max = max(self.max, difference)
        self._recent[index] = rtt
        if len(self._recent) > _PAIRS_KEPT:
            self._recent.popitem(last=False)

    @property
    def mean(self) -> float:
        """Return the mean absolute delay variation; zero without pairs."""
        return self.sum / self.pairs if self.pairs else 0.0

    def merge(self, other: "Variation") -> None:
        """Add the numbers of another stream; jitter becomes the mean, weighted by replies."""
        self.count += other.count
        self.jitter += (other.jitter - self.jitter) * other.count / max(1, self.count)
        self.pairs += other.pairs
        self.sum += other.sum
        self.max = max(self.max, other.max)
