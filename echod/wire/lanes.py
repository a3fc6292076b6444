"""Arithmetic on up to 64 numbers at once: they are the 64-bit lanes of one big integer.

One multiplication of that integer multiplies all of them, for less than two would cost one by one. Owns the packing.
Invariant: no lane overflows into the next, if numbers and factor have 64 bits together.
"""

from array import array
from collections.abc import Sequence
from typing import Final

LANES: Final = 64
_BYTES: Final = 8
_BITS: Final = 64
_ONES: Final = sum(1 << _BITS * lane for lane in range(LANES))
_LOW: Final = 0xFFFF_FFFF
_ALL: Final = 0xFFFF_FFFF_FFFF_FFFF


class Lanes:
    """As many numbers as a batch has datagrams."""

    def __init__(self, numbers: Sequence[int]) -> None:
        """Take up to LANES numbers of at most 64 bits."""
        self._bytes = _BYTES * len(numbers)
        self._ones = _ONES & ((1 << _BITS * len(numbers)) - 1)
        self._value = int.from_bytes(array("Q", numbers), "little")

    def scale(self, factor: int, shift: int) -> None:
        """Multiply each by a factor, divide it by 2**`shift`, and keep the low 32 bits."""
        kept = _LOW << shift & _ALL  # of a lane before the shift, which moves its neighbour into it
        self._value = (self._value * factor & kept * self._ones) >> shift

    def add(self, number: int) -> None:
        """Add a number of 32 bits to each, modulo 2**32."""
        self._value = (self._value + number * self._ones) & _LOW * self._ones

    def pack(self, *, high: int | None = None, low: int = 0) -> bytes:
        """Return 64 bits of each in network byte order: behind `high`, or without that before `low`, 32 bits each."""
        value = (self._value << 32) + low * self._ones if high is None else self._value + (high << 32) * self._ones
        return memoryview(value.to_bytes(self._bytes, "big")).cast("Q")[::-1].tobytes()
