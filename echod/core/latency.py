"""Round-trip times in numbers: moments, quantiles, jitter.

Owns the arithmetic and a bounded memory of what was measured. Whose times they are it does not know. Invariant: the
result does not depend on how the weights were split up: n times the same value is the value once with weight n (but
for jitter, which is about neighbours).
"""

from collections import OrderedDict
from math import ceil, isqrt
from typing import Final

MAX_EXACT: Final = 65_536
"""Distinct values that are kept as they are: about 5 MiB. Beyond it, values are rounded to `PRECISION_BITS`."""

PRECISION_BITS: Final = 11
"""Leading bits of a value that rounding keeps: an error below 0.05 %."""

_PAIRS_KEPT: Final = 1024
"""Round-trip times that wait for their neighbour in sequence."""

_JITTER_GAIN: Final = 16
"""RFC 3550, 6.4.1."""


class Latency:
    """Moments and quantiles of times in ns."""

    def __init__(self) -> None:
        """Begin without any."""
        self.count = 0
        self.min = self.max = 0
        self._sum = self._squares = 0
        self._weights: dict[int, int] = {}
        self._exact = True

    def add(self, value: int, weight: int = 1) -> None:
        """Take a time, as often as `weight` says."""
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
        """Return the mean; zero without any."""
        return self._sum / self.count if self.count else 0.0

    @property
    def deviation(self) -> float:
        """Return the standard deviation of the whole, which ping calls mdev; zero without any."""
        if not self.count:
            return 0.0
        return isqrt(self.count * self._squares - self._sum * self._sum) / self.count

    def quantile(self, fraction: float) -> int:
        """Return the least time that this fraction of all does not exceed; zero without any.

        So it is a time that occurred (numpy's method "inverted_cdf"); after more than `MAX_EXACT` distinct ones, one
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
        """Return each distinct time and how often it occurred, by ascending time."""
        return sorted(self._weights.items())

    def _round_all(self) -> None:
        self._exact = False
        weights, self._weights = self._weights, {}
        for value, weight in weights.items():
            value = _rounded(value)  # noqa: PLW2901 - the rounded one is what counts from here on
            self._weights[value] = self._weights.get(value, 0) + weight


def _rounded(value: int) -> int:
    """Keep the leading bits, in the middle of what they stand for."""
    shift = value.bit_length() - PRECISION_BITS
    return value if shift <= 0 else (value >> shift << shift) + (1 << (shift - 1))


class Variation:
    """How round-trip times differ from one probe to the next, in ns.

    `jitter` is RFC 3550's running estimate over replies in the order of their arrival. Delay variation is RFC 3393's
    IPDV between probes that follow each other in sequence and were both answered, whichever reply came first: `pairs`
    of them, `sum` and `max` of its size with the sign left out.
    """

    def __init__(self) -> None:
        """Begin without any."""
        self.jitter = 0.0
        self.count = 0
        self.pairs = 0
        self.sum = 0
        self.max = 0
        self._previous: int | None = None
        self._recent: OrderedDict[int, int] = OrderedDict()

    def add(self, index: int, rtt: int) -> None:
        """Take the round-trip time of the first reply to the probe of that index; indices count without gaps."""
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
        """Return the mean size of the delay variation, its sign left out; zero without pairs."""
        return self.sum / self.pairs if self.pairs else 0.0

    def merge(self, other: "Variation") -> None:
        """Take the numbers of another stream; jitter becomes the mean, weighted by replies."""
        self.count += other.count
        self.jitter += (other.jitter - self.jitter) * other.count / max(1, self.count)
        self.pairs += other.pairs
        self.sum += other.sum
        self.max = max(self.max, other.max)
