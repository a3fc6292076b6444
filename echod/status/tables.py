"""Tables for people, in aligned columns, and how a size and a duration are written.

Owns that form; it knows nothing that is shown. Invariant: every cell of every row is written.
"""

from dataclasses import dataclass
from typing import Final

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_KIBI: Final = 1024
MANY: Final = 100
"""A rate or an amount of this size or more is written without decimals."""

GAP: Final = "  "
"""The text between two columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of one kind. The first `left` columns are text, the others numbers."""

    head: tuple[str, ...]
    left: int
    rows: tuple[tuple[str, ...], ...]
    alarming: frozenset[int] = frozenset()
    """Columns in which anything but 0 indicates a problem."""
    wanted: frozenset[tuple[int, int]] = frozenset()
    """The row and the column of cells in them that say what the config demands."""
    legend: tuple[str, ...] = ()


def duration(seconds: float) -> str:
    """Write a duration as `uptime` does: days, then hours, minutes and seconds."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    clock = f"{hour:02}:{minute:02}:{second:02}"
    return f"{days} d {clock}" if days else clock


def size(octets: float) -> str:
    """Write a number of bytes with its unit."""
    unit = 0
    while octets >= _KIBI and unit < len(_UNITS) - 1:
        octets, unit = octets / _KIBI, unit + 1
    decimals = 1 if unit and octets < MANY else 0
    return f"{octets:.{decimals}f} {_UNITS[unit]}"


def aligned(table: Table) -> list[list[str]]:
    """Return the head and the rows, each cell as wide as its column."""
    widths = [max(map(len, column)) for column in zip(table.head, *table.rows, strict=True)]
    return [
        [
            cell.ljust(width) if index < table.left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in (table.head, *table.rows)
    ]


def table_text(table: Table) -> str:
    """Write it as lines, with its legend."""
    lines = [GAP.join(cells).rstrip() for cells in aligned(table)]
    return "\n".join([*lines, *table.legend])
