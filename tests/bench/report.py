"""The figures as text: a table for each group, in aligned columns.

Pure: takes rows, returns lines. Invariant: every row that was asked for is shown, with its figures or with the reason
why there are none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from .figures import Missing, Row


@dataclass(frozen=True, slots=True)
class Column:
    """How a metric is shown."""

    words: str
    digits: int
    ratio: bool = False
    """Beside the yardstick, too."""
    spread: bool = False
    """With lowest and highest; the others by their median, and in full in the JSON."""


COLUMNS = {
    "cpu_us": Column("CPU us each", 3, ratio=True, spread=True),
    "machine_us": Column("machine us each", 2, ratio=True),
    "frames_per_second": Column("frames/s", 0),
    "replies_per_second": Column("replies/s", 0),
    "busy": Column("busy", 2),
    "p50_us": Column("p50 us", 1, ratio=True, spread=True),
    "p99_us": Column("p99 us", 1, ratio=True, spread=True),
    "p999_us": Column("p99.9 us", 0, ratio=True),
    "pss_mib": Column("PSS MiB", 1, ratio=True, spread=True),
    "ready_seconds": Column("first reply s", 3, ratio=True, spread=True),
    "wakeups_per_second": Column("wake-ups/s", 2, spread=True),
    "cpu_ms_per_second": Column("CPU ms/s", 3),
}
"""In the order in which they are shown."""


def tables(rows: Sequence[Row], missing: Sequence[Missing]) -> list[str]:
    """Lay out all groups; the footprint, which has other figures, in a table of its own."""
    lines: list[str] = []
    for group in dict.fromkeys([row.group for row in rows] + [one.group for one in missing]):
        mine = [row for row in rows if row.group == group]
        for metrics in dict.fromkeys(tuple(row.metrics) for row in mine):
            lines += ["", *_table([row for row in mine if tuple(row.metrics) == metrics])]
        for one in missing:
            if one.group == group:
                known = any((row.work, row.server) == (one.work, one.server) for row in mine)
                again = " any more, in a later pair" if known else ""
                lines.append(f"{one.work or group}  {one.server}  not measured{again}: {one.reason}")
    return lines


def _table(rows: Sequence[Row]) -> list[str]:
    columns = {name: column for name, column in COLUMNS.items() if name in rows[0].metrics}
    ratios = [name for name, column in columns.items() if column.ratio]
    loads = any(row.sent for row in rows)
    heading = [rows[0].group, "server", "pairs"]
    heading += [f"{columns[name].words} / {rows[0].yardstick}" for name in ratios]
    heading += [column.words for column in columns.values()] + (["loss", "corrupt", "refused"] if loads else [])
    cells = [heading]
    for row in rows:
        line = [row.work, row.server, str(row.pairs)]
        line += [row.ratios[name].text(3) if name in row.ratios else "-" for name in ratios]
        for name, column in columns.items():
            spread = row.metrics[name]
            line.append(spread.text(column.digits) if column.spread else f"{spread.median:,.{column.digits}f}")
        cells.append(line + ([f"{row.loss:.3%}", str(row.corrupt), str(row.refused)] if loads else []))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    names = 2  # the first columns are words and stand left, the others are figures
    return [
        "  ".join(
            cell.ljust(width) if column < names else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]
