"""echod.linux.timer: ready at its time, and not before."""

import os
import select
from time import monotonic_ns

import pytest

from echod.linux.timer import Timer

MS = 1_000_000
LONG = 20_000
"""Milliseconds that no wait here takes."""


@pytest.fixture
def timer() -> Timer:
    """Make a timer."""
    return Timer()


def is_ready(timer: Timer, within: int = 0) -> bool:
    """Tell whether the descriptor becomes ready within so many milliseconds."""
    poll = select.poll()
    poll.register(timer.fileno(), select.POLLIN)
    return bool(poll.poll(within))


def test_a_timer_is_ready_at_its_time_and_not_before(timer: Timer) -> None:
    """The clock has reached the time when the wait ends."""
    at = monotonic_ns() + 30 * MS
    timer.set(at)
    assert is_ready(timer, LONG)
    assert monotonic_ns() >= at
    assert is_ready(timer)


def test_a_new_time_takes_the_place_of_the_old_one(timer: Timer) -> None:
    """Also when that has passed: the timer is not ready any more. Hours are whole seconds and the rest."""
    timer.set(monotonic_ns())
    assert is_ready(timer, LONG)
    timer.set(monotonic_ns() + 3_600_000 * MS)
    assert not is_ready(timer)
    timer.set(monotonic_ns() + MS)
    assert is_ready(timer, LONG)


@pytest.mark.parametrize("at", [0, 1, 10**9, -5])
def test_a_time_in_the_past_is_now(timer: Timer, at: int) -> None:
    """Also the first one of all, which to the kernel would mean never."""
    timer.set(at)
    assert is_ready(timer, LONG)


def test_without_a_time_a_timer_is_never_ready(timer: Timer) -> None:
    """Neither at first, nor when its time was taken away."""
    assert not is_ready(timer)
    timer.set(1)
    assert is_ready(timer, LONG)
    timer.set(None)
    assert not is_ready(timer)


def test_a_timer_is_not_inherited_and_does_not_block(timer: Timer) -> None:
    """No program that is started has it."""
    assert not os.get_inheritable(timer.fileno())
    assert not os.get_blocking(timer.fileno())


def test_a_timer_that_nobody_has_is_closed() -> None:
    """Its number is free for others."""
    number = Timer().fileno()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.get_inheritable(number)
