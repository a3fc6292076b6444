"""Datagrams that go round: how a loop between two echo servers, which neither can see, is broken.

Two servers that answer each other keep one datagram in flight for ever (CERT CA-1996-01, CVE-2024-2169). So of each
peer, an address and port, about every `PERIOD`th datagram is compared with those remembered of it before: one that is
equal is not answered. A datagram that circulates dies there, and of a hundred that circulate one dies at nearly each
look, for many are remembered, not one alone. A prober that numbers its datagrams never notices; one that sends the
same bytes for ever loses one in 1,024.

Counting each datagram would cost as much as all other rules together. So one batch in `BATCHES` is counted, chosen by
chance: what goes round in step with others must not be the one that is never counted.

Owns what is remembered, all of it bounded; it is of hashes (of Python's bytes: SipHash, with a key of this process),
never of payload. Invariant: it never says that a datagram goes round that was not sent before by the same peer.
"""

from collections import Counter, deque
from collections.abc import Sequence
from typing import Final

PERIOD: Final = 1024
"""Datagrams of one peer from one look to the next: a loop of 100,000 a second meets 100 looks, a prober few."""

BATCHES: Final = 8
"""One in so many is counted, on the average."""

COUNTED: Final = PERIOD // BATCHES
"""Datagrams of one peer from one look to the next, of those in batches that are counted."""

REMEMBERED: Final = 64
"""Datagrams that are remembered of a peer: as many different ones as may go round and still each be found at once."""

_SOURCES_A_LOOP: Final = 64
"""There is room for so many fewer peers that were looked at than for peers: each of those sent PERIOD datagrams."""


class Circulation:
    """What is remembered of the peers that are heard so often that they may be the other end of a loop."""

    def __init__(self, *, sources: int) -> None:
        """Remember nothing yet, and never more than so many peers."""
        self._sources = sources
        self._tallies: Counter[bytes] = Counter()
        self._seen: dict[bytes, deque[int]] = {}

    def count_all(self, peers: Sequence[bytes]) -> list[int]:
        """Count a datagram of each of these peers; return the indices of those to be looked at."""
        self._make_room(len(peers))
        tallies = self._tallies
        tallies.update(peers)
        if max(map(tallies.__getitem__, peers), default=0) < COUNTED:
            return []
        due = []
        for index in range(len(peers) - 1, -1, -1):
            # From the last to the first: the one that is due is the one after which the peer sent the rest.
            peer = peers[index]
            tally = tallies[peer]
            if tally >= COUNTED:
                later = peers[index + 1 :].count(peer)
                if tally - later == COUNTED:
                    due.append(index)
                    tallies[peer] = later
        return due[::-1]

    def count(self, peer: bytes, datagrams: int) -> bool:
        """Count the datagrams of a train; tell whether one of them is to be looked at."""
        self._make_room(1)
        tally = self._tallies[peer] + datagrams
        self._tallies[peer] = tally % COUNTED
        return tally >= COUNTED

    def _make_room(self, strangers: int) -> None:
        """Have room for so many peers more; where there is none, those heard least are forgotten.

        Half of the room is made at once: looking at all for a few strangers would be a way to keep echod busy.
        """
        if len(self._tallies) + strangers > self._sources:
            loud = 1  # as all are
            while len(self._tallies) > self._sources // 2:
                loud *= 2
                self._tallies = Counter({peer: tally for peer, tally in self._tallies.items() if tally >= loud})

    def repeats(self, peer: bytes, datagram: bytes) -> bool:
        """Tell whether this datagram of a peer is one of those remembered; remember it if not."""
        seen = self._seen.pop(peer, None)
        if seen is None:
            seen = deque()
            if len(self._seen) >= self._sources // _SOURCES_A_LOOP:
                del self._seen[next(iter(self._seen))]
        self._seen[peer] = seen  # behind all others: the one that was not looked at for longest is forgotten first
        mark = hash(datagram)
        if mark in seen:
            return True
        if len(seen) < REMEMBERED:
            seen.append(mark)
        else:
            # In the place of any, not of the oldest: else 65 in rotation would each be forgotten just before its turn.
            seen.rotate()
            seen[mark % REMEMBERED] = mark
        return False
