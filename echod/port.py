"""One bound UDP socket of a worker, and what was learned about it."""

import socket
from dataclasses import dataclass

from echod.core.peers import PEER4_BYTES, PEER6_BYTES
from echod.core.trains import MAX_PAYLOAD


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """What a batch looks like whose slots are alike: datagrams of one length, or trains, for one address, by one way.

    Most traffic is: so that a batch need not be looked at again slot by slot, it is compared to the last of that kind.
    """

    headers: bytes
    """All headers of a vector after a receive, ..."""
    control: bytes
    """... all control messages, ..."""
    answers: bytes
    """... and all that an answer needs: there is nothing in it that differs from one such batch to the next."""
    form: int
    """Bytes of control messages in each slot, ..."""
    length: int
    """... of payload, ..."""
    segment: int
    """... and, of a train, in a segment; else 0."""
    weight: int
    """Datagrams in each slot."""
    on_loopback: bool


class Port:
    """A socket, with what a look at it would cost each time."""

    __slots__ = ("family", "fd", "last_length", "longest_joined", "pattern", "peer_length", "sock")

    def __init__(self, sock: socket.socket) -> None:
        """Take a socket set up by `sockets`."""
        self.sock = sock
        self.fd = sock.fileno()
        self.family = socket.AddressFamily(sock.family)
        self.peer_length = PEER6_BYTES if self.family == socket.AF_INET6 else PEER4_BYTES
        self.pattern: Pattern | None = None
        self.last_length = -1
        """Bytes of each slot of the last batch that the pattern did not know, where they were of one length."""
        self.longest_joined = MAX_PAYLOAD
        """Neighbours longer than this are not joined: the kernel refused such a train here before."""
