"""What echod is doing at one moment, as plain values: the content of the status file.

Owns the names and types of what the supervisor tells and `echod status`, `echod reload` and the exporter read, and its
form as JSON. It knows no clock and no file. Counts are those of the daemon's life, over all generations of workers, so
they only grow; times are seconds since 1970 unless the name says more. There is no secret in it: anybody may read it.

Invariant: what `pack` wrote, `unpack` reads as an equal Snapshot; and for every UDP listener received = replied + all
dropped + all send_failed + interrupted, but for the batch that each worker has in hands at that moment.
"""

from dataclasses import dataclass, field
from typing import Final, Literal

from pydantic import TypeAdapter, ValidationError

FORM: Final = 1
"""Of the document. It grows where a reader of the old one would misread the new one."""

BATCH_SIZES: Final = (1, 2, 4, 8, 16, 32, 64)
"""Upper bounds of the places of `UdpTraffic.batches`: slots that one receive filled."""

TRAIN_LENGTHS: Final = (1, 2, 4, 8, 16, 32, 64, None)
"""Upper bounds of the places of `UdpTraffic.trains`, the last without one: datagrams of one train."""

Family = Literal["ipv4", "ipv6"]


@dataclass(frozen=True, slots=True)
class Rates:
    """How much a second, over the last 1, 10 and 60 seconds."""

    last_1s: float = 0.0
    last_10s: float = 0.0
    last_60s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class UdpTraffic:
    """One UDP listener. Datagrams, unless the name says more."""

    name: str
    """As the config writes it: `udp://[::]:7`."""
    family: Family
    adopted: bool
    """Whether the service manager passed it; else echod bound it."""
    received: int = 0
    received_bytes: int = 0
    replied: int = 0
    replied_bytes: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    """By the name of the `Drop`, in lower case; only where there were any."""
    send_failed: dict[str, int] = field(default_factory=dict)
    """By the name of the errno, such as `EAGAIN`, or `other`; only where there were any."""
    interrupted: int = 0
    kernel_drops: int = 0
    """Of those the kernel queued, or would have: never received, in no other number here."""
    spared: int = 0
    """Over a limit and answered all the same; each has its end besides."""
    self_test: int = 0
    """Of those replied, the ones that were self tests."""
    batches: tuple[int, ...] = (0,) * len(BATCH_SIZES)
    """Receives by how many slots they filled, in the places of BATCH_SIZES."""
    trains: tuple[int, ...] = (0,) * len(TRAIN_LENGTHS)
    """Trains received by their length, in the places of TRAIN_LENGTHS."""
    train_datagrams: int = 0
    """Received in trains. Slots filled = received - train_datagrams + trains."""
    received_per_second: Rates = Rates()

    @property
    def lost(self) -> int:
        """Return how many came as far as this host and were not answered, whoever it was that did not."""
        return self.kernel_drops + sum(self.dropped.values()) + sum(self.send_failed.values()) + self.interrupted


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpTraffic:
    """One TCP listener. Connections, unless the name says more."""

    name: str
    family: Family
    adopted: bool
    accepted: int = 0
    open: int = 0
    closed: dict[str, int] = field(default_factory=dict)
    """By the name of the `Close`, in lower case; only where there were any. Self tests are `self_test`."""
    accept_failed: int = 0
    """Times that accepting stood still for want of descriptors or memory."""
    received_bytes: int = 0
    sent_bytes: int = 0
    accepted_per_second: Rates = Rates()
    bytes_per_second: Rates = Rates()
    """Received."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerState:
    """One worker slot and the process in it."""

    worker: int
    """Its number, from 1, as in the log and in the title of its process."""
    pid: int | None
    """None while a new one is awaited."""
    cpu_seconds: float
    """Of the process, user and system, at the time of the snapshot."""
    heartbeat_age_seconds: float
    """How long its loop has not turned, as looks a second apart can tell; 0 for all that is less than two."""
    restarts: int
    """Workers that took the place of a dead one, in this slot, ever."""
    connections: int
    """Open TCP connections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loud:
    """One source, and about how many datagrams it sent in the last minute."""

    source: str
    """An IPv4 address, an IPv6 /64, or the IPv6 address where its /64 is no host's: of loopback, of a link."""
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """One source and one reason, and how often that was refused in the last minute."""

    source: str
    """An address, without zone."""
    protocol: Literal["udp", "tcp"]
    reason: str
    """Of UDP a key of `UdpTraffic.dropped`, of TCP one of `TcpTraffic.closed`."""
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LastReload:
    """How the last reload ended: 0 and what changed, or an exit code and why the old config goes on."""

    at: float | None = None
    """None where there was none yet."""
    code: int = 0
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """What changes with the traffic."""

    udp: tuple[UdpTraffic, ...] = ()
    tcp: tuple[TcpTraffic, ...] = ()
    workers: tuple[WorkerState, ...] = ()
    worker_restarts: int = 0
    """In all slots there ever were."""
    loudest: tuple[Loud, ...] = ()
    """At most ten, the loudest first."""
    refused: tuple[Refused, ...] = ()
    """At most ten, the most refused first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All of it."""

    version: str
    pid: int
    """Of the supervisor."""
    born: int | None
    """When that process began, in clock ticks since boot, as proc_pid_stat(5) has it: whether it is still the same."""
    at: float
    """When this was written. It is written when something changed, at most once a second, else every five seconds."""
    started: float
    started_monotonic: float
    """The same moment by CLOCK_MONOTONIC, which no change of the date moves."""
    generation: int
    config: str
    """Path of the config file, also where there is none and the built-in defaults serve."""
    config_read: float | None
    """When the config in force was read; None for the built-in defaults."""
    reloads_begun: int = 0
    reloads_finished: int = 0
    reload: LastReload = LastReload()
    activity: Activity = Activity()
    stale: bool = False
    """Whether `at` was too long ago when this was read: who wrote it hangs, or cannot write. Not so in the file."""
    form: int = FORM

    def pack(self) -> bytes:
        """Write it as JSON, with a line feed at its end."""
        return _JSON.dump_json(self) + b"\n"

    @staticmethod
    def unpack(text: bytes) -> "Snapshot":
        """Read what `pack` wrote. Raises ValueError, with one sentence, where it is something else."""
        try:
            snapshot = _JSON.validate_json(text)
        except ValidationError:
            raise ValueError("it was written by another version of echod") from None
        if snapshot.form != FORM:
            raise ValueError("it was written by another version of echod")
        return snapshot


_JSON: Final = TypeAdapter(Snapshot)
