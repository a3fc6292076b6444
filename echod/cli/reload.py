"""`echod reload`: ask the running echod to read its config again, and wait for the outcome.

Owns the requesting side; the supervisor does the reload. Invariant: it returns the outcome of a reload that read the
file after the request, and no process but the echod that wrote the status is ever signalled.
"""

import os
import signal
import time
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from echod.cli.directory import status_directory
from echod.cli.options import add_running, make_parser
from echod.config.location import DEFAULT_PATH
from echod.errors import (
    EchodError,
    NoStatusError,
    NotPermittedError,
    NotRunningError,
    ReloadOvertakenError,
    StatusUnknownError,
)
from echod.stats.snapshot import REJECTED, LastReload, Snapshot
from echod.status import files, instances, writing

WAIT_SECONDS: Final = 30.0
"""Longer than the supervisor allows a new generation to become ready."""

OLD_SECONDS: Final = 2.0
"""For so long a status that is old may become new: a reload that begins writes it."""

REWRITTEN_SECONDS: Final = 10.0
"""Time in which a status that was removed is there again: it is written at least every five seconds."""

LOOK_SECONDS: Final = 0.02
"""Interval between reads of the status file."""

_EXAMPLE: Final = """example (what `systemctl reload echod` does):
  echod reload && echo new config serves

Exit code 0: the new config serves; 78: it has mistakes, or 66: it cannot be
read, and the previous config stays in force; 69: echod does not run; 70: the
outcome is not known; 75: echod stopped meanwhile; 4: the status cannot be read;
77: not permitted."""


def parser() -> ArgumentParser:
    """Return the parser of its options."""
    made = make_parser(
        "reload",
        description="Reload the config of the running echod, wait for the outcome, and print it.",
        epilog=_EXAMPLE,
    )
    add_running(made, DEFAULT_PATH)
    return made


def main(words: Sequence[str]) -> int:
    """Reload the config of the running echod and print the outcome."""
    arguments = parser().parse_args(words)
    outcome = reload(lambda process: status_directory(arguments.config, process), os.environ)
    print(outcome.text if outcome.code == 0 else f"{REJECTED}\n{outcome.text}")
    return outcome.code


def reload(find: Callable[[int | None], Path], environment: Mapping[str, str]) -> LastReload:
    """Signal the echod whose status file is in the directory that `find` returns for a process, if that is known.

    If the service manager says which process that is (MAINPID, systemd.exec(5)), it is that one. Raises EchodError if
    there is none, it may not be signalled, or it does not finish in WAIT_SECONDS.
    """
    main = _main_process(environment)
    try:
        place, before, owner = _look(find, None) if main is None else _look_for(main, find)
    except NoStatusError as error:
        raise NotRunningError(str(error)) from None
    _send_hangup(before, owner, place / writing.NAME)
    signalled = time.monotonic()
    while (waited := time.monotonic() - signalled) < WAIT_SECONDS:
        now = _load(place)
        if now is None or now.pid != before.pid:
            raise ReloadOvertakenError("echod stopped before the reload was done; its log says why")
        # Reloads are numbered, because one already under way may have read the file before it was changed.
        if now.reloads_finished > before.reloads_begun:
            return now.reload
        if now.stale and waited >= OLD_SECONDS:
            raise EchodError(f"the outcome of the reload is unknown: echod's status in {place} is old; see its log")
        time.sleep(LOOK_SECONDS)
    raise EchodError(f"echod did not report the outcome of the reload within {WAIT_SECONDS:.0f} seconds; see its log")


def _main_process(environment: Mapping[str, str]) -> int | None:
    """Return the process of the unit whose ExecReload= this is; None if it is not an echod, but started one."""
    pid = environment.get("MAINPID", "")
    if not (pid.isascii() and pid.isdigit()) or instances.is_supervisor(int(pid)) is False:
        return None
    return int(pid) if files.is_alive({"pid": int(pid)}) else None


def _look(find: Callable[[int | None], Path], process: int | None) -> tuple[Path, Snapshot, int]:
    place = find(process)
    return place, *files.load_owned(place)


def _look_for(main: int, find: Callable[[int | None], Path]) -> tuple[Path, Snapshot, int]:
    """Return the status of this process: if somebody has removed it, echod soon writes it again.

    If it does not, and is an echod for sure, it reads its config all the same. Raises StatusUnknownError then.
    """
    deadline = time.monotonic() + REWRITTEN_SECONDS
    while time.monotonic() < deadline:
        with suppress(NoStatusError, StatusUnknownError):
            found = _look(find, main)
            if found[1].pid == main:
                return found
        time.sleep(LOOK_SECONDS)
    if not instances.is_supervisor(main):
        return _look(find, None)  # it may be a shell that started echod, and would die of the signal
    try:
        os.kill(main, signal.SIGHUP)
    except OSError as error:
        raise NotRunningError(f"cannot signal process {main} of the unit to reload: {error.strerror}") from None
    raise StatusUnknownError(
        f"process {main} was signalled to reload, but the outcome is unknown, because no status of it was found: its "
        "log says why, and how the reload ended"
    )


def _load(place: Path) -> Snapshot | None:
    with suppress(NoStatusError):
        return files.load(place)
    return None


def _send_hangup(echod: Snapshot, owner: int, path: Path) -> None:
    """Send SIGHUP to the echod that wrote this status file, which this user owns, and to no other process.

    With a pidfd, the process that is checked is the one that is signalled, even if its PID is reused meanwhile. Any
    user who may write to the directory can write the file, so for root it may only name a process of the file's owner.
    """
    try:
        process = os.pidfd_open(echod.pid)
        try:
            foreign = os.geteuid() == 0 and owner != Path(f"/proc/{echod.pid}").stat().st_uid
            if foreign or not files.is_alive({"pid": echod.pid, "born": echod.born}):
                raise ProcessLookupError
            signal.pidfd_send_signal(process, signal.SIGHUP)
        finally:
            os.close(process)
    except PermissionError:
        raise NotPermittedError("echod may only be reloaded by its own user or root") from None
    except (ProcessLookupError, FileNotFoundError):
        raise NotRunningError(f"no echod is running: process {echod.pid} is not the one that wrote {path}") from None
