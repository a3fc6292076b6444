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
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from echod.admission.selftest import SelfTest
from echod.errors import NoStatusError, StatusUnknownError
from echod.stats.snapshot import Snapshot, printable
from echod.status import instances
from echod.status.writing import NAME, PRIVATE, PUBLIC, remove_file, replace_file

SELF_TEST_NAME: Final = "self-test.json"
DEFAULT_DIRECTORY: Final = Path("/run/echod")
AUTO: Final = "auto"

MAX_BYTES: Final = 16 * 1024**2
"""Nothing longer is read. With 1,024 listeners and every counter in use a status has about 2 MiB."""

STALE_SECONDS: Final = 10.0
"""Age at which a status is stale: the supervisor writes it at least every five seconds."""

_NOT_REGULAR: Final = "it is not a regular file"
_REASONS: Final = {errno.ELOOP: "it is a symbolic link", errno.ENXIO: _NOT_REGULAR}


def directory(environment: Mapping[str, str], configured: str) -> Path | None:
    """Return the status directory of an echod with this config, or None if it has none.

    For `auto` it is the RUNTIME_DIRECTORY that the service manager made (systemd.exec(5)), else /run/echod if the user
    is root, else echod in the user's XDG_RUNTIME_DIR.
    """
    if configured != AUTO:
        return Path(configured)
    first = environment.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if first:
        return Path(first)
    if os.geteuid() == 0:
        return DEFAULT_DIRECTORY
    own = environment.get("XDG_RUNTIME_DIR", "")
    return Path(own, "echod") if own.startswith("/") else None


def find(
    environment: Mapping[str, str], configured: str, config: str, *, named: bool, process: int | None = None
) -> Path:
    """Return the status directory of the echod that runs with this config, a path as in `Snapshot.config`.

    If the `process` is known, it is the directory with the status of that one. Else it is the configured one, if that
    echod is there. But the config may have changed since it was started, so the default directories are searched too.
    If the operator has not `named` the config, an echod in the directory that it configures will do that runs with
    another one, and so will one of this user without a config file. If there is none, the configured directory is
    returned, where `load` says so. Raises NoStatusError if only another echod is found, and StatusUnknownError if the
    echod runs and has no status.
    """
    first = directory(environment, configured) or DEFAULT_DIRECTORY
    places = dict.fromkeys((first, directory(environment, AUTO) or first, DEFAULT_DIRECTORY))
    alive = {place: status for place in places if (status := read(place)) is not None and is_alive(status)}
    for place, status in alive.items():
        if status.get("pid") == process:
            return place
    for place, status in alive.items():
        if is_same(status.get("config"), config) and not (named and _without_file(status)):
            return place
    # A user who runs none sees that of the host.
    usual = places if configured == AUTO and not environment.get("RUNTIME_DIRECTORY") else (first,)
    for place in alive:
        if not named and place in usual:
            return place
    for pid, its in instances.supervisors().items():
        if its == config or (its is None and not named and instances.user(pid) == os.geteuid()):
            where, what = " or ".join(map(str, places)), f"with {its}" if its else "without a config file"
            raise StatusUnknownError(
                f"an echod runs {what}, process {pid}, but its status is not in {where}: its log says "
                'why, and where it is: look for "status" there (log.level: info)'
            )
    for place, status in alive.items() if named else ():
        its = printable(str(status.get("config")))
        way = "leave out --config" if _without_file(status) else f"name that with --config {its}"
        raise NoStatusError(
            f"no echod is running with {config}: the one that has its status in {place}, process {status['pid']}, runs "
            f"{_with_config(status)}; {way}"
        )
    return first


def _without_file(status: Mapping[str, Any]) -> bool:
    """Tell whether this status is of an echod with the built-in defaults: the path that it has is of no file."""
    return status.get("config_read", 0) is None


def _with_config(status: Mapping[str, Any]) -> str:
    """Return which config this status is of, for a sentence."""
    return "without a config file" if _without_file(status) else f"with {printable(str(status.get('config')))}"


def is_same(one: object, other: str) -> bool:
    """Tell whether two paths lead to one file, as far as this process can see."""
    with suppress(OSError, ValueError):
        return one == other or (isinstance(one, str) and Path(one).samefile(other))
    return False


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
            self._note(
                f"{place} has the status of another echod, process {other['pid']}, which runs {_with_config(other)}: "
                "set another status.directory in the config of this one, and restart it"
            )

    def write(self, status: bytes) -> None:
        """Replace the status file; write the other file again if it has disappeared."""
        if self._place is None:
            return
        problem = replace_file(self._place, NAME, status, PUBLIC)
        if self._mark is not None and not os.path.lexists(self._place / SELF_TEST_NAME):
            problem = replace_file(self._place, SELF_TEST_NAME, self._mark, PRIVATE) or problem
        self._note(problem)

    def write_self_test(self, mark: bytes | None) -> None:
        """Replace the file of the self test; if that fails, remove it, so that no old mark remains."""
        self._mark = mark
        if self._place is not None and (mark is None or replace_file(self._place, SELF_TEST_NAME, mark, PRIVATE)):
            remove_file(self._place / SELF_TEST_NAME)

    def _note(self, problem: str) -> None:
        """Log a problem once, until it is solved."""
        if problem and not self._failing:
            what = "no status is written for `echod status` and `echod reload`"
            import structlog  # noqa: PLC0415 - `echod status`, which reads these files, does not log

            structlog.get_logger().warning("status_not_written", message=f"{what}: {problem}")
        self._failing = bool(problem)

    def remove(self) -> None:
        """Remove the files: echod is stopping."""
        if self._place is not None:
            for name in (NAME, SELF_TEST_NAME):
                remove_file(self._place / name)


def read_file(path: Path) -> tuple[bytes, int]:
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
        status = json.loads(read_file(place / NAME)[0])
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
        text, owner = read_file(path)
    except (FileNotFoundError, NotADirectoryError):
        raise NoStatusError(f"no echod is running: there is no {path}{_others()}") from None
    except OSError as error:
        raise StatusUnknownError(f"{path} cannot be read: {error.strerror}") from None
    try:
        snapshot = Snapshot.unpack(text)
    except ValueError as error:
        raise StatusUnknownError(f"{path} is not valid: {error}") from None
    if not is_alive({"pid": snapshot.pid, "born": snapshot.born}):
        raise NoStatusError(f"no echod is running: process {snapshot.pid}, which wrote {path}, is gone")
    return replace(snapshot, stale=instances.monotonic() - snapshot.at_monotonic > STALE_SECONDS), owner


def read_self_test(place: Path) -> SelfTest | None:
    """Return the self-test mark of the echod of this directory, or None if it cannot be read."""
    try:
        return SelfTest.unpack(read_file(place / SELF_TEST_NAME)[0])
    except (OSError, ValueError):
        return None


def _others() -> str:
    """Name an echod that runs, and is not the one that was looked for."""
    for pid, config in instances.supervisors().items():
        if config is None:
            return f"; an echod without a config file runs, process {pid}: ask for it as its user, without --config"
        return f"; an echod with another config runs, process {pid}: name it with --config {printable(config)}"
    return "; for one that was started with another config, give --config FILE"


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
    return "born" not in status or instances.was_born(pid, status["born"])
