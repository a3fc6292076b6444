"""echod.measurement.latency: moments, quantiles and jitter, with numpy as the judge."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.measurement import latency
from echod.measurement.latency import Latency, Variation

TIMES = st.lists(st.integers(0, 10**10), min_size=1, max_size=200)
FRACTIONS = (0.0, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0)


def filled(times: list[int]) -> Latency:
    """Return the statistics of these times."""
    found = Latency()
    for time in times:
        found.add(time)
    return found


def test_of_nothing_all_is_zero() -> None:
    """Without any reply no number raises."""
    empty = Latency()
    assert (empty.mean, empty.deviation, empty.quantile(0.5), empty.weights()) == (0.0, 0.0, 0, [])


def test_the_moments_of_a_hand_worked_case() -> None:
    """2, 4, 4, 4, 5, 5, 7, 9: mean 5, deviation of the whole 2."""
    found = filled([2, 4, 4, 4, 5, 5, 7, 9])
    assert (found.count, found.min, found.max, found.mean, found.deviation) == (8, 2, 9, 5.0, 2.0)
    assert found.weights() == [(2, 1), (4, 3), (5, 2), (7, 1), (9, 1)]


@given(times=TIMES)
def test_numpy_finds_the_same(times: list[int]) -> None:
    """Mean and deviation as numpy has them, and each quantile the time that occurred."""
    found = filled(times)
    assert found.mean == pytest.approx(float(np.mean(times)))
    assert found.deviation == pytest.approx(float(np.std(times)), abs=1.0)
    for fraction in FRACTIONS:
        assert found.quantile(fraction) == np.quantile(times, fraction, method="inverted_cdf")


def test_a_weight_is_so_many_times_the_value() -> None:
    """A train of replies counts as each of them."""
    once, apart = Latency(), filled([7, 7, 7, 9])
    once.add(7, 3)
    once.add(9)
    assert (once.mean, once.deviation, once.quantile(0.75)) == (apart.mean, apart.deviation, 7)


def test_more_distinct_times_than_are_kept_are_rounded_by_less_than_a_twentieth_of_a_percent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Quantiles stay within 0.05 % of the truth, and memory stays bounded; the moments stay exact."""
    monkeypatch.setattr(latency, "MAX_EXACT", 100)
    times = [int(value) for value in np.random.default_rng(6).lognormal(13, 1, 100_000)]
    found = filled(times)
    assert len(found.weights()) < 20_000
    assert (found.min, found.max, found.count) == (min(times), max(times), len(times))
    assert found.mean == pytest.approx(float(np.mean(times)))
    for fraction in FRACTIONS:
        assert found.quantile(fraction) == pytest.approx(np.quantile(times, fraction, method="inverted_cdf"), rel=5e-4)


@pytest.mark.parametrize(("distinct", "exact"), [(65_536, True), (65_537, False)])
def test_so_many_distinct_times_are_kept_exactly(distinct: int, exact: bool) -> None:  # noqa: FBT001 - of a table
    """65,536 of them; with one more all are rounded."""
    found = filled([10**9 + number for number in range(distinct)])
    assert (len(found.weights()) == distinct) == exact


def test_small_times_are_never_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has no more bits than are kept stays as it is."""
    monkeypatch.setattr(latency, "MAX_EXACT", 2)
    assert filled([1, 2, 3, 2047, 5]).weights() == [(1, 1), (2, 1), (3, 1), (5, 1), (2047, 1)]


def test_jitter_of_a_hand_worked_case() -> None:
    """RFC 3550: each difference moves the estimate by a sixteenth. 10, 26, 10: 1.0, then 1 + 15/16."""
    found = Variation()
    for index, rtt in enumerate((10, 26, 10)):
        found.add(index, rtt)
    assert found.jitter == 1.0 + 15 / 16


def test_delay_variation_pairs_neighbours_in_sequence_whatever_their_order() -> None:
    """RFC 3393: probes 1, 2, 4 and 3, answered so, make the pairs 1-2, 4-3 and 2-3; a lost one makes none."""
    found = Variation()
    for index, rtt in ((1, 10), (2, 13), (4, 20), (3, 30), (6, 99)):
        found.add(index, rtt)
    assert (found.pairs, found.sum, found.max) == (3, 3 + 17 + 10, 17)
    assert found.mean == 10.0
    assert Variation().mean == 0.0


@pytest.mark.parametrize(("others", "pairs"), [(1023, 1), (1024, 0)])
def test_a_neighbour_too_long_ago_makes_no_pair(others: int, pairs: int) -> None:
    """Memory is bounded: the last 1,024 replies are kept."""
    found = Variation()
    for index in (0, *range(10, 10 + 2 * others, 2), 1):
        found.add(index, 5)
    assert found.pairs == pairs


def test_the_variation_of_streams_together() -> None:
    """Pairs add up, the greatest stays, and jitter is the mean weighted by replies."""
    one, other, none = Variation(), Variation(), Variation()
    for index, rtt in enumerate((0, 16)):
        one.add(index, rtt)
    for index, rtt in enumerate((0, 32, 32, 32, 32, 32)):
        other.add(index, rtt)
    expected = (2 * one.jitter + 6 * other.jitter) / 8
    total = Variation()
    for each in (none, one, other):
        total.merge(each)
    assert (total.pairs, total.max, total.count) == (6, 32, 8)
    assert total.jitter == pytest.approx(expected)
