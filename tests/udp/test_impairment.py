"""echod.udp.impairment: the fates of datagrams, and the order in which they leave."""

from collections import Counter
from math import inf
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.net.mode import Impairment
from echod.udp.impairment import CORRUPTED, DUPLICATED, LOST, REORDERED, Datagram, Fates, Held, flip

MANY = Impairment(loss=0.2, duplicate=0.2, reorder=0.2, corrupt=0.2, delay=20_000_000, jitter=5_000_000)


def seeded(impairment: Impairment) -> Fates:
    """Return the fates of the seed 7."""
    return Fates(impairment, Random(7).random)  # noqa: S311 - no secret


def draws(*numbers: float) -> Fates:
    """Return the fates under MANY by these numbers."""
    return Fates(MANY, iter(numbers).__next__)


def datagram(payload: bytes, marks: int = 0) -> Datagram:
    """Make a datagram of some peer."""
    return Datagram(b"name", b"control", payload, marks)


def add(held: Held, due: int, each: Datagram) -> bool:
    """Hold this datagram if there is room for it; tell whether there was."""
    fits = held.has_room(len(each.payload))
    if fits:
        held.add(due, each)
    return fits


def leave(held: Held, now: float) -> list[bytes]:
    """Return the payloads of all that leave by now, in order."""
    left = []
    while (each := held.pop(now)) is not None:
        left.append(each.payload)
    return left


# -- fates


def test_each_number_decides_one_thing() -> None:
    """Loss, duplication, reordering, corruption, the bit and the delay take one number each, in this order."""
    fates = draws(*(0.1, 0.9, 0.9, 0.9, 0.3, 0.0), *(0.9, 0.1, 0.9, 0.9, 0.0, 0.5), *(0.9, 0.9, 0.1, 0.1, 0.6, 0.75))
    assert [fates.draw() for _ in range(3)] == [
        (LOST, 0.3, 15_000_000),
        (DUPLICATED, 0.0, 20_000_000),
        (REORDERED | CORRUPTED, 0.6, 22_500_000),
    ]


def test_a_share_is_of_the_numbers_below_it() -> None:
    """0.2 is not below 0.2. A share of 0 befalls none, a share of 1 all."""
    assert draws(0.2, 0.2, 0.2, 0.2, 0, 0).draw()[0] == 0
    assert Fates(Impairment(), iter([0.0] * 6).__next__).draw() == (0, 0.0, 0)
    highest = [1 - 2**-53] * 6
    assert Fates(Impairment(duplicate=1, reorder=1, corrupt=1), iter(highest).__next__).draw()[0] == 14
    assert Fates(Impairment(loss=1, duplicate=1, reorder=1, corrupt=1), iter(highest).__next__).draw()[0] == LOST


def test_a_seed_has_these_fates() -> None:
    """The same with each version of Python: the numbers of the seed 7 are 0.3238, 0.1508, 0.6509, 0.0724, and so on."""
    fates = seeded(MANY)
    assert [fates.draw() for _ in range(8)] == [
        (10, 0.5358820043066892, 18_656_889),
        (1, 0.06985542357461894, 15_907_130),
        (4, 0.6274332224055893, 24_477_090),
        (8, 0.8584684590486795, 17_896_093),
        (1, 0.18072637992393747, 20_816_002),
        (8, 0.05960116996623266, 17_059_587),
        (0, 0.45318437637077535, 17_997_670),
        (0, 0.5251965038114514, 23_751_375),
    ]


def test_the_same_seed_has_the_same_number_of_each_fate() -> None:
    """100,000 datagrams; the shares of the numbers are 2%, 1%, 1% and 0.1%."""
    fates = seeded(Impairment(loss=0.02, duplicate=0.01, reorder=0.01, corrupt=0.001))
    found = Counter(fates.draw()[0] for _ in range(100_000))
    assert found == {0: 95_928, LOST: 2023, REORDERED: 982, DUPLICATED: 962, CORRUPTED: 100, 6: 4, 12: 1}


@pytest.mark.parametrize(
    ("place", "flipped"),
    [(0.0, b"\x80\x00\xff"), (0.3, b"\x01\x00\xff"), (0.34, b"\x00\x80\xff"), (0.99999, b"\x00\x00\xfe")],
)
def test_one_bit_is_inverted(place: float, flipped: bytes) -> None:
    """0.3 of 24 bits is bit 7, the last of the first byte; 0.34 is bit 8, the first of the second."""
    assert flip(b"\x00\x00\xff", place) == flipped


# -- those that are held


