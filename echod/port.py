"""One bound UDP socket of a worker, and what was learned about it."""

import socket

from echod.core.trains import MAX_PAYLOAD


class Port:
    """A socket, with what a look at it would cost each time."""

    __slots__ = ("family", "fd", "longest_joined", "sock")

    def __init__(self, sock: socket.socket) -> None:
        """Take a socket set up by `sockets`."""
        self.sock = sock
        self.fd = sock.fileno()
        self.family = socket.AddressFamily(sock.family)
        self.longest_joined = MAX_PAYLOAD
        """Neighbours longer than this are not joined: the kernel refused such a train here before."""
