"""May this datagram be answered?

Owns the rules and their order, nothing else: no socket, no clock, no counter. Invariant: a decision is a value,
`None` for yes or the `Drop` that says why not, and never an exception, whatever a peer sends.
"""

import sys
from collections.abc import Iterable
from enum import IntEnum


class Drop(IntEnum):
    """Why a datagram is not answered. The numbers are fixed: counters and later readers index by them."""

    DESTINATION_NOT_UNICAST = 1
    """Sent to a broadcast or multicast address: an answer would make this host an amplifier for its LAN."""
    SOURCE_PORT_ZERO = 2
    """No answer can reach port 0 (RFC 768: zero stands for "not used")."""
    SOURCE_PORT_OWN = 3
    """From a port that echod itself answers on: two echo servers would talk for ever (CERT CA-1996-01)."""
    TRUNCATED = 9
    """The kernel could not deliver it whole, or not the address it was sent to: no exact answer exists."""


def network_port(port: int) -> int:
    """Return a port number as it lies in a `sockaddr`, read by this machine's byte order."""
    return int.from_bytes(port.to_bytes(2, "big"), sys.byteorder)


class Admission:
    """The rules of one generation of workers. Ports here are as they lie in a `sockaddr`."""

    def __init__(self, own_ports: Iterable[int]) -> None:
        """Take the ports, in ordinary numbers, of all UDP listeners of this daemon."""
        self._own_ports = frozenset(network_port(port) for port in own_ports)
        self._refused_ports = self._own_ports | {0}

    def admits_all(self, source_ports: Iterable[int]) -> bool:
        """Tell in one look over a whole batch whether no source port of it is refused."""
        return self._refused_ports.isdisjoint(source_ports)

    def admit(self, source_port: int, *, unicast: bool, truncated: bool) -> Drop | None:
        """Decide on one datagram (or train, whose datagrams share everything that is looked at here).

        `unicast`: it was sent to a unicast address of this host. `truncated`: the kernel said so.
        """
        if not unicast:
            return Drop.DESTINATION_NOT_UNICAST
        if source_port == 0:
            return Drop.SOURCE_PORT_ZERO
        if source_port in self._own_ports:
            return Drop.SOURCE_PORT_OWN
        if truncated:
            return Drop.TRUNCATED
        return None
