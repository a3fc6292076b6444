"""echod.wire.lanes: numbers side by side in one integer never disturb each other."""

from struct import pack

from hypothesis import given
from hypothesis import strategies as st

from echod.wire.lanes import LANES, Lanes

numbers = st.lists(st.integers(0, 2**30 - 1), min_size=1, max_size=LANES)


@given(numbers, st.integers(0, 2**34 - 1), st.integers(0, 63), st.integers(0, 2**32 - 1))
def test_each_number_is_computed_as_if_alone(values: list[int], factor: int, shift: int, more: int) -> None:
    """Scaled, and added to, modulo 2**32; then packed behind a number, or before one."""
    lanes = Lanes(values)
    lanes.scale(factor, shift)
    lanes.add(more)
    alone = [((value * factor >> shift) + more) % 2**32 for value in values]
    assert lanes.pack(high=more) == b"".join(pack(">II", more, each) for each in alone)
    assert lanes.pack(low=more) == b"".join(pack(">II", each, more) for each in alone)


def test_the_order_of_the_numbers_stays() -> None:
    """The first is packed first."""
    assert Lanes([1, 2, 3]).pack(high=7) == pack(">6I", 7, 1, 7, 2, 7, 3)
    assert Lanes([2**32 - 1]).pack() == b"\xff" * 4 + bytes(4)
