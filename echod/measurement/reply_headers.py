"""The IP headers that replies arrive with: TTL and DSCP.

Owns their counts, and the comparison of each reply with the one before it. A network keeps to one path for each source
port, so a change within one is a change of the path, or of the host behind it. Invariant: every reply that is added is
in one count of each kind, if its value is known.
"""

from dataclasses import dataclass, field

from echod.measurement.events import Event
from echod.measurement.round_trip import Response


class ReplyHeaders:
    """The headers of the last reply to each source port."""

    def __init__(self) -> None:
        """Start without any reply."""
        self._last: dict[int, tuple[int | None, int | None]] = {}

    def previous(self, response: Response) -> tuple[int | None, int | None]:
        """Return TTL and DSCP of the reply before this one, each only if it was another; None where there is none."""
        now = response.ttl, response.dscp
        before = self._last.get(response.port_index, now)
        self._last[response.port_index] = now
        ttl, dscp = (old if old != new else None for old, new in zip(before, now, strict=True))
        return ttl, dscp


@dataclass(slots=True, kw_only=True)
class HeaderCounts:
    """How many replies had which TTL and DSCP, and how often these changed."""

    ttls: dict[int, int] = field(default_factory=dict)
    dscps: dict[int, int] = field(default_factory=dict)
    changes: int = 0
    first_change: Event | None = None

    def add(self, event: Event) -> None:
        """Add the first reply to a probe."""
        for counts, value in ((self.ttls, event.ttl), (self.dscps, event.dscp)):
            if value is not None:
                counts[value] = counts.get(value, 0) + 1
        if event.previous_ttl is not None or event.previous_dscp is not None:
            self.changes += 1
            self.first_change = self.first_change or event
