"""A flood of probes of one size: a ring of what was sent, compared in whole trains.

Owns the ring; never touches a socket or a clock. It counts the same things as `flight.py` and `survey.py`, a train at a
time, because at 300,000 replies a second there is no time to handle each. Invariant: a reply counts as received only if
every byte of it is the byte that was sent.
"""

from array import array
from dataclasses import dataclass
from typing import Final

from echod.core.events import Event, Kind
from echod.core.flight import Arrival
from echod.core.probe import Damage, Payloads, Verdict, akin, compare, sent_time
from echod.core.survey import Stream, Survey

_NONE, _IN_FLIGHT, _ANSWERED, _REFUSED = range(4)
_KINDS: Final = {
    Damage.CORRUPT: Kind.CORRUPT,
    Damage.TRUNCATED: Kind.TRUNCATED,
    Damage.EXTENDED: Kind.EXTENDED,
}
_SUSPECTS: Final = 1024
"""Most probes that a damaged reply is compared to, if not even its send time identifies its probe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The shape of a flood: bytes of each probe, at least four; probes in a train, and in flight; the timeout in ns.

    `kept` is the number of trains that are remembered: a reply is recognized until `kept` more trains have been sent.
    """

    size: int
    train: int
    window: int
    timeout: int
    kept: int


