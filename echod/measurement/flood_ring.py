"""The probes of a flood that were sent last: a ring of trains.

Owns the bytes, the times and the state of each probe in it. Never counts, and never touches a socket or a clock.
Invariant: a probe is remembered until `kept` more trains have been written.
"""

from array import array
from typing import Final

from echod.measurement.events import Moment
from echod.measurement.payload import HEADER_BYTES, Damage, Difference, Payloads, compare, most_similar, sent_time

MAX_CANDIDATES: Final = 64
"""Most probes, the oldest, that a damaged reply is compared to if not even its send time identifies its probe."""


class Ring:
    """The ring. Sequence numbers begin with 0, and each train at a multiple of its length."""

    def __init__(self, payloads: Payloads, *, size: int, train: int, kept: int) -> None:
        """Start empty: `kept` trains of `train` probes of `size` bytes, at least four."""
        self._payloads = payloads
        self._size, self._train = size, train
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
        first, encode, size = self.next_sequence % self.capacity, self._payloads.encode, self._size
        self._state[first : first + self._train] = bytes(self._train)
        numbers = range(self.next_sequence, self.next_sequence + count)
        train = b"".join([encode(number, wall, size) for number in numbers])
        self._bytes[first * size : first * size + len(train)] = train
        self._stamps[first // self._train] = wall
        return train

    def sent(self, sent: Moment, count: int, state: int) -> None:
        """Note when the train was sent that was written last, and the state of its probes."""
        index = self.next_sequence % self.capacity // self._train
        self._walls[index], self._clocks[index] = sent.wall, sent.clock
        self.set_states(self.next_sequence, bytes([state]) * count)
        self.next_sequence += count

    def remembers(self, sequence: int) -> bool:
        """Return whether a probe is in the ring."""
        return self.oldest <= sequence < self.next_sequence

    def time_sent(self, sequence: int) -> Moment:
        """Return when a probe was sent."""
        index = sequence % self.capacity // self._train
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
        first = sequence % self.capacity * self._size
        return bytes(self._bytes[first : first + count * self._size])

    def find_similar(self, data: bytes, candidates: list[int]) -> tuple[int, Difference] | None:
        """Find the probe that is most similar to a damaged reply: more than half of the bytes must be right."""
        at = most_similar(data, [self.payload(sequence)[:HEADER_BYTES] for sequence in candidates])
        if at is None:
            return None
        difference = compare(data, self.payload(candidates[at]))
        similar = difference.damage is not Damage.CORRUPT or 2 * difference.count < len(data)
        return (candidates[at], difference) if similar else None

    def candidates(self, data: bytes, oldest: int) -> range:
        """Return the probes to compare a damaged reply to: the train with its send time, or those from `oldest`."""
        if not self._payloads.may_be_ours(data):
            return range(0)
        sent, train, oldest = sent_time(data), self._train, max(oldest, self.oldest)
        firsts = range(-(-oldest // train) * train, self.next_sequence, train)
        for first in firsts if sent is not None else ():
            if self._stamps[first % self.capacity // train] == sent:
                return range(first, min(first + train, self.next_sequence))
        return range(oldest, self.next_sequence)[:MAX_CANDIDATES]
