"""A flood of probes of one size: a ring of what was sent, compared in whole trains.

Owns the ring; never touches a socket or a clock. It counts the same things as `flight.py` and `survey.py`, a train at a
time, because at 300,000 replies a second there is no time to handle each. Invariants: a reply counts as received only
if every byte of it is the byte that was sent; sent = received + damaged + refused + lost + in flight, at any time.
"""

from array import array
from dataclasses import dataclass
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
from echod.measurement.statistics import Stream, Survey

_NONE, _IN_FLIGHT, _ANSWERED = range(3)
_ENDS: Final = (Kind.LOST, Kind.ERROR, Kind.CORRUPT, Kind.TRUNCATED, Kind.EXTENDED, Kind.DIFFERENT_ADDRESS)
"""What becomes of a probe without a whole reply; its state is its place here, behind those above."""
_STATES: Final = {kind: 3 + place for place, kind in enumerate(_ENDS)}
_LOST: Final = _STATES[Kind.LOST]
_REFUSED: Final = _STATES[Kind.ERROR]
_UNSENT: Final = 3 + len(_ENDS)
"""Refused as well, but by this host: that is no gap of the path."""
_SUSPECTS: Final = 64
"""Most probes, the oldest, that a damaged reply is compared to, if not even its send time identifies its probe."""


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
        self._slots = shape.kept * train
        self._bytes = bytearray(self._slots * size)
        self._state = bytearray(self._slots)
        self._stamps, self._walls, self._clocks = (array("Q", bytes(8 * shape.kept)) for _ in range(3))
        """By train: the time in its payloads, and when it was sent by both clocks."""
        self._stream = survey.streams.setdefault(0, Stream())
        self._horizon = 0
        """Probes below it do not fill the window: they were overtaken, or given up."""
        self._resumed = 0
        """The first probe sent after the last stall."""
        self._patient = 0
        """The first train that was not given up yet. Those before may still be answered, while they are remembered."""
        self.next_sequence = 0
        self._filled = 0
        """Probes that fill the window: those in flight from the horizon on."""

    @property
    def room(self) -> int:
        """Return how many probes may be sent now, a multiple of the train."""
        return max(0, self._window - self._filled) // self._train * self._train

    def load(self, wall: int, count: int) -> memoryview:
        """Write the next train, of `count` probes, into the ring; return its bytes. `launch` then counts it as sent.

        `wall` is ns since 1970.
        """
        first = self.next_sequence % self._slots
        if self.next_sequence >= self._slots:
            self._forget(self.next_sequence - self._slots)
        encode, size = self._payloads.encode, self._size
        numbers = range(self.next_sequence, self.next_sequence + count)
        train = b"".join([encode(number, wall, size) for number in numbers])
        self._bytes[first * size : first * size + len(train)] = train
        self._stamps[first // self._train] = wall
        return memoryview(train)

    def launch(self, sent: Moment, count: int) -> None:
        """Note that the train was sent."""
        first = self.next_sequence % self._slots
        self._walls[first // self._train], self._clocks[first // self._train] = sent.wall, sent.clock
        self._state[first : first + count] = bytes([_IN_FLIGHT]) * count
        self._survey.outages.settled(self.next_sequence, sent)
        self.next_sequence += count
        self._filled += count
        self._survey.sent += count

    def stall(self) -> None:
        """Note that no replies come, and that a train will be sent nevertheless.

        When a probe sent from now on is answered, those sent before no longer fill the window.
        """
        self._resumed = self.next_sequence

    def expire(self, clock: int, patience: int | None = None) -> None:
        """Give up the probes that have been in flight for too long at this monotonic time in ns.

        With `patience`, in ns, at the end of a run, that is too long already where it is less than the timeout.
        """
        most = self._timeout if patience is None else min(self._timeout, patience)
        while self._patient < self.next_sequence and clock - self._sent(self._patient).clock >= most:
            self._give_up()

    def next_expiry(self) -> int | None:
        """Return the monotonic time in ns when the oldest train is to be given up; None if nothing is in flight."""
        if not self._survey.in_flight:
            return None
        while not self._count(self._patient, _IN_FLIGHT):
            self._give_up()
        return self._sent(self._patient).clock + self._timeout

    # -- what comes back

    def land_all(self, data: bytes, segment: int, stamp: int | None, read: Moment) -> bool:
        """Count replies that came as one train and lie in one train of the ring; tell whether all were intact.

        If not, nothing is counted: call `land` for each. `stamp` and `read` are as in `Arrival`.
        """
        if segment != self._size or len(data) % segment:
            return False
        sequence, count = int.from_bytes(data[:4], "big"), len(data) // segment
        first = sequence % self._slots
        if not (self._is_known(sequence) and sequence % self._train + count <= self._train):
            return False
        state = self._state[first]
        if state not in (_IN_FLIGHT, _LOST) or self._state[first : first + count] != bytes([state]) * count:
            return False
        if self._bytes[first * segment : (first + count) * segment] != data:
            return False
        self._answer(sequence, count, stamp, read)
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

    def refuse(self, data: bytes | None, *, unsent: bool = False) -> int | None:
        """Settle the probe that an error quotes; return its number if it was in flight, or given up.

        Of a probe that is not quoted nothing is known: it is given up in its time. One that is `unsent` never left.
        """
        if data is None or len(data) < SEQUENCE_BYTES:
            return None
        sequence = int.from_bytes(data[:SEQUENCE_BYTES], "big")
        if not self._is_known(sequence) or not self._end(sequence, Kind.ERROR):
            return None
        if unsent:
            self._state[sequence % self._slots] = _UNSENT
        return sequence

    # -- finding and settling probes

    def _is_known(self, sequence: int) -> bool:
        return max(0, self.next_sequence - self._slots) <= sequence < self.next_sequence

    def _sent(self, sequence: int) -> Moment:
        """Return when a probe was sent."""
        index = sequence % self._slots // self._train
        return Moment(wall=self._walls[index], clock=self._clocks[index])

    def _count(self, sequence: int, state: int) -> int:
        """Return how many probes of the train that begins with this one are in a state."""
        first = sequence % self._slots
        return self._state[first : first + self._train].count(state)

    def _expected(self, sequence: int) -> bytes:
        at = sequence % self._slots * self._size
        return bytes(self._bytes[at : at + self._size])

    def _by_likeness(self, data: bytes, first: int | None) -> int | None:
        """Find the unanswered probe that is most similar to the data: more than half of the bytes must be right.

        `first` is the probe whose number the data has.
        """
        suspects = [*([] if first is None else [first]), *self._suspects(data)]
        suspects = [sequence for sequence in suspects if self._state[sequence % self._slots] in (_IN_FLIGHT, _LOST)]
        at = closest(data, [self._expected(sequence)[:HEADER_BYTES] for sequence in suspects])
        if at is None:
            return None
        verdict = compare(data, self._expected(suspects[at]))
        alike = verdict.damage is not Damage.CORRUPT or 2 * verdict.count < len(data)
        return suspects[at] if alike else None

    def _suspects(self, data: bytes) -> range:
        """Return the probes to compare a damaged reply to: the train with its send time, or else the oldest."""
        if not self._payloads.may_be_ours(data):
            return range(0)
        sent, train = sent_time(data), self._train
        oldest = max(0, self._horizon - self._window, self.next_sequence - self._slots)
        firsts = range(-(-oldest // train) * train, self.next_sequence, train)
        for first in firsts if sent is not None else ():
            if self._stamps[first % self._slots // train] == sent:
                return range(first, min(first + train, self.next_sequence))
        return range(oldest, self.next_sequence)[:_SUSPECTS]

    def _settle(self, arrival: Arrival, sequence: int, verdict: Verdict) -> Event:
        """Count a reply to a known probe."""
        state, sent = self._state[sequence % self._slots], self._sent(sequence)
        kind = KIND_OF_DAMAGE.get(verdict.damage, Kind.REPLY)
        if kind is Kind.REPLY:
            kind = Kind.DUPLICATE if state == _ANSWERED else kind if arrival.asked else Kind.DIFFERENT_ADDRESS
        event = Event(
            kind=kind,
            time=arrival.wall,
            clock=arrival.read.clock,
            sequence=sequence,
            size=len(arrival.data),
            expected=self._size,
            sent=sent,
            rtt=self._round_trip(sequence, arrival.stamp, arrival.read),
            address=arrival.address,
            offset=verdict.offset,
            count=verdict.count,
        )
        if kind is Kind.REPLY:
            self._answer(sequence, 1, arrival.stamp, arrival.read)
            return event
        # What somebody else has damaged says nothing of the reply, which may still come.
        if kind is not Kind.DUPLICATE and (arrival.asked or kind is Kind.DIFFERENT_ADDRESS):
            self._end(sequence, kind)
        self._survey.take(event)
        return event

    def _end(self, sequence: int, kind: Kind) -> bool:
        """Make this the outcome of a probe in flight, or of one that was given up; tell whether it was."""
        slot, ends = sequence % self._slots, self._survey.ends
        state = self._state[slot]
        if state == _IN_FLIGHT:
            self._filled -= sequence >= self._horizon
        elif state == _LOST:
            ends[Kind.LOST] -= 1
            if kind is not Kind.ERROR:
                self._survey.outages.answered(sequence, self._sent(sequence), self._after(sequence, 1))
        else:
            return False
        ends[kind] += 1
        self._state[slot] = _STATES[kind]
        return True

    def _answer(self, sequence: int, count: int, stamp: int | None, read: Moment) -> None:
        """Count whole replies to consecutive probes, all of one train and none answered before."""
        survey, first = self._survey, sequence % self._slots
        rtt = self._round_trip(sequence, stamp, read)
        states = self._state[first : first + count]
        self._state[first : first + count] = bytes([_ANSWERED]) * count
        waiting = states.count(_IN_FLIGHT)
        if sequence >= self._horizon:
            self._filled -= waiting
        if waiting < count:  # then they are of one state
            survey.ends[(*_ENDS, Kind.ERROR)[states[0] - _LOST]] -= count
            survey.outages.answered(sequence, self._sent(sequence), self._after(sequence, count), count)
        survey.received += count
        survey.counts[Kind.LATE if rtt >= self._timeout else Kind.REPLY] += count
        survey.latency.add(rtt, count)
        self._stream.variation.add(sequence // self._train, rtt)
        self._stream.order.add(sequence, self._sent(sequence).clock + rtt, count)
        overtaken = max(sequence - self._window - self._train + 1, self._resumed if sequence >= self._resumed else 0)
        while self._horizon < overtaken:
            self._filled -= self._count(self._horizon, _IN_FLIGHT)
            self._horizon += self._train

    def _round_trip(self, sequence: int, stamp: int | None, read: Moment) -> int:
        sent = self._sent(sequence)
        return round_trip(sent, sent.wall - sent.clock, stamp, read)

    def _after(self, sequence: int, count: int) -> Moment:
        """Return when the probe behind these was sent."""
        following = sequence + count
        return self._sent(following) if following < self.next_sequence else NEVER

    def _give_up(self) -> None:
        """Count the probes of the next train that were not answered as lost. They are still remembered."""
        sequence, self._patient = self._patient, self._patient + self._train
        first, count = sequence % self._slots, min(self._train, self.next_sequence - sequence)
        state = self._state[first : first + count]
        lost = state.count(_IN_FLIGHT)
        if sequence >= self._horizon:
            self._filled -= lost
            self._horizon = sequence + self._train
        self._survey.ends[Kind.LOST] += lost
        self._survey.counts[Kind.LOST] += lost
        self._state[first : first + count] = state.replace(bytes([_IN_FLIGHT]), bytes([_LOST]))
        self._note_outages(sequence, state.translate(_UNANSWERED))

    def _note_outages(self, sequence: int, state: bytearray) -> None:
        """Note the unanswered probes at both ends of a train. Between others of one train no time passes."""
        count, sent = len(state), self._sent(sequence)
        head = count - len(state.lstrip(bytes([_LOST])))
        tail = count - len(state.rstrip(bytes([_LOST])))
        if head:
            self._survey.outages.lost(sequence, sent, self._after(sequence, head), head)
        if tail and head < count:
            self._survey.outages.lost(sequence + count - tail, sent, self._after(sequence, count), tail)

    def _forget(self, sequence: int) -> None:
        """Forget a train, to make room for the next."""
        if self._patient == sequence:
            self._give_up()
        first = sequence % self._slots
        self._state[first : first + self._train] = bytes(self._train)

    def _unknown(self, arrival: Arrival) -> Event:
        """Count a reply that no remembered probe explains."""
        header = self._payloads.read(arrival.data)
        event = Event(
            kind=Kind.UNMATCHED if header is None else Kind.STALE,
            time=arrival.wall,
            clock=arrival.read.clock,
            sequence=header.sequence if header else None,
            size=len(arrival.data),
            address=arrival.address,
        )
        self._survey.take(event)
        return event


_UNANSWERED: Final = bytes.maketrans(bytes([_IN_FLIGHT, _REFUSED]), bytes([_LOST, _LOST]))
"""The states of probes that count as an outage, as one state."""
