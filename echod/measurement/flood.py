"""A flood of probes of one size: a ring of the probes sent, compared in whole trains.

Owns the ring; never touches a socket or a clock. It counts what `in_flight` and `statistics` count, a train at a time,
because at 300,000 replies a second there is no time to handle each. Invariants: a reply counts as received only if
every byte of it is the byte that was sent; sent = received + damaged + errors + lost + in flight, at any time.
"""

from array import array
from dataclasses import dataclass
from typing import Final

from echod.measurement.events import KIND_OF_DAMAGE, NEVER, Event, Kind, Moment
from echod.measurement.payload import (
    HEADER_BYTES,
    SEQUENCE_BYTES,
    Damage,
    Difference,
    Payloads,
    compare,
    most_similar,
    sent_time,
)
from echod.measurement.round_trip import Response, round_trip
from echod.measurement.statistics import Statistics, Stream

_NONE, _IN_FLIGHT, _ANSWERED = range(3)
_OUTCOMES: Final = (Kind.LOST, Kind.ERROR, Kind.CORRUPT, Kind.TRUNCATED, Kind.EXTENDED, Kind.DIFFERENT_ADDRESS)
"""What becomes of a probe without a whole reply; its state is its place here, behind those above."""
_STATES: Final = {kind: 3 + place for place, kind in enumerate(_OUTCOMES)}
_LOST: Final = _STATES[Kind.LOST]
_REFUSED: Final = _STATES[Kind.ERROR]
_UNSENT: Final = 3 + len(_OUTCOMES)
"""Refused as well, but by this host: that is no gap of the path."""
_MAX_CANDIDATES: Final = 64
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


