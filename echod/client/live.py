"""One refreshing line for each target, on a terminal.

Owns the table, drawn by rich, and its rhythm. Never counts: it reads surveys. Invariant: it writes to the stream that
it was given, and what it leaves behind when it ends is nothing, for the statistics follow.
"""

from collections import deque
from collections.abc import Sequence
from time import monotonic_ns
from typing import Any, Final, TextIO

from echod.client.subject import Subject
from echod.core.bars import has_blocks, sparkline
from echod.core.events import Event, Kind

PERIOD: Final = 200_000_000
"""Ns between two drawings: quick enough to follow, slow enough not to be in the way of the probes."""

SPARKS: Final = 30


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
        elif event.kind in (Kind.LOST, Kind.REFUSED):
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
        from rich.table import Table  # noqa: PLC0415 - as above

        table = Table(box=None, pad_edge=False)
        for title in ("target", "sent", "loss", "last", "avg", "best", "worst", "jitter"):
            table.add_column(title, justify="left" if title == "target" else "right", no_wrap=True)
        table.add_column("", no_wrap=True)
        for subject in self._subjects:
            table.add_row(*self._row(subject))
        return table

    def _row(self, subject: Subject) -> list[str]:
        survey, recent = subject.survey, self._recent[id(subject)]
        latency = survey.latency
        last = next((f"{rtt / 1e6:.3f}" for rtt in reversed(recent) if rtt is not None), "-")
        times = (latency.mean, latency.min, latency.max, survey.variation.jitter)
        shown = [f"{time / 1e6:.3f}" if latency.count else "-" for time in times]
        loss = "-" if survey.loss is None else f"{100 * survey.loss:.1f}%"
        name = str(subject.target).replace("[", r"\[")
        return [name, str(survey.sent), loss, last, *shown, sparkline(list(recent), plain=self._plain)]
