"""The output of `echod ping` for programs: JSON lines and CSV rows.

Owns the names of the fields, which are the same in both. Never decides and never counts. Invariant: an unknown field is
absent (JSON) or empty (CSV); names of times end in `_ns`, of durations in `_ms`.
"""

import csv
import errno
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TextIO

from echod.errors import UsageError
from echod.measurement.events import DAMAGED, Event, Kind
from echod.measurement.path_mtu import MtuResult, explain
from echod.measurement.statistics import Statistics
from echod.ping import far_end
from echod.probes.session import Session
from echod.probes.target import Target

COLUMNS: Final = (
    "event",
    "target",
    "sequence",
    "time_ns",
    "sent_ns",
    "rtt_ms",
    "size",
    "expected_size",
    "source_port",
    "address",
    "ttl",
    "dscp",
    "previous_ttl",
    "previous_dscp",
    "network_ms",
    "responder_ms",
    "far_ttl",
    "far_dscp",
    "new_responder",
    "offset",
    "wrong_bytes",
    "reason",
    "mtu",
)

_QUANTILES: Final = (("median", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99_9", 0.999))


def record(session: Session, event: Event) -> dict[str, Any]:
    """Return the known fields of an event."""
    damaged = event.kind in DAMAGED
    fields = {
        "event": event.kind.value,
        "target": str(session.target),
        "sequence": event.sequence,
        "time_ns": event.time,
        "sent_ns": event.sent.wall or None,
        "rtt_ms": None if event.rtt is None or event.kind in (Kind.LOST, Kind.ERROR) else _ms(event.rtt),
        "size": event.size,
        "expected_size": event.expected if damaged else None,
        "source_port": session.ports[event.port_index] or None,
        "address": event.address or None,
        "ttl": event.ttl,
        "dscp": event.dscp,
        "previous_ttl": event.previous_ttl,
        "previous_dscp": event.previous_dscp,
        **far_end.event_fields(event),
        "offset": event.offset if damaged else None,
        "wrong_bytes": event.count if damaged else None,
        "reason": event.reason or None,
        "mtu": event.mtu or None,
    }
    return _known(fields)


def mtu_record(target: Target, result: MtuResult) -> dict[str, Any]:
    """Return the fields of a path MTU search, with the sentences of the text output."""
    return_path = result.return_path
    fields = {
        "event": "mtu",
        "target": str(target),
        **asdict(result),
        "router": result.router or None,
        "reason": result.reason or None,
        "reported_mtu": result.reported_mtu or None,
        "return_path": None if return_path.replied is None else asdict(return_path),
        "explanation": explain(result),
    }
    return _known(fields)


def _known(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


class JsonLines:
    """Writes a JSON object for each event, and a summary object last, each on one line."""

    def __init__(self, out: TextIO, *, quiet: bool) -> None:
        """Write to `out`; `quiet` omits the events."""
        self._out = out
        self._quiet = quiet

    def take(self, session: Session, event: Event) -> None:
        """Write the object of an event."""
        if not self._quiet:
            self._write(record(session, event))

    def end(self, sessions: Sequence[Session], names: Mapping[str, str], **more: object) -> None:
        """Write the summary object; `names` maps addresses of routers to names."""
        self._write({"event": "summary", "targets": [summary(each, names) for each in sessions], **more})

    def _write(self, fields: Mapping[str, Any]) -> None:
        self._out.write(json.dumps(fields) + "\n")  # ASCII, so that it is valid in any encoding of `out`


class CsvRows:
    """Writes a CSV row for each event, below a row of column names.

    If a write fails, each method raises OSError for stdout and UsageError for a file.
    """

    def __init__(self, out: TextIO, path: Path | None = None) -> None:
        """Write to stdout, or to an open file at this path; `close` closes it."""
        self._out = out
        self._path = path
        self._writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        self._attempt(self._writer.writeheader)

    def take(self, session: Session, event: Event) -> None:
        """Write the row of an event."""
        self._attempt(self._writer.writerow, record(session, event))

    def close(self) -> None:
        """Close the file."""
        self._attempt(self._out.close)

    def _attempt(self, write: Callable[..., object], *arguments: object) -> None:
        try:
            write(*arguments)
        except OSError as error:
            if self._path is None:
                raise
            with suppress(OSError):  # unwritten data must not raise again at the next close
                self._out.close()
            if error.errno == errno.EPIPE:  # the reader of the FIFO closed it: not an error
                raise
            raise UsageError(f"ping: --csv {self._path}: {error.strerror}: the file is incomplete") from None


def summary(session: Session, names: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of the statistics of a target."""
    fields = {
        "target": str(session.target),
        "address": session.target.endpoint,
        "mode": session.mode.value,
        "seconds": round(session.elapsed / 1e9, 6),
        **_figures(session.statistics),
        "error_reasons": [
            _known(
                {
                    "reason": reason,
                    "address": address or None,
                    "name": names.get(address),
                    "count": errors.count,
                    "mtu": errors.mtu or None,
                }
            )
            for (reason, address), errors in session.statistics.errors.items()
        ],
    }
    if longest := session.statistics.outages.longest:  # of all source ports: probes of one are not consecutive
        fields["longest_gap"] = {
            "start_ns": longest.start.wall,
            "seconds": round(longest.duration / 1e9, 6),
            "probes": longest.probes,
            "first": longest.first,
            "last": longest.last,
            "open": longest.open,
        }
    if session.statistics.other_addresses:
        fields["other_addresses"] = sorted(session.statistics.other_addresses)
    if session.handshakes:
        fields["handshakes_ms"] = [_ms(took) for took in session.handshakes]
    if len(session.port_statistics) > 1:
        fields["sources"] = [
            {"source_port": port, **_figures(statistics)}
            for port, statistics in zip(session.ports, session.port_statistics, strict=True)
        ]
    return fields


def _figures(statistics: Statistics) -> dict[str, Any]:
    latency, variation, order = statistics.latency, statistics.variation, statistics.order
    headers = statistics.headers
    fields: dict[str, Any] = {
        "sent": statistics.sent,
        "received": statistics.received,
        "in_flight": statistics.in_flight,
        **({} if statistics.loss is None else {"loss": round(statistics.loss, 12)}),
        **{_plural(kind): number for kind, number in statistics.counts.items() if kind not in (Kind.REPLY, Kind.LOST)},
        "lost": statistics.outcomes[Kind.LOST],
        "dropped_here": statistics.dropped,
        "reordered": order.reordered,
        "reordered_places": order.max_extent,
        "reordered_late_ms": _ms(order.max_late),
        "path_changes": headers.changes,
    }
    if headers.ttls:
        fields["ttls"] = _counts("ttl", headers.ttls)
    if headers.dscps:
        fields["dscps"] = _counts("dscp", headers.dscps)
    if latency.count:
        fields["rtt_ms"] = {
            "min": _ms(latency.min),
            "avg": _ms(latency.mean),
            "max": _ms(latency.max),
            "mdev": _ms(latency.deviation),
            **{name: _ms(latency.quantile(fraction)) for name, fraction in _QUANTILES},
        }
        fields["jitter_ms"] = _ms(variation.jitter)
    if variation.pairs:
        fields["ipdv_ms"] = {"avg": _ms(variation.mean), "max": _ms(variation.max)}
    return fields | far_end.fields(statistics)


def _counts(name: str, counts: Mapping[int, int]) -> list[dict[str, int]]:
    """Return how many replies had each value of a field of their headers."""
    return [{name: value, "replies": replies} for value, replies in sorted(counts.items())]


def _plural(kind: Kind) -> str:
    return f"{kind.value}s" if kind in (Kind.DUPLICATE, Kind.ERROR) else kind.value


def _ms(nanoseconds: float) -> float:
    return round(nanoseconds / 1e6, 6)
