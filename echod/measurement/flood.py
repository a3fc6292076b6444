"""A flood of probes of one size, counted in whole trains.

Owns the outcome of each probe and the window. Never touches a socket or a clock. It counts what `in_flight` and
`statistics` count, a train at a time, because at 300,000 replies a second there is no time to handle each. Invariants:
a reply counts as received only if every byte of it is the byte that was sent; sent = received + damaged + errors + lost
+ in flight, at any time.
"""

from typing import Final

from echod.measurement.events import KIND_OF_DAMAGE, NEVER, Event, Kind, Moment
from echod.measurement.flood_ring import Ring
from echod.measurement.payload import HEADER_BYTES, SEQUENCE_BYTES, Damage, Difference, compare, most_similar
from echod.measurement.round_trip import Response, round_trip
from echod.measurement.statistics import Statistics, Stream

_IN_FLIGHT, _ANSWERED = 1, 2
_OUTCOMES: Final = (Kind.LOST, Kind.ERROR, Kind.CORRUPT, Kind.TRUNCATED, Kind.EXTENDED, Kind.DIFFERENT_ADDRESS)
"""The outcomes of a probe without a whole reply. Its state is the index of its outcome here, plus 3."""
_STATES: Final = {kind: 3 + index for index, kind in enumerate(_OUTCOMES)}
_LOST: Final = _STATES[Kind.LOST]
_ERROR: Final = _STATES[Kind.ERROR]
_UNSENT: Final = 3 + len(_OUTCOMES)
"""An error of this host, which did not send the probe: that is no outage of the path."""
_UNANSWERED: Final = bytes.maketrans(bytes([_IN_FLIGHT, _ERROR]), bytes([_LOST, _LOST]))
"""The states of probes that count as an outage, as one state."""


