"""Charts in text: a histogram, a sparkline.

Owns their layout. Invariant: each count is in exactly one bar, and no line exceeds the given width.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import log10
from typing import Final

_EIGHTHS: Final = " ▏▎▍▌▋▊▉"
_LEVELS: Final = "▁▂▃▄▅▆▇█"
GAP: Final = "!"
"""The character for a missing value in a sparkline."""

_WIDE: Final = 8.0
"""Above this ratio of largest to smallest value, the bars have a logarithmic scale."""

_LABEL: Final = 31
"""Characters before the bars."""


def edges(weights: Sequence[tuple[int, int]], bins: int) -> list[int]:
    """Return the bounds of at most `bins` bars, from the least value to above the greatest; values in ns, sorted."""
    low, high = max(1, weights[0][0]), weights[-1][0] + 1
    if high / low > _WIDE:
        step = log10(high / low) / bins
        found = [round(low * 10 ** (step * index)) for index in range(bins)]
    else:
        found = [low + (high - low) * index // bins for index in range(bins)]
    return sorted({min(low, weights[0][0]), *found[1:], high})


def histogram(weights: Sequence[tuple[int, int]], *, bins: int, width: int) -> list[str]:
    """Return lines, one for each bar: from, to (ms), count, bar. `weights` are values in ns and counts, sorted."""
    if not weights:
        return []
    bounds = edges(weights, bins)
    counts = [sum(n for value, n in weights if low <= value < high) for low, high in pairwise(bounds)]
    most, room = max(counts), max(1, width - _LABEL)
    return [
        f"{low / 1e6:9.3f} .. {high / 1e6:9.3f} {count:>7} {_bar(count / most * room)}".rstrip()
        for (low, high), count in zip(pairwise(bounds), counts, strict=True)
    ]


def _bar(length: float) -> str:
    whole, eighths = divmod(round(length * 8), 8)
    return "█" * whole + _EIGHTHS[eighths].strip()


def sparkline(values: Sequence[int | None]) -> str:
    """Return one character for each value: a bar scaled between the least and the greatest, `GAP` for None."""
    known = [value for value in values if value is not None]
    low = min(known, default=0)
    span = max(known, default=0) - low
    top = len(_LEVELS) - 1
    return "".join(GAP if value is None else _LEVELS[(value - low) * top // span if span else 0] for value in values)
