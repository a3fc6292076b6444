"""One bound UDP socket of a worker, and what was learned about it."""

import socket
from dataclasses import dataclass

from echod.linux.mmsg_layout import MAX_PAYLOAD
from echod.net.mode import PLAIN, REFLECT, ListenerOptions, Mode
from echod.net.peers import PEER4_BYTES, PEER6_BYTES
from echod.udp.cmsg import ControlLayout, Form


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """A batch whose slots are alike: datagrams of one length, or trains, sent to one address through one interface.

    Most batches are alike. A batch that matches the pattern of the last such batch is not parsed slot by slot.
    """

    headers: bytes
    """All headers of a vector after a receive."""
    control: bytes
    """All control messages after a receive."""
    answers: bytes
    """The headers, I/O vectors and control messages of the answers, the same for every such batch."""
    form: Form
    """The control messages of each slot."""
    length: int
    """Bytes of payload in each slot."""
    segment: int
    """Bytes in a segment of a train, else 0."""
    weight: int
    """Datagrams in each slot."""
    on_loopback: bool


class UdpSocket:
    """A socket, with properties of it that are too expensive to look up each time."""

    __slots__ = ("control", "family", "fd", "last_length", "longest_joined", "pattern", "peer_length", "row", "sock")

    def __init__(self, sock: socket.socket, row: int = 0, options: ListenerOptions = PLAIN) -> None:
        """Take a socket set up by `sockets`, the index of its listener on the page of counters, and its options."""
        self.sock = sock
        self.row = row
        self.fd = sock.fileno()
        self.family = socket.AddressFamily(sock.family)
        self.peer_length = PEER6_BYTES if self.family == socket.AF_INET6 else PEER4_BYTES
        self.control = ControlLayout(
            self.family, full_ttl=options.mode is Mode.STAMP, reflects_dscp=options.dscp == REFLECT
        )
        """The control messages that it receives."""
        self.pattern: Pattern | None = None
        self.last_length = -1
        """Bytes in each slot of the last batch that did not match the pattern, -1 if they were not of one length."""
        self.longest_joined = MAX_PAYLOAD
        """Longer datagrams are not joined: the kernel has refused such a train here."""

    def may_be_alike(self, lengths: list[int]) -> bool:
        """Tell whether all are of one length, for the second batch in a row: learning costs as much as a batch."""
        if lengths.count(lengths[0]) < len(lengths):
            self.last_length = -1
            return False
        last, self.last_length = self.last_length, lengths[0]
        return last == lengths[0]
