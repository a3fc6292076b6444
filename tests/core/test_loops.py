"""echod.core.loops: what goes round is found, what a prober numbers is not, and little is remembered."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echod.core.loops import BATCHES, COUNTED, PERIOD, REMEMBERED, Circulation

PEER, OTHER = b"peer", b"other"
SOURCES = 65_536


def circulation(**before: int) -> Circulation:
    """Make one that has heard so many of each peer."""
    found = Circulation(sources=SOURCES)
    for peer, tally in before.items():
        assert not found.count(peer.encode(), tally)
    return found


# -- which datagrams are looked at


def test_one_in_1024_is_looked_at() -> None:
    """A 128th of the datagrams in one of eight batches: no more of a prober's, nor less of a loop."""
    assert BATCHES * COUNTED == PERIOD == 1024


@pytest.mark.parametrize("index", [0, 1, 31, 62, 63])
def test_the_128th_is_found_wherever_in_a_batch_it_is(index: int) -> None:
    """With so many before it that the 128th is this one, its index is told, and the tally begins with the rest."""
    heard = circulation(peer=COUNTED - 1 - index)
    assert heard.count_all([PEER] * 64) == [index]
    assert heard._tallies[PEER] == 63 - index


def test_below_128_nothing_is_due() -> None:
    """The 127th is one too few."""
    heard = circulation(peer=COUNTED - 1 - 64)
    assert heard.count_all([PEER] * 64) == []
    assert heard._tallies[PEER] == COUNTED - 1


def test_each_peer_of_a_batch_has_a_128th_of_its_own() -> None:
    """Several that are due in one batch are all found, in the order of the batch, between others that are not."""
    heard = circulation(a=COUNTED - 1, b=COUNTED - 2, c=COUNTED - 3)
    assert heard.count_all([b"c", b"b", b"d", b"a", b"b", b"a", b"c", b"d", b"b"]) == [3, 4]
    assert heard._tallies == {b"a": 1, b"b": 1, b"c": COUNTED - 1, b"d": 2}


def test_an_empty_batch_has_nothing_due() -> None:
    """Where all were refused there is nobody to count."""
    assert circulation().count_all([]) == []


@settings(deadline=None)
@given(
    before=st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(COUNTED - 40, COUNTED - 1)),
    batches=st.lists(st.lists(st.sampled_from([b"a", b"b", b"c", b"d"]), max_size=64), max_size=6),
)
def test_the_look_over_a_batch_agrees_with_a_count_one_by_one(
    before: dict[str, int], batches: list[list[bytes]]
) -> None:
    """Whatever the batches, each peer's 128th is due, and no tally ever stands at 128 or above."""
    heard, one_by_one = circulation(**before), circulation(**before)
    for peers in batches:
        due = heard.count_all(peers)
        assert due == [index for index, peer in enumerate(peers) if one_by_one.count(peer, 1)]
        assert +heard._tallies == +one_by_one._tallies
        assert max(heard._tallies.values(), default=0) < COUNTED


def test_of_a_train_that_holds_several_one_is_looked_at() -> None:
    """A train is looked at where a 128th is in it, once, and what is left over counts on."""
    heard = circulation(peer=100)
    assert not heard.count(PEER, 27)
    assert heard.count(PEER, 1)
    assert heard.count(PEER, 5 * COUNTED + 7)
    assert heard._tallies[PEER] == 7


# -- which of them go round


def test_what_was_seen_before_goes_round() -> None:
    """The first look remembers, every later look finds."""
    seen = Circulation(sources=SOURCES)
    assert [seen.repeats(PEER, b"again") for _ in range(4)] == [False, True, True, True]


def test_numbered_datagrams_never_go_round() -> None:
    """A prober that numbers what it sends is never taken for a loop, however long it sends."""
    seen = Circulation(sources=SOURCES)
    assert not any(seen.repeats(PEER, b"%d" % number) for number in range(20_000))


