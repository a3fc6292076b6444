"""Waiting for a condition with a deadline. Owns the only sleep of the system tests, and no condition."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Short against what tests wait for (tens of milliseconds), long against what a look costs.
PAUSE = 0.02


def until(condition: Callable[[], T], seconds: float, what: str) -> T:
    """Return the first true answer of `condition`; raises TimeoutError, naming `what`, after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds} s in vain: {what}")
        time.sleep(PAUSE)
    return answer
