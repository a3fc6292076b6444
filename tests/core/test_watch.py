"""echod.core.watch: whoever counted anything since the last look is found, and nobody else."""

from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from echod.core.counters import ROW_FIELDS, CounterPage
from echod.core.listener import Listener, Protocol
from echod.core.watch import PageWatch

SLOTS = 3
LISTENERS = tuple(Listener(protocol=Protocol.UDP, address=IPv4Address("127.0.0.1"), port=port) for port in range(1, 6))
PLACES = st.tuples(st.integers(0, SLOTS - 1), st.sampled_from(LISTENERS), st.integers(0, ROW_FIELDS - 1))


@given(looks=st.lists(st.lists(PLACES, max_size=4), max_size=5))
def test_each_look_finds_the_listeners_that_counted_since_the_one_before(
    looks: list[list[tuple[int, Listener, int]]],
) -> None:
    """In whichever slot and place; heartbeats and the ledger are no traffic."""
    size = CounterPage.size(slots=SLOTS, listeners=len(LISTENERS), places=4)
    page = CounterPage(memoryview(bytearray(size)), slots=SLOTS, listeners=LISTENERS, places=4)
    watch = PageWatch(page)
    assert watch.changed() == set()
    for counted in looks:
        for slot, listener, place in counted:
            page.row(slot, listener)[place] += 1
            page.header(slot)[0] += 1
            page.ledger(slot)[0] += 1
        assert watch.changed() == {listener for _, listener, _ in counted}
        assert watch.changed() == set()
