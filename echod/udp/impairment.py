"""What befalls each datagram on a path that misbehaves (`impair`), and when it leaves.

Owns the draws and the order of those that are held. Time is an argument: ns of one clock. Invariants: each
datagram takes six draws, whatever they bring, so the same draws and the same datagrams give the same fates; a datagram
that was added leaves once.
"""

import heapq
from collections import deque
from collections.abc import Callable
from itertools import count
from math import inf
from typing import Final, NamedTuple

from echod.net.mode import Impairment
from echod.net.peers import PEER4_BYTES, PEER6_BYTES

LOST: Final = 1
DUPLICATED: Final = 2
REORDERED: Final = 4
CORRUPTED: Final = 8
"""The marks of a fate, which may have several of the last three; what is lost has no other."""

OVERTAKEN_WITHIN: Final = 1_500_000_000
"""Ns that a datagram with the mark REORDERED waits for another one to leave; then it leaves alone. Longer than the
second between two probes of a common client."""

MOST_OCTETS: Final = 64 << 20
"""Most bytes of payload that are held."""

HEADER_OCTETS: Final = {PEER4_BYTES: 28, PEER6_BYTES: 48}
"""Bytes that a datagram has on the link beside its payload, by the length of its peer: UDP (RFC 768) and IPv4 (RFC 791)
or IPv6 (RFC 8200)."""


class Fates:
    """The fates of datagrams, in the order in which they arrive."""

    def __init__(self, impairment: Impairment, random: Callable[[], float]) -> None:
        """Draw from `random`, which returns numbers from 0 up to 1 without 1."""
        self._random = random
        self._loss, self._duplicate = impairment.loss, impairment.duplicate
        self._reorder, self._corrupt = impairment.reorder, impairment.corrupt
        self._shortest = impairment.delay - impairment.jitter
        self._delays = 2 * impairment.jitter + 1

    def draw(self) -> tuple[int, float, int]:
        """Return the marks of the next datagram, the place of the bit that CORRUPTED inverts, and the delay in ns.

        The place is a share of the bits of the payload, below 1.
        """
        random = self._random
        lost = random() < self._loss
        marks = (
            (DUPLICATED if random() < self._duplicate else 0)
            | (REORDERED if random() < self._reorder else 0)
            | (CORRUPTED if random() < self._corrupt else 0)
        )
        return LOST if lost else marks, random(), self._shortest + int(random() * self._delays)


def flip(payload: bytes, place: float) -> bytes:
    """Invert one bit of a payload that is not empty: the one at this share of its bits.

    They are counted as they are sent, from the highest of the first byte.
    """
    bit = int(place * 8 * len(payload))
    at = bit // 8
    return payload[:at] + bytes((payload[at] ^ 0x80 >> bit % 8,)) + payload[at + 1 :]


class Datagram(NamedTuple):
    """A reply that is held: the name of its peer, its control messages, its payload, and its marks."""

    name: bytes
    control: bytes
    payload: bytes
    marks: int


class Held:
    """The datagrams that are held, by the time at which they are due.

    One with the mark REORDERED does not leave when it is due, but right after the next one that leaves. One that nobody
    overtook has the mark no more.
    """

    def __init__(self, most: int, most_octets: int = MOST_OCTETS) -> None:
        """Hold at most so many datagrams, and bytes of payload."""
        self._room, self._octets_left = most, most_octets
        self._heap: list[tuple[int, int, Datagram]] = []
        self._order = count()
        self._waiting: deque[tuple[int, Datagram]] = deque()
        """Those that were due and wait to be overtaken, with the time at which they no longer do."""
        self._overtaken: deque[tuple[int, Datagram]] = deque()
        """Those that leave next."""

    def __len__(self) -> int:
        """Return how many are held."""
        return len(self._heap) + len(self._waiting) + len(self._overtaken)

    def has_room(self, octets: int) -> bool:
        """Tell whether a datagram with so many bytes of payload may be added."""
        return octets <= self._octets_left and self._room > 0

    def add(self, due: int, datagram: Datagram) -> None:
        """Hold a datagram, for which there is room, until this time."""
        self._room -= 1
        self._octets_left -= len(datagram.payload)
        heapq.heappush(self._heap, (due, next(self._order), datagram))

    def pop(self, now: float) -> Datagram | None:
        """Remove and return the next datagram that leaves by now, None if there is none. `math.inf`: any."""
        datagram = self._next(now)
        if datagram is not None:
            self._room += 1
            self._octets_left += len(datagram.payload)
        return datagram

    def _next(self, now: float) -> Datagram | None:
        if self._overtaken:
            return self._overtaken.popleft()[1]
        while self._heap and self._heap[0][0] <= now:
            due, _, datagram = heapq.heappop(self._heap)
            if not datagram.marks & REORDERED:
                self._overtaken, self._waiting = self._waiting, self._overtaken
                return datagram
            self._waiting.append((due + OVERTAKEN_WITHIN, datagram))
        if self._waiting and self._waiting[0][0] <= now:
            alone = self._waiting.popleft()[1]
            return alone._replace(marks=alone.marks & ~REORDERED)
        return None

    def next_due(self) -> float:
        """Return the time at which one leaves, if no other is added: 0 for at once, `math.inf` for none."""
        if self._overtaken:
            return 0
        return min(self._heap[0][0] if self._heap else inf, self._waiting[0][0] if self._waiting else inf)
