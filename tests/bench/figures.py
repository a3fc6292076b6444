"""From single runs to the figures shown: medians, and ratios within a pair.

Pure: measures nothing, prints nothing. Invariant: a ratio is always of two runs of the same pair and work, seconds
apart, so that what else the host did weighs on both.
"""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What became of datagrams or messages, in one run or in several."""

    sent: int = 0
    received: int = 0
    lost: int = 0
    late: int = 0
    corrupt: int = 0
    refused: int = 0


def summed(several: Sequence[Counts]) -> dict[str, int]:
    """Return the sum of each count, by its name."""
    return {each.name: sum(getattr(one, each.name) for one in several) for each in fields(Counts)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Counts):
    """One server under one work, once."""

    group: str
    pair: int
    work: str
    server: str
    yardstick: str
    """The server whose figures are 1 in this group."""
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A row that has no figures, and why."""

    group: str
    work: str
    server: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The middle of several measurements and how far they lie apart."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Summarise at least one value."""
        known = list(values)
        return cls(median=statistics.median(known), low=min(known), high=max(known))

    def text(self, digits: int) -> str:
        """Write the median with the range behind it."""
        return f"{self.median:,.{digits}f} ({self.low:,.{digits}f} to {self.high:,.{digits}f})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(Counts):
    """One line of the table: a server under one work, over all pairs."""

    group: str
    work: str
    server: str
    yardstick: str
    metrics: dict[str, Spread]
    pairs: int
    """In how many it was measured; fewer than the others have, it failed in the rest."""
    ratios: dict[str, Spread]
    """To the yardstick, of each metric that it has too."""

    @property
    def loss(self) -> float:
        """Part of what was sent that did not come back exactly."""
        return self.lost / self.sent if self.sent else 0.0


def rows_of(runs: Sequence[Run]) -> list[Row]:
    """Summarise the runs by group, work and server, in the order in which they were first measured."""
    yardsticks = {(run.group, run.pair, run.work): run.metrics for run in runs if run.server == run.yardstick}
    keys = dict.fromkeys((run.group, run.work, run.server) for run in runs)
    return [_row([run for run in runs if (run.group, run.work, run.server) == key], yardsticks) for key in keys]


def _row(runs: Sequence[Run], yardsticks: dict[tuple[str, int, str], dict[str, float]]) -> Row:
    first = runs[0]
    ratios: dict[str, list[float]] = {}
    for run in runs:
        beside = yardsticks.get((run.group, run.pair, run.work), {})
        for name, value in run.metrics.items():
            if beside.get(name):
                ratios.setdefault(name, []).append(value / beside[name])
    return Row(
        group=first.group,
        work=first.work,
        server=first.server,
        yardstick=first.yardstick,
        metrics={name: Spread.of(run.metrics[name] for run in runs if name in run.metrics) for name in first.metrics},
        pairs=len(runs),
        ratios={name: Spread.of(values) for name, values in ratios.items()},
        **summed(runs),
    )
