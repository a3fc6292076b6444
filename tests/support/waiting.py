"""Waiting for a condition, with a deadline. Owns the only sleep of the tests, and no condition."""

import os
import time
from collections.abc import Callable
from typing import Final, TypeVar

Found = TypeVar("Found")

SECONDS: Final = float(os.environ.get("ECHOD_TEST_DEADLINE", "15"))
"""How long a condition may take that is met at once on a machine with nothing else to do. An emulated one is slow."""

AT_ONCE: Final = 0.005
"""For so long the looks follow each other without a pause."""


def wait_until(condition: Callable[[], Found], what: str, *, seconds: float = SECONDS) -> Found:
    """Wait until the condition is true; return what it returned. Fails, naming the condition, at the deadline.

    What has not come at once comes from a process, most of which need some milliseconds: then there are pauses.
    """
    begin = time.monotonic()
    while not (found := condition()):
        waited = time.monotonic() - begin
        assert waited < seconds, f"waited {seconds} s in vain until {what}"
        time.sleep(0 if waited < AT_ONCE else max(AT_ONCE, min(waited / 10, 4 * AT_ONCE)))
    return found