def test_datagrams_leave_when_they_are_due() -> None:
    """In the order of their times; those of one time in the order in which they came."""
    held = Held(10)
    for due, payload in ((30, b"c"), (10, b"a"), (20, b"b"), (10, b"A")):
        assert add(held, due, datagram(payload))
    assert held.next_due() == 10
    assert leave(held, 9) == []
    assert leave(held, 10) == [b"a", b"A"]
    assert (len(held), held.next_due()) == (2, 20)
    assert leave(held, 100) == [b"b", b"c"]
    assert (len(held), held.next_due()) == (0, inf)


def test_one_that_is_reordered_leaves_right_after_the_next() -> None:
    """Not after all: those behind the next one stay behind."""
    held = Held(10)
    for payload, marks in ((b"a", 0), (b"b", REORDERED), (b"c", 0), (b"d", 0)):
        held.add(5, datagram(payload, marks))
    assert leave(held, 5) == [b"a", b"c", b"b", b"d"]


def test_two_that_are_reordered_leave_in_order_after_the_next() -> None:
    """They are overtaken by the same one."""
    held = Held(10)
    for payload, marks in ((b"a", REORDERED), (b"b", REORDERED), (b"c", DUPLICATED), (b"d", 0)):
        held.add(5, datagram(payload, marks))
    assert leave(held, 5) == [b"c", b"a", b"b", b"d"]


def test_one_that_nobody_overtakes_leaves_after_a_second_and_a_half() -> None:
    """Until then it is held, and the next one that leaves takes it along."""
    held = Held(10)
    held.add(5, datagram(b"a", REORDERED))
    assert (leave(held, 5), len(held), held.next_due()) == ([], 1, 1_500_000_005)
    assert leave(held, 1_500_000_004) == []
    assert held.pop(1_500_000_005) == datagram(b"a")
    held.add(10, datagram(b"b", REORDERED))
    assert leave(held, 10) == []
    held.add(20, datagram(b"c"))
    assert held.next_due() == 20
    assert [held.pop(20), held.pop(20)] == [datagram(b"c"), datagram(b"b", REORDERED)]
    assert len(held) == 0


def test_one_that_was_overtaken_leaves_at_once() -> None:
    """Who takes a part of what is due finds the rest of it due at once."""
    held = Held(10)
    held.add(5, datagram(b"a", REORDERED))
    held.add(6, datagram(b"b"))
    first = held.pop(6)
    assert first is not None
    assert (first.payload, len(held), held.next_due()) == (b"b", 1, 0)
    assert leave(held, 0) == [b"a"]


def test_in_the_end_all_leave() -> None:
    """Those that wait to be overtaken after all that can overtake them, in order."""
    held = Held(10)
    for payload, due, marks in ((b"a", 70, 0), (b"b", 40, REORDERED), (b"c", 90, REORDERED)):
        held.add(due, datagram(payload, marks))
    assert leave(held, inf) == [b"a", b"b", b"c"]


def test_no_more_datagrams_are_held_than_there_is_room_for() -> None:
    """One that leaves makes room for another."""
    held = Held(2)
    assert [add(held, due, datagram(b"")) for due in (1, 2, 3)] == [True, True, False]
    assert held.pop(1) is not None
    assert [add(held, due, datagram(b"")) for due in (4, 5)] == [True, False]
    assert len(held) == 2


def test_no_more_bytes_are_held_than_there_is_room_for() -> None:
    """64 MiB are 67,108,864 bytes: 1,024 datagrams of 65,507 bytes fit, 1,025 do not; 29,696 bytes are left."""
    held, large = Held(10_000), datagram(bytes(65_507))
    assert [add(held, 1, large) for _ in range(1025)] == [True] * 1024 + [False]
    assert not held.has_room(29_697)
    assert add(held, 1, datagram(bytes(29_696)))
    assert leave(held, 1) == [large.payload] * 1024 + [bytes(29_696)]
    assert held.has_room(65_507)


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=60), st.integers(1, 40))
def test_each_leaves_once_and_none_before_its_time(arrivals: list[tuple[int, bool]], most: int) -> None:
    """Whatever comes in whatever order: added is left and held; what is not reordered leaves when it is due."""
    held, added, left = Held(most), 0, 0
    for now, (due, reordered) in enumerate(arrivals):
        added += add(held, now + due, datagram(b"%d" % (now + due), REORDERED if reordered else 0))
        while (each := held.pop(now)) is not None:
            assert int(each.payload) <= now
            assert each.marks or int(each.payload) == now
            left += 1
        assert len(held) == added - left <= most
        assert now < held.next_due()
    assert len(leave(held, inf)) == added - left
