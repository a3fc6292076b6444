"""The statistics of a stream of events: of one target, or of one source port of it.

Owns the counts. It reads only events, so that live output, files and the summary cannot disagree. Invariant: sent =
received + damaged + errors + lost + in flight, at any time.
"""

from dataclasses import dataclass, field
from typing import Final

from echod.measurement.directions import Directions, Tally
from echod.measurement.events import DAMAGED, Event, Kind
from echod.measurement.far_end import FarEnd
from echod.measurement.latency import Latency, Variation
from echod.measurement.outages import Outages
from echod.measurement.reordering import Order
from echod.measurement.reply_headers import HeaderCounts

_PATIENCE_TRIPS: Final = 3
"""At the end of a run a probe is lost if it is in flight for so many of the longest round trips, as with irtt."""

MOST_ADDRESSES: Final = 256
"""Most addresses that are counted apart: those of errors, and those of replies from another address. Anybody may forge
more."""

OTHERS: Final = "others"
"""The address that all further ones are counted under."""


@dataclass(slots=True, kw_only=True)
class ErrorCount:
    """Errors of one kind from one address: their number, and the least MTU that they reported."""

    count: int = 0
    mtu: int = 0


@dataclass(slots=True, kw_only=True)
class Stream:
    """The probes of one source port: a network preserves order only within one."""

    order: Order = field(default_factory=Order)
    variation: Variation = field(default_factory=Variation)
    tally: Tally = field(default_factory=Tally)


@dataclass(slots=True, kw_only=True)
class Statistics:
    """The statistics."""

    source_ports: int = 1
    """Source ports that the probes use in turn."""
    fresh: bool = True
    """Whether nothing was sent from them before."""
    sent: int = 0
    received: int = 0
    """Probes with a whole reply from the address probed, in time or late."""
    counts: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(Kind, 0))
    """Events of each kind."""
    dropped: int = 0
    """Datagrams that had no room in the receive buffer of this host: known at the end of the run."""
    outcomes: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(Kind, 0))
    """Probes without a whole reply, by outcome."""
    unsent: int = 0
    """Those of them that this host did not send."""
    errors: dict[tuple[str, str], ErrorCount] = field(default_factory=dict)
    """By reason and address."""
    first_damage: dict[Kind, Event] = field(default_factory=dict)
    other_addresses: set[str] = field(default_factory=set)
    """Addresses that replied although others were probed."""
    latency: Latency = field(default_factory=Latency)
    streams: dict[int, Stream] = field(default_factory=dict)
    """By source port; order and variation are judged within each."""
    headers: HeaderCounts = field(default_factory=HeaderCounts)
    """TTL and DSCP of the replies."""
    far_end: FarEnd = field(default_factory=FarEnd)
    """What the responder reports, if it does."""
    outages: Outages = field(default_factory=Outages)

    @property
    def in_flight(self) -> int:
        """Return the number of probes without an outcome yet."""
        return self.sent - self.received - sum(self.outcomes.values())

    @property
    def loss(self) -> float | None:
        """Return the share of probes without a whole reply among those with a known outcome; None if there are none."""
        settled = self.received + sum(self.outcomes.values())
        return sum(self.outcomes.values()) / settled if settled else None

    @property
    def order(self) -> Order:
        """Return the counts of reordering, summed over all streams."""
        total = Order()
        for stream in self.streams.values():
            total.merge(stream.order)
        return total

    @property
    def variation(self) -> Variation:
        """Return the delay variation over all streams; jitter is their mean, weighted by replies."""
        total = Variation()
        for stream in self.streams.values():
            total.merge(stream.variation)
        return total

    @property
    def directions(self) -> Directions:
        """Return what happened in each direction, summed over all streams."""
        total = Directions()
        for stream in self.streams.values():
            total.merge(stream.tally.directions)
        return total

    @property
    def lost_by_direction(self) -> tuple[int, int] | None:
        """Return the losses out and back, which is fast; None if they have no direction."""
        lost = [stream.tally.lost for stream in self.streams.values()]
        known = [each for each in lost if each is not None]
        return (sum(out for out, _ in known), sum(back for _, back in known)) if known == lost and known else None

    @property
    def patience(self) -> int | None:
        """Return for how many ns a probe must be in flight at the end of a run to be lost; None where that is unknown.

        Without that, the end of a run would count the replies to the last probes and none of their losses.
        """
        return _PATIENCE_TRIPS * self.latency.max if self.latency.count else None

    def add(self, event: Event) -> None:
        """Count an event."""
        kind = event.kind
        self.counts[kind] += 1
        if event.settles:
            self._settle(event)
        if event.sequence is not None and (event.report is not None or event.unsent):
            self._report(event.sequence, event)
        if kind in DAMAGED:
            self.first_damage.setdefault(kind, event)
        elif kind is Kind.ERROR:
            known = (event.reason, event.address) in self.errors or len(self.errors) < MOST_ADDRESSES
            key = (event.reason, event.address if known or not event.address else OTHERS)
            errors = self.errors.setdefault(key, ErrorCount())
            errors.count += 1
            errors.mtu = min(filter(None, (errors.mtu, event.mtu)), default=0)
        elif kind is Kind.DIFFERENT_ADDRESS:
            known = event.address in self.other_addresses or len(self.other_addresses) < MOST_ADDRESSES
            self.other_addresses.add(event.address if known else OTHERS)

    def _stream(self, port_index: int) -> Stream:
        return self.streams.setdefault(port_index, Stream(tally=Tally(fresh=self.fresh)))

    def _report(self, sequence: int, event: Event) -> None:
        """Count what says something of each direction: the report of a responder, or a probe that was not sent."""
        index = (sequence - 1) // self.source_ports + 1
        tally = self._stream(event.port_index).tally
        if event.unsent:
            tally.unsent(index)
        else:
            self.far_end.add(event)
            tally.add(index, event)

    def _settle(self, event: Event) -> None:
        sequence = event.sequence or 0
        self.outages.settled(sequence, event.sent)
        if event.previous is not None:
            self.outcomes[event.previous] -= 1
            self.outages.answered(sequence, event.sent, event.next_sent)
        if event.kind in (Kind.REPLY, Kind.LATE):
            index, rtt = sequence // self.source_ports, event.rtt or 0
            self.received += 1
            self.latency.add(rtt)
            self.headers.add(event)
            stream = self._stream(event.port_index)
            stream.variation.add(index, rtt)
            stream.order.add(index, event.clock)
            return
        self.outcomes[event.kind] += 1
        self.unsent += event.unsent
        if event.kind is Kind.LOST or (event.kind is Kind.ERROR and not event.unsent):
            self.outages.lost(sequence, event.sent, event.next_sent)
