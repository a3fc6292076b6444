"""The text output of `echod ping`: a line for each event and the closing statistics, in the style of iputils ping.

Owns the wording. Never decides and never counts: it reads events and statistics. Invariant: each number shown is one of
the statistics, and each kind of event has one name in all lines.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, TextIO

from echod.errors import plural
from echod.measurement.events import Event, Kind
from echod.measurement.latency import Latency
from echod.measurement.outages import Outage
from echod.measurement.statistics import Statistics
from echod.net.listener import Protocol
from echod.net.mode import Mode
from echod.ping import far_end
from echod.ping.charts import histogram, supports_blocks
from echod.ping.values import dscp_name, percentage
from echod.probes.session import Session
from echod.probes.target import HEADERS

_BINS: Final = 20
_FRACTIONS: Final = (("median", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999))


class TextLines:
    """Writes a line for each event."""

    def __init__(self, out: TextIO, *, stamps: bool, quiet: bool, protocols: bool, hosts: bool) -> None:
        """Write to `out`; `stamps` puts the time before each line, `quiet` omits the lines of events.

        `protocols` puts UDP or TCP into each line, for runs over both. `hosts` puts the target into lines of errors, as
        another host may have sent them, for runs with several targets.
        """
        self._out = out
        self._protocols = protocols
        self._hosts = hosts
        self._stamps = stamps
        self.quiet = quiet

    def begin(self, session: Session) -> None:
        """Write the heading of a target: its address and the bytes of payload, with all headers in parentheses."""
        to = "" if session.mode is Mode.ECHO else f" to a {far_end.RESPONDERS[session.mode]}"
        self._out.write(f"PING {session.target} ({session.target.ip}) {_sizes(session)} bytes of data{to}.\n")

    def take(self, session: Session, event: Event) -> None:
        """Write the line of an event."""
        if not self.quiet:
            stamp = f"[{event.time // 10**9}.{event.time // 1000 % 10**6:06}] " if self._stamps else ""
            self._out.write(f"{stamp}{line(session, event, protocol=self._protocols, host=self._hosts)}\n")


def line(session: Session, event: Event, *, protocol: bool, host: bool) -> str:
    """Return the line of an event; with its protocol, and in the line of an error with its target, if asked."""
    number = f" {session.target.protocol.value}" if protocol else ""
    number += "" if event.sequence is None else f" seq={event.sequence}"
    port = f" sport={session.ports[event.port_index]}" if len(session.ports) > 1 else ""
    ttl = "" if event.ttl is None else f" ttl={event.ttl}"
    ttl += f" dscp={dscp_name(event.dscp)}" if event.dscp else ""
    if event.kind is Kind.LOST:
        return f"no reply from {session.target.endpoint}:{number}{port} within {_span(event.rtt or 0)}"
    if event.kind is Kind.ERROR:
        mtu = f" (mtu={event.mtu})" if event.mtu else ""
        target = f" {session.target.endpoint}" if host else ""
        return f"From {event.address or 'this host'}:{target}{number}{port} {event.reason}{mtu}"
    time = "" if event.rtt is None else f" time={duration(event.rtt)}"
    time += "" if event.network is None else f" network={duration(event.network)}"
    return (
        f"{event.size} bytes from {event.address}:{number}{port}{ttl}{time}{_remark(session, event)}{_changes(event)}"
    )


def _remark(session: Session, event: Event) -> str:
    return {
        Kind.DUPLICATE: " (DUP!)",
        Kind.LATE: " (LATE!)",
        Kind.STALE: " (LATE or DUP!)",
        Kind.CORRUPT: f" (CORRUPT! {count(event.count, 'wrong byte')}, from byte {event.offset})",
        Kind.TRUNCATED: f" (TRUNCATED! {event.size} of {event.expected} bytes)",
        Kind.EXTENDED: f" (EXTENDED! {event.size} bytes instead of {event.expected})",
        Kind.DIFFERENT_ADDRESS: f" (DIFFERENT ADDRESS! probed was {session.target.endpoint})",
        Kind.UNMATCHED: " (no reply to any probe)",
    }.get(event.kind, "")


def _changes(event: Event) -> str:
    """Return what the headers of a reply were before, if they have changed."""
    ttl = "" if event.previous_ttl is None else f" (TTL CHANGED! {event.previous_ttl} before)"
    ttl += "" if event.previous_dscp is None else f" (DSCP CHANGED! {dscp_name(event.previous_dscp)} before)"
    return ttl + far_end.CHANGED * event.new_responder


# -- statistics


def progress(sessions: Sequence[Session]) -> str:
    """Return a line for each target with its counts, loss and round-trip times so far."""
    lines = []
    for session in sessions:
        statistics = session.statistics
        latency = statistics.latency
        times = "/".join(_ms(time) for time in (latency.min, latency.mean, latency.max))
        rtt = f", min/avg/max = {times} ms" if latency.count else ""
        lines.append(
            f"{session.target}: {statistics.received}/{statistics.sent} packets, "
            f"{_percent(statistics.loss)} loss{rtt}\n"
        )
    return "".join(lines)


def summary(session: Session, names: dict[str, str]) -> str:
    """Return the closing block of a target; `names` maps addresses of routers to names."""
    statistics = session.statistics
    lines = ["", f"--- {session.target} ping statistics ---", _totals(statistics, session.elapsed)]
    if session.handshakes:
        lines.append(f"tcp handshake {', '.join(duration(took) for took in session.handshakes[:3])}")
    lines += [*_times(statistics), *far_end.lines(statistics, session.mode), *_headers(statistics)]
    lines += [*_anomalies(statistics), *_errors(statistics, names)]
    if statistics.received and statistics.outages.longest is not None:  # without any reply the loss of 100% is enough
        lines.append(_gap(statistics.outages.longest))
    if len(session.port_statistics) > 1:
        lines += [_source_port(session, index) for index in range(len(session.port_statistics))]
    return "\n".join(lines) + "\n"


def bars(session: Session, width: int, encoding: str) -> str:
    """Return the histogram of the round-trip times of a target, in characters that the encoding supports."""
    weights = session.statistics.latency.weights()
    lines = histogram(weights, bins=_BINS, width=width, plain=not supports_blocks(encoding))
    return "".join(f"{line}\n" for line in ["rtt from .. to (ms)       replies", *lines] if lines)


def _totals(statistics: Statistics, elapsed: int) -> str:
    counts = statistics.counts
    damaged = counts[Kind.CORRUPT] + counts[Kind.TRUNCATED] + counts[Kind.EXTENDED]
    extra = [(counts[Kind.DUPLICATE], "duplicates"), (damaged, "corrupted"), (counts[Kind.ERROR], "errors")]
    more = "".join(f" +{number} {name}," for number, name in extra if number)
    waiting = f", {statistics.in_flight} still in flight" if statistics.in_flight else ""
    return (
        f"{statistics.sent} packets transmitted, {statistics.received} received,{more} "
        f"{_percent(statistics.loss)} packet loss, time {elapsed // 10**6}ms{waiting}"
    )


def _times(statistics: Statistics) -> list[str]:
    latency, variation = statistics.latency, statistics.variation
    if not latency.count:
        return []
    quantiles = "/".join(_ms(latency.quantile(fraction)) for _, fraction in _FRACTIONS)
    lines = [
        _rtt(latency),
        f"rtt {'/'.join(name for name, _ in _FRACTIONS)} = {quantiles} ms",
    ]
    if variation.pairs:
        lines.append(
            f"jitter {_ms(variation.jitter)} ms (RFC 3550), delay variation avg/max = "
            f"{_ms(variation.mean)}/{_ms(variation.max)} ms (RFC 3393)"
        )
    return lines


def _headers(statistics: Statistics) -> list[str]:
    """Return what TTL and DSCP the replies had, if that is not one TTL and DSCP 0, and how often it changed."""
    headers, lines = statistics.headers, []
    if len(headers.ttls) > 1:
        lines.append(f"ttl of replies: {_by_value(headers.ttls, str)}")
    if set(headers.dscps) - {0}:
        lines.append(f"dscp of replies: {_by_value(headers.dscps, dscp_name)}")
    if headers.first_change is not None:
        first = f"the first at seq={headers.first_change.sequence}{_changes(headers.first_change)}"
        lines.append(f"path changed: {count(headers.changes, 'time')}, {first}")
    return lines


def _by_value(counts: dict[int, int], name: Callable[[int], str]) -> str:
    return ", ".join(f"{name(value)} ({count(replies, 'reply')})" for value, replies in sorted(counts.items()))


def _anomalies(statistics: Statistics) -> list[str]:
    """Return a line for each kind of anomaly: what happened to probes and replies, and how often."""
    counts, order = statistics.counts, statistics.order
    lines = []
    if statistics.outcomes[Kind.LOST]:
        lines.append(f"lost: {count(statistics.outcomes[Kind.LOST], 'probe')}")
    if statistics.dropped:
        dropped = count(statistics.dropped, "datagram")
        lines.append(f"dropped by this host: {dropped}, receive buffer full; this is not a loss of the path")
    if counts[Kind.DUPLICATE]:
        lines.append(f"duplicated: {counts[Kind.DUPLICATE]} extra {plural(counts[Kind.DUPLICATE], 'reply')}")
    if order.reordered:
        lines.append(
            f"reordered: {count(order.reordered, 'reply')} ({percentage(order.ratio, 3)}, RFC 4737), up to "
            f"{count(order.max_extent, 'place')} and {_ms(order.max_late)} ms behind"
        )
    if counts[Kind.LATE]:
        lines.append(f"late: {count(counts[Kind.LATE], 'reply')} after the timeout, not counted as lost")
    for kind, first in statistics.first_damage.items():
        lines.append(f"{kind.value}: {count(counts[kind], 'reply')}, the first {_damage(first)}")
    if counts[Kind.DIFFERENT_ADDRESS]:
        addresses = ", ".join(sorted(statistics.other_addresses))
        lines.append(f"from a different address: {count(counts[Kind.DIFFERENT_ADDRESS], 'reply')}, from {addresses}")
    if counts[Kind.STALE]:
        lines.append(f"late or duplicated: {count(counts[Kind.STALE], 'reply')} to probes no longer remembered")
    if counts[Kind.UNMATCHED]:
        lines.append(f"unmatched: {count(counts[Kind.UNMATCHED], 'datagram')}, no reply to any probe")
    return lines


def _damage(event: Event) -> str:
    where = f"seq={event.sequence}: "
    if event.kind is Kind.CORRUPT:
        return f"{where}{count(event.count, 'wrong byte')} from byte {event.offset} of {event.expected}"
    return f"{where}{event.size} bytes instead of {event.expected}"


def _errors(statistics: Statistics, names: dict[str, str]) -> list[str]:
    lines = []
    for (reason, address), errors in statistics.errors.items():
        name = f" ({names[address]})" if address in names else ""
        mtu = f", mtu {errors.mtu}" if errors.mtu else ""
        lines.append(f"{reason}: {count(errors.count, 'error')} from {address or 'this host'}{name}{mtu}")
    return lines


def _gap(outage: Outage) -> str:
    start = datetime.fromtimestamp(outage.start.wall / 1e9).astimezone()
    which = f"seq {outage.first}" if outage.probes == 1 else f"seq {outage.first} to {outage.last}"
    probes = f"({count(outage.probes, 'probe')}, {which})"
    length = f"{_span(outage.duration)} " if outage.duration else ""  # a single probe at the end: no length is known
    if outage.open:
        at_least = "at least " if length else ""
        return f"longest gap without replies: {at_least}{length}from {start:%H:%M:%S} on {probes}"
    return f"longest gap without replies: {length}from {start:%H:%M:%S} {probes}"


def _source_port(session: Session, index: int) -> str:
    statistics = session.port_statistics[index]
    latency = statistics.latency
    rtt = f", {_rtt(latency)}" if latency.count else ""
    return (
        f"source port {session.ports[index]}: {statistics.sent} transmitted, {statistics.received} received, "
        f"{_percent(statistics.loss)} loss{rtt}"
    )


# -- words and numbers


def duration(nanoseconds: int) -> str:
    """Format a round-trip time with as many digits as ping does."""
    digits = next((n for n, limit in ((3, 10**6), (2, 10**7), (1, 10**8)) if nanoseconds < limit), 0)
    return f"{nanoseconds / 1e6:.{digits}f} ms"


def count(number: int, noun: str) -> str:
    """Format a number and its noun."""
    return f"{number} {plural(number, noun)}"


def _ms(nanoseconds: float) -> str:
    return f"{nanoseconds / 1e6:.3f}"


def _rtt(latency: Latency) -> str:
    times = (latency.min, latency.mean, latency.max, latency.deviation)
    return f"rtt min/avg/max/mdev = {'/'.join(_ms(time) for time in times)} ms"


def _span(nanoseconds: int) -> str:
    return duration(nanoseconds) if nanoseconds < 10**9 else f"{nanoseconds / 1e9:.1f} s"


def _percent(share: float | None) -> str:
    return "unknown" if share is None else percentage(share, 6)


def _sizes(session: Session) -> str:
    least, greatest = min(session.sizes), max(session.sizes)
    if least != greatest:
        return f"{least} to {greatest}"
    headers = HEADERS[session.target.family] if session.target.protocol is Protocol.UDP else 0
    return f"{least}({least + headers})" if headers else str(least)
