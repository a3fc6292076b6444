"""echod.stats.watch: whoever counted anything since the last look is found, and nobody else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.counter_pages import counter_page, listeners, summed

from echod.net.listener import Listener
from echod.stats.counters import ROW_FIELDS, CounterPage, SlotField, UdpField
from echod.stats.watch import PageWatch

SLOTS = 3
LISTENERS = listeners(5)
PLACES = st.tuples(st.integers(0, SLOTS - 1), st.sampled_from(LISTENERS), st.integers(0, ROW_FIELDS - 1))


@given(looks=st.lists(st.lists(PLACES, max_size=4), max_size=5))
def test_each_look_finds_the_listeners_that_counted_since_the_one_before(
    looks: list[list[tuple[int, Listener, int]]],
) -> None:
    """In whichever slot and place; heartbeats and the ledger are no traffic."""
    page = counter_page(*LISTENERS, slots=SLOTS, places=4)
    watch = PageWatch(page)
    assert watch.changed() == set()
    for counted in looks:
        for slot, listener, place in counted:
            page.row(slot, listener)[place] += 1
            page.row(slot, listener)[UdpField.RECEIVED] += 1
            page.header(slot)[0] += 1
            page.ledger(slot)[0] += 1
        assert watch.changed() == {listener for _, listener, _ in counted}
        assert watch.changed() == set()


def watched() -> tuple[CounterPage, PageWatch]:
    """Make a page on which each worker has replied to seven of nine datagrams, and look at it."""
    page = counter_page(*LISTENERS, slots=SLOTS, places=4)
    for slot in range(SLOTS):
        page.row(slot, LISTENERS[0])[UdpField.RECEIVED], page.row(slot, LISTENERS[0])[UdpField.REPLIED] = 9, 7
    watch = PageWatch(page)
    watch.changed()
    return page, watch


@pytest.mark.parametrize("number", [0, 6, 10, 2**63, 2**64 - 1])
def test_a_worker_that_writes_what_cannot_be_true_is_distrusted(number: int) -> None:
    """A count that shrinks, more replies than datagrams, or more than anybody counts: the last good rows hold."""
    page, watch = watched()
    page.row(1, LISTENERS[0])[UdpField.REPLIED] = number
    page.row(2, LISTENERS[0])[UdpField.RECEIVED] += 1
    assert watch.changed() == {LISTENERS[0]}
    assert list(page.distrusted) == [1]
    assert summed(page)[LISTENERS[0]][UdpField.REPLIED] == 21
    assert page.datagrams() == 28
    assert watch.changed() == set()


@pytest.mark.parametrize("field", [UdpField.HELD, UdpField.LAST_AT])
def test_fewer_may_be_held_than_before_and_the_clock_set_back(field: UdpField) -> None:
    """What was held has left, and the last may have come at an earlier time. Beside them no other number may shrink."""
    page, watch = watched()
    row = page.row(1, LISTENERS[0])
    row[field] = 2
    assert watch.changed() == {LISTENERS[0]}
    row[field], row[UdpField.REPLIED] = 1, 8
    assert watch.changed() == {LISTENERS[0]}
    assert list(page.distrusted) == []
    row[field], row[UdpField.REPLIED] = 0, 7
    assert watch.changed() == set()
    assert list(page.distrusted) == [1]


def test_a_ledger_that_cannot_be_is_seen_without_any_traffic() -> None:
    """Other workers read it for the limits on connections."""
    page, watch = watched()
    page.header(2)[SlotField.PLACES] = 2**40
    assert watch.changed() == set()
    assert list(page.distrusted) == [2]
    page.row(2, LISTENERS[0])[UdpField.RECEIVED] += 1
    assert watch.changed() == {LISTENERS[0]}  # its rows are well
    assert page.datagrams() == 28
    page.settle(2)
    assert page.datagrams() == 28
    assert watch.changed() == {LISTENERS[0]}  # what was interrupted
    assert list(page.distrusted) == []


def test_numbers_that_are_plausible_again_are_read_again() -> None:
    """A process that settles nothing, as the exporter, learns so that another worker has taken the place."""
    page, watch = watched()
    page.row(1, LISTENERS[0])[UdpField.REPLIED] = 2**64 - 1
    watch.changed()
    assert list(page.distrusted) == [1]
    page.row(1, LISTENERS[0])[UdpField.REPLIED] = 8
    assert watch.changed() == {LISTENERS[0]}
    assert list(page.distrusted) == []
    assert summed(page)[LISTENERS[0]][UdpField.REPLIED] == 22


def test_a_check_before_settling_takes_no_news_away() -> None:
    """The next look still finds what changed; and a slot that was settled is believed again."""
    page, watch = watched()
    page.row(0, LISTENERS[0])[UdpField.RECEIVED] += 1
    watch.check(0)
    assert list(page.distrusted) == []
    page.row(1, LISTENERS[0])[UdpField.REPLIED] = 99
    watch.check(1)
    assert list(page.distrusted) == [1]
    page.settle(1)
    assert watch.changed() == {LISTENERS[0]}
    assert page.row(1, LISTENERS[0])[UdpField.INTERRUPTED] == 2
    assert list(page.distrusted) == []
