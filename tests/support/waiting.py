"""Waiting for a condition, with a deadline. Owns the only sleep of the tests, and no condition."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

Found = TypeVar("Found")

SECONDS: Final = 15.0
"""How long a condition may take that is met at once on a machine with nothing else to do."""

LONGEST_PAUSE: Final = 0.02


def wait_until(condition: Callable[[], Found], what: str, *, seconds: float = SECONDS) -> Found:
    """Wait until the condition is true; return what it returned. Fails, naming the condition, at the deadline.

    The first looks follow each other at once; later each pause is a tenth of the time that has passed.
    """
    begin = time.monotonic()
    while not (found := condition()):
        waited = time.monotonic() - begin
        assert waited < seconds, f"waited {seconds} s in vain until {what}"
        time.sleep(min(waited / 10, LONGEST_PAUSE))
    return found
