"""What the replies of a responder say of the far end: how long it took, and how requests arrived there.

Owns the counts. It reads only events. Invariant: the round trip of a reply is the time in the network and the time at
the responder, and both are counted or neither is.
"""

from dataclasses import dataclass, field

from echod.measurement.events import Event, Kind
from echod.measurement.latency import Latency

_FIRST = frozenset({Kind.REPLY, Kind.LATE})


@dataclass(slots=True, kw_only=True)
class FarEnd:
    """The far end of a path."""

    reports: int = 0
    """First replies with a report."""
    network: Latency = field(default_factory=Latency)
    """Round-trip times without the time at the responder."""
    held: Latency = field(default_factory=Latency)
    """Times at the responder."""
    ttls: dict[int, int] = field(default_factory=dict)
    dscps: dict[int, int] = field(default_factory=dict)
    """How many requests arrived with which TTL and DSCP."""
    remarked_out: int = 0
    remarked_back: int = 0
    """Requests and replies that arrived with another DSCP than they were sent with."""
    marked_back: int = 0
    """Replies of which it is known with which DSCP they were sent."""
    changes: int = 0
    """How often another responder replied: it was restarted, or replaced."""
    first_change: Event | None = None

    def add(self, event: Event) -> None:
        """Add a reply."""
        if event.new_responder:
            self.changes += 1
            self.first_change = self.first_change or event
        report = event.report
        if report is None or event.rtt is None or not event.settles or event.kind not in _FIRST:
            return
        self.reports += 1
        if event.network is not None and report.held is not None:
            self.network.add(event.network)
            self.held.add(report.held)
        for counts, value in ((self.ttls, report.ttl), (self.dscps, report.dscp)):
            if value is not None:
                counts[value] = counts.get(value, 0) + 1
        self.remarked_out += None not in (report.dscp, report.request_dscp) and report.dscp != report.request_dscp
        if None not in (event.dscp, report.reply_dscp):
            self.marked_back += 1
            self.remarked_back += event.dscp != report.reply_dscp
