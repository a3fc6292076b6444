"""The probes in flight to one target, and their outcomes by what comes back.

Owns the memory of what was sent; never touches a socket or a clock: bytes and times are passed in. Invariant: a probe
leaves the state "in flight" exactly once, and everything that comes back is exactly one event.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from echod.measurement.events import KIND_OF_DAMAGE, NEVER, Event, Kind, Moment
from echod.measurement.payload import (
    HEADER_BYTES,
    SEQUENCE_BYTES,
    Damage,
    Payloads,
    Verdict,
    closest,
    compare,
    sent_time,
)
from echod.measurement.round_trip import Arrival, round_trip

_SUSPECTS: Final = 64
"""Most probes in flight, the oldest, that a reply with a damaged number is compared to."""

_SEARCHED: Final = 1024
"""Most probes that are searched for a send time, or for a number of less than four bytes: that takes 50 us."""

_ANSWERED: Final = (Kind.REPLY, Kind.LATE)


@dataclass(slots=True, kw_only=True)
class _Sent:
    sequence: int
    size: int
    source: int
    stamp: int
    """The time in the payload."""
    head: bytes
    """What a damaged reply is compared to first: the header, for the rest is the same in all probes."""
    moment: Moment
    offset: int
    """How far the wall clock was ahead of the monotonic clock, in ns."""
    fate: Kind | None = None
    """The outcome; None while it is in flight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """An error that came instead of a reply; `data` is the part of the probe that it quotes, None if there is none."""

    reason: str
    address: str
    moment: Moment
    source: int = 0
    data: bytes | None = None
    mtu: int = 0
    unsent: bool = False
    """Whether this host did not send the probe."""


