"""What this host takes for its own addresses, as the supervisor knows it: asked for once a second, told to workers.

Owns the last answer and the one log entry where there is none. It decides nothing: rule 7 of `Admission` does.
Invariant: a host whose addresses cannot be asked for is served all the same, and its operator has been told.
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
        """Ask through the netlink socket that was passed, or one of our own; `adopted` are the listening sockets."""
        self.networks: tuple[Network, ...] = ()
        self._addresses: LocalAddresses | None = LocalAddresses(passed)
        self._told = ""
        if not all(map(self._addresses.belongs_to, adopted)):
            self._tell(ELSEWHERE)
            self._addresses = None

    def look(self) -> bool:
        """Ask the kernel; tell whether `networks` has changed."""
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
        """Log a problem when it comes, not as long as it lasts."""
        if problem and problem != self._told:
            _log.warning("own_addresses_unknown", message=problem)
        self._told = problem
