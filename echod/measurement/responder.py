"""What a responder reports of itself and of what arrived, and whether it is still the same responder.

Owns `Report`, the part of a reply of UDPEchoPlus or STAMP that the responder wrote, and the detection of a responder
that was restarted or replaced. Never counts. Invariant: reordering, duplicates and losses on the way never make a
responder a new one, because only what cannot be otherwise does.
"""

from bisect import bisect_left
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Final

_WRAP: Final = 2**32
"""What the counts of a responder begin at zero again after, with UDPEchoPlus as with STAMP."""

_KEPT: Final = 4096
"""Replies of one source port that are remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the responder wrote into a reply. An unknown value is None.

    Times are in ns by the clock of the responder, which begins at zero again after `wraps` ns, and has nothing to do
    with any clock of this host.
    """

    received: int
    """When the request arrived."""
    replied: int
    """When the reply was sent."""
    wraps: int
    count: int | None = None
    """How many requests of this source port had arrived by then, this one included; None if nothing was counted."""
    copied: bool = False
    """Whether the count may be no count, but the number of the request, as a stateless reflector returns it."""
    failures: int = 0
    """How many of these the responder could not reply to."""
    ttl: int | None = None
    """TTL or hop limit of the request, as it arrived."""
    dscp: int | None = None
    """DSCP of the request, as it arrived."""
    request_dscp: int | None = None
    """DSCP of the request, as it was sent."""
    reply_dscp: int | None = None
    """DSCP of the reply, as it was sent."""

    @property
    def held(self) -> int | None:
        """Return for how many ns the responder had the request before it replied.

        None if it replied before the request arrived: its clock was set meanwhile, or it has two.
        """
        held = (self.replied - self.received) % self.wraps
        return held if held < self.wraps // 2 else None


class Responders:
    """The responder behind each source port, by its counts."""

    def __init__(self) -> None:
        """Start without any reply."""
        self._by_port: dict[int, _Responder] = {}

    def judge(
        self, report: Report | None, sequence: int, port_index: int, *, sent: int, arrived: int
    ) -> tuple[Report | None, bool]:
        """Return the report, and whether it is the first of another responder.

        The report is without its count if that is none; a count that has begun at zero again goes on where it was.

        The probe has this number, and left at `sent`; the reply came at `arrived`: monotonic times in ns.
        """
        if report is None or report.count is None:
            return report, False
        if report.copied and port_index not in self._by_port:  # nothing shows yet that this responder counts
            return replace(report, count=None), False
        responder = self._by_port.setdefault(port_index, _Responder())
        count = responder.unwrap(report.count)
        new = responder.contradicts(count, sequence, sent)
        if new:
            responder, count = _Responder(), report.count
            self._by_port[port_index] = responder
        responder.add(count, sequence, arrived)
        return (report if count == report.count else replace(report, count=count)), new


class _Responder:
    """The counts of one responder in its replies."""

    def __init__(self) -> None:
        self._peaks: list[int] = []
        """Counts that were greater than all before them, and when they came."""
        self._arrived: list[int] = []
        self._sequences: OrderedDict[int, int] = OrderedDict()
        """The probe that each count belongs to."""

    def unwrap(self, count: int) -> int:
        """Return the count nearest to the greatest one that is the same modulo 2**32 (serial arithmetic, RFC 1982)."""
        greatest = self._peaks[-1] if self._peaks else count
        return greatest + (count - greatest + _WRAP // 2) % _WRAP - _WRAP // 2

    def contradicts(self, count: int, sequence: int, sent: int) -> bool:
        """Return whether the same responder cannot have sent this.

        It would have given one count to two probes, or the probe left after the reply to a later arrival had come.
        """
        if self._sequences.get(count, sequence) != sequence:
            return True
        at = bisect_left(self._peaks, count)
        known = self._sequences.get(count) == sequence  # a duplicate of that reply
        return at < len(self._peaks) and self._arrived[at] <= sent and not known

    def add(self, count: int, sequence: int, arrived: int) -> None:
        if not self._peaks or count > self._peaks[-1]:
            self._peaks.append(count)
            self._arrived.append(arrived)
            if len(self._peaks) > 2 * _KEPT:
                del self._peaks[:_KEPT], self._arrived[:_KEPT]
        self._sequences[count] = sequence
        if len(self._sequences) > _KEPT:
            self._sequences.popitem(last=False)
