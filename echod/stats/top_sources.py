"""The top sources, those that send most, found in bounded memory at a cost per batch, not per datagram.

Of each batch one datagram is drawn at random, and its source is charged with the whole batch. In the long run this
equals what each source sent, and nobody can predict which datagram is drawn. If there are many batches, some are
skipped, and the next draw is charged with them too.

The table is that of the space-saving algorithm (Metwally, Agrawal, El Abbadi: "Efficient Computation of Frequent and
Top-k Elements in Data Streams", 2005): a new source takes the place of one with a low count and inherits that count,
which is kept separately. Invariant: a source charged with more than 4/3 of the total, divided by the places, has a
place; and no source is reported with more than it was charged with.
"""

import json
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from heapq import nlargest
from ipaddress import IPv4Address, IPv6Address
from operator import itemgetter
from typing import Final, Generic, TypeVar

from pydantic import TypeAdapter

from echod.net.peers import source_of
from echod.stats.refusals import Count, Source

PLACES: Final = 256
"""Places in a table. With a million sources, each place holds four thousandths of the traffic."""

EACH: Final = 256
"""After each report, a datagram is drawn from each of so many batches: with little traffic, no batch is skipped."""

STRIDE: Final = 512
"""After those, datagrams from one draw to the next, on average."""

MAX_REPORTED: Final = 32
"""Most sources in a worker's report, once a second."""

SHOWN: Final = 10

_SPAN_SECONDS: Final = 10
_SPANS: Final = 6
"""The last minute, in spans that are forgotten one by one."""

_PREFIX_BYTES: Final = 8

_count_of: Final = itemgetter(1)

Key = TypeVar("Key", bound=Hashable)


class SpaceSaving(Generic[Key]):
    """The keys with the highest counts, in PLACES places."""

    def __init__(self) -> None:
        """Start empty."""
        self.counts: dict[Key, int] = {}
        self._inherited: dict[Key, int] = {}
        self._low: list[tuple[int, Key]] = []

    def add(self, key: Key, count: int) -> None:
        """Charge a key."""
        counts = self.counts
        if key in counts:
            counts[key] += count
        elif len(counts) < PLACES:
            counts[key] = count
        else:
            inherited = self._forget_one()
            counts[key] = inherited + count
            self._inherited[key] = inherited

    def _forget_one(self) -> int:
        """Make room: forget a key with a low count; return that count.

        Keys are taken one by one from the lowest quarter, found in one sort, so that new keys cost little. A key that
        was charged again since the sort stays.
        """
        counts = self.counts
        while True:
            if not self._low:
                lowest = sorted(counts.items(), key=_count_of)[: PLACES // 4]
                self._low = [(count, key) for key, count in reversed(lowest)]
            count, key = self._low.pop()
            if counts.get(key) == count:
                del counts[key]
                self._inherited.pop(key, None)
                return count

    def charges(self) -> list[tuple[Key, int]]:
        """Return each key with its own charges, without the inherited count."""
        inherited = self._inherited
        return [(key, count - inherited.get(key, 0)) for key, count in self.counts.items()]


class TopSources:
    """The sources of one worker since its last report."""

    def __init__(self, chance: Callable[[], float]) -> None:
        """Take a source of random numbers from 0 to 1, below 1, that no peer can predict."""
        self._chance = chance
        self.undrawn = 0
        """Datagrams since the last draw; the receiver of datagrams counts it up."""
        self.draw_at = 0
        """`draw` must be called when `undrawn` has reached this value."""
        self._begin()

    def _begin(self) -> None:
        self._table: SpaceSaving[bytes] = SpaceSaving()
        self._counts = self._table.counts
        self._charges = 0
        self.draw_at = 0

    def draw(self, slot_of: Callable[[int], int], peer_of: Callable[[int], bytes], datagrams: int) -> None:
        """Draw one datagram of a batch: `slot_of` returns the slot of a datagram, `peer_of` the peer of a slot."""
        peer = peer_of(slot_of(int(self._chance() * datagrams)))
        source = source_of(peer)
        counts = self._counts
        if source in counts:  # the usual case of `add`, inline: the call would cost as much as all the rest
            counts[source] += self.undrawn
        else:
            self._table.add(source, self.undrawn)
        self.undrawn = 0
        self._charges += 1
        if self._charges >= EACH:
            self.draw_at = int(self._chance() * 2 * STRIDE)

    def report(self) -> bytes | None:
        """Return the top sources, or None if there were none, and start afresh."""
        if not self._charges:
            return None
        top = nlargest(MAX_REPORTED, self._table.charges(), key=_count_of)
        self._begin()
        return json.dumps([(_text(source), count) for source, count in top], separators=(",", ":")).encode()


def _text(source: bytes) -> str:
    if len(source) == _PREFIX_BYTES:
        return f"{IPv6Address(source + bytes(_PREFIX_BYTES))}/64"
    return str(IPv4Address(source) if len(source) < _PREFIX_BYTES else IPv6Address(source[:16]))


_FORM: Final = TypeAdapter(list[tuple[Source, Count]])


def unpack_report(report: bytes) -> list[tuple[str, int]]:
    """Read what `TopSources.report` wrote. Raises ValueError for anything else."""
    return _FORM.validate_json(report)


class LastMinute(Generic[Key]):
    """The reports of the last minute, summed for the keys with the highest counts."""

    def __init__(self, now: float) -> None:
        """Start empty, at a monotonic time in seconds."""
        self._spans: list[SpaceSaving[Key]] = [SpaceSaving() for _ in range(_SPANS)]
        self._number = int(now // _SPAN_SECONDS)
        self._moved = False

    def add(self, reported: Iterable[tuple[Key, int]]) -> None:
        """Add a report."""
        for key, count in reported:
            self._spans[-1].add(key, count)
            self._moved = True

    def moved(self, now: float) -> bool:
        """Forget what is older; tell whether anything has changed since the last call."""
        number = int(now // _SPAN_SECONDS)
        for _ in range(min(number - self._number, _SPANS)):
            forgotten = self._spans.pop(0)
            self._moved = self._moved or bool(forgotten.counts)
            self._spans.append(SpaceSaving())
        self._number = number
        moved, self._moved = self._moved, False
        return moved

    def top(self) -> list[tuple[Key, int]]:
        """Return the ten highest, in descending order."""
        sums: Counter[Key] = Counter()
        for span in self._spans:
            for key, count in span.charges():
                sums[key] += count
        return sums.most_common(SHOWN)
