"""What a worker starts with, and the messages between it and the supervisor.

Owns the format of the messages, and the channel that carries them. It imports nothing that only the worker needs.
"""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from mmap import mmap
from typing import Final

from echod.admission.selftest import SelfTest
from echod.config.schema import Config
from echod.linux.privileges import Account
from echod.net.listener import Listener
from echod.net.mode import PLAIN, ListenerOptions
from echod.net.networks import Network
from echod.stats.counters import CounterPage

READY: Final = b"r"
"""To the supervisor: setup is complete; `SERVE` may be sent."""
SERVE: Final = b"s"
"""To the worker: begin to answer."""
OWN_ADDRESSES: Final = b"o"
"""To the worker: from now on, the networks packed behind it are this host's own."""
TOP_SOURCES: Final = b"t"
"""To the supervisor: the report of `TopSources`, packed behind it. (A report of refusals begins with a bracket.)"""
DRAIN: Final = b"d"
"""To the worker: finish what is under way, then exit. The end of the channel means the same."""

MAX_COMMAND_BYTES: Final = 1 << 19
"""To the worker: enough for more networks than `LocalAddresses` finds."""
MAX_REPORT_BYTES: Final = 1 << 16
"""To the supervisor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedSocket:
    """A socket that a worker serves; `shared` if other workers wait on the same socket."""

    listener: Listener
    sock: socket.socket
    shared: bool
    options: ListenerOptions = PLAIN
    key: bytes = b""
    """The key of `hmac_key`; empty without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Birth:
    """All that a worker starts with."""

    slot: int
    config: Config
    sockets: Sequence[ServedSocket]
    page: CounterPage
    vector: mmap
    """Memory for a `Batch`, in which the supervisor finds what this worker had received and not counted."""
    rates: memoryview | None
    """The table of rates that the workers of a generation share; None without limits."""
    own_addresses: Sequence[Network]
    """This host's own addresses."""
    secret: bytes
    began: int
    """When the daemon started, in monotonic ns."""
    self_test: SelfTest | None
    """The mark of this daemon's own probes, if it has one."""
    channel: socket.socket
    supervisor: int
    """Its process id."""
    account: Account | None
    """The user that the worker becomes; None if it stays who it is."""


def open_channel() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a channel that preserves message boundaries: the supervisor's and a worker's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_COMMAND_BYTES)
    return ours, theirs
