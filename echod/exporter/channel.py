"""What an exporter starts with, and what it is sent later: all that its process and the supervisor share.

Owns the messages between the two. It imports nothing that only one of them needs.
"""

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from echod.admission.selftest import SelfTest
from echod.linux.privileges import Account
from echod.stats.counters import CounterPage
from echod.stats.snapshot import TcpTraffic, UdpTraffic

SNAPSHOT: Final = b"s"
"""To the exporter, with a descriptor of a file in memory: it holds a packed snapshot, of any length."""
DRAIN: Final = b"d"
"""To the exporter: echod is stopping. The end of the channel means: exit."""

Traffic: TypeAlias = tuple[Sequence[UdpTraffic], Sequence[TcpTraffic]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExporterInputs:
    """All that an exporter starts with."""

    page: CounterPage
    """The page of the generation that serves."""
    http_sockets: Sequence[socket.socket]
    """Its listening sockets."""
    hosts: Sequence[str]
    """The names, in lower case, by which it may be asked on a loopback address."""
    reachable: bool
    """Whether the listeners can be tested from here (`Health`)."""
    self_test: SelfTest | None
    """The mark by which the workers recognize a self test."""
    traffic: Callable[[], Traffic]
    """Reads the counters of all generations up to the exporter's start; the kernel's drops are those of that time."""
    snapshot: bytes
    """The last one, packed, or empty."""
    draining: bool
    """Whether echod is already stopping."""
    channel: socket.socket
    supervisor: int
    """Its process id."""
    account: Account | None
    """The user that the exporter becomes; None if it stays who it is."""
