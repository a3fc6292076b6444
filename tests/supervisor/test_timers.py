"""echod.supervisor.timers: each action is returned once, in time and in order."""

from hypothesis import given, settings
from hypothesis import strategies as st

from echod.supervisor.timers import Action, Backoff, Timers

TIMES = st.integers(0, 20).map(float)


def noting(notes: list[str], name: str) -> Action:
    """Make an action that notes its name and when it was done."""
    return lambda now: notes.append(f"{name} at {now:g}")


@settings(deadline=None)
@given(turns=st.lists(st.tuples(TIMES, st.lists(TIMES, max_size=5)), max_size=10))
def test_any_sequence_of_turns_agrees_with_a_sorted_list(turns: list[tuple[float, list[float]]]) -> None:
    """Whatever is put on between turns at whatever times, each turn gets what a stable sort says it should."""
    timers, waiting = Timers(), list[tuple[float, Action]]()
    for now, times in turns:
        for time in times:
            action = noting([], "it")
            timers.at(time, action)
            waiting.append((time, action))
        waiting.sort(key=lambda entry: entry[0])
        assert timers.seconds_left(now) == (max(0.0, waiting[0][0] - now) if waiting else None)
        assert timers.due(now) == [action for time, action in waiting if time <= now]
        waiting = [entry for entry in waiting if entry[0] > now]


def test_each_failure_in_a_row_doubles_the_delay_up_to_five_seconds() -> None:
    """0.1 s after the first failure, then twice that each time, and never more than 5 s however often it fails."""
    backoff = Backoff()
    assert [backoff.after(lived) for lived in (0.0, 9.9, 0.0, 0.0, 0.0, 0.0, 0.0)] == [
        0.1,
        0.2,
        0.4,
        0.8,
        1.6,
        3.2,
        5.0,
    ]
    assert {backoff.after(0.0) for _ in range(2000)} == {5.0}


def test_a_process_that_lived_long_is_replaced_without_delay() -> None:
    """After 10 s or more the failures before it do not count any more."""
    backoff = Backoff()
    assert [backoff.after(lived) for lived in (10.0, 1.0, 1.0, 10.0, 1.0)] == [0.0, 0.1, 0.2, 0.0, 0.1]
