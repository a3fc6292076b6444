"""What a responder reports, in words and in fields: the time at the far end, and what happened in each direction.

Owns both, so that they say the same. Never decides and never counts. Invariant: where nothing is known of the
directions, no line and no field states a loss of one.
"""

from collections.abc import Callable
from typing import Any, Final

from echod.errors import plural
from echod.measurement.directions import Direction, Directions
from echod.measurement.events import Event, Kind
from echod.measurement.far_end import FarEnd
from echod.measurement.latency import Latency
from echod.measurement.statistics import Statistics
from echod.net.mode import Mode
from echod.ping.values import dscp_name

RESPONDERS: Final = {
    Mode.ECHO: "plain echo server",
    Mode.UDPECHO_PLUS: "UDPEchoPlus server",
    Mode.STAMP: "STAMP reflector",
}
"""What the responders of each mode are called."""

CHANGED: Final = " (RESPONDER CHANGED!)"
"""The remark on the first reply of another responder."""

_OTHERS_TOO: Final = "the responder counts more requests than were sent, perhaps those of others too"

_BASE_BYTES: Final = 44
"""Size of a reply of RFC 8762 alone."""

_SSID: Final = range(14, 16)
"""Where the identifier of a session lies in a packet without a key (RFC 8972)."""

_NO_REPLY: Final = (Kind.LOST, Kind.ERROR, Kind.DIFFERENT_ADDRESS)
"""Outcomes of probes without a reply of the responder."""


def event_fields(event: Event) -> dict[str, Any]:
    """Return the fields of an event that the responder reported."""
    report = event.report
    return {
        "network_ms": None if event.network is None else _ms(event.network),
        "responder_ms": None if report is None or report.held is None else _ms(report.held),
        "far_ttl": report and report.ttl,
        "far_dscp": report and report.dscp,
        "new_responder": event.new_responder or None,
    }


def fields(statistics: Statistics) -> dict[str, Any]:
    """Return the fields of the statistics that the responder reported; none if it reported nothing."""
    far = statistics.far_end
    if not far.reports:
        return {}
    directions = statistics.directions
    found: dict[str, Any] = {
        "responder_changes": far.changes,
        "out": _direction(directions, directions.out),
        "back": _direction(directions, directions.back),
    }
    if far.network.count:
        found |= {"network_ms": _latency(far.network), "responder_ms": _latency(far.held)}
    if _is_known(directions):
        found["responder_failures"] = directions.failures
        found["lost_unknown"] = _unknown(statistics, directions)
    if far.ttls:
        found["far_ttls"] = [{"ttl": value, "requests": number} for value, number in sorted(far.ttls.items())]
    if far.dscps:
        found["far_dscps"] = [{"dscp": value, "requests": number} for value, number in sorted(far.dscps.items())]
        found["out"]["remarked"] = far.remarked_out
    if far.marked_back:
        found["back"]["remarked"] = far.remarked_back
    return found


def lines(statistics: Statistics, mode: Mode) -> list[str]:
    """Return the lines of the statistics that the responder reported."""
    far = statistics.far_end
    if mode is Mode.ECHO:
        return []
    if not statistics.received:
        return _hints(statistics, mode)
    if not far.reports:
        return [f"no reply is of a {RESPONDERS[mode]}: this is a {RESPONDERS[Mode.ECHO]}"]
    directions = statistics.directions
    found = [
        *_time_lines(far),
        _direction_line("out", "probe", directions, directions.out),
        _direction_line("back", "reply", directions, directions.back),
        *_unknown_lines(statistics, directions),
    ]
    if directions.failures:
        found.append(f"responder: could not reply to {_count(directions.failures, 'request')}")
    if far.first_change is not None:
        first = f"the first at seq={far.first_change.sequence}"
        found.append(f"responder changed: {_count(far.changes, 'time')}, {first}: it was restarted, or replaced")
    return found + _far_lines(statistics)


def _hints(statistics: Statistics, mode: Mode) -> list[str]:
    """Return what to write instead, where something came back and nothing of it is whole."""
    cut, wrong = map(statistics.first_damage.get, (Kind.TRUNCATED, Kind.CORRUPT))
    if mode is Mode.STAMP and cut and cut.size == _BASE_BYTES < cut.expected:
        return ["the reflector replies with the base packet alone, without TLVs: write -s 44"]
    if mode is Mode.STAMP and wrong and wrong.offset in _SSID and wrong.offset + wrong.count == _SSID.stop:
        return ["the reflector does not return the SSID (RFC 8762 alone): leave --ssid out"]
    if cut or wrong or statistics.counts[Kind.UNMATCHED]:
        return [f"no reply is whole, as if this were no {RESPONDERS[mode]}: --mode auto finds out what it is"]
    return []


