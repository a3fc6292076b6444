"""The config: pydantic models, defaults, bounds, and warnings of what is legal but unreasonable.

Owns the bounds and the default of each key of /etc/echod.yaml. `fields.py` parses single values, `explain.py` words
most mistakes. It reads no file and knows no host: whether an address or a CPU exists is found out when a socket is
opened or a worker started. Invariant: every `Config` is within its bounds, and `parse_config` raises only ConfigError,
with every mistake at its line.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from echod.config import fields
from echod.config.access import find_covered, is_public, parse_entry
from echod.config.document import Document, Path, dotted, read
from echod.config.explain import explain
from echod.errors import ConfigError, Mistake
from echod.net.endpoint import find_clash
from echod.net.listener import Protocol

_Warning: TypeAlias = tuple[tuple[Path, ...], str]  # the keys concerned, and the text

_SMALL_BUFFER = 128 * 1024
_LONG_DRAIN_SECONDS = 60
_FIRST_CLIENT_PORT = 1024  # lower ports belong to services (RFC 6335)
_MUCH_PER_SECOND = 10_000
_OPEN = (
    "reaches into the Internet, where the source of a datagram can be forged and replies so aimed at anybody: write "
    "limits.datagrams_per_second too, such as 1000, or unlimited if that is meant"
)
_STRICT = ConfigDict(strict=True, extra="forbid", frozen=True)
_SECTION = Field(description="keys and values, indented below it")
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


class Config(BaseModel):
    """Everything that an operator can set. `workers: auto` is one for each CPU that the process may use."""

    model_config = _STRICT

    listeners: fields.Listeners = fields.listeners(
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


FIRST_TRY = Config(
    listeners=fields.listeners("udp://127.0.0.1:7007", "udp://[::1]:7007", "tcp://127.0.0.1:7007", "tcp://[::1]:7007"),
)
"""The config without a file: reachable from this host only, on a port that needs no privilege."""

_MODELS: Mapping[str, type[BaseModel]] = {
    "": Config,
    "access": AccessConfig,
    "guard": GuardConfig,
    "limits": LimitsConfig,
    "udp": UdpConfig,
    "tcp": TcpConfig,
    "log": LogConfig,
    "status": StatusConfig,
    "metrics": MetricsConfig,
}


def parse_config(data: bytes) -> tuple[Config, tuple[Mistake, ...]]:
    """Read the bytes of a config file. Returns the config, and warnings of what is legal but unreasonable.

    Raises ConfigError, and nothing else, with every mistake ordered by line and column.
    """
    document = read(data)
    mistakes = list(_find_open(document))
    try:
        config = Config.model_validate(document.value, context=fields.FROM_FILE)
    except ValidationError as error:
        mistakes += explain(error, document, _MODELS)
    else:
        mistakes += find_clash(config.metrics.listen, config.listeners, document)
    if mistakes:
        raise ConfigError(in_order(mistakes))
    return config, in_order(_warnings(config, document))


def find_status_directory(data: bytes) -> str:
    """Return `status.directory` of a config file, if it can be read, despite mistakes elsewhere in the file.

    `echod status` must find a running echod also while its config is being edited.
    """
    try:
        section = read(data).value.get("status")
        return StatusConfig.model_validate(section).directory if section else StatusConfig().directory
    except (ConfigError, ValidationError):
        return StatusConfig().directory


def in_order(mistakes: Iterable[Mistake]) -> tuple[Mistake, ...]:
    """Sort mistakes or warnings by their place in the file."""
    return tuple(sorted(mistakes, key=lambda mistake: (mistake.line, mistake.column)))


def _find_open(document: Document) -> Iterator[Mistake]:
    """Find an entry that allows public addresses without a rate limit, in a file that may have mistakes."""
    access, limits = document.value.get("access"), document.value.get("limits")
    allow = access.get("allow") if isinstance(access, dict) else None
    if not isinstance(allow, list) or (isinstance(limits, dict) and "datagrams_per_second" in limits):
        return
    for index, text in enumerate(allow):
        if isinstance(text, str) and _is_public(text):
            path = ("access", "allow", index)
            line, column = document.places[path].spot
            yield Mistake(line=line, column=column, path=dotted(path), message=_OPEN)
            return


def _is_public(text: str) -> bool:
    try:
        return is_public(parse_entry(text))
    except ValueError:
        return False  # a mistake of its own


def _warnings(config: Config, document: Document) -> Iterator[Mistake]:
    for paths, message in _find_unreasonable(config):
        # The defaults are reasonable together, so the file sets at least one of the keys.
        path = next(path for path in paths if path in document.places)
        line, column = document.places[path].key_spot
        yield Mistake(line=line, column=column, path=dotted(path), message=message)


def _find_unreasonable(config: Config) -> Iterator[_Warning]:
    """Yield each warning with the keys concerned, first the one to point at."""
    yield from _find_unreasonable_access(config)
    yield from _find_unreasonable_guard(config.guard)
    yield from _find_unreasonable_limits(config.limits)
    yield from _find_unreasonable_sockets(config)
    if (seconds := config.drain_timeout_seconds) > _LONG_DRAIN_SECONDS:
        yield (("drain_timeout_seconds",),), f"systemctl stop can take as long as this, {seconds:,} seconds"
    if any(not each.address.is_loopback for each in config.metrics.listen):
        yield (
            (("metrics", "listen"),),
            (
                "whoever reaches this port reads the metrics and who asked most, for it knows no password: write "
                "http://127.0.0.1:9007, or let a firewall or a proxy stand before it"
            ),
        )


def _find_unreasonable_access(config: Config) -> Iterator[_Warning]:
    access, limits = config.access, config.limits
    if not access.allow:
        yield (("access", "allow"),), "the list is empty: nobody gets a reply"
    for index in find_covered(access.allow, access.deny):
        paths: tuple[Path, ...] = (("access", "allow", index), ("access", "deny"))
        yield paths, f"access.deny covers all of {access.allow[index]} and wins: nothing of it gets a reply"
    # If the total is the smaller one, it is the limit of a single source.
    rates = [rate for rate in (limits.datagrams_per_second, limits.total_datagrams_per_second) if rate is not None]
    if any(map(is_public, access.allow)) and min(rates, default=_MUCH_PER_SECOND + 1) > _MUCH_PER_SECOND:
        yield (
            (("limits", "datagrams_per_second"),),
            (
                "access.allow reaches into the Internet: above 10,000 a second, replies to a forged source are a "
                "flood to whoever has that address"
            ),
        )


def _find_unreasonable_guard(guard: GuardConfig) -> Iterator[_Warning]:
    if guard.min_source_port < _FIRST_CLIENT_PORT:
        yield (
            (("guard", "min_source_port"),),
            "below 1024 live services, such as DNS and NTP: one forged datagram, and echod and they talk for ever",
        )
    if not guard.loop_breaker:
        yield (("guard", "loop_breaker"),), "without it a datagram that circulates between two servers never dies"


def _find_unreasonable_limits(limits: LimitsConfig) -> Iterator[_Warning]:
    one, total = limits.datagrams_per_second, limits.total_datagrams_per_second
    if one is None and total is None:
        for key in ("burst", "slip", "dry_run"):
            if getattr(limits, key) != LimitsConfig.model_fields[key].default:
                yield (("limits", key),), "no limit is set, so this has no effect"
    elif one is None and limits.slip != LimitsConfig.model_fields["slip"].default:
        yield (
            (("limits", "slip"),),
            "limits.datagrams_per_second is not set, so this has no effect: nothing slips through the total",
        )
    if (one is not None or total is not None) and limits.dry_run:
        yield (("limits", "dry_run"),), "nothing is refused: what is above a limit is counted, and replied to"
    if one is not None and total is not None and total < one:
        yield (
            (("limits", "total_datagrams_per_second"),),
            (
                f"total_datagrams_per_second ({total:,}) is less than datagrams_per_second ({one:,}): "
                "a single source can use all of it up"
            ),
        )


def _find_unreasonable_sockets(config: Config) -> Iterator[_Warning]:
    udp, tcp = config.udp, config.tcp
    for key, size in (("receive_buffer", udp.receive_buffer), ("send_buffer", udp.send_buffer)):
        if size < _SMALL_BUFFER:
            yield (("udp", key),), "below 128 KiB it cannot hold two datagrams of full length: bursts will be lost"
    if tcp != TcpConfig() and not any(one.protocol is Protocol.TCP for one in config.listeners):
        yield (("tcp",),), "no tcp:// listener is configured, so these settings are for those of a .socket unit alone"
    if tcp.max_connections_per_source > tcp.max_connections:
        paths: tuple[Path, ...] = (("tcp", "max_connections_per_source"), ("tcp", "max_connections"))
        yield (
            paths,
            (
                f"max_connections_per_source ({tcp.max_connections_per_source:,}) is more than "
                f"max_connections ({tcp.max_connections:,}): a single source can take every connection"
            ),
        )
    if tcp.stall_timeout_seconds > tcp.idle_timeout_seconds:
        paths = (("tcp", "stall_timeout_seconds"), ("tcp", "idle_timeout_seconds"))
        yield (
            paths,
            (
                f"stall_timeout_seconds ({tcp.stall_timeout_seconds:,}) is more than "
                f"idle_timeout_seconds ({tcp.idle_timeout_seconds:,}): a stalled connection is closed as idle first"
            ),
        )
