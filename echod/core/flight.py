"""The probes in flight to one target, and their outcomes by what comes back.

Owns the memory of what was sent; never touches a socket or a clock: bytes and times are passed in. Invariant: a probe
leaves the state "in flight" exactly once, and everything that comes back is exactly one event.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from echod.core.events import Event, Kind
from echod.core.probe import SEQUENCE_BYTES, Damage, Payloads, Verdict, akin, compare

HISTORY: Final = 65_536
"""Probes remembered after their outcome is known, to recognize a duplicate or a late reply."""

_SUSPECTS: Final = 1024
"""Most probes in flight that a reply with a damaged number is compared to."""

_ANSWERED: Final = (Kind.REPLY, Kind.LATE)

_KINDS: Final = {
    Damage.CORRUPT: Kind.CORRUPT,
    Damage.TRUNCATED: Kind.TRUNCATED,
    Damage.EXTENDED: Kind.EXTENDED,
}


@dataclass(slots=True, kw_only=True)
class _Sent:
    sequence: int
    size: int
    source: int
    stamp: int
    """The time in the payload."""
    wall: int
    clock: int
    fate: Kind | None = None
    """The outcome; None while it is in flight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A datagram that came back from `address`; `asked` tells whether that is the address probed.

    `wall` is ns since 1970, the kernel's if `stamped`, else the reader's; `clock` is the reader's monotonic time in ns.
    """

    data: bytes
    wall: int
    clock: int
    address: str
    stamped: bool = True
    asked: bool = True
    source: int = 0
    ttl: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """An error that came instead of a reply; `data` is the part of the probe that it quotes, None if there is none."""

    reason: str
    address: str
    wall: int
    source: int = 0
    data: bytes | None = None
    mtu: int = 0


class Flight:
    """The probes of one target. Sequence numbers begin with 1, as ping's do."""

    def __init__(self, payloads: Payloads, *, timeout: int) -> None:
        """Give up a probe after `timeout` ns in flight."""
        self._payloads = payloads
        self._timeout = timeout
        self._sent: dict[int, _Sent] = {}
        self._queue: deque[_Sent] = deque()
        self.in_flight = 0
        self.next_sequence = 1
        self._oldest = 1
        """The first that is remembered. A dict of which the first was taken away finds its new first slowly."""

    def payload(self, wall: int, size: int) -> bytes:
        """Return the next probe's payload: `wall` in ns since 1970, size in bytes."""
        return self._payloads.encode(self.next_sequence, wall, size)

    def launch(self, stamp: int, wall: int, clock: int, size: int, source: int = 0) -> int:
        """Remember that the next probe was sent; return its number.

        `stamp` is the time in its payload, `wall` and `clock` the times in ns just before it was passed to the kernel;
        `wall` is the kernel's own send timestamp, if known.
        """
        sequence = self.next_sequence
        sent = _Sent(sequence=sequence, size=size, source=source, stamp=stamp, wall=wall, clock=clock)
        self._sent[sequence] = sent
        self._queue.append(sent)
        self.in_flight += 1
        self.next_sequence += 1
        while sequence - self._oldest >= HISTORY and self._sent[self._oldest].fate:
            del self._sent[self._oldest]
            self._oldest += 1
        return sequence

    def depart(self, wall: int, clock: int, source: int = 0) -> None:
        """Note that the probes in flight of a source port were sent only now: they waited for a connection."""
        for sent in self._in_flight(source):
            sent.wall, sent.clock = wall, clock

    # -- what comes back

    def land(self, arrival: Arrival) -> Event:
        """Return the event of an arrival."""
        sent, verdict = self._find(arrival)
        if sent is None or verdict is None:
            return self._unknown(arrival)
        if verdict.damage is not Damage.NONE:
            return self._event(_KINDS[verdict.damage], sent, arrival, verdict)
        if not arrival.asked:
            return self._event(Kind.ELSEWHERE, sent, arrival)
        if sent.fate in _ANSWERED:
            return self._event(Kind.DUPLICATE, sent, arrival)
        # The reader may have read a late reply before it gave the probe up.
        late = sent.fate is Kind.LOST or _round_trip(sent, arrival) >= self._timeout
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
                kind=Kind.REFUSED,
                time=obstacle.wall,
                source=obstacle.source,
                address=obstacle.address,
                reason=obstacle.reason,
                mtu=obstacle.mtu,
            )
        before, settles = sent.fate, self._settle(sent, Kind.REFUSED)
        return Event(
            kind=Kind.REFUSED,
            time=obstacle.wall,
            sequence=sent.sequence,
            settles=settles,
            before=before,
            source=sent.source,
            size=sent.size,
            expected=sent.size,
            sent=sent.wall,
            until=self._next_sent(sent),
            rtt=max(0, obstacle.wall - sent.wall),
            address=obstacle.address,
            reason=obstacle.reason,
            mtu=obstacle.mtu,
        )

    def expire(self, clock: int, wall: int, patience: int | None = None) -> list[Event]:
        """Give up the probes that have been in flight too long; return an event for each, by number.

        With `patience`, in ns, at the end of a run, that is too long already where it is less than the timeout.
        """
        lost, most = [], self._timeout if patience is None else min(self._timeout, patience)
        while self._queue and (self._queue[0].fate or clock - self._queue[0].clock >= most):
            sent = self._queue.popleft()
            if self._settle(sent, Kind.LOST):
                lost.append(
                    Event(
                        kind=Kind.LOST,
                        time=wall,
                        sequence=sent.sequence,
                        settles=True,
                        source=sent.source,
                        size=sent.size,
                        expected=sent.size,
                        sent=sent.wall,
                        until=self._next_sent(sent),
                        rtt=clock - sent.clock,
                    )
                )
        return lost

    def next_expiry(self) -> int | None:
        """Return the monotonic time in ns when the oldest probe in flight is to be given up, or an earlier one."""
        return self._queue[0].clock + self._timeout if self._queue else None

    # -- finding and settling probes

    def _settle(self, sent: _Sent, kind: Kind) -> bool:
        """Make this the outcome of a probe, unless it has a better one; tell whether it did."""
        before = sent.fate
        if before is None:
            self.in_flight -= 1
        elif before in _ANSWERED or kind is Kind.LOST or (kind not in _ANSWERED and before is not Kind.LOST):
            return False
        sent.fate = kind
        return True

    def _next_sent(self, sent: _Sent) -> int:
        following = self._sent.get(sent.sequence + 1)
        return following.wall if following else 0

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
        return (sent for sent in self._queue if sent.fate is None and sent.source == source)

    def _by_number(self, arrival: Arrival) -> _Sent | None:
        """Find a probe by its number, or by the part of it that fits into the size that came."""
        data = arrival.data
        if len(data) >= SEQUENCE_BYTES:
            return self._sent.get(int.from_bytes(data[:SEQUENCE_BYTES], "big"))
        low, period = int.from_bytes(data, "big"), 1 << 8 * len(data)
        found = None
        for sent in self._queue:
            if (sent.size, sent.source) == (len(data), arrival.source) and sent.sequence % period == low:
                if sent.fate is None:
                    return sent
                found = sent
        return found

    def _by_likeness(self, arrival: Arrival, first: _Sent | None) -> tuple[_Sent | None, Verdict | None]:
        """Find the probe in flight that is most similar to the arrival: more than half of its bytes must be right.

        An empty reply is attributed to the oldest probe: nothing in it contradicts that.
        """
        suspects = (*([first] if first else []), *islice(self._in_flight(arrival.source), _SUSPECTS))
        data = arrival.data
        best, least, verdict = None, 0.5, None
        for sent in suspects:
            expected = self._expected(sent)
            found = compare(data, expected)
            wrong = found.count / len(data) if found.damage is Damage.CORRUPT else 0.0
            if wrong < least and akin(data, expected):
                best, least, verdict = sent, wrong, found
        return best, verdict

    def _unknown(self, arrival: Arrival) -> Event:
        """Return the event of an arrival that no remembered probe explains."""
        header = self._payloads.read(arrival.data)
        stale = header is not None and header.sequence < self.next_sequence
        return Event(
            kind=Kind.STALE if stale else Kind.FOREIGN,
            time=arrival.wall,
            sequence=header.sequence if header and stale else None,
            source=arrival.source,
            size=len(arrival.data),
            sent=header.sent if header and stale else 0,
            rtt=max(0, arrival.wall - header.sent) if header and stale else None,
            address=arrival.address,
            ttl=arrival.ttl,
        )

    def _event(self, kind: Kind, sent: _Sent, arrival: Arrival, verdict: Verdict | None = None) -> Event:
        """Settle a probe as `kind` and return the event."""
        before, settles = sent.fate, self._settle(sent, kind)
        return Event(
            kind=kind,
            time=arrival.wall,
            sequence=sent.sequence,
            settles=settles,
            before=before,
            source=sent.source,
            size=len(arrival.data),
            expected=sent.size,
            sent=sent.wall,
            until=self._next_sent(sent),
            rtt=_round_trip(sent, arrival),
            address=arrival.address,
            ttl=arrival.ttl,
            offset=verdict.offset if verdict else 0,
            count=verdict.count if verdict else 0,
        )


def _round_trip(sent: _Sent, arrival: Arrival) -> int:
    """Return the round-trip time in ns.

    The kernel timestamps arrivals with the wall clock. No reply can have taken longer than the monotonic clock shows.
    If it seems to have, or to have come before its probe, the wall clock was set meanwhile.
    """
    most = arrival.clock - sent.clock
    measured = arrival.wall - sent.wall
    return measured if arrival.stamped and 0 <= measured <= most else most