def _time_lines(far: FarEnd) -> list[str]:
    if not far.network.count:
        return ["responder: its replies left before the requests arrived, by its clock: its time is unknown"]
    times = (far.network.min, far.network.mean, far.network.max, far.network.deviation)
    return [
        f"network min/avg/max/mdev = {_times(*times)} ms, without the time at the responder",
        f"responder min/avg/max = {_times(far.held.min, far.held.mean, far.held.max)} ms",
    ]


def _far_lines(statistics: Statistics) -> list[str]:
    """Return how requests arrived at the far end."""
    far, found = statistics.far_end, []
    if far.ttls:
        found.append(f"far end, ttl of requests: {_by_value(far.ttls, str)}")
    if far.dscps:
        remarked = f"{_count(far.remarked_out, 'request')} out"
        remarked += f", {_count(far.remarked_back, 'reply')} back" if far.marked_back else ""
        found.append(f"far end, dscp of requests: {_by_value(far.dscps, dscp_name)}; changed on the way: {remarked}")
    return found


def _direction_line(name: str, noun: str, directions: Directions, direction: Direction) -> str:
    order, variation = direction.order, direction.variation
    parts = []
    if _is_known(directions):
        parts.append(f"{_count(direction.lost, noun)} lost")
        if direction.duplicates:
            parts.append(f"{direction.duplicates} duplicated")
        if order.reordered:
            parts.append(f"{order.reordered} reordered by up to {_count(order.max_extent, 'place')}")
    if variation.pairs:
        parts.append(f"delay variation avg/max = {_times(variation.mean, variation.max)} ms (RFC 3393)")
    parts.append(f"99.9% of delays within {_times(direction.spread)} ms (RFC 5481)")
    return f"{name}: {', '.join(parts)}"


def _unknown_lines(statistics: Statistics, directions: Directions) -> list[str]:
    """Return of how many losses the direction is not known, and why."""
    number = _unknown(statistics, directions)
    if not number:
        return [f"no direction is known: {_OTHERS_TOO}"] if directions.contradictory else []
    why = "before the first reply of a responder, or after the last"
    if directions.contradictory:
        why = _OTHERS_TOO
    elif not directions.counted:
        why = "the reflector is stateless: it does not count"
    return [f"lost in an unknown direction: {_count(number, 'probe')}: {why}"]


def _unknown(statistics: Statistics, directions: Directions) -> int:
    lost = sum(statistics.outcomes[kind] for kind in _NO_REPLY) - statistics.unsent
    known = directions.out.lost + directions.back.lost + directions.failures if _is_known(directions) else 0
    return max(0, lost - known)


def _is_known(directions: Directions) -> bool:
    return directions.counted and not directions.contradictory


def _direction(directions: Directions, direction: Direction) -> dict[str, Any]:
    variation, order = direction.variation, direction.order
    found: dict[str, Any] = {"pdv_ms": _ms(direction.spread)}
    if variation.pairs:
        found["ipdv_ms"] = {"avg": _ms(variation.mean), "max": _ms(variation.max)}
    if _is_known(directions):
        found |= {
            "lost": direction.lost,
            "duplicates": direction.duplicates,
            "reordered": order.reordered,
            "reordered_places": order.max_extent,
        }
    return found


def _latency(latency: Latency) -> dict[str, float]:
    return {
        "min": _ms(latency.min),
        "avg": _ms(latency.mean),
        "max": _ms(latency.max),
        "median": _ms(latency.quantile(0.5)),
    }


def _by_value(counts: dict[int, int], name: Callable[[int], str]) -> str:
    return ", ".join(f"{name(value)} ({_count(number, 'request')})" for value, number in sorted(counts.items()))


def _times(*nanoseconds: float) -> str:
    return "/".join(f"{time / 1e6:.3f}" for time in nanoseconds)


def _count(number: int, noun: str) -> str:
    return f"{number} {plural(number, noun)}"


def _ms(nanoseconds: float) -> float:
    return round(nanoseconds / 1e6, 6)
