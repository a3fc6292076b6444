"""What echod is doing at one moment, as plain values: the content of the status file.

Owns the names and types of what the supervisor reports and `echod status`, `echod reload` and the exporter read, and
its form as JSON. It knows no clock and no file. Counts cover the life of the daemon, over all generations of workers,
so they only grow; times are seconds since 1970 unless the name says otherwise. It contains no secret: anybody may read
it.

Invariant: `unpack` reads what `pack` wrote as an equal Snapshot; and for every UDP listener received = replied + all
dropped + all send_failed + interrupted, except for the batch that each worker is processing at that moment.
"""

from dataclasses import dataclass, field
from typing import Final, Literal

from pydantic import TypeAdapter, ValidationError

FORM: Final = 1
"""The version of the document. It is raised if a reader of the old form would misread the new one."""

BATCH_SIZES: Final = (1, 2, 4, 8, 16, 32, 64)
"""Upper bounds of the buckets of `UdpTraffic.batches`: slots that one receive filled."""

TRAIN_LENGTHS: Final = (1, 2, 4, 8, 16, 32, 64, None)
"""Upper bounds of the buckets of `UdpTraffic.trains`, the last without one: datagrams of one train."""

Family = Literal["ipv4", "ipv6"]


@dataclass(frozen=True, slots=True)
class Rates:
    """Rates per second, over the last 1, 10 and 60 seconds."""

    last_1s: float = 0.0
    last_10s: float = 0.0
    last_60s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class UdpTraffic:
    """One UDP listener. Numbers are datagrams, unless the name says otherwise."""

    name: str
    """As in the config: `udp://[::]:7`."""
    family: Family
    adopted: bool
    """Whether the service manager passed it; else echod bound it."""
    received: int = 0
    received_bytes: int = 0
    replied: int = 0
    replied_bytes: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    """By the name of the `Drop`, in lower case; without zeros."""
    send_failed: dict[str, int] = field(default_factory=dict)
    """By the name of the errno, such as `EAGAIN`, or `other`; without zeros."""
    interrupted: int = 0
    kernel_drops: int = 0
    """Dropped by the kernel at the socket's queue: never received, and in no other number here."""
    spared: int = 0
    """Over a limit but let through; their outcome is counted as well."""
    self_test: int = 0
    """Self tests among those replied."""
    batches: tuple[int, ...] = (0,) * len(BATCH_SIZES)
    """Receives by the slots that they filled, in the buckets of BATCH_SIZES."""
    trains: tuple[int, ...] = (0,) * len(TRAIN_LENGTHS)
    """Received trains by length, in the buckets of TRAIN_LENGTHS."""
    train_datagrams: int = 0
    """Received in trains. Slots filled = received - train_datagrams + trains."""
    received_per_second: Rates = Rates()

    @property
    def lost(self) -> int:
        """Return how many reached this host and were not answered, for any reason."""
        return self.kernel_drops + sum(self.dropped.values()) + sum(self.send_failed.values()) + self.interrupted


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpTraffic:
    """One TCP listener. Numbers are connections, unless the name says otherwise."""

    name: str
    family: Family
    adopted: bool
    accepted: int = 0
    open: int = 0
    closed: dict[str, int] = field(default_factory=dict)
    """By the name of the `Close`, in lower case; without zeros. Self tests are `self_test`."""
    accept_failed: int = 0
    """Pauses in accepting for lack of descriptors or memory."""
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
    """None until a dead worker is replaced."""
    cpu_seconds: float
    """CPU time of the process, user and system, at the time of the snapshot."""
    heartbeat_age_seconds: float
    """Time since its loop last turned, as observed once a second; 0 if less than two seconds."""
    restarts: int
    """Workers that replaced a dead one in this slot, since the start."""
    connections: int
    """Open TCP connections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loud:
    """One source, and about how many datagrams it sent in the last minute."""

    source: str
    """An IPv4 address, an IPv6 /64, or an IPv6 address if its /64 is not that of one host: loopback, link-local."""
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """One source and one reason, and the number of refusals in the last minute."""

    source: str
    """An address, without zone."""
    protocol: Literal["udp", "tcp"]
    reason: str
    """For UDP a key of `UdpTraffic.dropped`, for TCP one of `TcpTraffic.closed`."""
    count: int


REJECTED: Final = "REJECTED; the previous config stays in force"
"""What stands before the reason, once, wherever a rejected reload is reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastReload:
    """The outcome of the last reload: 0 and what changed, or an exit code and why it was rejected."""

    at: float | None = None
    """None if there was none yet."""
    code: int = 0
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """What changes with the traffic."""

    udp: tuple[UdpTraffic, ...] = ()
    tcp: tuple[TcpTraffic, ...] = ()
    workers: tuple[WorkerState, ...] = ()
    worker_restarts: int = 0
    """In all slots since the start."""
    loudest: tuple[Loud, ...] = ()
    """At most ten, the loudest first."""
    refused: tuple[Refused, ...] = ()
    """At most ten, most refusals first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The state of the daemon."""

    version: str
    pid: int
    """Of the supervisor."""
    born: int | None
    """When that process started, in clock ticks since boot (proc_pid_stat(5)), to detect a reused PID."""
    at: float
    """When this was written: when something has changed, at most once a second, else every five seconds."""
    started: float
    started_monotonic: float
    """The same moment by CLOCK_MONOTONIC, which setting the clock does not affect."""
    generation: int
    config: str
    """Path of the config file, also if there is none and the built-in defaults are used."""
    config_read: float | None
    """When the config in force was read; None for the built-in defaults."""
    reloads_begun: int = 0
    reloads_finished: int = 0
    reload: LastReload = LastReload()
    activity: Activity = Activity()
    stale: bool = False
    """Whether `at` was too long ago when this was read: the daemon hangs, or cannot write. Never True in the file."""
    form: int = FORM

    def pack(self) -> bytes:
        """Write it as JSON, with a final line feed."""
        return _JSON.dump_json(self) + b"\n"

    @staticmethod
    def unpack(text: bytes) -> "Snapshot":
        """Read what `pack` wrote. Raises ValueError, with one sentence, for anything else."""
        try:
            snapshot = _JSON.validate_json(text)
        except ValidationError:
            raise ValueError("it was written by another version of echod") from None
        if snapshot.form != FORM:
            raise ValueError("it was written by another version of echod")
        return snapshot


_JSON: Final = TypeAdapter(Snapshot)
