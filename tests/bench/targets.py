"""What echod is to reach, and what it missed.

Pure: judges rows, by their medians. Invariant: a miss is a sentence with the figure and the bound; a row that echod
has not is no miss of a target but a row without figures, and named as such.
"""

from collections.abc import Iterator, Sequence

from .figures import Row
from .servers import BARE, ECHOD, LEAST, YARDSTICKS
from .work import BARE_PING, ECHOD_PING, FLOOD, LATENCY_IDLE, LATENCY_LOADED, MODES, ROUND_TRIP, TCP, UDP

PSS_MIB_MAX = 40.0
READY_SECONDS_MAX = 0.5
"""Supervisor and one worker, and from start to first reply."""

RULES_MICROSECONDS_MAX = 0.5
RULES_RATE_LOSS_MAX = 0.15
"""What the rules may cost a datagram, and take of the datagrams that a second of CPU time answers without them."""

WAKEUPS_PER_SECOND_MAX = 1.0
"""Of each process without traffic."""

IDLE_CPU_MS_MAX = 1.0
"""A second, of 64 idle listeners: a thousandth of a CPU is none."""

PING_MICROSECONDS_MAX = 3.0
"""What `echod ping` may add to the median of a round trip, beside a bare ping-pong in C."""

FLOOD_PER_SECOND_MIN = 300_000
"""Replies that `echod ping -f` verifies."""

MODES_RATIOS_MAX = dict(zip((work.name for work in MODES), (1.60, 4.00), strict=True))
"""What a measuring mode may take of the CPU time of an echo, by work."""

RATIOS_MAX: dict[tuple[str, str, str], float | None] = {
    **{(group, work.name, "cpu_us"): work.ratio_max for group, works in (("udp", UDP), ("tcp", TCP)) for work in works},
    **{
        ("latency", work.name, name): most
        for work in (LATENCY_IDLE, LATENCY_LOADED)
        for name, most in {"p50_us": 1.05, "p99_us": 1.10}.items()
    },
}
"""What echod may take beside the yardstick, by group, work and metric: of CPU time, and of a round trip."""

LOSS_MAX = 0.01
"""A peer that loses more than one in a hundred, or corrupts one, is ahead of nobody."""


def missed(rows: Sequence[Row]) -> list[str]:
    """Name every target that echod's median misses in these rows."""
    found = [text for row in rows if row.server == ECHOD.name for text in _missed_by(row, rows)]
    found += [text for row in rows if row.group == "rules" for text in _missed_by_rules(row, rows)]
    found += [text for row in rows if row.group == "modes" for text in _missed_by_modes(row)]
    found += [text for row in rows if row.group == "idle" for text in _missed_idle(row)]
    found += _missed_by_ping([row for row in rows if row.group == "ping"])
    return found + list(_peers_ahead(rows))


def _missed_by(row: Row, rows: Sequence[Row]) -> Iterator[str]:
    for name, ratio in row.ratios.items():
        most = RATIOS_MAX.get((row.group, row.work, name))
        if most is not None and ratio.median > most:
            reached = f"{ratio.median:.3f} of {row.yardstick}'s > {most:.2f}"
            yield f"{row.work}, {name[:-3]}: {reached}{_in_reach(row, name, rows)}"
    if row.corrupt:
        yield f"{row.group}, {row.work}: {row.corrupt} corrupt replies"
    if row.refused and row.group == "tcp":
        yield f"{row.work}: {row.refused} connections were not taken"
    if row.work == "footprint":
        pss, ready = row.metrics["pss_mib"].median, row.metrics["ready_seconds"].median
        if pss > PSS_MIB_MAX:
            yield f"memory: {pss:.1f} MiB > {PSS_MIB_MAX:.0f} MiB"
        if ready > READY_SECONDS_MAX:
            yield f"start to first reply: {ready:.2f} s > {READY_SECONDS_MAX} s"


