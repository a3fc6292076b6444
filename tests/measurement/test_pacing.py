"""echod.measurement.pacing: when probes go."""

from echod.measurement.pacing import MAX_BEHIND, Pace, Schedule


def test_probes_go_at_the_interval_and_one_that_was_late_delays_none() -> None:
    """The plan is absolute, so the rate is kept."""
    schedule = Schedule(Pace(interval=100, window=10), 1000)
    assert schedule.next_due(0) == 1000
    schedule.sent(1090)
    assert schedule.next_due(1) == 1100


def test_a_full_window_and_a_reached_count_let_nothing_go() -> None:
    """Until there is room; or never."""
    schedule = Schedule(Pace(interval=100, window=2, count=1), 0)
    assert schedule.next_due(2) is None
    schedule.sent(0)
    assert schedule.over
    assert schedule.next_due(0) is None


def test_without_an_interval_a_probe_is_due_whenever_there_is_room() -> None:
    """At once after the last."""
    schedule = Schedule(Pace(interval=0, window=1), 0)
    schedule.sent(77)
    assert (schedule.next_due(0), schedule.over) == (77, False)


def test_a_process_that_slept_does_not_catch_up_for_ever() -> None:
    """More than a second behind, the plan begins anew."""
    schedule = Schedule(Pace(interval=1, window=1), 0)
    schedule.sent(MAX_BEHIND + 1)
    assert schedule.next_due(0) == 1
    schedule.sent(MAX_BEHIND + 10)
    assert schedule.next_due(0) == MAX_BEHIND + 10
