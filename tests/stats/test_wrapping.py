"""echod.stats.wrapping: a 32-bit counter of the kernel becomes a total that only grows."""

from hypothesis import given
from hypothesis import strategies as st

from echod.stats.wrapping import WrappingCounter

WRAP = 1 << 32


def test_a_total_goes_on_where_the_counter_begins_again() -> None:
    """From 2**32 - 1 to 2 the kernel has counted three; a reading that is the same adds nothing."""
    counter = WrappingCounter()
    readings = [7, 7, WRAP - 1, 2, 2, WRAP - 1, 0]
    assert [counter.note(each) for each in readings] == [7, 7, WRAP - 1, WRAP + 2, WRAP + 2, 2 * WRAP - 1, 2 * WRAP]


@given(st.lists(st.integers(0, WRAP - 1)))
def test_a_total_is_exact_whatever_is_counted_between_two_readings(steps: list[int]) -> None:
    """Less than 2**32 at a time, in any number of steps, however often it wraps."""
    counter, true = WrappingCounter(), 0
    for step in steps:
        true += step
        assert counter.note(true % WRAP) == true
