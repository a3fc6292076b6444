"""The figures as text: a table for each group, in aligned columns.

Pure: takes rows, returns lines. Invariant: every row that was asked for is shown, with its figures or with the reason
why there are none.
"""

from collections.abc import Sequence

from .figures import Missing, Row

DIGITS = {
    "cpu_us": 3,
    "machine_us": 2,
    "replies_per_second": 0,
    "busy": 2,
    "p50_us": 1,
    "p99_us": 1,
    "p999_us": 0,
    "pss_mib": 1,
    "ready_seconds": 3,
    "wakeups_per_second": 2,
    "cpu_ms_per_second": 3,
}
"""Of each metric, in the order in which they are shown."""

WORDS = {
    "cpu_us": "CPU us each",
    "machine_us": "machine us each",
    "replies_per_second": "replies/s",
    "busy": "busy",
    "p50_us": "p50 us",
    "p99_us": "p99 us",
    "p999_us": "p99.9 us",
    "pss_mib": "PSS MiB",
    "ready_seconds": "first reply s",
    "wakeups_per_second": "wake-ups/s",
    "cpu_ms_per_second": "CPU ms/s",
}

SPREAD = ("cpu_us", "p50_us", "p99_us", "pss_mib", "ready_seconds", "wakeups_per_second")
"""Shown with lowest and highest; the others by their median, and in full in the JSON."""

RATIOS = ("cpu_us", "p50_us", "p99_us", "p999_us", "pss_mib", "ready_seconds")
"""Shown beside the yardstick."""


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
    metrics = [name for name in DIGITS if name in rows[0].metrics]
    ratios = [name for name in RATIOS if name in rows[0].metrics]
    loads = any(row.sent for row in rows)
    heading = [rows[0].group, "server", "pairs"]
    heading += [f"{WORDS[name]} / {rows[0].yardstick}" for name in ratios]
    heading += [WORDS[name] for name in metrics] + (["loss", "corrupt", "refused"] if loads else [])
    cells = [heading]
    for row in rows:
        line = [row.work, row.server, str(row.pairs)]
        line += [row.ratios[name].text(3) if name in row.ratios else "-" for name in ratios]
        for name in metrics:
            spread, digits = row.metrics[name], DIGITS[name]
            line.append(spread.text(digits) if name in SPREAD else f"{spread.median:,.{digits}f}")
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
