"""The names of routers that complained.

Owns the look-up, in a process of its own, so that a name server that does not answer holds nothing up: least of all
the end of a run on a network that is broken. Invariant: nobody waits longer than `PATIENCE` for all names together.
"""

import select
import subprocess
from collections.abc import Iterable
from time import monotonic
from typing import Final

PATIENCE: Final = 1.0
"""Seconds, counted from the end of the run."""

MOST: Final = 32
"""Addresses that are looked up, each by a process: what comes from forged ones starts no more."""


class Names:
    """Names by address."""

    def __init__(self, *, numeric: bool) -> None:
        """Look nothing up if they shall stay numbers."""
        self._numeric = numeric
        self._asked: dict[str, subprocess.Popen[str]] = {}

    def ask(self, address: str) -> None:
        """Begin to look a name up."""
        if self._numeric or not address or address in self._asked or len(self._asked) >= MOST:
            return
        try:
            self._asked[address] = subprocess.Popen(  # noqa: S603 - an address that the kernel wrote
                ["getent", "hosts", address],  # noqa: S607 - wherever the C library has put it
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                errors="backslashreplace",  # /etc/hosts may have any bytes
                start_new_session=True,  # Ctrl-C is for us
            )
        except OSError:
            self._numeric = True

    def known(self, addresses: Iterable[str], *, until: int | None = None) -> dict[str, str]:
        """Return the names that are found in time, and stop looking for the others.

        Nobody waits for them any more once there is something to read from the descriptor `until`.
        """
        asked = {address: process for address in addresses if (process := self._asked.pop(address, None))}
        _wait([process.stdout.fileno() for process in asked.values() if process.stdout], until)
        found = {address: _finish(process) for address, process in asked.items()}
        return {address: name for address, name in found.items() if name}


def _wait(outputs: list[int], until: int | None) -> None:
    """Wait until there is something to read from each of these, from `until`, or too long."""
    deadline = monotonic() + PATIENCE
    poll = select.poll()
    for fd in outputs if until is None else [*outputs, until]:
        poll.register(fd, select.POLLIN)
    left = len(outputs)
    while left and (seconds := deadline - monotonic()) > 0:
        for fd, _ in poll.poll(1000 * seconds):
            if fd == until:
                return
            poll.unregister(fd)
            left -= 1


def _finish(process: "subprocess.Popen[str]") -> str:
    """Return the name that `getent` printed behind the address, if it has; it has written all at once."""
    with process:
        process.kill()
        words = process.communicate()[0].split()
    return words[1] if len(words) > 1 else ""