class Flood:
    """The ring of one flood. Sequence numbers begin with 0, and each train at a multiple of its length."""

    def __init__(self, payloads: Payloads, statistics: Statistics, shape: Shape) -> None:
        """Start with nothing sent."""
        size, train, window = shape.size, shape.train, shape.window
        self._payloads = payloads
        self._statistics = statistics
        self._size, self._train = size, train
        self._window = max(window, train)
        self._timeout = shape.timeout
        self._capacity = shape.kept * train
        self._bytes = bytearray(self._capacity * size)
        self._state = bytearray(self._capacity)
        self._stamps, self._walls, self._clocks = (array("Q", bytes(8 * shape.kept)) for _ in range(3))
        """By train: the time in its payloads, and when it was sent by both clocks."""
        self._stream = statistics.streams.setdefault(0, Stream())
        self._window_start = 0
        """Probes below it do not fill the window: they were overtaken, or given up."""
        self._resumed = 0
        """The first probe sent after the last stall."""
        self._next_to_expire = 0
        """The first train that was not given up yet. Those before may still be answered, while they are remembered."""
        self.next_sequence = 0
        self._filled = 0
        """Probes that fill the window: those in flight from the horizon on."""

    @property
    def room(self) -> int:
        """Return how many probes may be sent now, a multiple of the train."""
        return max(0, self._window - self._filled) // self._train * self._train

    def next_train(self, wall: int, count: int) -> memoryview:
        """Write the next train, of `count` probes, into the ring; return its bytes. `sent` then counts it as sent.

        `wall` is ns since 1970.
        """
        first = self.next_sequence % self._capacity
        if self.next_sequence >= self._capacity:
            self._forget(self.next_sequence - self._capacity)
        encode, size = self._payloads.encode, self._size
        numbers = range(self.next_sequence, self.next_sequence + count)
        train = b"".join([encode(number, wall, size) for number in numbers])
        self._bytes[first * size : first * size + len(train)] = train
        self._stamps[first // self._train] = wall
        return memoryview(train)

    def sent(self, sent: Moment, count: int) -> None:
        """Note that the train was sent."""
        first = self.next_sequence % self._capacity
        self._walls[first // self._train], self._clocks[first // self._train] = sent.wall, sent.clock
        self._state[first : first + count] = bytes([_IN_FLIGHT]) * count
        self._statistics.outages.settled(self.next_sequence, sent)
        self.next_sequence += count
        self._filled += count
        self._statistics.sent += count

    def stalled(self) -> None:
        """Note that no replies come, and that a train will be sent nevertheless.

        When a probe sent from now on is answered, those sent before no longer fill the window.
        """
        self._resumed = self.next_sequence

    def expire(self, clock: int, patience: int | None = None) -> None:
        """Give up the probes that have been in flight for too long at this monotonic time in ns.

        With `patience`, in ns, at the end of a run, that is too long already where it is less than the timeout.
        """
        most = self._timeout if patience is None else min(self._timeout, patience)
        while self._next_to_expire < self.next_sequence and clock - self._time_sent(self._next_to_expire).clock >= most:
            self._give_up()

    def next_expiry(self) -> int | None:
        """Return the monotonic time in ns when the oldest train is to be given up; None if nothing is in flight."""
        if not self._statistics.in_flight:
            return None
        while not self._count(self._next_to_expire, _IN_FLIGHT):
            self._give_up()
        return self._time_sent(self._next_to_expire).clock + self._timeout

    # -- what comes back

    def received_train(self, data: bytes, segment: int, stamp: int | None, read: Moment) -> bool:
        """Count replies that came as one train and lie in one train of the ring; tell whether all were intact.

        If not, nothing is counted: call `received` for each. `stamp` and `read` are as in `Response`.
        """
        if segment != self._size or len(data) % segment:
            return False
        sequence, count = int.from_bytes(data[:4], "big"), len(data) // segment
        first = sequence % self._capacity
        if not (self._is_remembered(sequence) and sequence % self._train + count <= self._train):
            return False
        state = self._state[first]
        if state not in (_IN_FLIGHT, _LOST) or self._state[first : first + count] != bytes([state]) * count:
            return False
        if self._bytes[first * segment : (first + count) * segment] != data:
            return False
        self._answer(sequence, count, stamp, read)
        return True

    def received(self, response: Response) -> Event:
        """Return the event of a single reply, and count it."""
        data = response.data
        sequence = int.from_bytes(data[:4], "big")
        difference = compare(data, self._expected(sequence)) if self._is_remembered(sequence) else None
        if difference is None or difference.damage is Damage.CORRUPT:
            found = None if self._payloads.read(data) else self._by_similarity(data, sequence if difference else None)
            if found is None:
                return self._unknown(response)
            sequence, difference = found, compare(data, self._expected(found))
        return self._settle(response, sequence, difference)

    def failed(self, data: bytes | None, *, unsent: bool = False) -> int | None:
        """Settle the probe that an error quotes; return its number if it was in flight, or given up.

        Of a probe that is not quoted nothing is known: it is given up in its time. One that is `unsent` never left.
        """
        if data is None or len(data) < SEQUENCE_BYTES:
            return None
        sequence = int.from_bytes(data[:SEQUENCE_BYTES], "big")
        if not self._is_remembered(sequence) or not self._set_outcome(sequence, Kind.ERROR):
            return None
        if unsent:
            self._state[sequence % self._capacity] = _UNSENT
        return sequence

    # -- finding and settling probes

    def _is_remembered(self, sequence: int) -> bool:
        return max(0, self.next_sequence - self._capacity) <= sequence < self.next_sequence

    def _time_sent(self, sequence: int) -> Moment:
        """Return when a probe was sent."""
        index = sequence % self._capacity // self._train
        return Moment(wall=self._walls[index], clock=self._clocks[index])

    def _count(self, sequence: int, state: int) -> int:
        """Return how many probes of the train that begins with this one are in a state."""
        first = sequence % self._capacity
        return self._state[first : first + self._train].count(state)

    def _expected(self, sequence: int) -> bytes:
        at = sequence % self._capacity * self._size
        return bytes(self._bytes[at : at + self._size])

    def _by_similarity(self, data: bytes, first: int | None) -> int | None:
        """Find the unanswered probe that is most similar to the data: more than half of the bytes must be right.

        `first` is the probe whose number the data has.
        """
        candidates = [*([] if first is None else [first]), *self._candidates(data)]
        candidates = [
            sequence for sequence in candidates if self._state[sequence % self._capacity] in (_IN_FLIGHT, _LOST)
        ]
        at = most_similar(data, [self._expected(sequence)[:HEADER_BYTES] for sequence in candidates])
        if at is None:
            return None
        difference = compare(data, self._expected(candidates[at]))
        similar = difference.damage is not Damage.CORRUPT or 2 * difference.count < len(data)
        return candidates[at] if similar else None

    def _candidates(self, data: bytes) -> range:
        """Return the probes to compare a damaged reply to: the train with its send time, or else the oldest."""
        if not self._payloads.may_be_ours(data):
            return range(0)
        sent, train = sent_time(data), self._train
        oldest = max(0, self._window_start - self._window, self.next_sequence - self._capacity)
        firsts = range(-(-oldest // train) * train, self.next_sequence, train)
        for first in firsts if sent is not None else ():
            if self._stamps[first % self._capacity // train] == sent:
                return range(first, min(first + train, self.next_sequence))
        return range(oldest, self.next_sequence)[:_MAX_CANDIDATES]

    def _settle(self, response: Response, sequence: int, difference: Difference) -> Event:
        """Count a reply to a known probe."""
        state, sent = self._state[sequence % self._capacity], self._time_sent(sequence)
        kind = KIND_OF_DAMAGE.get(difference.damage, Kind.REPLY)
        if kind is Kind.REPLY:
            kind = Kind.DUPLICATE if state == _ANSWERED else kind if response.from_target else Kind.DIFFERENT_ADDRESS
        event = Event(
            kind=kind,
            time=response.wall,
            clock=response.read.clock,
            sequence=sequence,
            size=len(response.data),
            expected=self._size,
            sent=sent,
            rtt=self._round_trip(sequence, response.stamp, response.read),
            address=response.address,
            offset=difference.offset,
            count=difference.count,
        )
        if kind is Kind.REPLY:
            self._answer(sequence, 1, response.stamp, response.read)
            return event
        # What somebody else has damaged says nothing of the reply, which may still come.
        if kind is not Kind.DUPLICATE and (response.from_target or kind is Kind.DIFFERENT_ADDRESS):
            self._set_outcome(sequence, kind)
        self._statistics.add(event)
        return event

    def _set_outcome(self, sequence: int, kind: Kind) -> bool:
        """Make this the outcome of a probe in flight, or of one that was given up; tell whether it was."""
        index, outcomes = sequence % self._capacity, self._statistics.outcomes
        state = self._state[index]
        if state == _IN_FLIGHT:
            self._filled -= sequence >= self._window_start
        elif state == _LOST:
            outcomes[Kind.LOST] -= 1
            if kind is not Kind.ERROR:
                self._statistics.outages.answered(sequence, self._time_sent(sequence), self._after(sequence, 1))
        else:
            return False
        outcomes[kind] += 1
        self._state[index] = _STATES[kind]
        return True

    def _answer(self, sequence: int, count: int, stamp: int | None, read: Moment) -> None:
        """Count whole replies to consecutive probes, all of one train and none answered before."""
        statistics, first = self._statistics, sequence % self._capacity
        rtt = self._round_trip(sequence, stamp, read)
        states = self._state[first : first + count]
        self._state[first : first + count] = bytes([_ANSWERED]) * count
        waiting = states.count(_IN_FLIGHT)
        if sequence >= self._window_start:
            self._filled -= waiting
        if waiting < count:  # then they are of one state
            statistics.outcomes[(*_OUTCOMES, Kind.ERROR)[states[0] - _LOST]] -= count
            statistics.outages.answered(sequence, self._time_sent(sequence), self._after(sequence, count), count)
        statistics.received += count
        statistics.counts[Kind.LATE if rtt >= self._timeout else Kind.REPLY] += count
        statistics.latency.add(rtt, count)
        self._stream.variation.add(sequence // self._train, rtt)
        self._stream.order.add(sequence, self._time_sent(sequence).clock + rtt, count)
        overtaken = max(sequence - self._window - self._train + 1, self._resumed if sequence >= self._resumed else 0)
        while self._window_start < overtaken:
            self._filled -= self._count(self._window_start, _IN_FLIGHT)
            self._window_start += self._train

    def _round_trip(self, sequence: int, stamp: int | None, read: Moment) -> int:
        sent = self._time_sent(sequence)
        return round_trip(sent, sent.wall - sent.clock, stamp, read)

    def _after(self, sequence: int, count: int) -> Moment:
        """Return when the probe behind these was sent."""
        following = sequence + count
        return self._time_sent(following) if following < self.next_sequence else NEVER

    def _give_up(self) -> None:
        """Count the probes of the next train that were not answered as lost. They are still remembered."""
        sequence, self._next_to_expire = self._next_to_expire, self._next_to_expire + self._train
        first, count = sequence % self._capacity, min(self._train, self.next_sequence - sequence)
        state = self._state[first : first + count]
        lost = state.count(_IN_FLIGHT)
        if sequence >= self._window_start:
            self._filled -= lost
            self._window_start = sequence + self._train
        self._statistics.outcomes[Kind.LOST] += lost
        self._statistics.counts[Kind.LOST] += lost
        self._state[first : first + count] = state.replace(bytes([_IN_FLIGHT]), bytes([_LOST]))
        self._note_outages(sequence, state.translate(_UNANSWERED))

    def _note_outages(self, sequence: int, state: bytearray) -> None:
        """Note the unanswered probes at both ends of a train. Between others of one train no time passes."""
        count, sent = len(state), self._time_sent(sequence)
        head = count - len(state.lstrip(bytes([_LOST])))
        tail = count - len(state.rstrip(bytes([_LOST])))
        if head:
            self._statistics.outages.lost(sequence, sent, self._after(sequence, head), head)
        if tail and head < count:
            self._statistics.outages.lost(sequence + count - tail, sent, self._after(sequence, count), tail)

    def _forget(self, sequence: int) -> None:
        """Forget a train, to make room for the next."""
        if self._next_to_expire == sequence:
            self._give_up()
        first = sequence % self._capacity
        self._state[first : first + self._train] = bytes(self._train)

    def _unknown(self, response: Response) -> Event:
        """Count a reply that no remembered probe explains."""
        header = self._payloads.read(response.data)
        event = Event(
            kind=Kind.UNMATCHED if header is None else Kind.STALE,
            time=response.wall,
            clock=response.read.clock,
            sequence=header.sequence if header else None,
            size=len(response.data),
            address=response.address,
        )
        self._statistics.add(event)
        return event


_UNANSWERED: Final = bytes.maketrans(bytes([_IN_FLIGHT, _REFUSED]), bytes([_LOST, _LOST]))
"""The states of probes that count as an outage, as one state."""
