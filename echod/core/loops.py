"""Datagrams that go round: how a loop between two echo servers, which neither can see, is broken.

Two servers that answer each other keep one datagram in flight for ever (CERT CA-1996-01, CVE-2024-2169). So of each
peer, an address and port, every `PERIOD`th datagram is compared with those remembered of it before, 1,024 datagrams
apart from each other: one that is equal is not answered. A datagram that circulates dies there, and of a hundred that
circulate one dies at nearly each look, for many are remembered, not one alone. A prober that numbers its datagrams
never notices; one that sends the same bytes for ever loses one in 1,024.

Owns what is remembered, all of it bounded; it is of hashes (of Python's bytes: SipHash, with a key of this process),
never of payload. Invariant: it never says that a datagram goes round that was not sent before by the same peer.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final

PERIOD: Final = 1024
"""Datagrams of one peer from one look to the next: a loop of 100,000 a second meets 100 looks, a prober few."""

REMEMBERED: Final = 64
"""Datagrams that are remembered of a peer: as many different ones as may go round and still each be found at once."""

_SOURCES_A_LOOP: Final = 64
"""There is room for so many fewer peers that were looked at than for peers: each of those sent PERIOD datagrams."""


class Circulation:
    """What is remembered of the peers that are heard so often that they may be the other end of a loop."""

    def __init__(self, *, sources: int) -> None:
        """Remember nothing yet; never more than a part of so many peers."""
        self._most = sources // _SOURCES_A_LOOP
        self._seen: dict[bytes, deque[int]] = {}

    def repeats(self, peer: bytes, datagram: bytes) -> bool:
        """Tell whether this datagram of a peer is one of those remembered; remember it if not."""
        seen = self._seen.pop(peer, None)
        if seen is None:
            seen = deque()
            if len(self._seen) >= self._most:
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


def find_due(tallies: dict[bytes, int], peers: Sequence[bytes]) -> list[int]:
    """Return the indices of the datagrams that are a PERIODth, once `tallies` has counted all of `peers`.

    The tally of each such peer begins anew.
    """
    due = []
    for index in range(len(peers) - 1, -1, -1):
        # From the last to the first: the PERIODth is the one after which the peer sent the rest.
        peer = peers[index]
        tally = tallies[peer]
        if tally >= PERIOD:
            later = peers[index + 1 :].count(peer)
            if tally - later == PERIOD:
                due.append(index)
                tallies[peer] = later
    return due[::-1]
