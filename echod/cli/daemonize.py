"""Detaching from the terminal with python-daemon, for hosts without systemd.

Owns the move into the background and the pidfile. The first process stays until the daemon serves, so errors are
reported on the terminal and in the exit code. The daemon does not depend on it: it continues if that process is ended.
Invariant: the pidfile is locked exactly while a daemon runs.
"""

import fcntl
import os
import select
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import daemon

from echod.errors import AddressUnavailableError, ExitCode, InterruptedStartError, UsageError

_ATTEMPTS: Final = 100
"""To lock a pidfile that stopping daemons remove; each does so once."""


def lock_pidfile(path: Path) -> int:
    """Open the pidfile and lock it (flock(2): the lock ends with the process, however that ends).

    Raises AddressUnavailableError if another daemon holds the lock, UsageError if the file cannot be written.
    """
    for _ in range(_ATTEMPTS):
        fd = _open(path)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            content = os.read(fd, 32).strip()
            pid = content.decode() if content.isdigit() else "unknown"  # other text could control the terminal
            os.close(fd)
            raise AddressUnavailableError(f"echod is running already: {path} is locked by process {pid}") from None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), path.lstat()):
                _make_room(fd, path)
                return fd
        # A stopping daemon removed it between our open and our lock: the file that we locked has no name any more.
        os.close(fd)
    raise UsageError(f"cannot write the pidfile {path}: another process keeps replacing it")


def _open(path: Path) -> int:
    """Open the pidfile, and make it if there is none: a regular file with this name alone. Raises UsageError.

    Its directory may belong to another user, who could otherwise make echod empty a file that he may not write.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UsageError(f"cannot write the pidfile {path}: {error.strerror}") from None
    about = os.fstat(fd)
    if stat.S_ISREG(about.st_mode) and about.st_nlink <= 1:
        return fd
    os.close(fd)
    kind = "it has more than one name (hard links)" if stat.S_ISREG(about.st_mode) else "it is not a regular file"
    raise UsageError(f"cannot write the pidfile {path}: {kind}")


def _make_room(fd: int, path: Path) -> None:
    """Empty a locked pidfile and write a byte: if there is room for it, there is for the PID. Raises UsageError."""
    try:
        os.ftruncate(fd, 0)
        os.write(fd, b"\n")
    except OSError as error:
        path.unlink()
        raise UsageError(f"cannot write the pidfile {path}: {error.strerror}") from None


def detach(pidfile: Path | None, serve: Callable[[Callable[[], None]], int]) -> int:
    """Run `serve` in the background; return the exit code in the first process, once it serves or has failed.

    `serve` takes a function to call once it serves, and returns an exit code. Until then its stderr is relayed to the
    original stderr; if that is a regular file, the daemon keeps it, for the log. Raises InterruptedStartError on Ctrl-C
    meanwhile.
    """
    lock = lock_pidfile(pidfile) if pidfile is not None else None
    outcome, write_outcome = os.pipe()
    output, write_output = os.pipe()
    sys.stderr.flush()
    if os.fork():
        os.close(write_outcome)
        os.close(write_output)
        try:
            return _relay(outcome, output)
        except KeyboardInterrupt:
            stop = f"kill $(cat {pidfile})" if pidfile is not None else "SIGTERM"
            raise InterruptedStartError(f"the daemon still starts in the background; to stop it: {stop}") from None
    os.close(outcome)
    os.close(output)
    to_file = stat.S_ISREG(os.fstat(2).st_mode)
    if to_file:
        # Whoever opened it: where the file is cut short (copytruncate of logrotate), the log goes on at its new end.
        fcntl.fcntl(2, fcntl.F_SETFL, fcntl.fcntl(2, fcntl.F_GETFL) | os.O_APPEND)
    else:
        # Not the terminal itself, which the workers would keep open as long as they live.
        os.dup2(write_output, 2)
    os.close(write_output)
    with daemon.DaemonContext(
        umask=0o022,
        prevent_core=False,
        detach_process=True,
        files_preserve=[write_outcome] if lock is None else [write_outcome, lock],
        stderr=sys.stderr,
        signal_map={},
    ):
        if lock is not None:
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        code = serve(lambda: _report(write_outcome, ExitCode.OK))
        if pidfile is not None:
            pidfile.unlink(missing_ok=True)
        _report(write_outcome, code or ExitCode.SOFTWARE)  # read only if it never served: also if it was stopped
    os._exit(code)


def _report(outcome: int, code: int) -> None:
    """Report to the first process and let it exit; it may be gone, as at the daemon's end."""
    with suppress(OSError):
        os.write(outcome, bytes([code]))


def _relay(outcome: int, output: int) -> int:
    """Copy what the daemon writes to stderr until it serves or has failed; return the exit code for that."""
    os.set_blocking(output, False)
    while True:
        ready, _, _ = select.select([outcome, output], [], [])
        # The outcome is written after the text that explains it, so all of that text is here by now.
        with suppress(BlockingIOError):
            while text := os.read(output, 65_536):
                os.write(2, text)
        if outcome in ready:
            code = os.read(outcome, 1)
            return code[0] if code else ExitCode.SOFTWARE
