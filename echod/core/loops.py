"""Datagrams that go round: how a loop between two echo servers, which neither can see, is broken.

Two servers that answer each other keep one datagram in flight for ever (CERT CA-1996-01, CVE-2024-2169). So about
every `PERIOD`th datagram, chosen by chance, is compared with those that were looked at before of the same peer, an
address and port: one that is equal is not answered. A datagram that circulates dies there, and of a hundred that
circulate one dies at nearly each look, for many are remembered, not one alone. A prober that numbers its datagrams
never notices, nor one that sends the same bytes a thousand times: only at the ninth look at a peer is what was there
before not answered. Who sends the same bytes for ever loses one in 1,024 from then on.

By chance, because to count the datagrams of each peer would cost more than all other rules together, and because what
goes round in step with others must not be the one that is never looked at.

Owns what is remembered, all of it bounded; it is of hashes (of Python's bytes: SipHash, with a key of this process),
never of payload. Invariant: it never says that a datagram goes round that was not sent before by the same peer.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

PERIOD: Final = 1024
"""Datagrams from one look to the next, on the average: a loop of 100,000 a second meets 100 looks, a prober few."""

PATIENCE: Final = 8
"""Looks at a peer that cost it nothing, whatever is found: of 1,000 equal datagrams one dies in a million tests."""

REMEMBERED: Final = 64
"""Datagrams that are remembered of a peer: as many different ones as may go round and still each be found at once."""

_SOURCES_A_LOOP: Final = 64
"""There is room for so many fewer peers that were looked at than for peers. One that sends a thousandth of all that
comes is still remembered when it is looked at again."""


@dataclass(slots=True)
class _Peer:
    """How often there was a look at a peer, and what was found."""

    looks: int = 0
    marks: list[int] = field(default_factory=list)


class Circulation:
    """What is remembered of peers of which a datagram was looked at: they may be the other end of a loop."""

    def __init__(self, *, sources: int, gap: Callable[[], int], patience: int = PATIENCE) -> None:
        """Remember nothing yet, and never more than there is room for with so many sources.

        `gap` says how many datagrams on from one that is looked at the next is: 1 or more, PERIOD on the average. The
        first looks at a peer, as many as `patience`, find nothing.
        """
        self._patience = patience
        self._room = max(1, sources // _SOURCES_A_LOOP)
        self._gap = gap
        self._seen: dict[bytes, _Peer] = {}
        self.left = gap()
        """Datagrams until the one that is to be looked at, it included; counted down by who receives them."""

    def choose(self, datagrams: int) -> list[int]:
        """Return which of the last so many datagrams, counted from 0, are to be looked at, where `left` came to 0."""
        chosen = []
        while self.left <= 0:
            chosen.append(datagrams + self.left - 1)
            self.left += self._gap()
        return chosen

    def repeats(self, peer: bytes, datagram: bytes) -> bool:
        """Tell whether this datagram of a peer is one of those remembered; remember it if not."""
        seen = self._seen.pop(peer, None)
        if seen is None:
            seen = _Peer()
            if len(self._seen) >= self._room:
                del self._seen[next(iter(self._seen))]
        self._seen[peer] = seen  # behind all others: the one that was not looked at for longest is forgotten first
        seen.looks += 1
        mark, marks = hash(datagram), seen.marks
        if mark in marks:
            return seen.looks > self._patience
        if len(marks) < REMEMBERED:
            marks.append(mark)
        else:
            # In the place of any, not of the oldest: else 65 in rotation would each be forgotten just before its turn.
            marks[hash((mark, seen.looks)) % REMEMBERED] = mark
        return False
