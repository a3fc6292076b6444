"""echod.core.loops: what goes round is found, what a prober numbers is not, and little is remembered."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echod.core.loops import PERIOD, REMEMBERED, Circulation, find_due

PEER, OTHER = b"peer", b"other"
SOURCES = 65_536


def heard(tallies: Counter[bytes], peers: list[bytes]) -> list[int]:
    """Count a batch and find what is due in it, as `Admission` does."""
    tallies.update(peers)
    return find_due(tallies, peers)


# -- which datagrams are looked at


@pytest.mark.parametrize("index", [0, 1, 31, 62, 63])
def test_the_1024th_is_found_wherever_in_a_batch_it_is(index: int) -> None:
    """With so many before it that the 1,024th is this one, its index is told, and the tally begins with the rest."""
    tallies = Counter({PEER: PERIOD - 1 - index})
    assert heard(tallies, [PEER] * 64) == [index]
    assert tallies[PEER] == 63 - index


def test_below_1024_nothing_is_due() -> None:
    """The 1,023rd is one too few."""
    tallies = Counter({PEER: PERIOD - 1 - 64})
    assert heard(tallies, [PEER] * 64) == []
    assert tallies[PEER] == PERIOD - 1


def test_each_peer_of_a_batch_has_a_1024th_of_its_own() -> None:
    """Several that are due in one batch are all found, in the order of the batch, between others that are not."""
    tallies = Counter({b"a": PERIOD - 1, b"b": PERIOD - 2, b"c": PERIOD - 3})
    assert heard(tallies, [b"c", b"b", b"d", b"a", b"b", b"a", b"c", b"d", b"b"]) == [3, 4]
    assert tallies == {b"a": 1, b"b": 1, b"c": PERIOD - 1, b"d": 2}


@settings(deadline=None)
@given(
    before=st.dictionaries(st.sampled_from([b"a", b"b", b"c"]), st.integers(PERIOD - 40, PERIOD - 1)),
    batches=st.lists(st.lists(st.sampled_from([b"a", b"b", b"c", b"d"]), max_size=64), max_size=6),
)
def test_the_look_over_a_batch_agrees_with_a_count_one_by_one(
    before: dict[bytes, int], batches: list[list[bytes]]
) -> None:
    """Whatever the batches, each peer's 1,024th is due, and no tally ever stands at 1,024 or above."""
    tallies, one_by_one = Counter(before), Counter(before)
    for peers in batches:
        expected = []
        for index, peer in enumerate(peers):
            one_by_one[peer] += 1
            if one_by_one[peer] == PERIOD:
                one_by_one[peer] = 0
                expected.append(index)
        assert heard(tallies, peers) == expected
        assert tallies == one_by_one
        assert max(tallies.values(), default=0) < PERIOD


# -- which of them go round


def test_what_was_seen_before_goes_round() -> None:
    """The first look remembers, every later look finds."""
    circulation = Circulation(sources=SOURCES)
    assert [circulation.repeats(PEER, b"again") for _ in range(4)] == [False, True, True, True]


def test_numbered_datagrams_never_go_round() -> None:
    """A prober that numbers what it sends is never taken for a loop, however long it sends."""
    circulation = Circulation(sources=SOURCES)
    assert not any(circulation.repeats(PEER, b"%d" % number) for number in range(20_000))


def test_another_peer_or_another_payload_is_something_else() -> None:
    """The same bytes of two peers, an empty payload, and one that is longer by a byte, are not the same datagram."""
    circulation = Circulation(sources=SOURCES)
    seen = [(PEER, b"x"), (OTHER, b"x"), (PEER, b""), (PEER, b"x\0"), (OTHER, b"")]
    assert not any(circulation.repeats(*each) for each in seen)
    assert all(circulation.repeats(*each) for each in seen)


def test_a_loop_is_found_behind_a_prober() -> None:
    """A peer of which as many numbered datagrams are remembered as can be is as good as new: the second look finds."""
    circulation = Circulation(sources=SOURCES)
    for number in range(10 * REMEMBERED):
        circulation.repeats(PEER, b"%d" % number)
    assert [circulation.repeats(PEER, b"round and round") for _ in range(3)] == [False, True, True]


def datagrams_until_all_are_dead(circulating: int, most: int) -> int:
    """Let so many different datagrams of one peer go round in strict rotation, as two echo servers send them.

    Return how many were received when the last died.
    """
    circulation, tallies = Circulation(sources=SOURCES), Counter[bytes]()
    alive = [b"%d" % number for number in range(circulating)]
    place = received = 0
    while alive:
        received += 1
        assert received <= most, f"of {circulating} there are {len(alive)} alive still after {most:,} datagrams"
        place %= len(alive)
        if heard(tallies, [PEER]) and circulation.repeats(PEER, alive[place]):
            del alive[place]
        else:
            place += 1
    return received


@pytest.mark.parametrize(
    ("circulating", "most"),
    [
        *((1, 2 * PERIOD), (2, 4 * PERIOD), (3, 6 * PERIOD), (7, 14 * PERIOD), (64, 128 * PERIOD)),
        *((65, 1_000_000), (99, 1_000_000), (100, 1_000_000), (150, 2_000_000)),
    ],
)
def test_whatever_circulates_dies(circulating: int, most: int) -> None:
    """Up to 64 in rotation die as soon as each was seen twice; more than are remembered die too, none in its turn."""
    assert datagrams_until_all_are_dead(circulating, most) >= 2 * PERIOD


# -- what is remembered


def test_memory_is_bounded() -> None:
    """Of 100,000 peers a 64th of `sources` is remembered, and of each 64 marks."""
    circulation = Circulation(sources=1024)
    for number in range(100_000):
        circulation.repeats(b"%d" % number, b"x")
        circulation.repeats(PEER, b"%d" % number)
    assert len(circulation._seen) == 1024 // 64
    assert max(map(len, circulation._seen.values())) == REMEMBERED


def test_the_peer_that_was_not_looked_at_for_longest_is_forgotten_first() -> None:
    """A loop that is looked at between strangers is remembered through all of them; who stays away is not."""
    circulation = Circulation(sources=128)
    assert not circulation.repeats(PEER, b"x")
    assert not circulation.repeats(OTHER, b"x")
    for number in range(100):
        assert circulation.repeats(PEER, b"x")
        assert not circulation.repeats(b"%d" % number, b"x")
    assert circulation.repeats(PEER, b"x")
    assert not circulation.repeats(OTHER, b"x")
