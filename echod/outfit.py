"""What an exporter is born with, and what it is told later: all that its process and the supervisor's share.

Owns the words between the two. It imports nothing that only one of them needs.
"""

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from echod.core.counters import CounterPage
from echod.core.listener import Listener
from echod.core.selftest import SelfTest
from echod.core.snapshot import TcpTraffic, UdpTraffic

SNAPSHOT: Final = b"s"
"""To the exporter: a snapshot, packed and compressed, is behind it."""
DRAIN: Final = b"d"
"""To the exporter: echod is stopping. The end of the channel says: leave."""

Traffic: TypeAlias = tuple[Sequence[UdpTraffic], Sequence[TcpTraffic]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outfit:
    """All that an exporter is born with."""

    page: CounterPage
    """Of the generation that serves."""
    doors: Sequence[socket.socket]
    """Where it is asked."""
    sockets: Mapping[Listener, Sequence[socket.socket]]
    """Of the listeners. Nothing is ever read from them here."""
    self_test: SelfTest | None
    """The mark by which the workers know a self test."""
    traffic: Callable[[], Traffic]
    """Counts anew, over all generations there were when it was born."""
    snapshot: bytes
    """The last one, packed, or nothing."""
    channel: socket.socket
    supervisor: int
    """Its process id."""
