"""Charts in text: a histogram, a sparkline.

Owns their layout and characters. Invariant: each count is in exactly one bar, and no line exceeds the given width.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import log10
from typing import Final

_EIGHTHS: Final = " ▏▎▍▌▋▊▉"
_LEVELS: Final = "▁▂▃▄▅▆▇█"
_PLAIN_LEVELS: Final = "_.:-=+*#"
GAP: Final = "!"
"""The character for a missing value in a sparkline."""

_WIDE: Final = 8.0
"""Above this ratio of largest to smallest value, the bars have a logarithmic scale."""

_LABEL: Final = 31
"""Characters before the bars."""


def has_blocks(encoding: str) -> bool:
    """Tell whether a stream of this encoding can carry the characters that bars are drawn with by default."""
    try:
        (_EIGHTHS + _LEVELS).encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def edges(weights: Sequence[tuple[int, int]], bins: int) -> list[int]:
    """Return the bounds of at most `bins` bars, from the least value to above the greatest; values in ns, sorted."""
    low, high = max(1, weights[0][0]), weights[-1][0] + 1
    if high / low > _WIDE:
        step = log10(high / low) / bins
        found = [round(low * 10 ** (step * index)) for index in range(bins)]
    else:
        found = [low + (high - low) * index // bins for index in range(bins)]
    return sorted({min(low, weights[0][0]), *found[1:], high})


def histogram(weights: Sequence[tuple[int, int]], *, bins: int, width: int, plain: bool = False) -> list[str]:
    """Return lines, one for each bar: from, to (ms), count, bar; in ASCII where they shall be `plain`.

    `weights` are values in ns and counts, sorted.
    """
    if not weights:
        return []
    bounds = edges(weights, bins)
    counts = [sum(n for value, n in weights if low <= value < high) for low, high in pairwise(bounds)]
    most, room = max(counts), max(1, width - _LABEL)
    return [
        f"{low / 1e6:9.3f} .. {high / 1e6:9.3f} {count:>7} {_bar(count / most * room, plain=plain)}".rstrip()
        for (low, high), count in zip(pairwise(bounds), counts, strict=True)
    ]


def _bar(length: float, *, plain: bool) -> str:
    if plain:
        return "#" * round(length)
    whole, eighths = divmod(round(length * 8), 8)
    return "█" * whole + _EIGHTHS[eighths].strip()


def sparkline(values: Sequence[int | None], *, plain: bool = False) -> str:
    """Return one character for each value: a bar scaled between the least and the greatest, `GAP` for None."""
    levels = _PLAIN_LEVELS if plain else _LEVELS
    known = [value for value in values if value is not None]
    low = min(known, default=0)
    span = max(known, default=0) - low
    top = len(levels) - 1
    return "".join(GAP if value is None else levels[(value - low) * top // span if span else 0] for value in values)
