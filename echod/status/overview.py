"""A snapshot for people: lines and tables, and these as plain text.

Owns the words and the columns of `echod status`; never reads a file or a clock. Invariant: a datagram that reached this
host is in exactly one of the columns from `replied` to `held`, of the sockets or of the kernel. So what is in none
never arrived.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from echod.admission.selftest import Result
from echod.errors import plural
from echod.stats.snapshot import (
    REJECTED,
    Activity,
    Kernel,
    KernelTraffic,
    Rates,
    Refused,
    Snapshot,
    TcpTraffic,
    UdpTraffic,
    WorkerState,
)
from echod.status.tables import MANY, Table, duration, size, table_text

_LEGEND: Final = (
    "dropped: by echod, why see below. send failed: the kernel refused the reply.",
    "queue full: no room in the receive queue (a train counts as one), so echod never",
    "had it. What was sent and is in none of these numbers never reached echod: the",
    "network lost it, or a filter of this host dropped it.",
)
_HELD: Final = ("held: by impairment, now; their outcome is not known yet.",)
_WITHOUT_KERNEL: Final = ("of the sockets: without what the kernel replied to or dropped.",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """All that is shown."""

    lines: tuple[str, ...]
    tables: tuple[Table, ...]


def overview(snapshot: Snapshot, *, uptime_seconds: float, when: Callable[[float], str]) -> Overview:
    """Describe a snapshot. `when` formats a time, in seconds since 1970, in the reader's time zone."""
    activity, kernel = snapshot.activity, snapshot.kernel
    partial = _WITHOUT_KERNEL if kernel is not None else ()
    tables = (
        _udp(activity.udp, () if kernel is not None else _LEGEND),
        *(() if kernel is None else (_sums(activity.udp, kernel.traffic),)),
        _tcp(activity.tcp),
        _parts(activity, () if kernel is None else kernel.traffic),
        _udpecho_config(activity.udp),
        _pace(activity, partial),
        _workers(activity.workers),
        _top_sources(activity, partial),
        _refused(activity.refused, partial),
    )
    return Overview(
        lines=tuple(_lines(snapshot, uptime_seconds, when)), tables=tuple(table for table in tables if table.rows)
    )


def _lines(snapshot: Snapshot, uptime_seconds: float, when: Callable[[float], str]) -> Iterable[str]:
    if snapshot.stale:
        yield f"OLD, {old(snapshot, when)}"
    restarts = snapshot.activity.worker_restarts
    yield (
        f"echod {snapshot.version}, process {snapshot.pid}, up {duration(uptime_seconds)}, "
        f"generation {snapshot.generation}, {restarts:,} worker {plural(restarts, 'restart')}"
    )
    if snapshot.config_read is None:
        yield f"config: built-in defaults; there was no {snapshot.config}"
    else:
        yield f"config: {snapshot.config}, read {when(snapshot.config_read)}"
    reload = snapshot.reload
    if reload.at is None:
        yield "last reload: none"
    elif reload.code == 0:
        yield f"last reload: {when(reload.at)}, {reload.text}"
    else:
        yield f"last reload: {when(reload.at)}, {REJECTED}"
        yield from (f"  {line}" for line in reload.text.splitlines())
    if snapshot.kernel_problem:
        yield f"kernel: {'UNKNOWN' if snapshot.kernel is None else 'OLD'}, {snapshot.kernel_problem}"
    if snapshot.kernel is not None:
        yield f"kernel: {_repeating(snapshot.kernel)}"


def _repeating(kernel: Kernel) -> str:
    """Describe where the kernel repeats replies, of how many paths, and why it forgot them."""
    there = [f"{each.name} ({each.driver})" for each in kernel.interfaces if each.kind]
    absent = [each.name for each in kernel.interfaces if not each.kind]
    causes = [f"{cause} {times:,}" for cause, times in kernel.flushes.items() if times]
    times = sum(kernel.flushes.values())
    return (
        f"repeats replies at {', '.join(there) or 'no interface'}{', not at ' * bool(absent)}{', '.join(absent)}; "
        f"{kernel.paths:,} {plural(kernel.paths, 'path')}, forgotten {times:,} {plural(times, 'time')}"
        f"{' (' * bool(causes)}{', '.join(causes)}{')' * bool(causes)}"
    )


def old(snapshot: Snapshot, when: Callable[[float], str]) -> str:
    """Describe why a snapshot is stale."""
    return (
        f"as it was at {when(snapshot.at)}: process {snapshot.pid} has written no status since; it hangs, or its log "
        "says why it cannot"
    )


