"""A counter that the kernel keeps in 32 bits, as a total that only grows.

Owns what was read last, and the sum. Never reads the kernel. Invariant: the total is exact, and never less than before,
if less than 2**32 is counted between two readings.
"""

from dataclasses import dataclass
from typing import Final

_BITS: Final = (1 << 32) - 1


@dataclass(slots=True, kw_only=True)
class WrappingCounter:
    """One such counter. Its first reading counts as well."""

    total: int = 0

    def note(self, reading: int) -> int:
        """Take a reading, from 0 to 2**32 - 1, and return the total."""
        self.total += reading - self.total & _BITS
        return self.total
