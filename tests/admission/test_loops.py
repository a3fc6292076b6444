"""echod.admission.loops: what goes round is found, what a prober numbers is not, and little is remembered."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, cycle, repeat
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from echod.admission.loops import PATIENCE, PERIOD, REMEMBERED, LoopDetector

PEER, OTHER = b"peer", b"other"
SOURCES = 65_536


def loop_detector(*gaps: int, sources: int = SOURCES, patience: int = 0) -> LoopDetector:
    """Make one that looks so many datagrams on from one look to the next, the last of these for ever."""
    each = chain(gaps, repeat(gaps[-1] if gaps else 1))
    return LoopDetector(sources=sources, gap=lambda: next(each), patience=patience)


def by_chance(seed: int) -> Callable[[], int]:
    """Draw gaps as a worker does, the same at each run."""
    random = Random(seed)  # noqa: S311 - it protects nothing
    return lambda: 1 + int(random.random() * (2 * PERIOD - 1))


def hear(heard: LoopDetector, datagrams: int) -> list[int]:
    """Receive a batch, as `UdpEcho` does; return which of it are to be looked at."""
    heard.left -= datagrams
    return heard.choose(datagrams) if heard.left <= 0 else []


# -- which datagrams are looked at


def test_the_first_is_so_far_off_as_the_gap_says() -> None:
    """The last of the gap is looked at, not the first behind it, in whatever batches it comes."""
    assert hear(loop_detector(3), 3) == [2]
    heard = loop_detector(3, 2, 9)
    assert [hear(heard, datagrams) for datagrams in (1, 1, 1, 1, 1, 8, 1)] == [[], [], [0], [], [0], [], [0]]


def test_several_of_a_batch_are_looked_at() -> None:
    """As many as are due, in the order of the batch, also each of it; what is left over counts on."""
    heard = loop_detector(1, 1, 5, 20, 30)
    assert hear(heard, 10) == [0, 1, 6]
    assert heard.left == 17
    assert hear(heard, 64) == [16, 46]
    assert hear(loop_detector(1), 64) == list(range(64))


def one_by_one(gaps: Iterable[int], batches: list[int]) -> Iterator[list[int]]:
    """Count each datagram."""
    each = iter(gaps)
    left = next(each)
    for datagrams in batches:
        due = []
        for index in range(datagrams):
            left -= 1
            if left == 0:
                due.append(index)
                left = next(each)
        yield due


@given(
    gaps=st.lists(st.one_of(st.integers(1, 5), st.integers(1, 2 * PERIOD - 1)), min_size=1),
    batches=st.lists(st.one_of(st.integers(0, 64), st.integers(0, 8192)), max_size=30),
)
@example(gaps=[1, 64], batches=[64, 1, 64, 0, 63])
def test_what_is_chosen_is_what_a_count_one_by_one_finds(gaps: list[int], batches: list[int]) -> None:
    """Whatever the gaps and the batches, none is missed, none chosen twice, and some are always left to the next."""
    each = cycle(gaps)
    heard = LoopDetector(sources=SOURCES, gap=lambda: next(each))
    expected = one_by_one(cycle(gaps), batches)
    for datagrams, due in zip(batches, expected, strict=True):
        assert hear(heard, datagrams) == due
        assert heard.left > 0


@pytest.mark.parametrize("seed", range(3))
def test_one_in_1024_is_looked_at(seed: int) -> None:
    """On the average, over batches of all sizes: no more of a prober's, nor less of a loop."""
    assert PERIOD == 1024
    heard, random = LoopDetector(sources=SOURCES, gap=by_chance(seed)), Random(seed)  # noqa: S311
    batches = [random.randint(1, 64) for _ in range(100_000)]
    looks = sum(len(hear(heard, datagrams)) for datagrams in batches)
    assert looks / sum(batches) == pytest.approx(1 / PERIOD, rel=0.05)


# -- which of them go round


def test_what_was_seen_before_goes_round() -> None:
    """The first look remembers, every later look finds."""
    seen = loop_detector()
    assert [seen.repeats(PEER, b"again") for _ in range(4)] == [False, True, True, True]


def test_the_first_looks_at_a_peer_cost_it_nothing() -> None:
    """Found again it is answered all the same, eight times; from the ninth look on it is not, whatever came between."""
    seen = LoopDetector(sources=SOURCES, gap=lambda: 1)
    assert [seen.repeats(PEER, b"again") for _ in range(12)] == [False] * PATIENCE + [True] * 4
    assert [seen.repeats(OTHER, b"again") for _ in range(PATIENCE)] == [False] * PATIENCE
    assert not seen.repeats(OTHER, b"new")
    assert seen.repeats(OTHER, b"again")


@pytest.mark.parametrize("seed", range(3))
def test_a_thousand_equal_datagrams_are_a_test_and_no_loop(seed: int) -> None:
    """Of two hundred peers that send the same a thousand times none loses one; of 20,000 each loses some."""
    seen = LoopDetector(sources=SOURCES, gap=by_chance(seed))
    lost = {times: [lost_of(seen, b"%d %d" % (times, peer), times) for peer in range(200)] for times in (1000, 20_000)}
    assert not any(lost[1000])
    assert all(lost[20_000])
    assert sum(lost[20_000]) / 200 == pytest.approx(20_000 / PERIOD - PATIENCE, rel=0.1)


