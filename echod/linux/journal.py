"""Entries of the journal, by its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL).

- The socket is not connected. Each entry looks the path up again, so that a journald that was restarted is found.
- It never blocks. An entry that the journal did not accept is counted, and the next that it accepts has the number.
- An entry that is too large for a datagram is passed as a sealed memfd (memfd_create(2)), as sd_journal_sendv(3) does.
"""

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Mapping
from typing import Final

PATH: Final = "/run/systemd/journal/socket"

_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
"""journald refuses a file that its sender can still change."""


class Journal:
    """The socket of a process to its journal."""

    def __init__(self, identifier: str, path: str = PATH) -> None:
        """Open the socket; the journal need not run yet. Raises OSError without a descriptor.

        Each entry has the identifier: journalctl -t.
        """
        self._identifier, self._path = identifier, path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._lost = 0

    def fileno(self) -> int:
        """Return the descriptor, which a forked process must keep to log."""
        return self._socket.fileno()

    def send(self, fields: Mapping[str, object]) -> bool:
        """Send one entry; return whether the journal accepted it. Values are text or numbers. It raises nothing."""
        lost = {"ECHOD_LOST_ENTRIES": self._lost} if self._lost else {}
        try:
            self._send(encode({**fields, "SYSLOG_IDENTIFIER": self._identifier, **lost}))
        except (OSError, ValueError):
            self._lost += 1
            return False
        self._lost = 0
        return True

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


def _send_file(sock: socket.socket, entry: bytes, path: str) -> None:
    fd = os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with os.fdopen(fd, "wb") as file:
        file.write(entry)
        file.flush()
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        # Not socket.send_fds: that of Python 3.11 ignores the address.
        sock.sendmsg([], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fd))], 0, path)