def test_another_peer_or_another_payload_is_something_else() -> None:
    """The same bytes of two peers, an empty payload, and one that is longer by a byte, are not the same datagram."""
    seen = Circulation(sources=SOURCES)
    each_once = [(PEER, b"x"), (OTHER, b"x"), (PEER, b""), (PEER, b"x\0"), (OTHER, b"")]
    assert not any(seen.repeats(*each) for each in each_once)
    assert all(seen.repeats(*each) for each in each_once)


def test_a_loop_is_found_behind_a_prober() -> None:
    """A peer of which as many numbered datagrams are remembered as can be is as good as new: the second look finds."""
    seen = Circulation(sources=SOURCES)
    for number in range(10 * REMEMBERED):
        seen.repeats(PEER, b"%d" % number)
    assert [seen.repeats(PEER, b"round and round") for _ in range(3)] == [False, True, True]


def datagrams_until_all_are_dead(circulating: int, most: int) -> int:
    """Let so many different datagrams of one peer go round in strict rotation, as two echo servers send them.

    Return how many were received when the last died.
    """
    seen = Circulation(sources=SOURCES)
    alive = [b"%d" % number for number in range(circulating)]
    place = received = 0
    while alive:
        received += 1
        assert received <= most, f"of {circulating} there are {len(alive)} alive still after {most:,} datagrams"
        place %= len(alive)
        if seen.count_all([PEER]) and seen.repeats(PEER, alive[place]):
            del alive[place]
        else:
            place += 1
    return received


@pytest.mark.parametrize(
    ("circulating", "most"),
    [
        *((1, 2 * COUNTED), (2, 4 * COUNTED), (3, 6 * COUNTED), (7, 14 * COUNTED), (63, 126 * COUNTED)),
        *((64, 150_000), (65, 150_000), (99, 150_000), (100, 150_000), (150, 300_000)),
    ],
)
def test_whatever_circulates_dies(circulating: int, most: int) -> None:
    """Up to 63 in rotation die as soon as each was seen twice; more than are remembered die too, none in its turn.

    All of these are counted; where one batch in eight is, it takes eight times as long.
    """
    assert datagrams_until_all_are_dead(circulating, most) >= 2 * COUNTED


# -- what is remembered


def test_the_loudest_are_remembered_and_half_the_room_is_made_at_once() -> None:
    """Amid strangers that are heard once, a peer's tally goes on to the 128th; and room is not made for few."""
    heard = Circulation(sources=1024)
    due, rooms, before = [], 0, 0
    for number in range(COUNTED):
        due.append(heard.count_all([PEER, *(b"%d %d" % (number, index) for index in range(59))]))
        rooms += len(heard._tallies) < before
        before = len(heard._tallies)
        assert before <= 1024
    assert [index for index, found in enumerate(due) if found] == [COUNTED - 1]
    assert due[-1] == [0]
    assert 0 < rooms <= COUNTED * 60 // 512


def test_room_is_made_also_where_all_are_loud() -> None:
    """With every peer as loud as the next, all are forgotten rather than one too many remembered."""
    heard = Circulation(sources=1024)
    for number in range(1024):
        heard.count(b"%d" % number, 100)
    assert len(heard._tallies) == 1024
    assert not heard.count(PEER, 1)
    assert heard._tallies == {PEER: 1}


def test_memory_is_bounded() -> None:
    """Of 100,000 peers a 64th of `sources` is remembered, and of each 64 marks."""
    seen = Circulation(sources=1024)
    for number in range(100_000):
        seen.repeats(b"%d" % number, b"x")
        seen.repeats(PEER, b"%d" % number)
    assert len(seen._seen) == 1024 // 64
    assert max(map(len, seen._seen.values())) == REMEMBERED


def test_the_peer_that_was_not_looked_at_for_longest_is_forgotten_first() -> None:
    """A loop that is looked at between strangers is remembered through all of them; who stays away is not."""
    seen = Circulation(sources=128)
    assert not seen.repeats(PEER, b"x")
    assert not seen.repeats(OTHER, b"x")
    for number in range(100):
        assert seen.repeats(PEER, b"x")
        assert not seen.repeats(b"%d" % number, b"x")
    assert seen.repeats(PEER, b"x")
    assert not seen.repeats(OTHER, b"x")
