"""The loop detector: how a loop between two echo servers, which neither can see, is broken.

Two servers that answer each other keep one datagram in flight for ever (CERT CA-1996-01, CVE-2024-2169). So about one
in `PERIOD` datagrams, chosen at random, is compared with earlier samples of the same peer, an address and port. One
that equals an earlier sample is not answered. A datagram that circulates dies there, and of a hundred that circulate,
nearly each sample ends one, because many samples are remembered. A prober that numbers its datagrams loses none, and
neither does one that sends the same bytes a thousand times: samples are dropped only from the ninth of a peer on. From
then on, a sender that repeats the same bytes for ever loses one datagram in 1,024.

The choice is random, because counting the datagrams of each peer would cost more than all other rules together, and
because a datagram that circulates in step with others must not escape sampling for ever.

Of a datagram into which a mode writes each time it passes, only that is compared which no server changes, or whether it
looks like a reply at all (`worker.modes.make_identity`).

Owns the samples, which are bounded, and are hashes (of Python's bytes: SipHash, with a key of this process), never
payload. Invariant: a datagram is reported as circulating only if the same peer sent the same bytes before.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

PERIOD: Final = 1024
"""Datagrams from one sample to the next, on average: a loop of 100,000 a second meets 100 samples, a prober few."""

PATIENCE: Final = 8
"""First samples of a peer that are never dropped: in a million tests of 1,000 equal datagrams, hardly one dies."""

REMEMBERED: Final = 64
"""Samples remembered of a peer. If no more different datagrams circulate, each is found at its next sample."""

_SOURCES_A_LOOP: Final = 64
"""There is room for the samples of one peer for each so many sources. A peer that sends a thousandth of the traffic is
still remembered at its next sample."""


@dataclass(slots=True)
class _Peer:
    """The number of samples of a peer, and their hashes."""

    samples: int = 0
    hashes: list[int] = field(default_factory=list)


class LoopDetector:
    """The samples of peers, each of which may be the other end of a loop."""

    def __init__(self, *, sources: int, gap: Callable[[], int], patience: int = PATIENCE) -> None:
        """Start empty, with room that depends on `sources`.

        `gap` returns the distance in datagrams from one sample to the next: 1 or more, PERIOD on average. The first
        `patience` samples of a peer are never reported.
        """
        self._patience = patience
        self._room = max(1, sources // _SOURCES_A_LOOP)
        self._gap = gap
        self._seen: dict[bytes, _Peer] = {}
        self.left = gap()
        """Datagrams up to and including the next sample; the receiver of datagrams counts it down."""

    def choose(self, datagrams: int) -> list[int]:
        """Return which of the last `datagrams`, counted from 0, to sample. Call it when `left` is 0 or less."""
        chosen = []
        while self.left <= 0:
            chosen.append(datagrams + self.left - 1)
            self.left += self._gap()
        return chosen

    def repeats(self, peer: bytes, datagram: bytes) -> bool:
        """Tell whether this sample of a peer is to be dropped, as equal to an earlier one; remember it if it is new."""
        seen = self._seen.pop(peer, None)
        if seen is None:
            seen = _Peer()
            if len(self._seen) >= self._room:
                del self._seen[next(iter(self._seen))]
        self._seen[peer] = seen  # at the end: the peer sampled least recently is forgotten first
        seen.samples += 1
        digest, hashes = hash(datagram), seen.hashes
        if digest in hashes:
            return seen.samples > self._patience
        if len(hashes) < REMEMBERED:
            hashes.append(digest)
        else:
            # Replace any, not the oldest: else each of 65 in rotation would be forgotten just before its next sample.
            hashes[hash((digest, seen.samples)) % REMEMBERED] = digest
        return False
