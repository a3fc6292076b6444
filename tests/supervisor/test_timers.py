"""echod.supervisor.timers: each action is returned once, in time and in order."""

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from echod.supervisor.timers import Action, Backoff, Timers

TIMES = st.integers(0, 20).map(float)


def noting(notes: list[str], name: str) -> Action:
    """Make an action that notes its name and when it was done."""
    return lambda now: notes.append(f"{name} at {now:g}")


def do(actions: list[Callable[[float], None]], now: float) -> None:
    """Do actions as the supervisor's loop does."""
    for action in actions:
        action(now)


def test_without_an_action_it_waits_for_ever() -> None:
    """With nothing to do, nothing is due and there is no time to wait for."""
    timers = Timers()
    assert timers.due(1e9) == []
    assert timers.seconds_left(0.0) is None


def test_actions_come_off_in_the_order_of_their_times() -> None:
    """What was added later but is due earlier is done first."""
    timers, notes = Timers(), list[str]()
    for time in (3.0, 1.0, 2.0):
        timers.at(time, noting(notes, f"for {time:g}"))
    do(timers.due(3.0), 3.0)
    assert notes == ["for 1 at 3", "for 2 at 3", "for 3 at 3"]


def test_actions_of_one_time_come_off_in_the_order_they_were_added() -> None:
    """At the same time first come is first done; actions themselves are never compared."""
    timers, notes = Timers(), list[str]()
    for name in "cab":
        timers.at(1.0, noting(notes, name))
    do(timers.due(1.0), 1.0)
    assert notes == ["c at 1", "a at 1", "b at 1"]


def test_an_action_is_due_at_its_very_time_and_not_before() -> None:
    """At 2.0 an action for 2.0 is due, just before it is not, and `seconds_left` says how much is missing."""
    timers, action = Timers(), noting([], "it")
    timers.at(2.0, action)
    assert timers.due(1.75) == []
    assert timers.seconds_left(1.75) == 0.25
    assert timers.seconds_left(2.0) == 0.0
    assert timers.due(2.0) == [action]


def test_what_is_overdue_is_waited_for_not_at_all() -> None:
    """A loop that comes late must not wait a negative time, which epoll takes for ever."""
    timers = Timers()
    timers.at(1.0, noting([], "it"))
    assert timers.seconds_left(5.0) == 0.0


def test_an_action_is_handed_out_once() -> None:
    """What came off is off: asked again at the same time, nothing is due."""
    timers = Timers()
    timers.at(1.0, noting([], "it"))
    assert len(timers.due(1.0)) == 1
    assert timers.due(1.0) == []
    assert timers.seconds_left(1.0) is None


def test_an_action_may_add_itself_again() -> None:
    """A timer that renews itself, even for now, is done in the next turn: no turn is endless."""
    timers, notes = Timers(), list[float]()

    def again(now: float) -> None:
        notes.append(now)
        timers.at(now, again)

    timers.at(1.0, again)
    do(timers.due(1.0), 1.0)
    assert notes == [1.0]
    assert timers.seconds_left(1.0) == 0.0
    do(timers.due(1.0), 1.0)
    assert notes == [1.0, 1.0]


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
