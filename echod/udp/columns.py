"""Fields of many datagrams of one form, read and written at once, wherever they lie in memory.

Owns the arithmetic of strided views. It knows neither slots nor protocols. Invariant: only the bytes of the field that
is written change.

Datagrams that lie at equal distances are the rows of a table, and a field of theirs is a column: one assignment of
memory to memory writes it in all rows, for a price that hardly depends on their number.
"""

from math import gcd
from typing import Final, Literal

_CODES: Final[dict[int, Literal["B", "H", "I", "Q"]]] = {1: "B", 2: "H", 4: "I", 8: "Q"}
"""The format of a number by its size in bytes."""


class Memory:
    """Memory, as numbers of each size."""

    def __init__(self, octets: memoryview) -> None:
        """View writable bytes, a multiple of 8."""
        self.octets = octets
        self.views: dict[int, memoryview[int]] = {size: octets.cast(code) for size, code in _CODES.items()}


class Rows:
    """`count` datagrams, `step` bytes apart, the first at byte `first`."""

    __slots__ = ("_memory", "count", "first", "step")

    def __init__(self, memory: Memory, first: int, step: int, count: int) -> None:
        """Take where they lie; there is at least one."""
        self._memory = memory
        self.first = first
        self.step = step
        self.count = count

    def write(self, at: int, size: int, values: bytes) -> None:
        """Write a field of `size` bytes at byte `at` of each row: `values` are those of the rows, one after another."""
        unit = gcd(self.first + at, self.step, size, 8)
        numbers = memoryview(values).cast(_CODES[unit])
        if unit == size:
            self._column(at, unit)[:] = numbers
            return
        parts = size // unit
        for part in range(parts):
            self._column(at + part * unit, unit)[:] = numbers[part::parts]

    def fill(self, at: int, value: bytes) -> None:
        """Write the same value into a field of all rows."""
        self.write(at, len(value), value * self.count)

    def copy(self, source: int, at: int, size: int) -> None:
        """Copy a field within each row."""
        unit = gcd(self.first + source, self.first + at, self.step, size, 8)
        view, step = self._memory.views[unit], self.step // unit
        to, length = (self.first + at) // unit, (self.count - 1) * step + 1
        behind = (source - at) // unit
        for first in range(to, to + size // unit):
            view[first : first + length : step] = view[first + behind : first + behind + length : step]

    def gather(self, at: int, size: int) -> bytes:
        """Return a field of all rows, one after another: what `write` takes."""
        unit = gcd(self.first + at, self.step, size, 8)
        values = bytearray(size * self.count)
        numbers = memoryview(values).cast(_CODES[unit])
        for part in range(size // unit):
            numbers[part :: size // unit] = self._column(at + part * unit, unit)
        return bytes(values)

    def read(self, at: int, size: int) -> list[bytes]:
        """Return a field of each row."""
        return [bytes(self.packet(row, at + size)[at:]) for row in range(self.count)]

    def packet(self, row: int, length: int) -> memoryview:
        """View the first bytes of one row."""
        first = self.first + row * self.step
        return self._memory.octets[first : first + length]

    def _column(self, at: int, unit: int) -> memoryview:
        """View the numbers of this size at byte `at` of each row."""
        first, step = (self.first + at) // unit, self.step // unit
        return self._memory.views[unit][first : first + (self.count - 1) * step + 1 : step]
