"""echod.udp.columns: a field of many datagrams is written in one go, and nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.udp.columns import Memory, Rows


def memory(size: int = 64) -> tuple[bytearray, Memory]:
    """Make memory whose bytes are their own offsets."""
    octets = bytearray(range(size))
    return octets, Memory(memoryview(octets))


@pytest.mark.parametrize(("first", "step"), [(0, 24), (4, 12), (2, 14), (1, 13)])
def test_each_row_gets_its_value(first: int, step: int) -> None:
    """Whether the rows lie at multiples of eight, four, two or one byte."""
    octets, rows = memory()
    Rows(rows, first, step, 2).write(4, 8, b"ABCDEFGHabcdefgh")
    expected = bytearray(range(64))
    expected[first + 4 : first + 12] = b"ABCDEFGH"
    expected[first + step + 4 : first + step + 12] = b"abcdefgh"
    assert octets == expected


def test_a_value_fills_all_rows() -> None:
    """One that is written once for each."""
    octets, rows = memory(24)
    Rows(rows, 1, 7, 3).fill(2, b"xyz")
    unchanged = [bytes([0, 1, 2]), bytes([6, 7, 8, 9]), bytes([13, 14, 15, 16]), bytes([20, 21, 22, 23])]
    assert octets == b"xyz".join(unchanged)


def test_a_field_is_copied_within_each_row() -> None:
    """Also onto itself in part: what is copied is what was there before."""
    octets, rows = memory(16)
    Rows(rows, 0, 8, 2).copy(0, 4, 4)
    assert octets == bytes([0, 1, 2, 3, 0, 1, 2, 3, 8, 9, 10, 11, 8, 9, 10, 11])


def test_a_field_is_read_from_each_row() -> None:
    """As bytes, in their order."""
    assert Rows(memory()[1], 3, 10, 3).read(1, 2) == [b"\4\5", b"\x0e\x0f", b"\x18\x19"]


def test_a_row_is_viewed_where_it_lies() -> None:
    """What is written there is in the memory."""
    octets, rows = memory(16)
    Rows(rows, 2, 5, 3).packet(1, 3)[:] = b"abc"
    assert octets[6:11] == b"\x06abc\x0a"


def test_a_field_of_all_rows_is_one_string() -> None:
    """In their order."""
    assert Rows(memory()[1], 3, 10, 3).gather(2, 3) == b"\5\6\7\x0f\x10\x11\x19\x1a\x1b"


@given(st.data())
def test_any_table_is_written_as_if_byte_by_byte(data: st.DataObject) -> None:
    """Wherever it begins, however wide it is, and however many rows it has."""
    first, step, count = data.draw(st.integers(0, 9)), data.draw(st.integers(1, 20)), data.draw(st.integers(1, 8))
    size = data.draw(st.integers(1, step))
    at = data.draw(st.integers(0, step - size))
    values = data.draw(st.binary(min_size=size * count, max_size=size * count))
    octets, rows = memory(256)
    expected = bytearray(octets)
    for row in range(count):
        expected[first + row * step + at : first + row * step + at + size] = values[row * size : (row + 1) * size]
    table = Rows(rows, first, step, count)
    table.write(at, size, values)
    assert octets == expected
    assert b"".join(table.read(at, size)) == values == table.gather(at, size)
