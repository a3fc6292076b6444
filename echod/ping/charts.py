"""Text charts: histogram and sparkline.

Owns their layout and characters. Never prints. Invariant: each count is in exactly one bar, and no line is wider than
the given width, if that is at least 32 and the values are below 100 s.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import log10
from typing import Final

_EIGHTHS: Final = " ▏▎▍▌▋▊▉"
_LEVELS: Final = "▁▂▃▄▅▆▇█"
_PLAIN_LEVELS: Final = "_.:-=+*#"
MISSING: Final = "!"
"""The character for a missing value in a sparkline."""

_LOG_RATIO: Final = 8.0
"""Above this ratio of greatest to least value, the bins have a logarithmic scale."""

_LABEL: Final = 31
"""Width of the label before a bar, in columns."""


def supports_blocks(encoding: str) -> bool:
    """Return whether an encoding has the block characters that bars and sparklines are drawn with."""
    try:
        (_EIGHTHS + _LEVELS).encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def bin_edges(weights: Sequence[tuple[int, int]], bins: int) -> list[int]:
    """Return the edges of at most `bins` bins in ns, from the least value to above the greatest.

    `weights` are as in `histogram`. A value of zero makes one more bin.
    """
    low, high = max(1, weights[0][0]), weights[-1][0] + 1
    if high / low > _LOG_RATIO:
        step = log10(high / low) / bins
        found = [round(low * 10 ** (step * index)) for index in range(bins)]
    else:
        found = [low + (high - low) * index // bins for index in range(bins)]
    return sorted({min(low, weights[0][0]), *found[1:], high})


def histogram(weights: Sequence[tuple[int, int]], *, bins: int, width: int, plain: bool = False) -> list[str]:
    """Return a line for each bin: from, to (ms), count and bar; `plain` draws the bars in ASCII.

    `weights` are pairs of a value in ns and its count, sorted by value.
    """
    if not weights:
        return []
    edges = bin_edges(weights, bins)
    counts = [sum(n for value, n in weights if low <= value < high) for low, high in pairwise(edges)]
    greatest, room = max(counts), max(1, width - _LABEL)
    return [
        f"{low / 1e6:9.3f} .. {high / 1e6:9.3f} {count:>7} {_bar(count / greatest * room, plain=plain)}".rstrip()
        for (low, high), count in zip(pairwise(edges), counts, strict=True)
    ]


def _bar(length: float, *, plain: bool) -> str:
    if plain:
        return "#" * round(length)
    whole, eighths = divmod(round(length * 8), 8)
    return "█" * whole + _EIGHTHS[eighths].strip()


def sparkline(values: Sequence[int | None], *, plain: bool = False) -> str:
    """Return one character for each value: a bar scaled from the least to the greatest, `MISSING` for None."""
    levels = _PLAIN_LEVELS if plain else _LEVELS
    known = [value for value in values if value is not None]
    low = min(known, default=0)
    span = max(known, default=0) - low
    top = len(levels) - 1
    return "".join(MISSING if value is None else levels[(value - low) * top // span if span else 0] for value in values)
