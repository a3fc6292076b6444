"""The status directory: what the supervisor tells of itself in files, and who reads them.

Owns its place and the form of its two files. The status file, for everybody, is a `Snapshot` in JSON; the mark of the
self test is a secret, so it is for echod's own user and root. Each is replaced as a whole, so a reader never sees half
of one, and there is no socket to attack. Invariant: a file that cannot be written never disturbs the service.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from echod.core.errors import NoStatusError, StatusUnknownError
from echod.core.selftest import SelfTest
from echod.core.snapshot import Snapshot

NAME: Final = "status.json"
SELF_TEST_NAME: Final = "self-test.json"
DEFAULT_DIRECTORY: Final = Path("/run/echod")
AUTO: Final = "auto"

_PUBLIC: Final = 0o644
_PRIVATE: Final = 0o600
_FIELD_OF_BIRTH: Final = 22 - 3
"""Of the start time in /proc/PID/stat, behind the name in parentheses (proc_pid_stat(5))."""


def directory(environment: Mapping[str, str], configured: str) -> Path | None:
    """Return where the status of an echod with this config stands, or None where it has none.

    Where the config says `auto`: the RUNTIME_DIRECTORY that the service manager made for us (systemd.exec(5)), else
    /run/echod if we are root.
    """
    if configured != AUTO:
        return Path(configured)
    first = environment.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if first:
        return Path(first)
    return DEFAULT_DIRECTORY if os.geteuid() == 0 else None


class StatusFiles:
    """The files as the supervisor has them; without a directory, nothing is written."""

    def __init__(self, place: Path | None) -> None:
        """Take the directory they stand in, which is made if it is not there. `problem` tells what is in the way."""
        self.problem = ""
        """Why nothing is written: a sentence for the operator, or nothing."""
        self._place = place
        if place is None:
            return
        other = read(place)
        if other is not None and other.get("pid") != os.getpid() and is_alive(other):
            self._give_up(f"another echod, process {other['pid']}, has its status in {place}: give this one another")
            return
        try:
            place.mkdir(mode=0o755, exist_ok=True)
            (place / f"{NAME}.new").touch(_PUBLIC)
            (place / f"{NAME}.new").unlink()
        except OSError as error:
            self._give_up(f"{place} cannot be written: {error.strerror}; give echod's user a directory that can")

    def _give_up(self, why: str) -> None:
        self.problem = f"there will be nothing for echod status to read: {why} (status.directory)"
        self._place = None

    def write(self, status: bytes) -> None:
        """Replace what the status file says."""
        self._replace(NAME, status, _PUBLIC)

    def write_self_test(self, mark: bytes) -> None:
        """Replace what the file of the self test says."""
        self._replace(SELF_TEST_NAME, mark, _PRIVATE)

    def _replace(self, name: str, content: bytes, mode: int) -> None:
        if self._place is None:
            return
        new = self._place / f"{name}.new"
        with suppress(OSError):
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, _PRIVATE)
            with os.fdopen(fd, "wb") as file:
                os.fchmod(fd, mode)  # whatever the umask is
                file.write(content)
            new.replace(self._place / name)

    def remove(self) -> None:
        """Say no more: echod is stopping."""
        if self._place is not None:
            for name in (NAME, SELF_TEST_NAME):
                with suppress(OSError):
                    (self._place / name).unlink()


def read(place: Path) -> dict[str, Any] | None:
    """Return what the status file in that directory says, as it stands there, or None where there is none."""
    try:
        status = json.loads((place / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return status if isinstance(status, dict) else None


def load(place: Path) -> Snapshot:
    """Return what the echod of that directory tells.

    Raises NoStatusError where none runs, and StatusUnknownError where it cannot be read.
    """
    path = place / NAME
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise NoStatusError(
            f"no echod is running: there is no status in {place}; for another status.directory give --config FILE"
        ) from None
    except OSError as error:
        raise StatusUnknownError(f"{path} cannot be read: {error.strerror}") from None
    try:
        snapshot = Snapshot.unpack(text)
    except ValueError as error:
        raise StatusUnknownError(f"{path} cannot be understood: {error}") from None
    if not is_alive({"pid": snapshot.pid, "born": snapshot.born}):
        raise NoStatusError(f"no echod is running: process {snapshot.pid}, which wrote {path}, is gone")
    return snapshot


def read_self_test(place: Path) -> SelfTest | None:
    """Return the mark of the self test of the echod of that directory, or None where it may not be read."""
    try:
        return SelfTest.unpack((place / SELF_TEST_NAME).read_bytes())
    except (OSError, ValueError):
        return None


def birth(pid: int) -> int | None:
    """Return when a process began, in clock ticks since boot; None where it is not there, or not to be seen."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    return int(stat.rpartition(b")")[2].split()[_FIELD_OF_BIRTH])


def is_alive(status: Mapping[str, Any]) -> bool:
    """Tell whether the process that wrote this status lives, and is not another that has its number now."""
    try:
        os.kill(status["pid"], 0)
    except PermissionError:
        pass  # it is there, and another user's
    except (OSError, KeyError, TypeError, OverflowError):
        return False
    born = birth(status["pid"])
    return born is None or born == status.get("born", born)
