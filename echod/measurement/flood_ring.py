"""The probes of a flood that were sent last: a ring of trains.

Owns the bytes, the times and the state of each probe in it. Never counts, and never touches a socket or a clock.
Invariant: a probe is remembered until `kept` more trains have been written.
"""

from array import array

from echod.measurement.events import Moment
from echod.measurement.payload import MAX_CANDIDATES, Payloads, sent_time


class Ring:
    """The ring. Sequence numbers begin with 0, and each train at a multiple of its length."""

    def __init__(self, payloads: Payloads, *, size: int, train: int, kept: int) -> None:
        """Start empty: `kept` trains of `train` probes of `size` bytes, at least four."""
        self.payloads, self.size, self.train = payloads, size, train
        self.capacity = kept * train
        """Probes that are remembered."""
        self._bytes = memoryview(bytearray(self.capacity * size))
        self._state = bytearray(self.capacity)
        self._stamps, self._walls, self._clocks = (array("Q", bytes(8 * kept)) for _ in range(3))
        """By train: the time in its payloads, and when it was sent by both clocks."""
        self.next_sequence = 0

    @property
    def oldest(self) -> int:
        """Return the first probe that is remembered."""
        return max(0, self.next_sequence - self.capacity)

    def write(self, wall: int, count: int) -> bytes:
        """Write the next train, of `count` probes, over the oldest one; return its bytes. `wall` is ns since 1970."""
        first, encode, size = self.next_sequence % self.capacity, self.payloads.encode, self.size
        self._state[first : first + self.train] = bytes(self.train)
        numbers = range(self.next_sequence, self.next_sequence + count)
        train = b"".join([encode(number, wall, size) for number in numbers])
        self._bytes[first * size : first * size + len(train)] = train
        self._stamps[first // self.train] = wall
        return train

    def sent(self, sent: Moment, count: int, state: int) -> None:
        """Note when the train was sent that was written last, and the state of its probes."""
        index = self.next_sequence % self.capacity // self.train
        self._walls[index], self._clocks[index] = sent.wall, sent.clock
        self.set_states(self.next_sequence, bytes([state]) * count)
        self.next_sequence += count

    def remembers(self, sequence: int) -> bool:
        """Return whether a probe is in the ring."""
        return self.oldest <= sequence < self.next_sequence

    def time_sent(self, sequence: int) -> Moment:
        """Return when a probe was sent."""
        index = sequence % self.capacity // self.train
        return Moment(wall=self._walls[index], clock=self._clocks[index])

    def states(self, sequence: int, count: int) -> bytearray:
        """Return the states of consecutive probes of one train."""
        first = sequence % self.capacity
        return self._state[first : first + count]

    def set_states(self, sequence: int, states: bytes | bytearray) -> None:
        """Set the states of consecutive probes of one train."""
        first = sequence % self.capacity
        self._state[first : first + len(states)] = states

    def payload(self, sequence: int, count: int = 1) -> bytes:
        """Return the bytes of consecutive probes of one train."""
        first = sequence % self.capacity * self.size
        return bytes(self._bytes[first : first + count * self.size])

    def candidates(self, data: bytes, oldest: int) -> range:
        """Return the probes to compare a damaged reply to: the train with its send time, or those from `oldest`."""
        if not self.payloads.may_be_ours(data):
            return range(0)
        sent, train, oldest = sent_time(data), self.train, max(oldest, self.oldest)
        firsts = range(-(-oldest // train) * train, self.next_sequence, train)
        for first in firsts if sent is not None else ():
            if self._stamps[first % self.capacity // train] == sent:
                return range(first, min(first + train, self.next_sequence))
        return range(oldest, self.next_sequence)[:MAX_CANDIDATES]
