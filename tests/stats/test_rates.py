"""echod.stats.rates: rates from a count, over spans that begin between two readings as well as at one."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from echod.stats.rates import History, Rate, unwrapped
from echod.stats.snapshot import Rates

WRAP = 1 << 32


def test_an_even_flow_has_one_rate() -> None:
    """Ten a second, read at odd moments, are ten a second over each span that they lasted."""
    history, now = History(0, 1000.0), 1000.0
    for number in range(1, 200):
        before, now = now, 1000.0 + number * 1.003
        history.note(round(number * 10.03), now, before)
    assert history.rates(now) == Rates(10.0, 10.0, 10.0)


def test_before_the_first_reading_nothing_came() -> None:
    """What a daemon has counted when it is two seconds old is all that came in the last minute."""
    history = History(5, 0.0)
    assert history.rates(0.0) == Rates(0.0, 0.0, 0.0)
    history.note(125, 1.0, 0.0)
    history.note(125, 2.0, 1.0)
    assert history.rates(2.0) == Rates(0.0, 12.0, 2.0)


def test_what_came_after_a_rest_came_since_the_last_look() -> None:
    """A burst after an hour of nothing is not spread over that hour, though nothing was noted in it."""
    history = History(0, 0.0)
    history.note(60, 3600.0, 3599.0)
    assert history.rates(3600.0) == Rates(60.0, 6.0, 1.0)


def test_each_rate_falls_to_exactly_zero_when_its_span_is_over() -> None:
    """The supervisor need not look at a listener for longer than a minute after its last datagram."""
    history = History(0, 0.0)
    history.note(60, 100.0, 99.0)
    assert history.rates(101.0) == Rates(0.0, 6.0, 1.0)
    assert history.rates(110.0) == Rates(0.0, 0.0, 1.0)
    assert history.rates(160.0) == Rates(0.0, 0.0, 0.0)


@given(steps=st.lists(st.tuples(st.integers(0, 50), st.floats(1.0, 30.0)), min_size=1, max_size=300))
def test_a_rate_is_never_more_than_all_that_came(steps: list[tuple[int, float]]) -> None:
    """However it was read: not below zero, and over the longest span not more than came at all."""
    history, count, now = History(0, 0.0), 0, 0.0
    for more, seconds in steps:
        before, now, count = now, now + seconds, count + more
        history.note(count, now, before)
        rates = history.rates(now)
        assert min(rates.last_1s, rates.last_10s, rates.last_60s) >= 0
        assert rates.last_60s * 60 <= count + 60 * 0.06
    assert len(history._times) <= 2 * 60 + 2


@pytest.mark.parametrize("seconds", [0.5, 0.9])
def test_between_two_readings_the_count_grew_evenly(seconds: float) -> None:
    """A span that begins between two readings has its share of what came between these."""
    history = History(0, 0.0)
    history.note(100, 10.0, 0.0)
    assert history.rates(10.0 + seconds).last_1s == pytest.approx(10 * (1 - seconds), abs=0.06)


# -- the rate since the last reading


def test_the_first_reading_has_no_rate() -> None:
    """Without a reading before it there is no time to divide by."""
    assert Rate().per_second(1000, 5.0) == 0


def test_a_rate_is_of_the_time_since_the_last_reading() -> None:
    """Each reading is compared with the one before, not with the first."""
    rate = Rate()
    rate.per_second(0, 0.0)
    assert [rate.per_second(100, 2.0), rate.per_second(100, 3.0), rate.per_second(101, 3.5)] == [50, 0, 2]


def test_two_readings_at_one_time_divide_by_nothing() -> None:
    """A clock that has not moved yields zero, not an exception."""
    rate = Rate()
    rate.per_second(1, 1.0)
    assert rate.per_second(2, 1.0) == 0


@given(st.lists(st.integers(0, WRAP - 1)))
@example([7, 0, WRAP - 8, 3, 0, WRAP - 3, 1])
def test_a_total_is_exact_whatever_is_counted_between_two_readings(steps: list[int]) -> None:
    """A counter of 32 bits begins again: less than 2**32 at a time, in any number of steps, however often it wraps."""
    total = true = 0
    for step in steps:
        true += step
        total = unwrapped(total, true % WRAP)
        assert total == true
