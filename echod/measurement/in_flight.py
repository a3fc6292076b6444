"""The probes in flight to one target, and the outcome of each.

Owns the memory of the probes sent. Never touches a socket or a clock: bytes and times are passed in. Invariant: a probe
leaves the state "in flight" exactly once, and each response or error is exactly one event.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Final

from echod.measurement.events import KIND_OF_DAMAGE, NEVER, Event, Kind, Moment
from echod.measurement.icmp import NetworkError
from echod.measurement.payload import (
    MAX_CANDIDATES,
    SEQUENCE_BYTES,
    Damage,
    Difference,
    Payloads,
    compare,
    most_similar,
    sent_time,
)
from echod.measurement.reply_headers import ReplyHeaders
from echod.measurement.responder import Responders
from echod.measurement.round_trip import Response, round_trip

_MAX_SEARCHED: Final = 1024
"""Most probes that are searched for a send time, or for a number of less than four bytes, which takes 50 us."""

_ANSWERED: Final = (Kind.REPLY, Kind.LATE)


@dataclass(slots=True, kw_only=True)
class _Probe:
    sequence: int
    size: int
    port_index: int
    stamp: int
    """The time in the payload."""
    head: bytes
    """The header, which a damaged reply is compared to first: the rest is the same in all probes."""
    moment: Moment
    offset: int
    """How far the wall clock was ahead of the monotonic clock, in ns."""
    outcome: Kind | None = None
    """The outcome; None while it is in flight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeError(NetworkError):
    """An error that came instead of a reply; `data` is the part of the probe that it quotes, which may be empty."""

    moment: Moment
    port_index: int = 0
    data: bytes = b""
    unsent: bool = False
    """Whether this host did not send the probe."""


def probe_error(
    error: NetworkError, moment: Moment, data: bytes, *, port_index: int = 0, unsent: bool = False
) -> ProbeError:
    """Return a network error as that of the probe that begins with `data`."""
    return ProbeError(**asdict(error), moment=moment, port_index=port_index, data=data, unsent=unsent)


