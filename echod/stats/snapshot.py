"""What echod is doing at one moment, as plain values: the content of the status file.

Owns the names and types of what the supervisor reports and `echod status`, `echod reload` and the exporter read, and
its form as JSON. It knows no clock and no file. Counts cover the life of the daemon, over all generations of workers,
so they only grow; times are seconds since 1970 unless the name says otherwise. It contains no secret: anybody may read
it. Every user who may write to the status directory may have written the file, so `unpack` returns bounded numbers and
text without control characters.

Invariant: `unpack` reads what `pack` wrote as an equal Snapshot; and for every UDP listener received = replied + all
dropped + all send_failed + interrupted + held, except for the batch that each worker is processing at that moment.
"""

from dataclasses import dataclass, field
from typing import Annotated, Final, Literal, TypeAlias, TypeVar

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

BATCH_SIZES: Final = (1, 2, 4, 8, 16, 32, 64)
"""Upper bounds of the buckets of `UdpTraffic.batches`: slots that one receive filled."""

TRAIN_LENGTHS: Final = (1, 2, 4, 8, 16, 32, 64, None)
"""Upper bounds of the buckets of `UdpTraffic.trains`, the last without one: datagrams of one train."""

Family = Literal["ipv4", "ipv6"]


def printable(text: str) -> str:
    """Replace what does not print, such as control characters, which could control the reader's terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def _lines(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


Line: TypeAlias = Annotated[str, AfterValidator(printable)]
Lines: TypeAlias = Annotated[str, AfterValidator(_lines)]
# Wide enough for any sum over the counters, even those that a broken worker has overwritten, and for all to be printed.
Count: TypeAlias = Annotated[int, Field(ge=-(10**30), le=10**30)]
Number: TypeAlias = Annotated[float, Field(ge=-1e30, le=1e30)]
Moment: TypeAlias = Annotated[float, Field(ge=0, le=1e10)]
"""Seconds since 1970, or since the boot; until the year 2286."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Rates per second, over the last 1, 10 and 60 seconds."""

    last_1s: Number = 0.0
    last_10s: Number = 0.0
    last_60s: Number = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class UdpEchoConfig:
    """The counters of UDPEchoConfig (TR-143, appendix A) of a listener, without self tests.

    Packets are those that the rules admitted. Bytes are payload and UDP header, 8 bytes each.
    """

    packets_received: Count = 0
    packets_responded: Count = 0
    bytes_received: Count = 0
    bytes_responded: Count = 0
    first_received: Line = ""
    last_received: Line = ""
    """When the first and the last came: in UTC, as `2008-04-09T15:01:05.123456`; empty if none came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UdpTraffic:
    """One UDP listener. Numbers are datagrams, unless the name says otherwise."""

    name: Line
    """As in the config: `udp://[::]:7`."""
    family: Family
    adopted: bool
    """Whether the service manager passed it; else echod bound it."""
    mode: Line = "echo"
    impaired: bool = False
    received: Count = 0
    received_bytes: Count = 0
    replied: Count = 0
    replied_bytes: Count = 0
    dropped: dict[Line, Count] = field(default_factory=dict)
    """By the name of the `Drop`, in lower case; without zeros."""
    send_failed: dict[Line, Count] = field(default_factory=dict)
    """By the name of the errno, such as `EAGAIN`, or `other`; without zeros."""
    interrupted: Count = 0
    held: Count = 0
    """By impairment, now."""
    duplicated: Count = 0
    reordered: Count = 0
    corrupted: Count = 0
    """What impairment did to datagrams, whose outcome is counted as well."""
    kernel_drops: Count = 0
    """Dropped by the kernel at the socket's queue, a train as one: never received, and in no other number here."""
    slipped: Count = 0
    """Over a limit but let through; their outcome is counted as well."""
    self_test: Count = 0
    """Self tests among those replied."""
    batches: tuple[Count, ...] = (0,) * len(BATCH_SIZES)
    """Receives by the slots that they filled, in the buckets of BATCH_SIZES."""
    trains: tuple[Count, ...] = (0,) * len(TRAIN_LENGTHS)
    """Received trains by length, in the buckets of TRAIN_LENGTHS."""
    train_datagrams: Count = 0
    """Received in trains. Slots filled = received - train_datagrams + trains."""
    received_per_second: Rates = Rates()
    udpecho_config: UdpEchoConfig | None = None
    """Of a listener in mode udpecho_plus."""

    @property
    def lost(self) -> int:
        """Return how many reached this host and were not answered, for any reason."""
        return self.kernel_drops + sum(self.dropped.values()) + sum(self.send_failed.values()) + self.interrupted


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpTraffic:
    """One TCP listener. Numbers are connections, unless the name says otherwise."""

    name: Line
    family: Family
    adopted: bool
    mode: Line = "echo"
    impaired: bool = False
    accepted: Count = 0
    open: Count = 0
    closed: dict[Line, Count] = field(default_factory=dict)
    """By the name of the `Close`, in lower case; without zeros. Self tests are `self_test`."""
    accept_failed: Count = 0
    """Pauses in accepting for lack of descriptors or memory."""
    received_bytes: Count = 0
    sent_bytes: Count = 0
    accepted_per_second: Rates = Rates()
    bytes_per_second: Rates = Rates()
    """Received."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerState:
    """One worker slot and the process in it."""

    worker: Count
    """Its number, from 1, as in the log and in the title of its process."""
    pid: Count | None
    """None until a dead worker is replaced."""
    cpu_seconds: Number
    """CPU time of the process, user and system, at the time of the snapshot."""
    heartbeat_age_seconds: Number
    """Time since its loop last turned, as observed once a second; 0 if less than two seconds."""
    restarts: Count
    """Workers that replaced a dead one in this slot, since the start."""
    connections: Count
    """Open TCP connections."""

    @property
    def problem(self) -> str:
        """Return why the sources that the kernel gives to its sockets get no reply; empty text if it is well."""
        if self.pid is None:
            return "it has no process, and is being replaced"
        return f"heartbeat age {self.heartbeat_age_seconds:.0f} s" if self.heartbeat_age_seconds else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopSource:
    """One source, and about how many datagrams it sent in the last minute."""

    source: Line
    """An IPv4 address, an IPv6 /64, or an IPv6 address if its /64 is not that of one host: loopback, link-local."""
    count: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """One source and one reason, and the number of refusals in the last minute."""

    source: Line
    """An address, without zone."""
    protocol: Literal["udp", "tcp"]
    reason: Line
    """For UDP a key of `UdpTraffic.dropped`, for TCP one of `TcpTraffic.closed`."""
    count: Count


REJECTED: Final = "REJECTED; the previous config stays in force"
"""The prefix of the reason in every report of a rejected reload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastReload:
    """The outcome of the last reload: 0 and what changed, or an exit code and why it was rejected."""

    at: Moment | None = None
    """None if there was none yet."""
    code: Annotated[int, Field(ge=0, le=255)] = 0
    text: Lines = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """What changes with the traffic."""

    udp: tuple[UdpTraffic, ...] = ()
    tcp: tuple[TcpTraffic, ...] = ()
    workers: tuple[WorkerState, ...] = ()
    worker_restarts: Count = 0
    """In all slots since the start."""
    top_sources: tuple[TopSource, ...] = ()
    """At most ten, the one that sends most first."""
    refused: tuple[Refused, ...] = ()
    """At most ten, most refusals first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelInterface:
    """One interface of `kernel.interfaces`."""

    name: Line
    ifindex: Count
    kind: Line
    """`ethernet`, `loopback`, `bare`; empty where the kernel does not reply."""
    driver: Line = "tcx"
    """What the programs are attached by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTraffic:
    """All UDP listeners of one family and port. Numbers are datagrams, unless the name says otherwise."""

    family: Family
    port: Count
    replied: Count = 0
    replied_bytes: Count = 0
    passed: Count = 0
    """Left to the sockets, which count them as received."""
    slipped: Count = 0
    """Over a limit but let through; their outcome is counted as well."""
    dropped: dict[Line, Count] = field(default_factory=dict)
    """As `UdpTraffic.dropped`."""

    @property
    def ended(self) -> int:
        """Return how many ended in the kernel, so that no socket received them."""
        return self.replied + sum(self.dropped.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """The state of `echod accelerate`: the content of its status file."""

    version: Line
    pid: Annotated[int, Field(ge=1, le=2**31 - 1)]
    born: Count | None
    at: Moment
    at_monotonic: Moment
    started: Moment
    config: Line
    """Path of the config file that it reads."""
    interfaces: tuple[KernelInterface, ...] = ()
    paths: Count = 0
    """Replies of the daemon that are repeated, as of at most five seconds before `at`."""
    flushes: dict[Line, Count] = field(default_factory=dict)
    """How often all paths were forgotten, by cause."""
    traffic: tuple[KernelTraffic, ...] = ()

    @staticmethod
    def unpack(text: bytes) -> "Kernel":
        """Read the file of an accelerator. Raises ValueError, with one sentence, if no echod has written it."""
        return _unpack(_KERNEL_JSON, text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The state of the daemon."""

    version: Line
    pid: Annotated[int, Field(ge=1, le=2**31 - 1)]
    """Of the supervisor."""
    born: Count | None
    """When that process started, in clock ticks since boot (proc_pid_stat(5)), to detect a reused PID."""
    at: Moment
    """When this was written: when something has changed, at most once a second, else every five seconds."""
    at_monotonic: Moment
    """The same moment by CLOCK_MONOTONIC, which setting the clock does not affect: for durations."""
    started: Moment
    started_monotonic: Moment
    """The same moment by CLOCK_MONOTONIC."""
    generation: Count
    config: Line
    """Path of the config file, also if there is none and the built-in defaults are used."""
    config_read: Moment | None
    """When the config in force was read; None for the built-in defaults."""
    reloads_begun: Count = 0
    reloads_finished: Count = 0
    reload: LastReload = LastReload()
    activity: Activity = Activity()
    stale: bool = False
    """Whether `at` was too long ago when this was read: the daemon hangs, or cannot write. Never True in the file."""
    kernel: Kernel | None = None
    """What the accelerator of this daemon reports; None if none runs. Always None in the file: readers look for it."""
    kernel_problem: Line = ""
    """Why `kernel` is old or not known; empty if it is as it should be."""
    form: Literal[1] = 1
    """The version of the document. It is raised if a reader of the old form would misread the new one."""

    def pack(self) -> bytes:
        """Write it as JSON, with a final line feed."""
        return _JSON.dump_json(self) + b"\n"

    @staticmethod
    def unpack(text: bytes) -> "Snapshot":
        """Read what `pack` wrote, or anybody else. Raises ValueError, with one sentence, if no echod has written it."""
        return _unpack(_JSON, text)


_T = TypeVar("_T")


def _unpack(form: TypeAdapter[_T], text: bytes) -> _T:
    try:
        return form.validate_json(text)
    except ValidationError:
        raise ValueError("it was written by another version of echod") from None


_JSON: Final = TypeAdapter(Snapshot)
_KERNEL_JSON: Final = TypeAdapter(Kernel)
