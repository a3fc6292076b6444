"""The names of routers that complained.

Owns the look-up, in a process of its own, so that a name server that does not answer holds nothing up: least of all
the end of a run on a network that is broken. Invariant: nobody waits longer than `PATIENCE` for all names together.
"""

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

    def known(self, addresses: Iterable[str]) -> dict[str, str]:
        """Return the names that are found in time, and stop looking for the others."""
        deadline = monotonic() + PATIENCE
        found = {}
        for address in addresses:
            if process := self._asked.pop(address, None):
                name = _finish(process, max(0.0, deadline - monotonic()))
                if name:
                    found[address] = name
        return found


def _finish(process: "subprocess.Popen[str]", seconds: float) -> str:
    """Return the name that `getent` printed behind the address, if it did in time."""
    with process:
        try:
            words = process.communicate(timeout=seconds)[0].split()
        except subprocess.TimeoutExpired:
            process.kill()
            return ""
    return words[1] if len(words) > 1 else ""
