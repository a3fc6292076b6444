"""What an exporter is born with, and what it is told later: all that its process and the supervisor's share.

Owns the words between the two. It imports nothing that only one of them needs.
"""

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from echod.core.counters import CounterPage
from echod.core.selftest import SelfTest
from echod.core.snapshot import TcpTraffic, UdpTraffic

SNAPSHOT: Final = b"s"
"""To the exporter: with it comes a file in memory that holds a snapshot, packed, however long that is."""
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
    reachable: bool
    """Whether the listeners can be asked from here (`Health`)."""
    self_test: SelfTest | None
    """The mark by which the workers know a self test."""
    traffic: Callable[[], Traffic]
    """Counts anew, over all generations there were when it was born; the kernel's drops are those of that time."""
    snapshot: bytes
    """The last one, packed, or nothing."""
    draining: bool
    """Whether echod is stopping already."""
    channel: socket.socket
    supervisor: int
    """Its process id."""