def lost_of(seen: LoopDetector, peer: bytes, times: int) -> int:
    """Let a peer send the same so many times; return how many are not answered."""
    return sum(seen.repeats(peer, b"same") for _ in hear(seen, times))


def test_numbered_datagrams_never_go_round() -> None:
    """A prober that numbers what it sends is never taken for a loop, however long it sends."""
    seen = loop_detector()
    assert not any(seen.repeats(PEER, b"%d" % number) for number in range(20_000))


def test_another_peer_or_another_payload_is_something_else() -> None:
    """The same bytes of two peers, an empty payload, and one that is longer by a byte, are not the same datagram."""
    seen = loop_detector()
    each_once = [(PEER, b"x"), (OTHER, b"x"), (PEER, b""), (PEER, b"x\0"), (OTHER, b"")]
    assert not any(seen.repeats(*each) for each in each_once)
    assert all(seen.repeats(*each) for each in each_once)


def test_a_loop_is_found_behind_a_prober() -> None:
    """A peer of which as many numbered datagrams are remembered as can be is as good as new: the second look finds."""
    seen = loop_detector()
    for number in range(10 * REMEMBERED):
        seen.repeats(PEER, b"%d" % number)
    assert [seen.repeats(PEER, b"round and round") for _ in range(3)] == [False, True, True]


def looks_until_all_are_dead(circulating: int, gap: Callable[[], int], most: int) -> int:
    """Let so many different datagrams of one peer go round in strict rotation, as two echo servers send them.

    Return how often was looked when the last died.
    """
    seen = LoopDetector(sources=SOURCES, gap=gap, patience=0)
    alive = [b"%d" % number for number in range(circulating)]
    place = 0
    for looks in range(1, most + 1):
        datagrams = seen.left
        assert hear(seen, datagrams) == [datagrams - 1]
        place = (place + datagrams - 1) % len(alive)
        if seen.repeats(PEER, alive[place]):
            del alive[place]
            if not alive:
                return looks
        else:
            place += 1
    pytest.fail(f"of {circulating} there are {len(alive)} alive still after {most:,} looks")


@pytest.mark.parametrize("circulating", [1, 2, 3, 7, 63, 64])
def test_whatever_is_remembered_dies_at_its_second_look(circulating: int) -> None:
    """With a look at each, as many as are remembered die as soon as each was seen twice."""
    assert looks_until_all_are_dead(circulating, lambda: 1, 2 * circulating) == 2 * circulating


@pytest.mark.parametrize("circulating", [65, 66, 99, 100, 150, 300])
def test_more_than_are_remembered_die_too(circulating: int) -> None:
    """Also where each is looked at in its turn: none is always forgotten just before it."""
    assert looks_until_all_are_dead(circulating, lambda: 1, 40 * circulating) > 2 * circulating


@pytest.mark.parametrize("circulating", [1, 2, 3, 7, 63, 64, 65, 100, 150])
@pytest.mark.parametrize("seed", range(5))
def test_what_is_looked_at_by_chance_dies(circulating: int, seed: int) -> None:
    """Nothing that goes round in step with others escapes for good: each meets its second look in the end."""
    assert looks_until_all_are_dead(circulating, by_chance(seed), 20 * circulating + 20) >= 2 * circulating


# -- what is remembered


def test_memory_is_bounded() -> None:
    """Of 100,000 peers a 64th of `sources` is remembered, and of each 64 marks."""
    seen = loop_detector(sources=1024)
    for number in range(100_000):
        seen.repeats(b"%d" % number, b"x")
        seen.repeats(PEER, b"%d" % number)
    assert len(seen._seen) == 1024 // 64
    assert max(len(peer.hashes) for peer in seen._seen.values()) == REMEMBERED


def test_the_peer_that_was_not_looked_at_for_longest_is_forgotten_first() -> None:
    """A loop that is looked at between strangers is remembered through all of them; who stays away is not."""
    seen = loop_detector(sources=128)
    assert not seen.repeats(PEER, b"x")
    assert not seen.repeats(OTHER, b"x")
    for number in range(100):
        assert seen.repeats(PEER, b"x")
        assert not seen.repeats(b"%d" % number, b"x")
    assert seen.repeats(PEER, b"x")
    assert not seen.repeats(OTHER, b"x")


@pytest.mark.parametrize("sources", [1, 63, 64, 127])
def test_there_is_room_for_one_peer_at_least(sources: int) -> None:
    """With few sources one is remembered, until another comes."""
    seen = loop_detector(sources=sources)
    looks = [seen.repeats(peer, b"x") for peer in (PEER, PEER, OTHER, OTHER, PEER)]
    assert looks == [False, True, False, True, False]
    assert list(seen._seen) == [PEER]