def _udp(listeners: Sequence[UdpTraffic], legend: tuple[str, ...]) -> Table:
    """Tabulate what became of the datagrams; those that are held only where there is impairment."""
    impaired = _holds(listeners)
    return Table(
        head=("UDP listener (totals)", "received", "replied", "dropped", "send failed", "queue full", "held")[
            : 6 + impaired
        ],
        left=1,
        rows=tuple(
            (
                _named(each),
                f"{each.received:,}",
                f"{each.replied:,}",
                f"{sum(each.dropped.values()) + each.interrupted:,}",
                f"{sum(each.send_failed.values()):,}",
                f"{each.kernel_drops:,}",
                f"{each.held:,}",
            )[: 6 + impaired]
            for each in listeners
        ),
        alarming=frozenset({3, 4, 5}),
        wanted=frozenset((row, 3) for row, each in enumerate(listeners) if _as_wanted(each)),
        legend=(*legend, *_HELD) if impaired else legend,
    )


def _holds(listeners: Sequence[UdpTraffic]) -> bool:
    return any(each.impaired or each.held for each in listeners)


def _as_wanted(listener: UdpTraffic) -> bool:
    """Tell whether nothing was dropped but what the mode of a listener or its impairment drops on purpose."""
    return not listener.interrupted and listener.dropped.keys() <= {"discarded", "impaired"}


def _named(listener: UdpTraffic | TcpTraffic) -> str:
    """Return the name of a listener, with its mode if that is no plain echo."""
    if listener.impaired:
        return f"{listener.name} (impaired {listener.mode})"
    return listener.name if listener.mode == "echo" else f"{listener.name} ({listener.mode})"


def _udpecho_config(listeners: Sequence[UdpTraffic]) -> Table:
    """Tabulate the counters of TR-143, by their names there."""
    rows: list[tuple[str, str, str]] = []
    for each in listeners:
        if (config := each.udpecho_config) is not None:
            rows += [
                (each.name, "PacketsReceived", f"{config.packets_received:,}"),
                (each.name, "PacketsResponded", f"{config.packets_responded:,}"),
                (each.name, "BytesReceived", f"{config.bytes_received:,}"),
                (each.name, "BytesResponded", f"{config.bytes_responded:,}"),
                (each.name, "TimeFirstPacketReceived", config.first_received or "none"),
                (each.name, "TimeLastPacketReceived", config.last_received or "none"),
            ]
    return Table(head=("UDPEchoConfig (TR-143)", "", ""), left=2, rows=tuple(rows))


def _sums(listeners: Sequence[UdpTraffic], accounts: Sequence[KernelTraffic]) -> Table:
    """Add up what ended in the sockets and in the kernel. What the kernel left to the sockets is theirs."""
    held = _holds(listeners)
    found: list[tuple[str, tuple[int, ...]]] = [
        (
            "sockets",
            (
                sum(each.received for each in listeners),
                sum(each.replied for each in listeners),
                sum(sum(each.dropped.values()) + each.interrupted for each in listeners),
                sum(sum(each.send_failed.values()) for each in listeners),
                *([sum(each.held for each in listeners)] if held else []),
                sum(each.replied_bytes for each in listeners),
            ),
        )
    ]
    found += [
        (
            _account(each),
            (each.ended, each.replied, each.ended - each.replied, 0, *([0] if held else []), each.replied_bytes),
        )
        for each in accounts
    ]
    found.append(("sum", tuple(map(sum, zip(*(numbers for _, numbers in found), strict=True)))))
    passed = sum(each.passed for each in accounts)
    as_wanted = all(map(_as_wanted, listeners)) and not any(each.dropped for each in accounts)
    return Table(
        head=(
            *("UDP, sockets and kernel", "received", "replied", "dropped", "send failed"),
            *(["held"] if held else []),
            "total out",
        ),
        left=1,
        rows=tuple((name, *(f"{each:,}" for each in numbers), size(octets)) for name, (*numbers, octets) in found),
        alarming=frozenset({4} if as_wanted else {3, 4}),
        legend=(
            f"left to the sockets by the kernel, and counted there: {passed:,}.",
            *_LEGEND,
            *(_HELD if held else ()),
        ),
    )


def _account(traffic: KernelTraffic) -> str:
    return f"kernel, {traffic.family} port {traffic.port}"


def _tcp(listeners: Sequence[TcpTraffic]) -> Table:
    rows = tuple((_named(each), f"{each.accepted:,}", f"{each.open:,}") for each in listeners)
    return Table(head=("TCP listener (totals)", "accepted", "open now"), left=1, rows=rows)


