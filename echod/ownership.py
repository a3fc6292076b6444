"""This host's own addresses, as the supervisor knows them: read once a second, sent to workers.

Owns the last result and the one log entry if there is none. It decides nothing: rule 7 of `Admission` does. Invariant:
a host whose addresses cannot be read is still served, and its operator has been warned.
"""

import socket
from collections.abc import Iterable

import structlog

from echod.core.addresses import Network
from echod.netlink import ELSEWHERE, LocalAddresses

_log = structlog.get_logger()


class Ownership:
    """The addresses and prefixes of this host."""

    def __init__(self, passed: socket.socket | None, adopted: Iterable[socket.socket]) -> None:
        """Read through the passed netlink socket, or one opened here; `adopted` are the passed listening sockets."""
        self.networks: tuple[Network, ...] = ()
        self._addresses: LocalAddresses | None = LocalAddresses(passed)
        self._told = ""
        if not all(map(self._addresses.belongs_to, adopted)):
            self._tell(ELSEWHERE)
            self._addresses = None

    def look(self) -> bool:
        """Read the addresses from the kernel; tell whether `networks` has changed."""
        if self._addresses is None:
            return False
        found = self._addresses.look()
        self._tell(self._addresses.problem)
        if found is None:
            return False
        _log.debug("own_addresses", count=len(found))
        self.networks = found
        return True

    def _tell(self, problem: str) -> None:
        """Log a problem once, when it appears."""
        if problem and problem != self._told:
            _log.warning("own_addresses_unknown", message=problem)
        self._told = problem
