"""What the servers are given to do: each kind of traffic, and what echod may cost under it.

Pure values; never runs anything. Invariant: a name says kind and size, and is the name of one work only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One kind of traffic: which load sends it, and with which settings."""

    name: str
    meaning: str
    program: str = "udp_load"
    settings: Mapping[str, float] = field(default_factory=dict)
    ratio_max: float | None = None
    """What echod may cost beside the yardstick, in CPU time of the server; None: no target."""
    loads: int = 1
    """Load processes at once."""
    length: float = 1.0
    """Of a run, in those of others."""


def _clients(size: int) -> Work:
    meaning = f"64 clients, one datagram of {size} bytes in flight each"
    return Work(name=f"clients-{size}", meaning=meaning, settings={"clients": 64, "size": size}, ratio_max=1.10)


def _bursts(size: int, *, gro: bool) -> Work:
    """Return bursts to clients that take their replies as trains, or each by itself.

    Without UDP_GRO they are the slower end, and set the pace: there is no target.
    """
    settings = {"clients": 4, "window": 128, "refill": 64, "size": size, "gro": int(gro)}
    name, how, ratio_max = ("bursts", "with", 0.75) if gro else ("apart", "without", None)
    meaning = f"4 clients {how} UDP_GRO, windows of 128 datagrams of {size} bytes sent one by one in bursts"
    return Work(name=f"{name}-{size}", meaning=meaning, settings=settings, ratio_max=ratio_max)


def _trains(size: int, train: int, *, ratio_max: float | None) -> Work:
    settings = {"clients": 1, "window": 16 * train, "refill": train, "train": train, "size": size}
    meaning = f"1 client with UDP_SEGMENT and UDP_GRO, 16 trains of {train} datagrams of {size} bytes"
    return Work(name=f"trains-{size}", meaning=meaning, settings=settings, ratio_max=ratio_max)


def _ports(size: int) -> Work:
    settings = {"clients": 10_000, "active": 256, "size": size}
    meaning = f"10,000 source ports in turn, 256 datagrams of {size} bytes in flight"
    return Work(name=f"ports-{size}", meaning=meaning, settings=settings, ratio_max=1.10)


CLIENTS = _clients(64)

MEASURED_BYTES = 44
"""A test packet of STAMP, which has room for UDPEchoPlus too."""

TRAINS, LARGE = (
    _trains(64, 64, ratio_max=0.05),
    Work(
        name="large-60000",
        meaning="16 clients, one datagram of 60,000 bytes in flight each",
        settings={"clients": 16, "size": 60_000},
        ratio_max=1.05,
    ),
)

UDP = (
    CLIENTS,
    _clients(1400),
    _bursts(64, gro=True),
    _bursts(1400, gro=True),
    _bursts(64, gro=False),
    _bursts(1400, gro=False),
    TRAINS,
    _trains(1400, 46, ratio_max=None),  # more do not fit into 64 KiB
    _ports(64),
    _ports(1400),
    LARGE,
)

MODES = (
    Work(
        name=f"modes-clients-{MEASURED_BYTES}",
        meaning=f"64 clients, one datagram of {MEASURED_BYTES} bytes in flight each, to listeners that measure",
        settings={"clients": 64, "size": MEASURED_BYTES, "rewritten": MEASURED_BYTES},
    ),
    Work(
        name=f"modes-trains-{MEASURED_BYTES}",
        meaning=f"1 client, 16 trains of 64 datagrams of {MEASURED_BYTES} bytes, to listeners that measure",
        settings={
            **_trains(MEASURED_BYTES, 64, ratio_max=None).settings,
            "rewritten": MEASURED_BYTES,
        },
    ),
)
"""Traffic to a listener of each measuring mode; the echo that they are compared with is given the same."""

LATENCY_IDLE = Work(name="latency-idle", meaning="one datagram in flight, nothing else", program="udp_latency")


def latency_beside(rate: float) -> Work:
    """Return the timing of one in flight beside so many datagrams a second."""
    return Work(
        name="latency-loaded",
        meaning="one in flight beside half of the datagrams a second that the C loop echoes at most",
        program="udp_latency",
        settings={"rate": rate},
    )


LATENCY_LOADED = latency_beside(0.0)
"""As it is named; what half of them is, each pair finds out."""


