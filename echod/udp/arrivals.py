"""When and how the datagrams of a batch arrived, as the kernel reports it with each.

Owns values alone: `cmsg` reads them, and the modes that measure write them into replies.
"""

from dataclasses import dataclass
from typing import Final

SECOND: Final = 1_000_000_000

UNKNOWN_TTL: Final = 255
"""The TTL of a datagram of which it is not known (RFC 8762, 4.2.1)."""


@dataclass(slots=True)
class Arrivals:
    """When and how each slot arrived."""

    second: int
    """A whole second, in ns since 1970."""
    offsets: list[int]
    """The time of the kernel's receive in ns after that, never before it; of a train, of its first datagram. Where both
    are zero it is not known."""
    ttls: list[int]
    toses: list[int]
    """TTL and TOS, or hop limit and traffic class."""

    @classmethod
    def unknown(cls, slots: int) -> "Arrivals":
        """Return those of slots of which nothing is known."""
        return cls(0, [0] * slots, [UNKNOWN_TTL] * slots, [0] * slots)

    @property
    def stamps(self) -> list[int]:
        """Return the times in ns since 1970, zero where one is not known."""
        return [self.second + offset for offset in self.offsets]

    def known(self, now: int) -> tuple[int, list[int]]:
        """Return the second and the offsets; a time that is not known is this one, in ns since 1970."""
        if self.second:
            return self.second, self.offsets
        times = [offset or now for offset in self.offsets]
        second = min(times) // SECOND * SECOND
        return second, [each - second for each in times]
