"""`echod reload`: ask the running echod to read its config again, and wait for the outcome.

Owns the requesting side; the supervisor does the reload. Invariant: it returns the outcome of a reload that read the
file after the request, and no process but the echod that wrote the status is ever signalled.
"""

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from echod import status
from echod.core.errors import EchodError, NoStatusError, NotPermittedError, NotRunningError, ReloadOvertakenError
from echod.core.snapshot import REJECTED, Snapshot

WAIT_SECONDS: Final = 30.0
"""Longer than the supervisor allows a new generation to become ready."""

OLD_SECONDS: Final = 2.0
"""For so long a status that is old may become new: a reload that begins writes it."""

LOOK_SECONDS: Final = 0.02
"""Interval between reads of the status file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of a reload: the exit code, and the text for the operator."""

    code: int
    text: str


def reload(place: Path) -> Outcome:
    """Signal the echod whose status file is in this directory, and return the outcome.

    Raises EchodError if there is none, it may not be signalled, or it does not finish in WAIT_SECONDS.
    """
    try:
        before, owner = status.load_owned(place)
    except NoStatusError as error:
        raise NotRunningError(str(error)) from None
    _hang_up(before, owner, place / status.NAME)
    asked = time.monotonic()
    while (waited := time.monotonic() - asked) < WAIT_SECONDS:
        now = _load(place)
        if now is None or now.pid != before.pid:
            raise ReloadOvertakenError("echod stopped before the reload was done; its log says why")
        # Reloads are numbered, because one already under way may have read the file before it was changed.
        if now.reloads_finished > before.reloads_begun:
            text = now.reload.text if now.reload.code == 0 else f"{REJECTED}\n{now.reload.text}"
            return Outcome(code=now.reload.code, text=text)
        if now.stale and waited >= OLD_SECONDS:
            raise EchodError(f"how the reload ended is not told: echod's status in {place} is old; its log says more")
        time.sleep(LOOK_SECONDS)
    raise EchodError(f"echod did not tell within {WAIT_SECONDS:.0f} seconds how the reload ended; its log says more")


def _load(place: Path) -> Snapshot | None:
    with suppress(NoStatusError):
        return status.load(place)
    return None


def _hang_up(echod: Snapshot, owner: int, path: Path) -> None:
    """Send SIGHUP to the echod that wrote this status file, which this user owns, and to no other process.

    With a pidfd, the process that is checked is the one that is signalled, even if its PID is reused meanwhile. Any
    user who may write to the directory can write the file, so for root it may only name a process of the file's owner.
    """
    try:
        process = os.pidfd_open(echod.pid)
        try:
            foreign = os.geteuid() == 0 and owner != Path(f"/proc/{echod.pid}").stat().st_uid
            if foreign or not status.is_alive({"pid": echod.pid, "born": echod.born}):
                raise ProcessLookupError
            signal.pidfd_send_signal(process, signal.SIGHUP)
        finally:
            os.close(process)
    except PermissionError:
        raise NotPermittedError("echod may only be reloaded by its own user or root") from None
    except (ProcessLookupError, FileNotFoundError):
        raise NotRunningError(f"no echod is running: process {echod.pid} is not the one that wrote {path}") from None