def _streams(connections: int, *, ratio_max: float | None) -> Work:
    meaning = f"{connections} connections, one message of 64 bytes in flight on each"
    return Work(
        name=f"streams-{connections}",
        meaning=meaning,
        program="tcp_load",
        settings={"connections": connections, "size": 64},
        ratio_max=ratio_max,
        length=max(1.0, connections / 250),  # to make and end them is not what is measured
    )


TCP = (
    _streams(1, ratio_max=None),
    _streams(50, ratio_max=1.10),
    _streams(1000, ratio_max=1.10),
    Work(
        name="messages-1M",
        meaning="4 connections, one message of 1 MiB in flight on each",
        program="tcp_load",
        settings={"connections": 4, "size": 1 << 20},
        ratio_max=1.05,
    ),
)


def from_sources(count: int) -> Work:
    """Return traffic from so many source addresses."""
    settings = {"clients": 1, "window": 256, "refill": 64, "sources": count}
    meaning = f"{count} source addresses in turn, 256 datagrams of 64 bytes in flight"
    return Work(name=f"sources-{count}", meaning=meaning, settings=settings)


NEW_SOURCES = replace(
    from_sources(16_777_214), name="sources", meaning="each datagram from a source address of its own, 256 in flight"
)

KERNEL = {"veth": (CLIENTS, _bursts(64, gro=True), TRAINS), "lo": (CLIENTS, _bursts(64, gro=True), TRAINS, LARGE)}
"""Traffic to servers that have a network of their own, by where it comes from: another host, or the same."""

BYSTANDER = Work(
    name="bystander",
    meaning="one ping each millisecond, by another interface, that sleeps between",
    program="udp_latency",
    settings={"sleeps": 1, "pace": 1000},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flood:
    """Frames that nobody waits for."""

    name: str
    meaning: str
    settings: Mapping[str, float]


FLOODS = (
    Flood(
        name="flood-none",
        meaning="one burst a second; the times are those of a bystander, to compare with",
        settings={"rate": 1},
    ),
    Flood(
        name="flood-refused",
        meaning="1,000,000 datagrams a second from a port that is refused; the times are those of a bystander",
        settings={"rate": 1_000_000, "port": 7007},
    ),
    Flood(
        name="flood-admitted",
        meaning="as many as go, from 16,384 ports that are answered; the times are those of a bystander",
        settings={},
    ),
)

RULES = (CLIENTS, NEW_SOURCES)
"""Traffic that the rules are measured under: of peers that are known, and of peers that are not."""


PACE_MICROSECONDS = 100

ROUND_TRIP = Work(
    name="round-trip",
    meaning=f"64 bytes to a C loop that never sleeps, one each {PACE_MICROSECONDS} us, by C and by `echod ping`",
    program="udp_latency",
    settings={"size": 64, "pace": PACE_MICROSECONDS},
)
"""What a server takes to wake, which is longer than all the rest, is no doing of the client: so it does not sleep."""

FLOOD = Work(name="flood", meaning="`echod ping -f` to echod: trains of 64-byte datagrams, every reply verified")

PING = (ROUND_TRIP, FLOOD)

ECHOD_PING, BARE_PING = "echod ping", "udp_latency"
"""The two clients, which stand in the rows of PING where others have a server."""


def to_listeners(count: int) -> Work:
    """Return traffic to so many ports at once; the yardstick has them all to its one."""
    settings = {"clients": 64, "ports": count}
    return Work(name=f"listeners-{count}", meaning=f"64 clients, {count} listeners", settings=settings)


def of_size(size: int) -> Work:
    """Return traffic of datagrams of that size."""
    return Work(name=f"payload-{size}", meaning=f"64 clients, {size} bytes", settings={"clients": 64, "size": size})


def for_workers(count: int) -> Work:
    """Return traffic for so many workers, by as many loads, no process bound to a CPU."""
    settings = {"clients": 64, "sleeps": 1}
    return Work(name=f"workers-{count}", meaning=f"{count} workers and as many loads", settings=settings, loads=count)


SCALED = (
    *map(from_sources, (1, 10, 100, 1_000, 10_000, 100_000)),
    *map(of_size, (16, 64, 256, 1_400, 8_192, 32_768)),
)
SCALED_LISTENERS = (1, 4, 16, 64)
SCALED_WORKERS = (1, 2, 4)