def _in_reach(row: Row, metric: str, rows: Sequence[Row]) -> str:
    """Say what the least that Python can do reaches where this row misses its target."""
    least = {kind.name for kind in LEAST.values()}
    found = [one for one in rows if (one.group, one.work) == (row.group, row.work) and one.server in least]
    return "".join(f"; the least in Python: {one.ratios[metric].median:.3f}" for one in found if metric in one.ratios)


def _missed_by_rules(row: Row, rows: Sequence[Row]) -> Iterator[str]:
    """Of the config that is shipped.

    With limits, a source that is new with every datagram costs a look at a table that no cache holds: that is shown.
    """
    bare = [one for one in rows if (one.group, one.work, one.server) == ("rules", row.work, BARE.name)]
    if row.server != ECHOD.name or not bare or "cpu_us" not in row.ratios:
        return
    more = row.metrics["cpu_us"].median - bare[0].metrics["cpu_us"].median
    loss = 1 - 1 / row.ratios["cpu_us"].median
    if more > RULES_MICROSECONDS_MAX:
        yield f"rules, {row.work}: {more:.3f} us a datagram > {RULES_MICROSECONDS_MAX} us"
    if loss > RULES_RATE_LOSS_MAX:
        yield f"rules, {row.work}: {loss:.1%} of the rate > {RULES_RATE_LOSS_MAX:.0%}"


def _missed_by_modes(row: Row) -> Iterator[str]:
    most, ratio = MODES_RATIOS_MAX[row.work], row.ratios["cpu_us"].median
    if row.server != row.yardstick and ratio > most:
        yield f"{row.work}: {row.server} takes {ratio:.2f} of {row.yardstick}'s > {most:.2f}"


def _missed_idle(row: Row) -> Iterator[str]:
    if not row.server.startswith(ECHOD.name):
        return
    woken, used = row.metrics["wakeups_per_second"].median, row.metrics["cpu_ms_per_second"].median
    if woken > WAKEUPS_PER_SECOND_MAX:
        yield f"idle, {row.server}: {woken:.1f} wake-ups a second of one process > {WAKEUPS_PER_SECOND_MAX:.0f}"
    if used > IDLE_CPU_MS_MAX:
        yield f"idle, {row.server}: {used:.2f} ms of CPU time a second > {IDLE_CPU_MS_MAX:.0f} ms"


def _missed_by_ping(rows: Sequence[Row]) -> Iterator[str]:
    medians = {row.server: row.metrics["p50_us"].median for row in rows if row.work == ROUND_TRIP.name}
    if len(medians) > 1 and (more := medians[ECHOD_PING] - medians[BARE_PING]) > PING_MICROSECONDS_MAX:
        yield f"{ROUND_TRIP.name}: {ECHOD_PING} says {more:.1f} us more than {BARE_PING} > {PING_MICROSECONDS_MAX} us"
    for row in rows:
        if row.work == FLOOD.name and (rate := row.metrics["replies_per_second"].median) < FLOOD_PER_SECOND_MIN:
            yield f"{FLOOD.name}: {rate:,.0f} replies a second < {FLOOD_PER_SECOND_MIN:,}"
        if row.corrupt:
            yield f"{row.work}, {row.server}: {row.corrupt} corrupt replies"


def _peers_ahead(rows: Sequence[Row]) -> Iterator[str]:
    """Name who takes less CPU time than echod in a row of UDP; the yardstick has its own bounds.

    The least in Python is no peer: nobody would serve with it.
    """
    ours = {row.work: row for row in rows if row.group == "udp" and row.server == ECHOD.name and "cpu_us" in row.ratios}
    no_peers = {ECHOD.name, YARDSTICKS["udp"].name, LEAST["udp"].name}
    for row in rows:
        stands = row.group == "udp" and row.work in ours and row.server not in no_peers
        if not stands or "cpu_us" not in row.ratios or row.corrupt or row.loss > LOSS_MAX:
            continue
        theirs, mine = row.ratios["cpu_us"].median, ours[row.work].ratios["cpu_us"].median
        if theirs < mine:
            yield f"{row.work}: {row.server} is ahead, {theirs:.3f} to {mine:.3f}"
