"""The service manager's side: sd_notify, passed sockets, the watchdog's interval.

Owns the protocols of sd_notify(3) and sd_listen_fds(3) and their environment variables. Never opens or reads a
listening socket. Invariant: without a service manager every call does nothing.
"""

import os
from collections.abc import MutableMapping
from itertools import chain, repeat
from typing import Final

from sdnotify import SystemdNotifier

from echod.linux.send_queue import SendQueue

FIRST_PASSED: Final = 3
"""SD_LISTEN_FDS_START."""


class Notifier:
    """Sends messages to the service manager. Never blocks and never raises."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        """Connect to NOTIFY_SOCKET, if there is one; `watchdog_seconds` is the interval for WATCHDOG=1, or None."""
        self.watchdog_seconds = watchdog_seconds(environment)
        self._queue = SendQueue(self._notify)
        self._notifier: SystemdNotifier | None = None
        if environment.get("NOTIFY_SOCKET"):
            try:
                # debug: an error must be raised here, not silently lose READY=1.
                self._notifier = SystemdNotifier(debug=True)
            except OSError:
                return
            self._notifier.socket.setblocking(False)

    def send(self, *lines: str) -> None:
        """Send these lines as one message; it replaces a pending one whose first line has the same name."""
        message = "\n".join(lines).encode("utf-8", "replace")
        self._queue.put(message.partition(b"=")[0], message)

    def watchdog(self) -> None:
        """Report that everything is alive."""
        self.send("WATCHDOG=1")
        self._queue.pending.pop(b"WATCHDOG", None)  # it must not be sent later, when it may no longer be true

    def catch_up(self) -> None:
        """Send pending messages, in order. Call it once a second: a lost READY=1 makes a start fail."""
        self._queue.flush()

    def _notify(self, message: bytes) -> None:
        if self._notifier is not None:
            # sdnotify encodes latin-1; through this it sends the UTF-8 that sd_notify(3) asks for.
            self._notifier.notify(message.decode("latin-1"))


def passed_sockets(environment: MutableMapping[str, str]) -> dict[int, str]:
    """Return the descriptors that were passed to this process, each with its name (FileDescriptorName=).

    Removes the variables from the environment.
    """
    ours = environment.get("LISTEN_PID") == str(os.getpid())
    count = environment.get("LISTEN_FDS", "")
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"):
        environment.pop(name, None)
    passed = range(FIRST_PASSED, FIRST_PASSED + int(count)) if ours and count.isdigit() else ()
    return dict(zip(passed, chain(names, repeat("")), strict=False))


def watchdog_seconds(environment: MutableMapping[str, str]) -> float | None:
    """Return the interval in seconds in which WATCHDOG=1 must be sent, or None (sd_watchdog_enabled(3))."""
    microseconds = environment.get("WATCHDOG_USEC", "")
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()) or not microseconds.isdigit():
        return None
    return int(microseconds) / 1e6 or None


def managed(environment: MutableMapping[str, str]) -> str | None:
    """Return the variable that shows that this process runs under systemd, or None."""
    names = ("NOTIFY_SOCKET", "LISTEN_FDS", "INVOCATION_ID")
    return next((name for name in names if environment.get(name)), None)
