"""echod.measurement.pacing: when probes are sent."""

from echod.measurement.pacing import Schedule

SECOND = 10**9


def test_a_late_probe_does_not_delay_the_next() -> None:
    """The plan is absolute, so the rate is kept."""
    schedule = Schedule(1000, interval=100, window=10, count=9)
    assert schedule.next_due(0) == 1000
    schedule.sent(1090)
    assert schedule.next_due(1) == 1100


def test_no_probe_is_due_while_the_window_is_full_or_after_the_last() -> None:
    """The window has room again after a reply; the count stays reached."""
    schedule = Schedule(0, interval=100, window=2, count=2)
    schedule.sent(0)
    assert (schedule.next_due(1), schedule.next_due(2), schedule.over) == (100, None, False)
    schedule.sent(0)
    assert (schedule.next_due(0), schedule.over) == (None, True)


def test_without_an_interval_a_probe_is_due_whenever_there_is_room() -> None:
    """It is due when the last was sent."""
    schedule = Schedule(0, interval=0, window=1, count=9)
    schedule.sent(77)
    assert schedule.next_due(0) == 77


def test_a_process_that_slept_does_not_catch_up() -> None:
    """More than a second behind, the plan restarts."""
    schedule = Schedule(0, interval=1, window=1, count=9)
    schedule.sent(SECOND + 1)
    assert schedule.next_due(0) == 1
    schedule.sent(SECOND + 10)
    assert schedule.next_due(0) == SECOND + 10
