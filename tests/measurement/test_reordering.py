"""echod.measurement.reordering: reordering by RFC 4737, worked by hand and against its definition."""

from hypothesis import given
from hypothesis import strategies as st

from echod.measurement.reordering import Order


def arrived(*indices: int) -> Order:
    """Return the counts of replies that arrive one each ns."""
    found = Order()
    for time, index in enumerate(indices):
        found.add(index, time)
    return found


def test_the_example_of_the_rfc() -> None:
    """RFC 4737, 4.2.2: of 1 2 3 7 8 9 10 4 5 6 11 three are reordered; 4 fell 4 places behind, 6 six."""
    found = arrived(1, 2, 3, 7, 8, 9, 10, 4, 5, 6, 11)
    assert (found.reordered, found.arrived, found.max_extent, found.max_late) == (3, 11, 6, 6)
    assert (found.ratio, Order().ratio) == (3 / 11, 0.0)


@given(indices=st.permutations(range(30)), lost=st.sets(st.integers(0, 29)))
def test_the_definition_finds_the_same(indices: list[int], lost: set[int]) -> None:
    """A reply is reordered if a higher one came before; its extent reaches back to the first such. Loss is none."""
    indices = [index for index in indices if index not in lost]
    found = arrived(*indices)
    extents = [
        place - next(previous for previous in range(place) if indices[previous] > index)
        for place, index in enumerate(indices)
        if any(indices[previous] > index for previous in range(place))
    ]
    most = max(extents, default=0)
    assert (found.reordered, found.max_extent, found.max_late) == (len(extents), most, most)
    assert arrived(*sorted(indices)).reordered == 0


def test_a_train_of_replies_is_added_at_once() -> None:
    """A train of four that comes after its successor is four reordered; the last fell behind by most."""
    found = Order()
    for time, index in enumerate((0, 8, 4)):
        found.add(index, time, 4)
    assert (found.reordered, found.arrived, found.max_extent) == (4, 12, 7)


def test_memory_is_bounded_and_the_count_is_exact() -> None:
    """Of a reply that was overtaken long ago, the extent is that of the oldest reply remembered."""
    found = Order()
    for index in range(1, 8195):
        found.add(index, index)
    found.add(0, 10**6)
    assert (found.reordered, len(found._peaks)) == (1, 4098)


def test_streams_are_added_up() -> None:
    """Counts add up, and the greatest extent and time remain."""
    total = Order()
    for each in (arrived(2, 1), arrived(1, 2, 3)):
        total.merge(each)
    assert (total.reordered, total.arrived, total.max_extent, total.max_late) == (1, 5, 1, 1)


def test_a_copy_of_the_last_one_is_not_reordered() -> None:
    """Nothing overtook it: of copies nothing else is known here."""
    order = Order()
    for at, index in enumerate((1, 5, 5, 3)):
        order.add(index, at)
    assert (order.reordered, order.max_extent, order.arrived) == (1, 2, 4)
