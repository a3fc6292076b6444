"""`echod reload`: ask the running echod to read its config again, and wait for how that ends.

Owns the asking side; the reload itself is the supervisor's. Invariant: what it returns is the outcome of a reload
that read the file after it was asked.
"""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from echod import status
from echod.core.errors import EchodError, NotPermittedError, NotRunningError

WAIT_SECONDS: Final = 30.0
"""Longer than the supervisor gives a new generation to become ready."""

LOOK_SECONDS: Final = 0.02
"""Between two looks at the status file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a reload ended: the exit code that tells it, and what there is to say."""

    code: int
    text: str


def reload(place: Path) -> Outcome:
    """Signal the echod whose status file stands in that directory, and return the outcome.

    Raises EchodError where there is none, it may not be signalled, or it does not finish in WAIT_SECONDS.
    """
    before = status.read(place)
    if before is None:
        raise NotRunningError(f"no echod is running with its status in {place}: is the unit active?")
    try:
        os.kill(before["pid"], signal.SIGHUP)
    except ProcessLookupError:
        raise NotRunningError(f"the echod of {place} is gone: process {before['pid']} does not exist") from None
    except PermissionError:
        raise NotPermittedError("echod may only be reloaded by its own user or root") from None
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        now = status.read(place)
        if now is None or now["pid"] != before["pid"]:
            raise EchodError("echod stopped before the reload was done; its log says why")
        # Numbered, because one that was under way when we asked may have read the file before it was changed.
        if now["reloads_finished"] > before["reloads_begun"]:
            return Outcome(code=now["reload"]["code"], text=now["reload"]["text"])
        time.sleep(LOOK_SECONDS)
    raise EchodError(f"the reload was not done within {WAIT_SECONDS:.0f} seconds; the log says how far it came")
