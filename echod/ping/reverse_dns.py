"""Reverse DNS: the names of routers that sent errors.

Owns the lookups, each in its own process, so that a name server that does not answer delays no probe, nor the end of a
run on a broken network. Invariant: all lookups together delay the end by at most `TIMEOUT`.
"""

import select
import subprocess
from collections.abc import Iterable
from time import monotonic
from typing import Final

TIMEOUT: Final = 1.0
"""Seconds, counted from the end of the run."""

MAX_LOOKUPS: Final = 32
"""Bounds the processes that errors with forged source addresses can start."""


class ReverseDns:
    """The lookups of a run, by address."""

    def __init__(self, *, numeric: bool) -> None:
        """Start no lookup if addresses are shown as numbers only."""
        self._numeric = numeric
        self._lookups: dict[str, subprocess.Popen[str]] = {}

    def look_up(self, address: str) -> None:
        """Start the lookup of an address, unless there is one."""
        if self._numeric or not address or address in self._lookups or len(self._lookups) >= MAX_LOOKUPS:
            return
        try:
            self._lookups[address] = subprocess.Popen(  # noqa: S603 - the kernel formatted the address
                ["getent", "hosts", address],  # noqa: S607 - its directory depends on the C library
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                errors="backslashreplace",  # /etc/hosts may hold any bytes
                start_new_session=True,  # Ctrl-C goes to echod alone
            )
        except OSError:
            self._numeric = True

    def results(self, addresses: Iterable[str], *, until: int | None = None) -> dict[str, str]:
        """Return the names that were found in time, by address, and kill the other lookups.

        The wait ends early when the descriptor `until` is readable.
        """
        lookups = {address: process for address in addresses if (process := self._lookups.pop(address, None))}
        _wait([process.stdout.fileno() for process in lookups.values() if process.stdout], until)
        names = {address: _finish(process) for address, process in lookups.items()}
        return {address: name for address, name in names.items() if name}


def _wait(outputs: list[int], until: int | None) -> None:
    """Wait until all of `outputs` are readable, or `until` is, at most `TIMEOUT`."""
    deadline = monotonic() + TIMEOUT
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
    """Kill a lookup; return the name that `getent` printed after the address. It writes its line in one piece."""
    with process:
        process.kill()
        words = process.communicate()[0].split()
    return words[1] if len(words) > 1 else ""
