"""The status directory: the files in which the supervisor publishes its state, and how they are read.

Owns its place and the form of its two files. The status file, for everybody, is a `Snapshot` in JSON; the mark of the
self test is a secret, so it is for echod's own user and root. Each is replaced atomically, so a reader never sees a
partial file, and there is no socket to attack. The directory may belong to a user with fewer privileges than the reader
or writer: neither follows a link there, waits there, or takes the owner from another look than the content.
Invariant: a file that cannot be written never disturbs the service.
"""

import errno
import json
import os
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import structlog

from echod.core.errors import NoStatusError, StatusUnknownError
from echod.core.selftest import SelfTest
from echod.core.snapshot import Snapshot

NAME: Final = "status.json"
SELF_TEST_NAME: Final = "self-test.json"
DEFAULT_DIRECTORY: Final = Path("/run/echod")
AUTO: Final = "auto"

MAX_BYTES: Final = 16 * 1024**2
"""Nothing longer is read. With 1,024 listeners and every counter in use a status has about 2 MiB."""

STALE_SECONDS: Final = 10.0
"""Age at which a status is stale: the supervisor writes it at least every five seconds."""

_PUBLIC: Final = 0o644
_PRIVATE: Final = 0o600
_FIELD_OF_BIRTH: Final = 22 - 3
"""Index of the start time in /proc/PID/stat, after the name in parentheses (proc_pid_stat(5))."""

_NOT_REGULAR: Final = "it is no regular file"
_REASONS: Final = {errno.ELOOP: "it is a symbolic link", errno.ENXIO: _NOT_REGULAR}

_ROOM: Final = "make room there"
_GONE: Final = "make it again, or restart the unit whose RuntimeDirectory= it was"
_FORBIDDEN: Final = "write auto and restart: a unit with ProtectSystem=strict may write to its RuntimeDirectory= alone"
_WAYS_OUT: Final = {errno.ENOSPC: _ROOM, errno.EDQUOT: _ROOM, errno.ENOENT: _GONE, errno.EROFS: _FORBIDDEN}

_log = structlog.get_logger()


def directory(environment: Mapping[str, str], configured: str) -> Path | None:
    """Return the status directory of an echod with this config, or None if it has none.

    For `auto` it is the RUNTIME_DIRECTORY that the service manager made (systemd.exec(5)), else /run/echod if the user
    is root.
    """
    if configured != AUTO:
        return Path(configured)
    first = environment.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if first:
        return Path(first)
    return DEFAULT_DIRECTORY if os.geteuid() == 0 else None


def find(environment: Mapping[str, str], configured: str, config: str) -> Path:
    """Return the status directory of the echod that runs with this config, a path as in `Snapshot.config`.

    It is the configured one, if an echod is there. But the config may have changed since that echod was started, so the
    default directories are searched too.
    """
    first = directory(environment, configured) or DEFAULT_DIRECTORY
    for place in (first, directory(environment, AUTO) or first, DEFAULT_DIRECTORY):
        told = read(place)
        if told is not None and is_alive(told) and (place == first or told.get("config") == config):
            return place
    return first


class StatusFiles:
    """The supervisor's side of the files; without a directory, nothing is written."""

    def __init__(self, place: Path | None) -> None:
        """Take the directory of the files, which is created when needed."""
        self._place = place
        self._mark: bytes | None = None
        self._failing = False
        other = read(place) if place is not None else None
        if other is not None and other.get("pid") != os.getpid() and is_alive(other):
            self._place = None
            self._note(f"another echod, process {other['pid']}, has its status in {place}: give this one another")

    def write(self, status: bytes) -> None:
        """Replace the status file; write the other file again if it has disappeared."""
        if self._place is None:
            return
        problem = _replace(self._place, NAME, status, _PUBLIC)
        if self._mark is not None and not os.path.lexists(self._place / SELF_TEST_NAME):
            problem = _replace(self._place, SELF_TEST_NAME, self._mark, _PRIVATE) or problem
        self._note(problem)

    def write_self_test(self, mark: bytes | None) -> None:
        """Replace the file of the self test; if that fails, remove it, so that no old mark remains."""
        self._mark = mark
        if self._place is not None and (mark is None or _replace(self._place, SELF_TEST_NAME, mark, _PRIVATE)):
            _remove(self._place / SELF_TEST_NAME)

    def _note(self, problem: str) -> None:
        """Log a problem once, until it is solved."""
        if problem and not self._failing:
            what = "there is nothing new for echod status to read"
            _log.warning("status_not_written", message=f"{what}: {problem} (status.directory)")
        self._failing = bool(problem)

    def remove(self) -> None:
        """Remove the files: echod is stopping."""
        if self._place is not None:
            for name in (NAME, SELF_TEST_NAME):
                _remove(self._place / name)


