"""The journal: entries by its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL), and lines on stderr.

- The socket is not connected. Each entry looks the path up again, so that a journald that was restarted is found.
- It never blocks. An entry that the journal did not accept is counted, and the next that it accepts has the number.
- An entry that is too large for a datagram is passed as a sealed memfd (memfd_create(2)), as sd_journal_sendv(3) does.
"""

import errno
import fcntl
import os
import socket
import struct
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

PATH: Final = "/run/systemd/journal/socket"

IDENTIFIER: Final = "echod"

ERROR: Final = 3
"""Priority of syslog(3)."""

_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
"""journald refuses a file that its sender can still change."""

_journal: "Journal | None" = None
"""The journal of this process, if its log goes there."""


class Journal:
    """The socket of a process to its journal. Close it with `close`."""

    def __init__(self, path: str = PATH) -> None:
        """Open the socket; the journal need not run yet. Raises OSError without a descriptor."""
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._lost = 0

    def fileno(self) -> int:
        """Return the descriptor, which a forked process must keep to log."""
        return self._socket.fileno()

    def send(self, fields: Mapping[str, object]) -> bool:
        """Send one entry; return whether the journal accepted it. Values are text or numbers. It raises nothing."""
        lost = {"ECHOD_LOST_ENTRIES": self._lost} if self._lost else {}
        entry = encode({**fields, "SYSLOG_IDENTIFIER": IDENTIFIER, **lost})
        try:
            self._send(entry)
        except OSError:
            self._lost += 1
            return False
        self._lost = 0
        return True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _send(self, entry: bytes) -> None:
        try:
            self._socket.sendto(entry, self._path)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            _send_file(self._socket, entry, self._path)


def encode(fields: Mapping[str, object]) -> bytes:
    r"""Return an entry: KEY=value and a newline for each field, or KEY, length and value where the value has newlines.

    The length is 64 bits, little-endian. Text that is no character (PEP 383) is escaped: `\udcff`.
    """
    entry = bytearray()
    for name, value in fields.items():
        data = str(value).encode("utf-8", "backslashreplace")
        if b"\n" in data:
            entry += b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(data)), data)
        else:
            entry += b"%s=%s\n" % (name.encode(), data)
    return bytes(entry)


def connect() -> Journal | None:
    """Return the journal of this process, opened if it was not; None without a descriptor for it."""
    global _journal  # noqa: PLW0603 - a process has one log
    with suppress(OSError):
        _journal = _journal or Journal()
    return _journal


def disconnect() -> None:
    """Close the journal of this process: its log goes elsewhere."""
    global _journal  # noqa: PLW0603 - as above
    if _journal is not None:
        _journal.close()
    _journal = None


def descriptors() -> list[int]:
    """Return the descriptors that a forked process must keep to log."""
    return [2] if _journal is None else [2, _journal.fileno()]


def stderr_is_journal() -> bool:
    """Return whether stderr is connected to the journal: any child process inherits the variable (systemd.exec(5))."""
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def missed() -> bool:
    """Return whether stderr would be the journal's if the journal had run: without it systemd gives /dev/null.

    A service with StandardError=null has that, too, and logs nothing: the journal can be reached then. The decision
    holds for later reloads.
    """
    if "INVOCATION_ID" not in os.environ or not _stderr_is_null():
        return False
    if _journal is not None:
        return True
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect(PATH)
    except OSError:
        return True
    return False


def report(text: str) -> None:
    """Write lines to stderr, so that the journal attributes them to the unit even if the process exits at once.

    For the journal each line gets the prefix `<3>` of sd-daemon(3). If nobody reads stderr, because the journal did not
    run at the start or was stopped since, the lines are entries.
    """
    prefix = f"<{ERROR}>" if stderr_is_journal() else ""
    for line in text.splitlines():
        if (_stderr_is_null() or not write(f"{prefix}{line}")) and _journal is not None:
            _journal.send({"MESSAGE": line, "PRIORITY": ERROR, "ECHOD_EVENT": "process_failed"})


def write(line: str) -> bool:
    """Write a line to stderr; return whether somebody can read it. Without a reader the daemon continues."""
    try:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        return False
    return True


def _stderr_is_null() -> bool:
    try:
        return os.fstat(2).st_rdev == Path(os.devnull).stat().st_rdev
    except OSError:
        return False


def _send_file(sock: socket.socket, entry: bytes, path: str) -> None:
    fd = os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with os.fdopen(fd, "wb") as file:
        file.write(entry)
        file.flush()
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        # Not socket.send_fds: that of Python 3.11 ignores the address.
        sock.sendmsg([], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fd))], 0, path)
