"""Detaching from the terminal, by python-daemon, for hosts without systemd.

Owns the way into the background and the pidfile. The first process stays until the daemon serves, so what goes
wrong is said on the terminal and in the exit code. Invariant: the pidfile is locked exactly while a daemon runs.
"""

import fcntl
import os
import sys
from collections.abc import Callable
from pathlib import Path

import daemon

from echod.core.errors import AddressUnavailableError, ExitCode, UsageError

_SERVING = b"serving"


def lock_pidfile(path: Path) -> int:
    """Open the pidfile and lock it (flock(2): the lock ends with the process, however that ends).

    Raises AddressUnavailableError where another daemon holds it and UsageError where it cannot be written.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise UsageError(f"cannot write the pidfile {path}: {error.strerror}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(fd, 32).decode("ascii", "replace").strip() or "unknown"
        os.close(fd)
        raise AddressUnavailableError(f"echod is running already: {path} is locked by process {pid}") from None
    return fd


def detach(pidfile: Path | None, serve: Callable[[Callable[[], None]], int]) -> int:
    """Run `serve` in the background; return in the first process, once it serves or has failed, the exit code.

    `serve` takes what it must call once it serves, and returns an exit code.
    """
    lock = lock_pidfile(pidfile) if pidfile is not None else None
    read, write = os.pipe()
    sys.stderr.flush()
    if os.fork():
        os.close(write)
        return _wait(read)
    os.close(read)
    keep = [write, 2] if lock is None else [write, 2, lock]
    with daemon.DaemonContext(
        chroot_directory=None,
        working_directory="/",
        umask=0o022,
        uid=os.getuid(),
        gid=os.getgid(),
        initgroups=False,
        prevent_core=False,
        detach_process=True,
        files_preserve=keep,
        pidfile=None,
        stdin=None,
        stdout=None,
        stderr=sys.stderr,  # until it serves, the terminal's; then `_let_go` decides
        signal_map={},
    ):
        if lock is not None:
            os.ftruncate(lock, 0)
            os.write(lock, f"{os.getpid()}\n".encode())
        code = serve(lambda: _let_go(write))
        if pidfile is not None:
            pidfile.unlink(missing_ok=True)
        os.write(write, bytes([code]))
    os._exit(code)


def _let_go(write: int) -> None:
    """Tell the first process that the daemon serves, and leave the terminal: the log goes on only to a file."""
    if os.isatty(2):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)
    os.write(write, _SERVING)


def _wait(read: int) -> int:
    """Return 0 once the daemon serves, else the exit code that it left with."""
    said = os.read(read, len(_SERVING))
    if said == _SERVING:
        return ExitCode.OK
    return said[0] if said else ExitCode.SOFTWARE