def _replace(place: Path, name: str, content: bytes, mode: int) -> str:
    """Replace a file, and create its directory if there is none. Returns the problem, or empty text."""
    new = place / f"{name}.new"
    try:
        with suppress(FileExistsError):
            _make(place)
        _remove(new)  # a FIFO would hold us here, and what another has opened he may read
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE)
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, mode)
            file.write(content)
        new.replace(place / name)
    except OSError as error:
        _remove(new)
        way_out = _WAYS_OUT.get(error.errno or 0, "give echod's user a directory that can")
        return f"{place} cannot be written: {error.strerror}; {way_out}"
    return ""


def _make(place: Path) -> None:
    """Make a directory that everybody may read, whatever the umask is."""
    place.mkdir()
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(fd, 0o755)  # that one, and not what another has put in its place meanwhile
    finally:
        os.close(fd)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _read(path: Path) -> tuple[bytes, int]:
    """Return the content of a file and the user who owns it, both of one and the same regular file. Raises OSError."""
    try:
        # O_NONBLOCK: else a FIFO of that name would block here for ever.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror)
        raise OSError(error.errno, reason) from None
    try:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, _NOT_REGULAR)
        with os.fdopen(fd, "rb", closefd=False) as file:
            content = file.read(MAX_BYTES + 1)
    finally:
        os.close(fd)
    if len(content) > MAX_BYTES:
        raise OSError(errno.EFBIG, f"it is longer than {MAX_BYTES:,} bytes")
    return content, about.st_uid


def read(place: Path) -> dict[str, Any] | None:
    """Return the content of the status file in this directory, unchecked, or None if there is none."""
    try:
        status = json.loads(_read(place / NAME)[0])
    except (OSError, ValueError, RecursionError):
        return None
    return status if isinstance(status, dict) else None


def load(place: Path) -> Snapshot:
    """Return the snapshot of the echod of this directory.

    Raises NoStatusError if none runs, and StatusUnknownError if the snapshot cannot be read.
    """
    return load_owned(place)[0]


def load_owned(place: Path) -> tuple[Snapshot, int]:
    """Return the snapshot of the echod of this directory, and the user who owns the file. Raises as `load` does."""
    path = place / NAME
    try:
        text, owner = _read(path)
    except (FileNotFoundError, NotADirectoryError):
        raise NoStatusError(
            f"no echod is running: there is no status in {place}; for another status.directory give --config FILE, "
            "and where that was changed, restart echod"
        ) from None
    except OSError as error:
        raise StatusUnknownError(f"{path} cannot be read: {error.strerror}") from None
    try:
        snapshot = Snapshot.unpack(text)
    except ValueError as error:
        raise StatusUnknownError(f"{path} cannot be understood: {error}") from None
    if not is_alive({"pid": snapshot.pid, "born": snapshot.born}):
        raise NoStatusError(f"no echod is running: process {snapshot.pid}, which wrote {path}, is gone")
    return replace(snapshot, stale=time.time() - snapshot.at > STALE_SECONDS), owner


def read_self_test(place: Path) -> SelfTest | None:
    """Return the self-test mark of the echod of this directory, or None if it cannot be read."""
    try:
        return SelfTest.unpack(_read(place / SELF_TEST_NAME)[0])
    except (OSError, ValueError):
        return None


def birth(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None if it does not exist or is hidden."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    return int(stat.rpartition(b")")[2].split()[_FIELD_OF_BIRTH])


def is_alive(status: Mapping[str, Any]) -> bool:
    """Tell whether the process that wrote this status still runs, and its PID was not reused."""
    pid = status.get("pid")
    if not isinstance(pid, int) or pid <= 0:  # to kill(2) these are groups of processes
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        pass  # it exists, and belongs to another user
    except (OSError, OverflowError):
        return False
    born = birth(pid)
    return born is None or born == status.get("born", born)