class InFlight:
    """The probes of one target. Sequence numbers begin with 1, as ping's do."""

    def __init__(self, payloads: Payloads, *, timeout: int, history: int, offset: int) -> None:
        """Give up a probe after `timeout` ns in flight; remember `history` probes after their outcome is known.

        `offset` is how far the wall clock was ahead of the monotonic clock, in ns, when the run began. The send times
        in the payloads use it throughout, so that they differ from each other even if the wall clock is set.
        """
        self._payloads = payloads
        self._timeout = timeout
        self._history = history
        self._offset = offset
        self._probes: dict[int, _Probe] = {}
        self._queue: deque[_Probe] = deque()
        self._by_port: dict[int, OrderedDict[int, _Probe]] = {}
        """Those in flight, by source port, oldest first."""
        self._headers = ReplyHeaders()
        self._responders = Responders()
        self.count = 0
        self.next_sequence = 1
        self._oldest = 1
        """The first probe that is remembered. A dict finds its first key slowly after others were removed."""

    def payload(self, clock: int, size: int) -> bytes:
        """Return the next probe's payload: `clock` is monotonic, in ns; size in bytes."""
        return self._payloads.encode(self.next_sequence, clock + self._offset, size)

    def sent(self, payload: bytes, clock: int, moment: Moment, *, send_stamp: int = 0, port_index: int = 0) -> int:
        """Remember that the next probe was sent; return its number.

        `payload` was made at `clock`, and passed to the kernel right after `moment`; `send_stamp` is the send timestamp
        of the kernel in ns since 1970, or an earlier one if that is not known.
        """
        sequence = self.next_sequence
        probe = _Probe(
            sequence=sequence,
            size=len(payload),
            port_index=port_index,
            stamp=clock + self._offset,
            head=self._payloads.head(payload),
            moment=_later(moment, send_stamp),
            offset=moment.wall - moment.clock,
        )
        self._probes[sequence] = probe
        self._queue.append(probe)
        self._by_port.setdefault(port_index, OrderedDict())[sequence] = probe
        self.count += 1
        self.next_sequence += 1
        while sequence - self._oldest >= self._history and self._probes[self._oldest].outcome:
            del self._probes[self._oldest]
            self._oldest += 1
        return sequence

    def connected(self, moment: Moment, port_index: int = 0) -> None:
        """Note that the probes in flight of a source port are sent only now: they waited for a connection."""
        for probe in self._on_port(port_index):
            probe.moment, probe.offset = moment, moment.wall - moment.clock

    # -- responses and errors

    def received(self, response: Response) -> Event:
        """Return the event of a response."""
        found = self._find(response)
        if found is None:
            return self._unknown(response)
        probe, difference = found
        if difference.damage is not Damage.NONE:
            return self._event(KIND_OF_DAMAGE[difference.damage], probe, response, difference)
        if not response.from_target:
            return self._event(Kind.DIFFERENT_ADDRESS, probe, response, difference)
        if probe.outcome in _ANSWERED:
            return self._event(Kind.DUPLICATE, probe, response, difference)
        # The reader may have read a late reply before it gave the probe up, and one in time after it.
        late = _round_trip(probe, response) >= self._timeout
        return self._event(Kind.LATE if late else Kind.REPLY, probe, response, difference)

    def failed(self, error: ProbeError) -> Event:
        """Return the event of an error. Its probe is the one whose number it quotes, or else the oldest in flight."""
        probe = None
        if len(error.data) >= SEQUENCE_BYTES:
            probe = self._probes.get(self._payloads.number(error.data))
        if probe is None:
            probe = next(self._on_port(error.port_index), None)
        moment = error.moment
        event = Event(kind=Kind.ERROR, time=moment.wall, clock=moment.clock, port_index=error.port_index)
        if probe is not None:
            event = self._unanswered(Kind.ERROR, probe, moment)
        return replace(event, address=error.address, reason=error.reason, mtu=error.mtu, unsent=error.unsent)

    def expire(self, now: Moment, patience: int | None = None) -> list[Event]:
        """Give up the probes that have been in flight for the timeout; return an event for each, by number.

        At the end of a run a shorter `patience`, in ns, takes the place of the timeout.
        """
        lost, most = [], self._timeout if patience is None else min(self._timeout, patience)
        while self._queue and (self._queue[0].outcome or now.clock - self._queue[0].moment.clock >= most):
            probe = self._queue.popleft()
            if probe.outcome is None:
                lost.append(self._unanswered(Kind.LOST, probe, now))
        return lost

    def next_expiry(self) -> int | None:
        """Return the monotonic time in ns when the oldest probe in flight is to be given up, or an earlier one."""
        return self._queue[0].moment.clock + self._timeout if self._queue else None

    # -- finding and settling probes

    def _settle(self, probe: _Probe, kind: Kind) -> bool:
        """Make this the outcome of a probe unless it has a better one; return whether it did."""
        previous = probe.outcome
        if previous is None:
            self.count -= 1
            del self._by_port[probe.port_index][probe.sequence]
        elif previous in _ANSWERED or (kind not in _ANSWERED and previous is not Kind.LOST):
            return False
        probe.outcome = kind
        return True

    def _next_sent(self, probe: _Probe) -> Moment:
        following = self._probes.get(probe.sequence + 1)
        return following.moment if following else NEVER

    def _expected(self, probe: _Probe) -> bytes:
        return self._payloads.encode(probe.sequence, probe.stamp, probe.size)

    def _find(self, response: Response) -> tuple[_Probe, Difference] | None:
        """Find the probe of a response, and how the response differs from it."""
        data = response.data
        probe = self._by_number(response)
        if probe is not None:
            difference = compare(data, self._expected(probe))
            if difference.damage is not Damage.CORRUPT:
                return probe, difference
        if self._payloads.read(data) is not None:
            return None  # whole and ours, but no longer remembered
        candidates = [*([probe] if probe else []), *self._candidates(response)]
        start = self._payloads.start
        return most_similar(data, candidates, lambda candidate: candidate.head, self._expected, start)

    def _on_port(self, port_index: int) -> Iterator[_Probe]:
        """Yield the probes in flight of a source port, oldest first."""
        return iter(self._by_port.get(port_index, {}).values())

    def _by_number(self, response: Response) -> _Probe | None:
        """Find a probe by its number, or by the part of the number that the response has room for."""
        data = response.data
        if len(data) >= SEQUENCE_BYTES:
            return self._probes.get(self._payloads.number(data))
        low, period = int.from_bytes(data, "big"), 1 << 8 * len(data)
        key = len(data), response.port_index
        for probe in islice(self._on_port(response.port_index), _MAX_SEARCHED):
            if (probe.size, probe.port_index) == key and probe.sequence % period == low:
                return probe
        last = self.next_sequence - 1
        numbers = range(last - (last - low) % period, self._oldest - 1, -period)[:_MAX_SEARCHED]
        known = filter(None, map(self._probes.get, numbers))
        return next((found for found in known if (found.size, found.port_index) == key), None)

    def _candidates(self, response: Response) -> Iterator[_Probe]:
        """Yield the probes in flight that a response may belong to: that with its send time, and the oldest."""
        if not self._payloads.may_be_ours(response.data):
            return
        stamp = sent_time(response.data, self._payloads.start)
        if stamp is not None:
            searched = islice(self._on_port(response.port_index), _MAX_SEARCHED)
            yield from (probe for probe in searched if probe.stamp == stamp)
        yield from islice(self._on_port(response.port_index), MAX_CANDIDATES)

    def _unknown(self, response: Response) -> Event:
        """Return the event of a response that belongs to no remembered probe."""
        event = Event(
            kind=Kind.UNMATCHED,
            time=response.wall,
            clock=response.read.clock,
            port_index=response.port_index,
            size=len(response.data),
            address=response.address,
            ttl=response.ttl,
            dscp=response.dscp,
        )
        header = self._payloads.read(response.data)
        if header is None or header.sequence >= self.next_sequence:
            return event
        sent = Moment(wall=header.sent, clock=header.sent - self._offset)
        rtt = round_trip(sent, self._offset, response.stamp, response.read)
        return replace(event, kind=Kind.STALE, sequence=header.sequence, sent=sent, rtt=rtt)

    def _unanswered(self, kind: Kind, probe: _Probe, moment: Moment) -> Event:
        """Settle a probe as `kind`, without a reply, and return the event."""
        previous = probe.outcome
        return Event(
            kind=kind,
            time=moment.wall,
            clock=moment.clock,
            sequence=probe.sequence,
            settles=self._settle(probe, kind),
            previous=previous,
            port_index=probe.port_index,
            size=probe.size,
            expected=probe.size,
            sent=probe.moment,
            next_sent=self._next_sent(probe),
            rtt=max(0, moment.clock - probe.moment.clock),
        )

    def _event(self, kind: Kind, probe: _Probe, response: Response, difference: Difference) -> Event:
        """Settle a probe as `kind` and return the event."""
        previous, rtt = probe.outcome, _round_trip(probe, response)
        # Damage from another address says nothing about the reply, which may still come.
        settles = (response.from_target or kind is Kind.DIFFERENT_ADDRESS) and self._settle(probe, kind)
        ordinary = settles and kind in _ANSWERED
        ttl, dscp = self._headers.previous(response) if ordinary else (None, None)
        sent, arrived = probe.moment.clock, probe.moment.clock + rtt
        written = response.report if response.from_target else None
        report, new = self._responders.judge(written, probe.sequence, response.port_index, sent=sent, arrived=arrived)
        return Event(
            kind=kind,
            time=response.wall,
            clock=arrived,
            sequence=probe.sequence,
            settles=settles,
            previous=previous,
            port_index=probe.port_index,
            size=len(response.data),
            expected=probe.size,
            sent=probe.moment,
            next_sent=self._next_sent(probe),
            rtt=rtt,
            address=response.address,
            ttl=response.ttl,
            dscp=response.dscp,
            previous_ttl=ttl,
            previous_dscp=dscp,
            report=report,
            new_responder=new,
            offset=difference.offset,
            count=difference.count,
        )


def _later(moment: Moment, stamp: int) -> Moment:
    """Return the moment of a timestamp of the kernel, or this one if the timestamp is not later."""
    return Moment(wall=stamp, clock=moment.clock + stamp - moment.wall) if stamp > moment.wall else moment


def _round_trip(probe: _Probe, response: Response) -> int:
    return round_trip(probe.moment, probe.offset, response.stamp, response.read)
