"""The config: a pydantic model of the file and of each section, with the bounds and the default of each key.

`fields` parses single values, `lint` compares keys with each other, `parse` makes a config from a file. It knows no
host: whether an address or a CPU exists is found out when a socket is opened or a worker started. Invariant: every
`Config` is within its bounds.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from echod.config import fields
from echod.config.listeners import ImpairConfig, ListenerConfig, Listeners, listeners

_STRICT = ConfigDict(strict=True, extra="forbid", frozen=True)
_SECTION = Field(description="keys and values, indented below this key")
_TRUTH_VALUE = Field(description="true or false")


class AccessConfig(BaseModel):
    """The sources that may be answered, over UDP and TCP. `deny` wins over `allow`."""

    model_config = _STRICT

    allow: fields.Entries = fields.entries("loopback", "link-local", "private")
    deny: fields.Entries = ()


class GuardConfig(BaseModel):
    """The protection against endless exchanges with another server. The ports are source ports of datagrams."""

    model_config = _STRICT

    min_source_port: Annotated[int, fields.whole_number(1, 65_535)] = 1024
    # SSDP, NFS, WS-Discovery, mDNS, LLMNR, memcached: servers above port 1023 that answer unsolicited datagrams.
    refuse_source_ports: fields.Ports = (1900, 2049, 3702, 5353, 5355, 11211)
    loop_breaker: Annotated[bool, _TRUTH_VALUE] = True


class LimitsConfig(BaseModel):
    """Rate limits. A source is an IPv4 address or an IPv6 /64; a rate of None is unlimited.

    One in `slip` datagrams over the limit of its source is answered, on credit (`ratelimit`), so that a forger cannot
    silence its victim; none if it is 0.
    """

    model_config = _STRICT

    datagrams_per_second: fields.Rate = None
    burst: Annotated[int, fields.whole_number(1, 1_000_000)] = 256
    total_datagrams_per_second: fields.TotalRate = None
    sources: Annotated[int, fields.whole_number(1_024, 4_194_304)] = 65_536
    slip: Annotated[int, fields.whole_number(0, 1_000)] = 8
    dry_run: Annotated[bool, _TRUTH_VALUE] = False


class UdpConfig(BaseModel):
    """The kernel's buffers for each UDP socket, in bytes."""

    model_config = _STRICT

    receive_buffer: fields.Size = 8 * 1024**2
    send_buffer: fields.Size = 8 * 1024**2


class TcpConfig(BaseModel):
    """The TCP connections. The limits hold over all workers; a source is an IPv4 address or an IPv6 /64."""

    model_config = _STRICT

    max_connections: fields.Connections = 1024
    max_connections_per_source: fields.Connections = 64
    idle_timeout_seconds: fields.Timeout = 300
    stall_timeout_seconds: fields.Timeout = 30


class LogConfig(BaseModel):
    """The log: its lowest level, and its format; `auto` is the journal if there is one."""

    model_config = _STRICT

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Field(description="debug, info, warning or error"),
    ] = "info"
    format: Annotated[
        Literal["auto", "journal", "console", "json"],
        Field(description="auto, journal, console or json"),
    ] = "auto"


class StatusConfig(BaseModel):
    """The files for `echod status`. `auto` is the directory that the service manager or the user's session has made."""

    model_config = _STRICT

    directory: fields.Directory = "auto"


class MetricsConfig(BaseModel):
    """Where metrics, health and the status page are served over HTTP, if anywhere.

    On a loopback address a browser may have been led there by a name of its own (DNS rebinding): `hosts` are the names
    by which a proxy asks.
    """

    model_config = _STRICT

    listen: fields.HttpEndpoints = ()
    hosts: fields.HostNames = ()


class KernelConfig(BaseModel):
    """What `echod accelerate` does beside the daemon, which ignores it.

    `tcx` is where the stack of the host takes a packet, `xdp` the driver of a network card.
    For `fresh_seconds` after a reply of the sockets all datagrams of its path are answered inside the kernel, and then
    ten a second are not; without another reply of the sockets it ends after `stale_seconds`.
    """

    model_config = _STRICT

    interfaces: fields.Interfaces = ()
    driver: Annotated[Literal["tcx", "xdp"], Field(description="tcx or xdp")] = "tcx"
    fresh_seconds: Annotated[int, fields.whole_number(1, 3_600)] = 5
    stale_seconds: Annotated[int, fields.whole_number(1, 3_600)] = 10


class Config(BaseModel):
    """Everything that an operator can set. `workers: auto` is one for each CPU that the process may use."""

    model_config = _STRICT

    listeners: Listeners = listeners(
        "udp://0.0.0.0:7",
        "udp://[::]:7",
        "tcp://0.0.0.0:7",
        "tcp://[::]:7",
    )
    access: Annotated[AccessConfig, _SECTION] = AccessConfig()
    guard: Annotated[GuardConfig, _SECTION] = GuardConfig()
    limits: Annotated[LimitsConfig, _SECTION] = LimitsConfig()
    workers: Annotated[
        Annotated[int, Field(ge=1, le=64)] | Literal["auto"],
        Field(description="auto or a whole number from 1 to 64"),
    ] = "auto"
    user: fields.User = "auto"
    udp: Annotated[UdpConfig, _SECTION] = UdpConfig()
    tcp: Annotated[TcpConfig, _SECTION] = TcpConfig()
    drain_timeout_seconds: Annotated[int, fields.whole_number(0, 3_600)] = 10
    log: Annotated[LogConfig, _SECTION] = LogConfig()
    status: Annotated[StatusConfig, _SECTION] = StatusConfig()
    metrics: Annotated[MetricsConfig, _SECTION] = MetricsConfig()
    kernel: Annotated[KernelConfig, _SECTION] = KernelConfig()


FIRST_TRY = Config(
    listeners=listeners("udp://127.0.0.1:7007", "udp://[::1]:7007", "tcp://127.0.0.1:7007", "tcp://[::1]:7007"),
)
"""The config without a file: reachable from this host only, on a port that needs no privilege."""

MODELS: Mapping[str, type[BaseModel]] = {
    "": Config,
    **{key: type(section) for key, section in Config() if isinstance(section, BaseModel)},
    "listeners": ListenerConfig,
    "listeners.impair": ImpairConfig,
}
"""The model of each section by its key, of a listener by that of the list, and that of the file as a whole at ""."""
