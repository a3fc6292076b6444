"""A link of a limited rate, as `impair.rate` declares one.

Owns the time at which it is free. Time is an argument: ns of one clock. Invariant: over any time no more leaves it than
its rate allows.
"""


class Link:
    """A link that carries one after the other."""

    def __init__(self, rate: int) -> None:
        """Carry `rate` bit/s; 0 is unlimited."""
        self._rate = rate
        self._free_at = 0

    def carry(self, now: int, octets: int) -> int:
        """Return the time at which the last bit of so many bytes, which arrive now, has left."""
        if not self._rate:
            return now
        self._free_at = max(now, self._free_at) + -(-octets * 8_000_000_000 // self._rate)
        return self._free_at
