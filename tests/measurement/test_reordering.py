"""echod.measurement.reordering: reordering by RFC 4737, worked by hand and against its definition."""

from hypothesis import given
from hypothesis import strategies as st

from echod.measurement import reordering
from echod.measurement.reordering import Order


def arrived(*indices: int) -> Order:
    """Let replies arrive, one each ns."""
    found = Order()
    for time, index in enumerate(indices):
        found.add(index, time)
    return found


def test_in_order_is_not_reordered_and_loss_is_no_reordering() -> None:
    """Gaps alone make none."""
    assert (arrived(1, 2, 3, 7, 9).reordered, arrived(1, 2, 3).ratio, Order().ratio) == (0, 0.0, 0.0)


def test_the_example_of_the_rfc() -> None:
    """RFC 4737, 4.2.2: of 1 2 3 7 8 9 10 4 5 6 11 three are reordered; 4 fell 4 places behind, 6 six."""
    found = arrived(1, 2, 3, 7, 8, 9, 10, 4, 5, 6, 11)
    assert (found.reordered, found.arrived, found.max_extent, found.max_late) == (3, 11, 6, 6)
    assert found.ratio == 3 / 11


@given(indices=st.permutations(range(30)))
def test_the_definition_finds_the_same(indices: list[int]) -> None:
    """Reordered is what comes after a higher one; its extent reaches back to the first such."""
    found = arrived(*indices)
    extents = [
        place - next(previous for previous in range(place) if indices[previous] > index)
        for place, index in enumerate(indices)
        if any(indices[previous] > index for previous in range(place))
    ]
    assert (found.reordered, found.max_extent) == (len(extents), max(extents, default=0))


def test_a_run_of_replies_is_taken_at_once() -> None:
    """A train of four that comes after its successor is four reordered; the last fell behind by most."""
    found = Order()
    found.add(0, 0, 4)
    found.add(8, 1, 4)
    found.add(4, 2, 4)
    assert (found.reordered, found.arrived, found.max_extent) == (4, 12, 7)


def test_what_was_overtaken_long_ago_is_still_reordered() -> None:
    """Memory is bounded: the extent is then that of the oldest remembered, and the count is right."""
    found = Order()
    for index in range(1, 2 * reordering._KEPT + 3):
        found.add(index, index)
    found.add(0, 10**6)
    assert (found.reordered, len(found._peaks)) == (1, reordering._KEPT + 2)


def test_streams_together() -> None:
    """Counts add up, the worst stays."""
    total = Order()
    for each in (arrived(2, 1), arrived(1, 2, 3)):
        total.merge(each)
    assert (total.reordered, total.arrived, total.max_extent, total.max_late) == (1, 5, 1, 1)
