"""One refreshing line for each target, on a terminal.

Owns the table, drawn by rich, and its rhythm. Never counts: it reads surveys. Invariant: it writes to the stream that
it was given, and what it leaves behind when it ends is nothing, for the statistics follow.
"""

from collections import deque
from collections.abc import Sequence
from time import monotonic_ns
from typing import Any, Final, TextIO

from echod.measurement.events import Event, Kind
from echod.ping.charts import has_blocks, sparkline
from echod.ping.text import duration
from echod.ping.values import short_percentage
from echod.probes.interfaces import Subject

PERIOD: Final = 200_000_000
"""Ns between two drawings: quick enough to follow, slow enough not to be in the way of the probes."""

SPARKS: Final = 30

_TITLES: Final = ("sent", "loss", "last", "avg", "best", "worst", "jitter")
_LEAST: Final = (5, 6, 5, 5, 5, 5, 6)
"""Characters of each column, so that none moves while times below ten seconds change."""
_LEAST_NAME: Final = 20
"""Characters of the longest name that are shown rather than a further column."""


class Live:
    """The table."""

    def __init__(self, err: TextIO, subjects: Sequence[Subject]) -> None:
        """Draw to a terminal. Raises ImportError where rich is not installed."""
        from rich.console import Console  # noqa: PLC0415 - slow to load, and not always there
        from rich.live import Live as Display  # noqa: PLC0415

        self._subjects = subjects
        self._plain = not has_blocks(err.encoding)
        self._recent: dict[int, deque[int | None]] = {id(each): deque(maxlen=SPARKS) for each in subjects}
        self._next = 0
        self._display: Any = Display(console=Console(file=err), auto_refresh=False, transient=True)
        self._display.start()

    def take(self, subject: Subject, event: Event) -> None:
        """Keep what the sparkline shows."""
        if event.kind is Kind.REPLY:
            self._recent[id(subject)].append(event.rtt)
        elif event.kind in (Kind.LOST, Kind.ERROR):
            self._recent[id(subject)].append(None)

    def turn(self, now: int) -> int:
        """Draw if it is time; return when it is again."""
        if now >= self._next:
            self._display.update(self._table(), refresh=True)
            self._next = monotonic_ns() + PERIOD
        return self._next

    def close(self) -> None:
        """Take the table away."""
        self._display.stop()

    def _table(self) -> Any:  # noqa: ANN401 - rich's
        from rich.text import Text  # noqa: PLC0415 - as above

        names = ["target", *(str(subject.target) for subject in self._subjects)]
        rows = [_TITLES, *(_figures(subject, self._recent[id(subject)]) for subject in self._subjects)]
        lines, left = lay_out(names, rows, self._display.console.width)
        for number, subject in enumerate(self._subjects, start=1):
            recent = list(self._recent[id(subject)])[-left:] if left else []
            lines[number] += sparkline(recent, plain=self._plain)
        return Text("\n".join(lines), no_wrap=True, overflow="crop")


def lay_out(names: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> tuple[list[str], int]:
    """Return a line for each name and its figures, and how many characters are left on each for a chart.

    A figure is never cut. Where there is no room, names lose their middle, and then the last columns go.
    """
    longest = max(map(len, names))
    least = min(longest, _LEAST_NAME)
    gap = used = 0
    shown: list[int] = []
    for gap, count in ((2, len(_TITLES)), *((1, count) for count in range(len(_TITLES), 0, -1))):
        shown = [max(_LEAST[at], *(len(row[at]) for row in rows)) for at in range(count)]
        used = sum(shown) + gap * count
        if used + least <= width:
            break
    room = min(longest, max(least, width - used))
    between = " " * gap
    lines = []
    for name, row in zip(names, rows, strict=True):
        figures = (figure.rjust(size) for figure, size in zip(row, shown, strict=False))
        lines.append(between.join((_cut(name, room).ljust(room), *figures, "")))
    return lines, max(0, width - used - room - gap)


def _cut(name: str, room: int) -> str:
    half = (room - 2) // 2
    return name if len(name) <= room else f"{name[: room - 2 - half]}..{name[-half:]}"


def _figures(subject: Subject, recent: Sequence[int | None]) -> list[str]:
    """Return the text of each column."""
    survey, latency = subject.survey, subject.survey.latency
    last = next((_time(rtt) for rtt in reversed(recent) if rtt is not None), "-")
    times = (latency.mean, latency.min, latency.max, survey.variation.jitter)
    loss = "-" if survey.loss is None else short_percentage(survey.loss)
    return [str(survey.sent), loss, last, *(_time(time) if latency.count else "-" for time in times)]


def _time(nanoseconds: float) -> str:
    """Write a time in ms, with as many digits as the lines have."""
    return duration(round(nanoseconds)).removesuffix(" ms")
