"""echod.config.schema: what each key may be, what it is by default, and what is legal but unreasonable."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError
from support.config_mistakes import errors

from echod.config import fields
from echod.config.document import read
from echod.config.parse import parse_config
from echod.config.schema import (
    FIRST_TRY,
    AccessConfig,
    Config,
    GuardConfig,
    LimitsConfig,
    LogConfig,
    MetricsConfig,
    TcpConfig,
    UdpConfig,
)
from echod.net.endpoint import parse_endpoint

DEFAULT_FILE = Path(__file__).parents[2] / "config" / "echod.yaml"


def paths_of(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every key of a model and of those within it."""
    for key, field in model.model_fields.items():
        yield (*path, key)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from paths_of(field.annotation, (*path, key))


def test_the_file_that_is_installed_says_the_defaults() -> None:
    """config/echod.yaml is the reference of the defaults: it may not differ from them, or be warned of."""
    assert parse_config(DEFAULT_FILE.read_bytes()) == (Config(), ())


def test_the_file_that_is_installed_names_every_key() -> None:
    """Whoever reads config/echod.yaml has seen every setting there is."""
    places = read(DEFAULT_FILE.read_bytes()).places
    assert [path for path in paths_of(Config) if path not in places] == []


def test_the_defaults_are_these() -> None:
    """A default is a promise to every host that does not set the key."""
    assert [str(listener) for listener in Config().listeners] == [
        "udp://0.0.0.0:7",
        "udp://[::]:7",
        "tcp://0.0.0.0:7",
        "tcp://[::]:7",
    ]
    assert [str(entry) for entry in Config().access.allow] == ["loopback", "link-local", "private"]
    assert Config().model_dump(exclude={"listeners": True, "access": {"allow"}}) == {
        "access": {"deny": ()},
        "guard": {
            "min_source_port": 1024,
            "refuse_source_ports": (1900, 2049, 3702, 5353, 5355, 11211),
            "loop_breaker": True,
        },
        "limits": {
            "datagrams_per_second": None,
            "burst": 256,
            "total_datagrams_per_second": None,
            "sources": 65_536,
            "slip": 8,
            "dry_run": False,
        },
        "workers": "auto",
        "user": "auto",
        "udp": {"receive_buffer": 8_388_608, "send_buffer": 8_388_608},
        "tcp": {
            "max_connections": 1024,
            "max_connections_per_source": 64,
            "idle_timeout_seconds": 300,
            "stall_timeout_seconds": 30,
        },
        "drain_timeout_seconds": 10,
        "status": {"directory": "auto"},
        "metrics": {"listen": (), "hosts": ()},
        "log": {"level": "info", "format": "auto"},
    }


def test_without_a_file_only_this_host_is_answered() -> None:
    """The first try needs no privilege and opens nothing to the network; all else is default."""
    assert [str(listener) for listener in FIRST_TRY.listeners] == [
        "udp://127.0.0.1:7007",
        "udp://[::1]:7007",
        "tcp://127.0.0.1:7007",
        "tcp://[::1]:7007",
    ]
    assert Config().model_copy(update={"listeners": FIRST_TRY.listeners}) == FIRST_TRY


def test_every_key_can_be_set() -> None:
    """A file that sets every key is taken at its word."""
    text = """
        listeners: ["udp://[fe80::1%eth0]:7000-7001", tcp://127.0.0.1:7]
        access: {allow: [any, 8.8.8.8], deny: [10.0.0.0/8]}
        guard: {min_source_port: 65535, refuse_source_ports: [53], loop_breaker: true}
        limits:
            datagrams_per_second: 10000
            burst: 1000000
            total_datagrams_per_second: 100000000
            sources: 4194304
            slip: 1000
            dry_run: false
        workers: 64
        udp: {receive_buffer: 128 KiB, send_buffer: 1 GiB}
        tcp:
            max_connections: 65536
            max_connections_per_source: 65536
            idle_timeout_seconds: 86400
            stall_timeout_seconds: 86400
        drain_timeout_seconds: 0
        metrics: {listen: "http://[::1]:9007"}
        log: {level: debug, format: json}
    """
    config, found = parse_config(text.encode())
    assert [str(listener) for listener in config.listeners] == [
        "udp://[fe80::1%eth0]:7000",
        "udp://[fe80::1%eth0]:7001",
        "tcp://127.0.0.1:7",
    ]
    assert config == Config(
        listeners=config.listeners,
        access=AccessConfig(allow=fields.entries("any", "8.8.8.8"), deny=fields.entries("10.0.0.0/8")),
        guard=GuardConfig(min_source_port=65_535, refuse_source_ports=(53,)),
        limits=LimitsConfig(
            datagrams_per_second=10_000,
            burst=1_000_000,
            total_datagrams_per_second=100_000_000,
            sources=4_194_304,
            slip=1000,
        ),
        workers=64,
        udp=UdpConfig(receive_buffer=131_072, send_buffer=1_073_741_824),
        tcp=TcpConfig(
            max_connections=65_536,
            max_connections_per_source=65_536,
            idle_timeout_seconds=86_400,
            stall_timeout_seconds=86_400,
        ),
        drain_timeout_seconds=0,
        metrics=MetricsConfig(listen=parse_endpoint("http://[::1]:9007")),
        log=LogConfig(level="debug", format="json"),
    )
    assert found == ()


def test_a_config_never_changes() -> None:
    """A generation of workers is born with its config; nothing can be set afterwards."""
    with pytest.raises(ValidationError, match="frozen"):
        FIRST_TRY.workers = 2


def test_a_config_without_listeners_cannot_be_made() -> None:
    """The bounds hold for a config that code makes, not only for one from a file."""
    with pytest.raises(ValidationError, match="at least 1 item"):
        Config(listeners=())


@pytest.mark.parametrize(
    ("section", "key", "low", "high"),
    [
        ("guard", "min_source_port", 1, 65_535),
        ("limits", "datagrams_per_second", 1, 10_000_000),
        ("limits", "burst", 1, 1_000_000),
        ("limits", "total_datagrams_per_second", 1, 100_000_000),
        ("limits", "sources", 1_024, 4_194_304),
        ("limits", "slip", 0, 1_000),
        ("tcp", "max_connections", 1, 65_536),
        ("tcp", "max_connections_per_source", 1, 65_536),
        ("tcp", "idle_timeout_seconds", 1, 86_400),
        ("tcp", "stall_timeout_seconds", 1, 86_400),
        ("", "drain_timeout_seconds", 0, 3_600),
    ],
)
def test_the_bounds_are_these_and_are_told(section: str, key: str, low: int, high: int) -> None:
    """Both bounds are allowed, one less and one more is refused with the bounds."""

    def text(value: int) -> str:
        return f"{section}: {{{key}: {value}}}" if section else f"{key}: {value}"

    for value in (low, high):
        parse_config(text(value).encode())
    for value in (low - 1, high + 1):
        ((_, _, path, message),) = errors(text(value))
        assert path == f"{section}.{key}".removeprefix(".")
        otherwise = "unlimited or " if key.endswith("datagrams_per_second") else ""
        assert message == f"{value} is out of bounds: write {otherwise}a whole number from {low} to {high}"
