"""The live table on a terminal: one line for each target, redrawn while the run lasts.

Owns the layout of the table, which rich draws, and how often it is drawn. Never counts: it reads statistics. Invariant:
it writes to the given stream only, and erases the table at the end, where the statistics follow.
"""

from collections import deque
from collections.abc import Sequence
from time import monotonic_ns
from typing import Any, Final, TextIO

from echod.measurement.events import Event, Kind
from echod.net.mode import Mode
from echod.ping.charts import sparkline, supports_blocks
from echod.ping.text import duration
from echod.ping.values import short_percentage
from echod.probes.session import Session

PERIOD: Final = 200_000_000
"""Ns between two drawings: short enough to follow, long enough not to delay probes."""

SPARKS: Final = 30
"""Values of the sparkline."""

_TITLES: Final = ("sent", "loss", "last", "avg", "best", "worst", "jitter")
_LOST_TITLES: Final = ("out", "back")
"""Losses by direction, if a target may report them."""
_MIN_WIDTHS: Final = (5, 6, 5, 5, 5, 5, 6, 5, 5)
"""Width of each column: no column moves while times stay below ten seconds."""
_MIN_NAME: Final = 20
"""Width of the name column, below which columns are removed instead."""


class LiveTable:
    """A live table of all targets."""

    def __init__(self, err: TextIO, sessions: Sequence[Session]) -> None:
        """Start to draw on a terminal. Raises ImportError if rich is not installed."""
        from rich.console import Console  # noqa: PLC0415 - slow to load, and optional
        from rich.live import Live as Display  # noqa: PLC0415

        self._sessions = sessions
        self._plain = not supports_blocks(err.encoding)
        self._recent: dict[int, deque[int | None]] = {id(each): deque(maxlen=SPARKS) for each in sessions}
        self._next = 0
        self._display: Any = Display(console=Console(file=err), auto_refresh=False, transient=True)
        self._display.start()

    def take(self, session: Session, event: Event) -> None:
        """Add an event to the sparkline of its target: a round-trip time, or a missing value."""
        if event.kind is Kind.REPLY:
            self._recent[id(session)].append(event.rtt)
        elif event.kind in (Kind.LOST, Kind.ERROR):
            self._recent[id(session)].append(None)

    def refresh(self, now: int) -> int:
        """Draw the table if it is due; return when it is due next. Times are monotonic, in ns."""
        if now >= self._next:
            self._display.update(self._table(), refresh=True)
            self._next = monotonic_ns() + PERIOD
        return self._next

    def close(self) -> None:
        """Erase the table."""
        self._display.stop()

    def _table(self) -> Any:  # noqa: ANN401 - rich's
        from rich.text import Text  # noqa: PLC0415 - as above

        names = ["target", *(str(session.target) for session in self._sessions)]
        rows = [_TITLES, *(_cells(session, self._recent[id(session)]) for session in self._sessions)]
        if any(session.mode is not Mode.ECHO for session in self._sessions):
            lost = [_LOST_TITLES, *(_lost(session) for session in self._sessions)]
            rows = [(*cells, *more) for cells, more in zip(rows, lost, strict=True)]
        lines, left = lay_out(names, rows, self._display.console.width)
        for number, session in enumerate(self._sessions, start=1):
            recent = list(self._recent[id(session)])[-left:] if left else []
            lines[number] += sparkline(recent, plain=self._plain)
        return Text("\n".join(lines), no_wrap=True, overflow="crop")


def lay_out(names: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> tuple[list[str], int]:
    """Return a line for each name and its cells, and the width that is left on each for a sparkline.

    A cell is never cut. If the terminal is too narrow, first the names lose their middle, then the last columns go.
    """
    longest = max(map(len, names))
    least = min(longest, _MIN_NAME)
    gap = used = 0
    shown: list[int] = []
    for gap, count in ((2, len(rows[0])), *((1, count) for count in range(len(rows[0]), 0, -1))):
        shown = [max(_MIN_WIDTHS[at], *(len(row[at]) for row in rows)) for at in range(count)]
        used = sum(shown) + gap * count
        if used + least <= width:
            break
    room = min(longest, max(least, width - used))
    between = " " * gap
    lines = []
    for name, row in zip(names, rows, strict=True):
        cells = (cell.rjust(size) for cell, size in zip(row, shown, strict=False))
        lines.append(between.join((_shorten(name, room).ljust(room), *cells, "")))
    return lines, max(0, width - used - room - gap)


def _shorten(name: str, room: int) -> str:
    half = (room - 2) // 2
    return name if len(name) <= room else f"{name[: room - 2 - half]}..{name[-half:]}"


def _lost(session: Session) -> tuple[str, ...]:
    """Return how many probes were lost on the way out, and how many replies on the way back, if that is known."""
    lost = session.statistics.lost_by_direction
    return tuple(str(number) for number in lost) if lost else ("-", "-")


def _cells(session: Session, recent: Sequence[int | None]) -> tuple[str, ...]:
    """Return the text of each column of a target."""
    statistics, latency = session.statistics, session.statistics.latency
    last = next((_time(rtt) for rtt in reversed(recent) if rtt is not None), "-")
    times = (latency.mean, latency.min, latency.max, statistics.variation.jitter)
    loss = "-" if statistics.loss is None else short_percentage(statistics.loss)
    return str(statistics.sent), loss, last, *(_time(time) if latency.count else "-" for time in times)


def _time(nanoseconds: float) -> str:
    """Format a time in ms, with as many digits as the lines of replies have."""
    return duration(round(nanoseconds)).removesuffix(" ms")
