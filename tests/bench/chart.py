"""The figures as a picture: CPU time beside the yardstick, for each work and server.

Needs matplotlib, of the `bench` extra, and imports it when it draws. Invariant: what it shows is in the table too.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .figures import Row
from .process import CannotMeasure
from .servers import ECHOD

WORST_SHOWN = 8.0
"""A bar that is longer is cut, with its figure at the end: one slow peer would flatten all others."""


def draw(rows: Sequence[Row], into: Path) -> None:
    """Write an SVG of the groups `udp` and `tcp`. Raises `CannotMeasure` without matplotlib, or without such rows."""
    shown = [row for row in rows if row.group in ("udp", "tcp") and "cpu_us" in row.ratios]
    if not shown:
        raise CannotMeasure("The chart shows the groups udp and tcp, and neither was measured.")
    try:
        matplotlib: Any = importlib.import_module("matplotlib")
        matplotlib.use("svg")
        pyplot: Any = importlib.import_module("matplotlib.pyplot")
    except ImportError as missing:
        raise CannotMeasure("The chart needs matplotlib: pip install -e '.[bench]'") from missing
    matplotlib.rcParams["svg.hashsalt"] = "echod"  # the same figures make the same file
    works = list(dict.fromkeys(row.work for row in shown))
    columns = 3
    lines = -(-len(works) // columns)
    figure, grid = pyplot.subplots(lines, columns, figsize=(12, 2.3 * lines), squeeze=False)
    for axes in grid.flat[len(works) :]:
        axes.set_visible(False)
    for axes, work in zip(grid.flat, works, strict=False):
        _draw_work(axes, [row for row in shown if row.work == work])
    figure.suptitle("Server CPU time of each reply, plain C loop = 1 (lower is better; median, lowest, highest)")
    figure.tight_layout()
    figure.savefig(into, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def _draw_work(axes: Any, rows: Sequence[Row]) -> None:  # noqa: ANN401 - matplotlib is not always there
    """Draw one bar for each server; pale is who lost or corrupted something."""
    longest = min(WORST_SHOWN, 1.25 * max(row.ratios["cpu_us"].median for row in rows))
    for at, row in enumerate(reversed(rows)):
        spread = row.ratios["cpu_us"]
        marred = row.corrupt > 0 or row.lost > 0 or row.refused > 0
        colour = "#1f6f8b" if row.server == ECHOD.name else "#9aa5ab"
        axes.barh(at, min(spread.median, longest), color=colour, alpha=0.4 if marred else 1.0)
        axes.plot([min(spread.low, longest), min(spread.high, longest)], [at, at], color="black", linewidth=0.8)
        text = f" {spread.median:.2f}" + (" (lossy)" if marred else "")
        axes.text(min(max(spread.median, spread.high), longest), at, text, va="center", fontsize=7)
    axes.set_yticks(range(len(rows)), [row.server for row in reversed(rows)], fontsize=7)
    axes.tick_params(axis="x", labelsize=7)
    axes.axvline(1.0, color="black", linewidth=0.6, linestyle=":")
    axes.set_xlim(0, longest * 1.3)
    axes.set_title(rows[0].work, fontsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
