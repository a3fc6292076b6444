"""echod.admission.loops: circulating datagrams are found, numbered ones are not, and memory is bounded."""

from collections.abc import Callable, Iterable, Iterator
from itertools import cycle
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from echod.admission.loops import LoopDetector

PEER, OTHER = b"peer", b"other"
SOURCES = 65_536
PERIOD, PATIENCE, REMEMBERED = 1024, 8, 64
"""Datagrams from one sample to the next, on average; samples of a peer that are never dropped, and those remembered."""


def loop_detector(*, sources: int = SOURCES) -> LoopDetector:
    """Return a detector that samples each datagram, and reports the first repetition."""
    return LoopDetector(sources=sources, gap=lambda: 1, patience=0)


def random_gaps(seed: int) -> Callable[[], int]:
    """Return a function that draws gaps as a worker does, the same at each run."""
    random = Random(seed)  # noqa: S311 - it protects nothing
    return lambda: 1 + int(random.random() * (2 * PERIOD - 1))


def chosen(detector: LoopDetector, datagrams: int) -> list[int]:
    """Receive a batch, as `UdpEcho` does; return which of its datagrams are sampled."""
    detector.left -= datagrams
    return detector.choose(datagrams) if detector.left <= 0 else []


# -- which datagrams are sampled


def one_by_one(gaps: Iterable[int], batches: list[int]) -> Iterator[list[int]]:
    """Count each datagram: the last of each gap is sampled."""
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
@example(gaps=[1, 1, 5, 20, 30], batches=[10, 64])
@example(gaps=[3, 2, 9], batches=[1, 1, 1, 1, 1, 8, 1])
def test_the_samples_are_those_of_a_count_one_by_one(gaps: list[int], batches: list[int]) -> None:
    """Whatever the gaps and the batches, none is missed and none is chosen twice."""
    each = cycle(gaps)
    detector = LoopDetector(sources=SOURCES, gap=lambda: next(each))
    for datagrams, due in zip(batches, one_by_one(cycle(gaps), batches), strict=True):
        assert chosen(detector, datagrams) == due
        assert detector.left > 0


# -- which of them circulate


def test_the_first_samples_of_a_peer_are_never_dropped() -> None:
    """A repeated one is replied to eight times; from the ninth sample on it is not, whatever came between."""
    detector = LoopDetector(sources=SOURCES, gap=lambda: 1)
    assert [detector.repeats(PEER, b"again") for _ in range(12)] == [False] * PATIENCE + [True] * 4
    assert [detector.repeats(OTHER, b"again") for _ in range(PATIENCE)] == [False] * PATIENCE
    assert not detector.repeats(OTHER, b"new")
    assert detector.repeats(OTHER, b"again")


@pytest.mark.parametrize("seed", range(3))
def test_a_thousand_equal_datagrams_are_no_loop(seed: int) -> None:
    """Of two hundred peers that send the same a thousand times none loses one; of 20,000 each loses some."""
    detector = LoopDetector(sources=SOURCES, gap=random_gaps(seed))

    def lost(times: int) -> list[int]:
        return [
            sum(detector.repeats(b"%d %d" % (times, peer), b"same") for _ in chosen(detector, times))
            for peer in range(200)
        ]

    assert not any(lost(1000))
    assert all(many := lost(20_000))
    assert sum(many) / 200 == pytest.approx(20_000 / PERIOD - PATIENCE, rel=0.1)


def test_numbered_datagrams_never_circulate() -> None:
    """However many a prober sends. A loop behind it is found at the second sample all the same."""
    detector = loop_detector()
    assert not any(detector.repeats(PEER, b"%d" % number) for number in range(20_000))
    assert [detector.repeats(PEER, b"round and round") for _ in range(3)] == [False, True, True]


def test_a_datagram_of_another_peer_or_with_another_payload_is_another() -> None:
    """The same bytes of two peers, an empty payload, and one that is longer by a byte."""
    detector = loop_detector()
    each_once = [(PEER, b"x"), (OTHER, b"x"), (PEER, b""), (PEER, b"x\0"), (OTHER, b"")]
    assert not any(detector.repeats(*each) for each in each_once)
    assert all(detector.repeats(*each) for each in each_once)


def samples_until_none_circulates(circulating: int, gap: Callable[[], int], most: int) -> int:
    """Let so many different datagrams of one peer circulate in rotation, as two echo servers send them.

    Return the number of samples when the last was dropped.
    """
    detector = LoopDetector(sources=SOURCES, gap=gap, patience=0)
    alive = [b"%d" % number for number in range(circulating)]
    place = 0
    for samples in range(1, most + 1):
        datagrams = detector.left
        assert chosen(detector, datagrams) == [datagrams - 1]
        place = (place + datagrams - 1) % len(alive)
        if detector.repeats(PEER, alive[place]):
            del alive[place]
            if not alive:
                return samples
        else:
            place += 1
    pytest.fail(f"of {circulating}, {len(alive)} still circulate after {most:,} samples")


@pytest.mark.parametrize("circulating", [1, 2, 63, 64, 65, 66, 100, 300])
def test_every_loop_ends(circulating: int) -> None:
    """With as many as are remembered, each at its second sample; with more, none is always forgotten just before it."""
    samples = samples_until_none_circulates(circulating, lambda: 1, 40 * circulating)
    assert (samples == 2 * circulating) is (circulating <= REMEMBERED)


@pytest.mark.parametrize("circulating", [1, 7, 64, 65, 150])
@pytest.mark.parametrize("seed", range(3))
def test_every_loop_ends_with_random_samples(circulating: int, seed: int) -> None:
    """No datagram that circulates in step with others escapes: each meets its second sample in the end."""
    assert samples_until_none_circulates(circulating, random_gaps(seed), 20 * circulating + 20) >= 2 * circulating


# -- what is remembered


def test_memory_is_bounded() -> None:
    """Of 100,000 peers a 64th of `sources` is remembered, and of each 64 samples."""
    detector = loop_detector(sources=1024)
    for number in range(100_000):
        detector.repeats(b"%d" % number, b"x")
        detector.repeats(PEER, b"%d" % number)
    assert len(detector._seen) == 1024 // 64
    assert max(len(peer.hashes) for peer in detector._seen.values()) == REMEMBERED


def test_the_peer_sampled_least_recently_is_forgotten_first() -> None:
    """A loop that is sampled between other peers is remembered through all of them."""
    detector = loop_detector(sources=128)
    assert not detector.repeats(PEER, b"x")
    assert not detector.repeats(OTHER, b"x")
    for number in range(100):
        assert detector.repeats(PEER, b"x")
        assert not detector.repeats(b"%d" % number, b"x")
    assert not detector.repeats(OTHER, b"x")


@pytest.mark.parametrize("sources", [1, 63, 64, 127])
def test_there_is_room_for_one_peer_at_least(sources: int) -> None:
    """With few sources one is remembered, until another comes."""
    detector = loop_detector(sources=sources)
    samples = [detector.repeats(peer, b"x") for peer in (PEER, PEER, OTHER, OTHER, PEER)]
    assert samples == [False, True, False, True, False]
    assert list(detector._seen) == [PEER]