def _pace(activity: Activity, legend: tuple[str, ...]) -> Table:
    """Tabulate the rates of UDP datagrams and TCP connections, and the bytes of both."""
    moved: list[tuple[UdpTraffic | TcpTraffic, Rates, int]] = []
    moved += [(each, each.received_per_second, each.replied_bytes) for each in activity.udp]
    moved += [(each, each.accepted_per_second, each.sent_bytes) for each in activity.tcp]
    rows = (
        (each.name, "adopted" if each.adopted else "bound", *_rates(rates), size(each.received_bytes), size(sent))
        for each, rates, sent in moved
    )
    return Table(
        head=("rates and totals", "socket", "/s, 1 s", "/s, 10 s", "/s, 60 s", "total in", "total out"),
        left=2,
        rows=tuple(rows),
        legend=legend,
    )


def _parts(activity: Activity, accounts: Sequence[KernelTraffic]) -> Table:
    """Break down each number of the tables before, and the replied datagrams that are special."""
    counts: list[tuple[str, str, int]] = []
    for each in activity.udp:
        counts += [(each.name, f"dropped: {reason}", count) for reason, count in each.dropped.items()]
        counts.append((each.name, "dropped: interrupted", each.interrupted))
        counts += [(each.name, f"send failed: {name}", count) for name, count in each.send_failed.items()]
        counts.append((each.name, "replied: self tests", each.self_test))
        counts.append((each.name, "replied: over its limit", each.slipped))
        counts += [
            (each.name, "impaired: sent twice", each.duplicated),
            (each.name, "impaired: sent out of order", each.reordered),
            (each.name, "impaired: corrupted", each.corrupted),
        ]
    for account in accounts:
        name = _account(account)
        counts += [(name, f"dropped: {reason}", count) for reason, count in account.dropped.items()]
        counts.append((name, "replied: over its limit", account.slipped))
    for tcp in activity.tcp:
        counts += [(tcp.name, f"closed: {reason}", count) for reason, count in tcp.closed.items()]
        counts.append((tcp.name, "accept failed", tcp.accept_failed))
    rows = tuple((name, part, f"{count:,}") for name, part, count in counts if count)
    return Table(head=("of these", "", ""), left=2, rows=rows)


def _workers(workers: Sequence[WorkerState]) -> Table:
    return Table(
        head=("worker", "process", "CPU total", "heartbeat age", "restarts", "connections"),
        left=0,
        rows=tuple(
            (
                str(each.worker),
                str(each.pid) if each.pid is not None else "none",
                f"{each.cpu_seconds:,.2f} s",
                "none" if each.pid is None else _heartbeat(each.heartbeat_age_seconds),
                f"{each.restarts:,}",
                f"{each.connections:,}",
            )
            for each in workers
        ),
        alarming=frozenset({4}),
    )


def _heartbeat(age: float) -> str:
    return f"{age:.0f} s" if age else "< 2 s"


def _top_sources(activity: Activity, legend: tuple[str, ...]) -> Table:
    rows = tuple((each.source, f"{each.count:,}") for each in activity.top_sources)
    return Table(head=("top sources, last minute", "datagrams"), left=1, rows=rows, legend=legend)


def _refused(refused: Sequence[Refused], legend: tuple[str, ...]) -> Table:
    rows = tuple((each.source, f"{each.protocol}: {each.reason}", f"{each.count:,}") for each in refused)
    return Table(head=("most refused, last minute", "", "times"), left=2, rows=rows, legend=legend)


def _rates(rates: Rates) -> tuple[str, ...]:
    return tuple(
        f"{rate:,.0f}" if rate >= MANY or rate == 0 else f"{rate:.1f}"
        for rate in (rates.last_1s, rates.last_10s, rates.last_60s)
    )


# -- as plain text


def check_text(results: Sequence[Result]) -> str:
    """Write the outcome of the probes, one line for each listener."""
    rows = tuple((str(each.listener), _outcome(each)) for each in results)
    failed = sum(not each.passed for each in results)
    summary = f"{failed} of {len(rows)} listeners failed" if failed else f"all {len(rows)} listeners replied"
    summary = summary if len(rows) > 1 else f"the listener {'failed' if failed else 'replied'}"
    return table_text(Table(head=rows[0], left=2, rows=rows[1:], legend=(summary,)))


def workers_text(workers: Sequence[WorkerState]) -> str:
    """Write a line for each worker that does not serve: with a socket for each worker, a probe reaches one of them."""
    return "\n".join(
        f"worker {each.worker}  FAILED: {each.problem}; sources whose datagrams the kernel gives to it get no reply"
        for each in workers
        if each.problem
    )


def _outcome(result: Result) -> str:
    return f"FAILED: {result.problem}" if result.seconds is None else f"ok, {result.seconds * 1000:.1f} ms"


def text(shown: Overview) -> str:
    """Write an overview in aligned columns, in ASCII only."""
    return "\n\n".join(["\n".join(shown.lines), *map(table_text, shown.tables)])