class Torrent:
    """The ring of one flood. Sequence numbers begin with 0, and each train at a multiple of its length."""

    def __init__(self, payloads: Payloads, survey: Survey, shape: Shape) -> None:
        """Start with nothing sent."""
        size, train, window = shape.size, shape.train, shape.window
        self._payloads = payloads
        self._survey = survey
        self._size, self._train = size, train
        self._window = max(window, train)
        self._timeout = shape.timeout
        self._refused: dict[int, Kind] = {}
        self._slots = shape.kept * train
        self._bytes = bytearray(self._slots * size)
        self._state = bytearray(self._slots)
        self._stamps = array("Q", bytes(8 * shape.kept))
        self._stream = survey.streams.setdefault(0, Stream())
        self._horizon = 0
        """Probes below it do not count as in flight: they were overtaken. They are lost, or their replies come late."""
        self._resumed = 0
        """The first probe sent after the last stall."""
        self.next_sequence = 0
        self.in_flight = 0

    @property
    def room(self) -> int:
        """Return how many probes may be sent now, a multiple of the train."""
        return max(0, self._window - self.in_flight) // self._train * self._train

    def load(self, wall: int, count: int) -> memoryview:
        """Write the next train, of `count` probes, into the ring; return its bytes. `launch` then counts it as sent."""
        first = self.next_sequence % self._slots
        if self.next_sequence >= self._slots:
            self._retire(self.next_sequence - self._slots)
        encode, size = self._payloads.encode, self._size
        numbers = range(self.next_sequence, self.next_sequence + count)
        train = b"".join([encode(number, wall, size) for number in numbers])
        self._bytes[first * size : first * size + len(train)] = train
        return memoryview(train)

    def launch(self, wall: int, count: int) -> None:
        """Note that the train was sent, at this time in ns since 1970."""
        first = self.next_sequence % self._slots
        self._stamps[first // self._train] = wall
        self._state[first : first + count] = bytes([_IN_FLIGHT]) * count
        self.next_sequence += count
        self.in_flight += count
        self._survey.sent += count

    def stall(self) -> None:
        """Note that no replies come, and that a train will be sent nevertheless.

        When a probe sent from now on is answered, those sent before no longer count as in flight.
        """
        self._resumed = self.next_sequence

    def finish(self, wall: int) -> None:
        """Count lost probes at time `wall`, in ns since 1970; those sent less than the timeout ago are in flight."""
        first = max(0, self.next_sequence - self._slots)
        for sequence in range(first - first % self._train, self.next_sequence, self._train):
            if wall - self._stamps[sequence % self._slots // self._train] >= self._timeout:
                self._retire(sequence)

    # -- what comes back

    def land_all(self, data: bytes, segment: int, wall: int) -> bool:
        """Count replies that came as one train and lie in one train of the ring; tell whether all were intact.

        If not, nothing is counted: call `land` for each.
        """
        if segment != self._size or len(data) % segment:
            return False
        sequence, count = int.from_bytes(data[:4], "big"), len(data) // segment
        first = sequence % self._slots
        if not (self._is_known(sequence) and sequence % self._train + count <= self._train):
            return False
        if self._state[first : first + count] != bytes([_IN_FLIGHT]) * count:
            return False
        if self._bytes[first * segment : (first + count) * segment] != data:
            return False
        self._answer(sequence, count, wall)
        return True

    def land(self, arrival: Arrival) -> Event:
        """Return the event of a single reply, and count it."""
        data = arrival.data
        sequence = int.from_bytes(data[:4], "big")
        verdict = compare(data, self._expected(sequence)) if self._is_known(sequence) else None
        if verdict is None or verdict.damage is Damage.CORRUPT:
            found = None if self._payloads.read(data) else self._by_likeness(data, sequence if verdict else None)
            if found is None:
                return self._unknown(arrival)
            sequence, verdict = found, compare(data, self._expected(found))
        return self._settle(arrival, sequence, verdict)

    # -- finding and settling probes

    def _is_known(self, sequence: int) -> bool:
        return max(0, self.next_sequence - self._slots) <= sequence < self.next_sequence

    def _expected(self, sequence: int) -> bytes:
        at = sequence % self._slots * self._size
        return bytes(self._bytes[at : at + self._size])

    def _by_likeness(self, data: bytes, first: int | None) -> int | None:
        """Find the unanswered probe that is most similar to the data: more than half of the bytes must be right.

        `first` is the probe whose number the data has.
        """
        best, least = None, 0.5
        for sequence in (*([] if first is None else [first]), *self._suspects(data)):
            if self._state[sequence % self._slots] == _IN_FLIGHT:
                expected = self._expected(sequence)
                found = compare(data, expected)
                wrong = found.count / len(data) if found.damage is Damage.CORRUPT else 0.0
                if wrong < least and akin(data, expected):
                    best, least = sequence, wrong
        return best

    def _suspects(self, data: bytes) -> range:
        """Return the probes to compare a damaged reply to: the train with its send time, or else the oldest."""
        sent, train = sent_time(data), self._train
        oldest = max(0, self._horizon - self._window, self.next_sequence - self._slots)
        firsts = range(-(-oldest // train) * train, self.next_sequence, train)
        for first in firsts if sent is not None else ():
            if self._stamps[first % self._slots // train] == sent:
                return range(first, min(first + train, self.next_sequence))
        return range(oldest, self.next_sequence)[:_SUSPECTS]

    def _settle(self, arrival: Arrival, sequence: int, verdict: Verdict) -> Event:
        """Count a reply to a known probe."""
        slot = sequence % self._slots
        state, sent = self._state[slot], self._stamps[slot // self._train]
        rtt = max(0, arrival.wall - sent)
        kind = _KINDS.get(verdict.damage, Kind.REPLY)
        if kind is Kind.REPLY:
            kind = Kind.DUPLICATE if state == _ANSWERED else kind if arrival.asked else Kind.ELSEWHERE
        event = Event(
            kind=kind,
            time=arrival.wall,
            sequence=sequence,
            settles=state == _IN_FLIGHT and kind is not Kind.REPLY,
            size=len(arrival.data),
            expected=self._size,
            sent=sent,
            rtt=rtt,
            address=arrival.address,
            offset=verdict.offset,
            count=verdict.count,
        )
        if kind is Kind.REPLY:
            self._answer(sequence, 1, arrival.wall)
            return event
        if event.settles:
            self._state[slot] = _REFUSED
            self._refused[sequence] = kind
            self.in_flight -= sequence >= self._horizon
        self._survey.take(event)
        return event

    def _answer(self, sequence: int, count: int, wall: int) -> None:
        """Count whole replies to consecutive probes, all of one train and none answered before."""
        first = sequence % self._slots
        rtt = max(0, wall - self._stamps[first // self._train])
        waiting = self._state[first : first + count].count(_IN_FLIGHT)
        self._state[first : first + count] = bytes([_ANSWERED]) * count
        if sequence >= self._horizon:
            self.in_flight -= waiting
        if waiting < count:
            self._survey.ends[self._refused.pop(sequence)] -= 1
        survey = self._survey
        survey.received += count
        survey.counts[Kind.LATE if rtt > self._timeout else Kind.REPLY] += count
        survey.latency.add(rtt, count)
        self._stream.variation.add(sequence // self._train, rtt)
        self._stream.order.add(sequence, wall, count)
        overtaken = max(sequence - self._window - self._train + 1, self._resumed if sequence >= self._resumed else 0)
        while self._horizon < overtaken:
            self.in_flight -= self._waiting(self._horizon)
            self._horizon += self._train

    def _waiting(self, sequence: int) -> int:
        """Return how many of the train that begins with this probe are in flight."""
        first = sequence % self._slots
        return self._state[first : first + self._train].count(_IN_FLIGHT)

    def _retire(self, sequence: int) -> None:
        """Count the lost probes of a train, and forget it."""
        first = sequence % self._slots
        state = self._state[first : first + self._train]
        lost = state.count(_IN_FLIGHT)
        if sequence >= self._horizon:
            self.in_flight -= lost
            self._horizon = sequence + self._train
        self._survey.ends[Kind.LOST] += lost
        self._survey.counts[Kind.LOST] += lost
        if lost and not state.count(_ANSWERED):
            index = first // self._train
            start = self._stamps[index]
            until = self._stamps[(index + 1) % len(self._stamps)]  # after the last train: that of an older one, or 0
            self._survey.outages.lost(sequence // self._train, start, until if until >= start else 0)
        self._state[first : first + self._train] = bytes(self._train)

    def _unknown(self, arrival: Arrival) -> Event:
        """Count a reply that no remembered probe explains."""
        header = self._payloads.read(arrival.data)
        event = Event(
            kind=Kind.FOREIGN if header is None else Kind.STALE,
            time=arrival.wall,
            sequence=header.sequence if header else None,
            size=len(arrival.data),
            address=arrival.address,
        )
        self._survey.take(event)
        return event
