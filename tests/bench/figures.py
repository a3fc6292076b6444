"""From single runs to the figures shown: medians, ratios within a pair, the table and the targets.

Pure: measures nothing, prints nothing. Invariant: a ratio or difference is always of two runs of the same pair, a
second or two apart, so that what else the host did weighs on both.
"""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .load import BURSTS, CLIENTS, STRANGERS, TRAINS, Case, Traffic
from .servers import ECHOD

YARDSTICK = "udp_loop"
"""The server whose cost is 1: plain recvfrom and sendto in C."""

RATIO_MAX = {CLIENTS: 1.25, BURSTS: 0.9, TRAINS: 0.1}
"""What echod may cost beside it under each kind of traffic."""

RULES_CASES = (CLIENTS, STRANGERS)
"""Traffic that the rules are measured under: of peers that are known, and of peers that are not."""

RULES_MICROSECONDS_MAX = 0.5
RULES_RATE_LOSS_MAX = 0.15
"""What the rules may cost a datagram, and take of the datagrams that a second of CPU time answers without them."""

PSS_MIB_MAX = 48.0
READY_SECONDS_MAX = 1.0

MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One server under one kind of traffic, once."""

    pair: int
    case: str
    server: str
    cpu_ns: int
    traffic: Traffic

    @property
    def microseconds(self) -> float:
        """CPU time of the server per echoed datagram."""
        return self.cpu_ns / self.traffic.received / 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What one start of echod took."""

    processes: int
    pss_bytes: int
    ready_seconds: float


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
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table: a server under one kind of traffic, over all pairs."""

    case: str
    server: str
    microseconds: Spread
    added_microseconds: Spread
    """More than the yardstick took."""
    ratio: Spread
    """To what the yardstick took."""
    replies_per_second: float
    utilisation: float
    """CPU time of the server over elapsed time; well below 1, the load was the slower of the two."""
    sent: int
    received: int
    lost: int
    late: int
    corrupt: int


def rows_of(runs: Sequence[Run], yardstick: str) -> list[Row]:
    """Summarise the runs by case and server, in the order in which they were first measured."""
    costs = {(run.pair, run.case): run.microseconds for run in runs if run.server == yardstick}
    keys = dict.fromkeys((run.case, run.server) for run in runs)
    return [_row([run for run in runs if (run.case, run.server) == key], costs) for key in keys]


def _row(runs: Sequence[Run], yardstick: dict[tuple[int, str], float]) -> Row:
    traffic = [run.traffic for run in runs]
    return Row(
        case=runs[0].case,
        server=runs[0].server,
        microseconds=Spread.of(run.microseconds for run in runs),
        added_microseconds=Spread.of(run.microseconds - yardstick[run.pair, run.case] for run in runs),
        ratio=Spread.of(run.microseconds / yardstick[run.pair, run.case] for run in runs),
        replies_per_second=statistics.median(one.received / one.elapsed_ns * 1e9 for one in traffic),
        utilisation=statistics.median(run.cpu_ns / run.traffic.elapsed_ns for run in runs),
        sent=sum(one.sent for one in traffic),
        received=sum(one.received for one in traffic),
        lost=sum(one.lost for one in traffic),
        late=sum(one.late for one in traffic),
        corrupt=sum(one.corrupt for one in traffic),
    )


def table(rows: Sequence[Row], yardstick: str) -> list[str]:
    """Lay the rows out in aligned columns, one line each, under a heading."""
    more, ratio = f"us more than {yardstick}", f"ratio to {yardstick}"
    heading = ("case", "server", "CPU us/datagram", more, ratio, "replies/s", "busy", "loss", "corrupt")
    cells = [heading] + [
        (
            row.case,
            row.server,
            row.microseconds.text(3),
            row.added_microseconds.text(3),
            row.ratio.text(3),
            f"{row.replies_per_second:,.0f}",
            f"{row.utilisation:.0%}",
            f"{row.lost / row.sent:.3%}",
            str(row.corrupt),
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    names = 2  # the first columns are words and stand left, the others are figures
    return [
        "  ".join(
            cell.ljust(width) if column < names else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]


def footprint_text(footprints: Sequence[Footprint]) -> list[str]:
    """Say what echod's processes take, one line per figure."""
    processes = max(one.processes for one in footprints)
    pss = Spread.of(one.pss_bytes / MEBIBYTE for one in footprints)
    ready = Spread.of(one.ready_seconds for one in footprints)
    return [
        f"echod, memory of its {processes} processes after the traffic (PSS): {pss.text(1)} MiB",
        f"echod, from exec to the first reply: {ready.text(3)} s",
    ]


def missed_targets(rows: Sequence[Row], footprints: Sequence[Footprint]) -> list[str]:
    """Name every target that echod's median misses; without echod there is nothing to miss."""
    ours = {row.case: row for row in rows if row.server == ECHOD.name}
    missed = [_missed_ratio(case, ours[case.name]) for case in RATIO_MAX if case.name in ours]
    missed += [f"{row.case}: {row.corrupt} corrupt replies" for row in ours.values() if row.corrupt]
    if footprints:
        pss = statistics.median(one.pss_bytes for one in footprints) / MEBIBYTE
        ready = statistics.median(one.ready_seconds for one in footprints)
        missed.append(f"memory: {pss:.1f} MiB > {PSS_MIB_MAX:.0f} MiB" if pss > PSS_MIB_MAX else "")
        missed.append(f"start: {ready:.2f} s > {READY_SECONDS_MAX:.0f} s" if ready > READY_SECONDS_MAX else "")
    return [text for text in missed if text]


def _missed_ratio(case: Case, row: Row) -> str:
    if row.ratio.median <= RATIO_MAX[case]:
        return ""
    return f"{case.name}: {row.ratio.median:.3f} of the C loop's CPU time > {RATIO_MAX[case]}"


def missed_by_rules(rows: Sequence[Row]) -> list[str]:
    """Name every bound that the median of the rules' cost is beyond, of the config that is shipped.

    With limits, a source that is new with every datagram costs a look at a table that no cache holds: that is shown.
    """
    missed = [f"rules, {row.case}, {row.server}: {row.corrupt} corrupt replies" for row in rows if row.corrupt]
    for row in (row for row in rows if row.server == ECHOD.name):
        name, more, loss = f"rules, {row.case}, {row.server}", row.added_microseconds.median, 1 - 1 / row.ratio.median
        if more > RULES_MICROSECONDS_MAX:
            missed.append(f"{name}: {more:.3f} us a datagram > {RULES_MICROSECONDS_MAX} us")
        if loss > RULES_RATE_LOSS_MAX:
            missed.append(f"{name}: {loss:.1%} of the rate > {RULES_RATE_LOSS_MAX:.0%}")
    return missed
