"""A rate is what was counted over the time between two readings."""

from echod.stats.rate import Rate


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