class Flood:
    """The outcomes of one flood."""

    def __init__(self, ring: Ring, statistics: Statistics, *, window: int, timeout: int) -> None:
        """Start with nothing sent. Most probes in flight are a window, or a train; the timeout is in ns."""
        self._ring = ring
        self._payloads = ring.payloads
        self._size, self._train = ring.size, ring.train
        self._statistics = statistics
        self._window = max(window, ring.train)
        self._timeout = timeout
        self._stream = statistics.streams.setdefault(0, Stream())
        self._window_start = 0
        """Probes below it do not fill the window: they were overtaken, or given up."""
        self._resumed = 0
        """The first probe sent after the last stall."""
        self._next_to_expire = 0
        """The first train that was not given up yet. Earlier ones may still have replies while they are remembered."""
        self._filled = 0
        """Probes that fill the window: those in flight from its start on."""

    @property
    def room(self) -> int:
        """Return how many probes may be sent now, a multiple of the train."""
        return max(0, self._window - self._filled) // self._train * self._train

    def next_train(self, wall: int, count: int) -> memoryview:
        """Write the next train, of `count` probes; return its bytes. `sent` then counts it as sent.

        `wall` is ns since 1970. The train that it takes the place of is forgotten.
        """
        ring = self._ring
        if ring.next_sequence >= ring.capacity and self._next_to_expire == ring.oldest:
            self._give_up()
        return memoryview(ring.write(wall, count))

    def sent(self, sent: Moment, count: int) -> None:
        """Note that the train was sent."""
        self._statistics.outages.settled(self._ring.next_sequence, sent)
        self._ring.sent(sent, count, _IN_FLIGHT)
        self._filled += count
        self._statistics.sent += count

    def stalled(self) -> None:
        """Note that there are no replies, and that a train will be sent nevertheless.

        Once a probe that is sent from now on has a reply, those sent before no longer fill the window.
        """
        self._resumed = self._ring.next_sequence

    def expire(self, clock: int, patience: int | None = None) -> None:
        """Give up the probes that have been in flight for too long at this monotonic time in ns.

        At the end of a run a shorter `patience`, in ns, takes the place of the timeout.
        """
        most = self._timeout if patience is None else min(self._timeout, patience)
        ring = self._ring
        while self._next_to_expire < ring.next_sequence and clock - ring.time_sent(self._next_to_expire).clock >= most:
            self._give_up()

    def next_expiry(self) -> int | None:
        """Return the monotonic time in ns when the oldest train is to be given up; None if nothing is in flight."""
        if not self._statistics.in_flight:
            return None
        while not self._count(self._next_to_expire, _IN_FLIGHT):
            self._give_up()
        return self._ring.time_sent(self._next_to_expire).clock + self._timeout

    # -- responses and errors

    def received_train(self, data: bytes, segment: int, stamp: int | None, read: Moment) -> bool:
        """Count replies that came as one train and belong to one train of the ring; return whether all were intact.

        If not, nothing is counted: call `received` for each. `stamp` and `read` are as in `Response`.
        """
        if segment != self._size or len(data) % segment:
            return False
        ring, sequence, count = self._ring, int.from_bytes(data[:4], "big"), len(data) // segment
        if not (ring.remembers(sequence) and sequence % self._train + count <= self._train):
            return False
        states = ring.states(sequence, count)
        if states[0] not in (_IN_FLIGHT, _LOST) or states.count(states[0]) < count:
            return False
        if ring.payload(sequence, count) != data:
            return False
        self._answer(sequence, count, stamp, read)
        return True

    def received(self, response: Response) -> Event:
        """Return the event of a single reply, and count it."""
        data = response.data
        sequence = int.from_bytes(data[:4], "big")
        difference = compare(data, self._ring.payload(sequence)) if self._ring.remembers(sequence) else None
        if difference is None or difference.damage is Damage.CORRUPT:
            found = None if self._payloads.read(data) else self._by_similarity(data, sequence if difference else None)
            if found is None:
                return self._unknown(response)
            sequence, difference = found
        return self._settle(response, sequence, difference)

    def failed(self, data: bytes, *, unsent: bool = False) -> int | None:
        """Set the outcome of the probe that an error quotes; return its number if it was in flight, or given up.

        Without a quote the probe is unknown: it is given up after its timeout. This host did not send an `unsent` one.
        """
        if len(data) < SEQUENCE_BYTES:
            return None
        sequence = int.from_bytes(data[:SEQUENCE_BYTES], "big")
        if not self._ring.remembers(sequence) or not self._set_outcome(sequence, Kind.ERROR):
            return None
        if unsent:
            self._ring.set_states(sequence, bytes([_UNSENT]))
        return sequence

    # -- finding and settling probes

    def _state(self, sequence: int) -> int:
        return self._ring.states(sequence, 1)[0]

    def _count(self, sequence: int, state: int) -> int:
        """Return how many probes of the train that begins with this one are in a state."""
        return self._ring.states(sequence, self._train).count(state)

    def _by_similarity(self, data: bytes, first: int | None) -> tuple[int, Difference] | None:
        """Find the unanswered probe that is most similar to the data; `first` is the probe whose number it has."""
        candidates = [*self._ring.candidates(data, self._window_start - self._window)]
        if first is not None:
            candidates.insert(0, first)
        unanswered = [each for each in candidates if self._state(each) in (_IN_FLIGHT, _LOST)]
        payload = self._ring.payload
        return most_similar(data, unanswered, lambda sequence: payload(sequence)[:HEADER_BYTES], payload)

    def _settle(self, response: Response, sequence: int, difference: Difference) -> Event:
        """Count a reply to a known probe."""
        state, sent = self._state(sequence), self._ring.time_sent(sequence)
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
        # Damage from another address says nothing about the reply, which may still come.
        if kind is not Kind.DUPLICATE and (response.from_target or kind is Kind.DIFFERENT_ADDRESS):
            self._set_outcome(sequence, kind)
        self._statistics.add(event)
        return event

    def _set_outcome(self, sequence: int, kind: Kind) -> bool:
        """Make this the outcome of a probe in flight, or of one that was given up; return whether it was."""
        state, outcomes = self._state(sequence), self._statistics.outcomes
        if state == _IN_FLIGHT:
            self._filled -= 1 if sequence >= self._window_start else 0
        elif state == _LOST:
            outcomes[Kind.LOST] -= 1
            if kind is not Kind.ERROR:
                self._statistics.outages.answered(sequence, self._ring.time_sent(sequence), self._after(sequence, 1))
        else:
            return False
        outcomes[kind] += 1
        self._ring.set_states(sequence, bytes([_STATES[kind]]))
        return True

    def _answer(self, sequence: int, count: int, stamp: int | None, read: Moment) -> None:
        """Count whole replies to consecutive probes, all of one train and without an earlier reply."""
        statistics, ring = self._statistics, self._ring
        rtt = self._round_trip(sequence, stamp, read)
        states = ring.states(sequence, count)
        ring.set_states(sequence, bytes([_ANSWERED]) * count)
        waiting = states.count(_IN_FLIGHT)
        if sequence >= self._window_start:
            self._filled -= waiting
        if waiting < count:  # then they are of one state
            statistics.outcomes[(*_OUTCOMES, Kind.ERROR)[states[0] - _LOST]] -= count
            statistics.outages.answered(sequence, self._ring.time_sent(sequence), self._after(sequence, count), count)
        statistics.received += count
        statistics.counts[Kind.LATE if rtt >= self._timeout else Kind.REPLY] += count
        statistics.latency.add(rtt, count)
        self._stream.variation.add(sequence // self._train, rtt)
        self._stream.order.add(sequence, self._ring.time_sent(sequence).clock + rtt, count)
        overtaken = max(sequence - self._window - self._train + 1, self._resumed if sequence >= self._resumed else 0)
        while self._window_start < overtaken:
            self._filled -= self._count(self._window_start, _IN_FLIGHT)
            self._window_start += self._train

    def _round_trip(self, sequence: int, stamp: int | None, read: Moment) -> int:
        sent = self._ring.time_sent(sequence)
        return round_trip(sent, sent.wall - sent.clock, stamp, read)

    def _after(self, sequence: int, count: int) -> Moment:
        """Return when the probe after these was sent."""
        following = sequence + count
        return self._ring.time_sent(following) if following < self._ring.next_sequence else NEVER

    def _give_up(self) -> None:
        """Count the probes of the next train without a reply as lost. They are still remembered."""
        sequence, self._next_to_expire = self._next_to_expire, self._next_to_expire + self._train
        states = self._ring.states(sequence, min(self._train, self._ring.next_sequence - sequence))
        lost = states.count(_IN_FLIGHT)
        if sequence >= self._window_start:
            self._filled -= lost
            self._window_start = sequence + self._train
        self._statistics.outcomes[Kind.LOST] += lost
        self._statistics.counts[Kind.LOST] += lost
        self._ring.set_states(sequence, states.replace(bytes([_IN_FLIGHT]), bytes([_LOST])))
        self._note_outages(sequence, states.translate(_UNANSWERED))

    def _note_outages(self, sequence: int, states: bytearray) -> None:
        """Note the unanswered probes at both ends of a train: between others of one train no time passes."""
        count, sent = len(states), self._ring.time_sent(sequence)
        head = count - len(states.lstrip(bytes([_LOST])))
        tail = count - len(states.rstrip(bytes([_LOST])))
        if head:
            self._statistics.outages.lost(sequence, sent, self._after(sequence, head), head)
        if tail and head < count:
            self._statistics.outages.lost(sequence + count - tail, sent, self._after(sequence, count), tail)

    def _unknown(self, response: Response) -> Event:
        """Count a response that belongs to no remembered probe."""
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