class Flight:
    """The probes of one target. Sequence numbers begin with 1, as ping's do."""

    def __init__(self, payloads: Payloads, *, timeout: int, history: int, offset: int) -> None:
        """Give up a probe after `timeout` ns in flight; remember `history` probes after their outcome is known.

        `offset` is how far the wall clock was ahead of the monotonic clock, in ns, when the run began. The send times
        in the payloads keep it, so they can be told from each other also where the wall clock is set meanwhile.
        """
        self._payloads = payloads
        self._timeout = timeout
        self._history = history
        self._offset = offset
        self._sent: dict[int, _Sent] = {}
        self._queue: deque[_Sent] = deque()
        self._flying: dict[int, OrderedDict[int, _Sent]] = {}
        """Those in flight, by source port, oldest first."""
        self.in_flight = 0
        self.next_sequence = 1
        self._oldest = 1
        """The first that is remembered. A dict of which the first was taken away finds its new first slowly."""

    def payload(self, clock: int, size: int) -> bytes:
        """Return the next probe's payload: `clock` is monotonic, in ns; size in bytes."""
        return self._payloads.encode(self.next_sequence, clock + self._offset, size)

    def launch(self, payload: bytes, clock: int, moment: Moment, *, left: int = 0, source: int = 0) -> int:
        """Remember that the next probe was sent; return its number.

        `payload` was made at `clock`, and passed to the kernel right after `moment`; `left` is the kernel's own send
        timestamp in ns since 1970, or an earlier one where that is not known.
        """
        sequence = self.next_sequence
        sent = _Sent(
            sequence=sequence,
            size=len(payload),
            source=source,
            stamp=clock + self._offset,
            head=payload[:HEADER_BYTES],
            moment=Moment(wall=left, clock=moment.clock) if left > moment.wall else moment,
            offset=moment.wall - moment.clock,
        )
        self._sent[sequence] = sent
        self._queue.append(sent)
        self._flying.setdefault(source, OrderedDict())[sequence] = sent
        self.in_flight += 1
        self.next_sequence += 1
        while sequence - self._oldest >= self._history and self._sent[self._oldest].fate:
            del self._sent[self._oldest]
            self._oldest += 1
        return sequence

    def depart(self, moment: Moment, source: int = 0) -> None:
        """Note that the probes in flight of a source port were sent only now: they waited for a connection."""
        for sent in self._in_flight(source):
            sent.moment, sent.offset = moment, moment.wall - moment.clock

    # -- what comes back

    def land(self, arrival: Arrival) -> Event:
        """Return the event of an arrival."""
        sent, verdict = self._find(arrival)
        if sent is None or verdict is None:
            return self._unknown(arrival)
        if verdict.damage is not Damage.NONE:
            return self._event(KIND_OF_DAMAGE[verdict.damage], sent, arrival, verdict)
        if not arrival.asked:
            return self._event(Kind.DIFFERENT_ADDRESS, sent, arrival)
        if sent.fate in _ANSWERED:
            return self._event(Kind.DUPLICATE, sent, arrival)
        # The reader may have read a late reply before it gave the probe up, and one in time after it.
        late = _round_trip(sent, arrival) >= self._timeout
        return self._event(Kind.LATE if late else Kind.REPLY, sent, arrival)

    def refuse(self, obstacle: Obstacle) -> Event:
        """Return the event of an error. Its probe is the one whose number it quotes, or else the oldest in flight."""
        sent = None
        if obstacle.data is not None and len(obstacle.data) >= SEQUENCE_BYTES:
            sent = self._sent.get(int.from_bytes(obstacle.data[:SEQUENCE_BYTES], "big"))
        if sent is None:
            sent = next(self._in_flight(obstacle.source), None)
        if sent is None:
            return Event(
                kind=Kind.ERROR,
                time=obstacle.moment.wall,
                clock=obstacle.moment.clock,
                source=obstacle.source,
                address=obstacle.address,
                reason=obstacle.reason,
                mtu=obstacle.mtu,
            )
        before, settles = sent.fate, self._settle(sent, Kind.ERROR)
        return Event(
            kind=Kind.ERROR,
            time=obstacle.moment.wall,
            clock=obstacle.moment.clock,
            sequence=sent.sequence,
            settles=settles,
            before=before,
            source=sent.source,
            size=sent.size,
            expected=sent.size,
            sent=sent.moment,
            until=self._next_sent(sent),
            rtt=max(0, obstacle.moment.clock - sent.moment.clock),
            address=obstacle.address,
            reason=obstacle.reason,
            mtu=obstacle.mtu,
            unsent=obstacle.unsent,
        )

    def expire(self, now: Moment, patience: int | None = None) -> list[Event]:
        """Give up the probes that have been in flight too long; return an event for each, by number.

        With `patience`, in ns, at the end of a run, that is too long already where it is less than the timeout.
        """
        lost, most = [], self._timeout if patience is None else min(self._timeout, patience)
        while self._queue and (self._queue[0].fate or now.clock - self._queue[0].moment.clock >= most):
            sent = self._queue.popleft()
            if self._settle(sent, Kind.LOST):
                lost.append(
                    Event(
                        kind=Kind.LOST,
                        time=now.wall,
                        clock=now.clock,
                        sequence=sent.sequence,
                        settles=True,
                        source=sent.source,
                        size=sent.size,
                        expected=sent.size,
                        sent=sent.moment,
                        until=self._next_sent(sent),
                        rtt=now.clock - sent.moment.clock,
                    )
                )
        return lost

    def next_expiry(self) -> int | None:
        """Return the monotonic time in ns when the oldest probe in flight is to be given up, or an earlier one."""
        return self._queue[0].moment.clock + self._timeout if self._queue else None

    # -- finding and settling probes

    def _settle(self, sent: _Sent, kind: Kind) -> bool:
        """Make this the outcome of a probe, unless it has a better one; tell whether it did."""
        before = sent.fate
        if before is None:
            self.in_flight -= 1
            del self._flying[sent.source][sent.sequence]
        elif before in _ANSWERED or kind is Kind.LOST or (kind not in _ANSWERED and before is not Kind.LOST):
            return False
        sent.fate = kind
        return True

    def _next_sent(self, sent: _Sent) -> Moment:
        following = self._sent.get(sent.sequence + 1)
        return following.moment if following else NEVER

    def _expected(self, sent: _Sent) -> bytes:
        return self._payloads.encode(sent.sequence, sent.stamp, sent.size)

    def _find(self, arrival: Arrival) -> tuple[_Sent | None, Verdict | None]:
        """Find the probe that an arrival replies to, and how it differs from that."""
        data = arrival.data
        sent = self._by_number(arrival)
        if sent is not None:
            verdict = compare(data, self._expected(sent))
            if verdict.damage is not Damage.CORRUPT:
                return sent, verdict
        if self._payloads.read(data) is not None:
            return None, None  # whole and ours, but no longer remembered
        return self._by_likeness(arrival, sent)

    def _in_flight(self, source: int) -> Iterator[_Sent]:
        """Yield the probes in flight of a source port, oldest first."""
        return iter(self._flying.get(source, {}).values())

    def _by_number(self, arrival: Arrival) -> _Sent | None:
        """Find a probe by its number, or by the part of it that fits into the size that came."""
        data = arrival.data
        if len(data) >= SEQUENCE_BYTES:
            return self._sent.get(int.from_bytes(data[:SEQUENCE_BYTES], "big"))
        low, period = int.from_bytes(data, "big"), 1 << 8 * len(data)
        key = len(data), arrival.source
        for sent in islice(self._in_flight(arrival.source), _SEARCHED):
            if (sent.size, sent.source) == key and sent.sequence % period == low:
                return sent
        last = self.next_sequence - 1
        numbers = range(last - (last - low) % period, self._oldest - 1, -period)[:_SEARCHED]
        known = filter(None, map(self._sent.get, numbers))
        return next((found for found in known if (found.size, found.source) == key), None)

    def _by_likeness(self, arrival: Arrival, first: _Sent | None) -> tuple[_Sent | None, Verdict | None]:
        """Find the probe in flight that is most similar to the arrival: more than half of its bytes must be right.

        An empty reply is attributed to the oldest probe: nothing in it contradicts that.
        """
        suspects = [*([first] if first else []), *self._suspects(arrival)]
        at = closest(arrival.data, [sent.head for sent in suspects])
        if at is None:
            return None, None
        verdict = compare(arrival.data, self._expected(suspects[at]))
        alike = verdict.damage is not Damage.CORRUPT or 2 * verdict.count < len(arrival.data)
        return (suspects[at], verdict) if alike else (None, None)

    def _suspects(self, arrival: Arrival) -> Iterator[_Sent]:
        """Yield the probes in flight that an arrival may be a reply to: that with its send time, and the oldest."""
        if not self._payloads.may_be_ours(arrival.data):
            return
        stamp = sent_time(arrival.data)
        if stamp is not None:
            searched = islice(self._in_flight(arrival.source), _SEARCHED)
            yield from (sent for sent in searched if sent.stamp == stamp)
        yield from islice(self._in_flight(arrival.source), _SUSPECTS)

    def _unknown(self, arrival: Arrival) -> Event:
        """Return the event of an arrival that no remembered probe explains."""
        header = self._payloads.read(arrival.data)
        if header is not None and header.sequence >= self.next_sequence:
            header = None
        sent = NEVER if header is None else Moment(wall=header.sent, clock=header.sent - self._offset)
        return Event(
            kind=Kind.UNMATCHED if header is None else Kind.STALE,
            time=arrival.wall,
            clock=arrival.read.clock,
            sequence=None if header is None else header.sequence,
            source=arrival.source,
            size=len(arrival.data),
            sent=sent,
            rtt=None if header is None else round_trip(sent, self._offset, arrival.stamp, arrival.read),
            address=arrival.address,
            ttl=arrival.ttl,
        )

    def _event(self, kind: Kind, sent: _Sent, arrival: Arrival, verdict: Verdict | None = None) -> Event:
        """Settle a probe as `kind` and return the event."""
        before, rtt = sent.fate, _round_trip(sent, arrival)
        # What somebody else has damaged says nothing of the reply, which may still come.
        settles = (arrival.asked or kind is Kind.DIFFERENT_ADDRESS) and self._settle(sent, kind)
        return Event(
            kind=kind,
            time=arrival.wall,
            clock=sent.moment.clock + rtt,
            sequence=sent.sequence,
            settles=settles,
            before=before,
            source=sent.source,
            size=len(arrival.data),
            expected=sent.size,
            sent=sent.moment,
            until=self._next_sent(sent),
            rtt=rtt,
            address=arrival.address,
            ttl=arrival.ttl,
            offset=verdict.offset if verdict else 0,
            count=verdict.count if verdict else 0,
        )


def _round_trip(sent: _Sent, arrival: Arrival) -> int:
    return round_trip(sent.moment, sent.offset, arrival.stamp, arrival.read)
