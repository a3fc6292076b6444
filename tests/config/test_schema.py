"""echod.config.schema: what each key may be, what it is by default, and what is legal but unreasonable."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from support.judging import errors, warnings

from echod.config import fields
from echod.config.diagnostics import render
from echod.config.document import read
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
    find_status_directory,
    parse_config,
)
from echod.errors import ConfigError, Mistake
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


def test_every_mistake_is_told_at_once_by_line() -> None:
    """One look at the file is enough to repair all of it."""
    text = "log: {level: x}\nlisteners: [udp://a:7]\nworker: 1\ntcp: {max_connections: 0, level: 1}\nworkers: 0\n"
    assert [mistake[:3] for mistake in errors(text)] == [
        (1, 14, "log.level"),
        (2, 13, "listeners[0]"),
        (3, 1, "worker"),
        (4, 24, "tcp.max_connections"),
        (4, 27, "tcp.level"),
        (5, 10, "workers"),
    ]


def test_a_mistake_of_yaml_is_told_before_any_value_is_judged() -> None:
    """What a file says is only looked at once it is clear what it says."""
    assert [mistake[:3] for mistake in errors("workers: 0\nworkers: 0\n")] == [(2, 1, "workers")]


OPEN = (
    "reaches into the Internet, where the source of a datagram can be forged and replies so aimed at anybody: write "
    "limits.datagrams_per_second too, such as 1000, or unlimited if that is meant"
)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("access: {allow: [any]}", (1, 18, "access.allow[0]")),
        ("access:\n  allow:\n    - loopback\n    - 8.0.0.0/8\n    - any\n", (4, 7, "access.allow[1]")),
        ("limits: {total_datagrams_per_second: 9}\naccess: {allow: [any]}", (2, 18, "access.allow[0]")),
    ],
)
def test_a_file_that_lets_the_internet_in_must_speak_of_the_limit(text: str, place: tuple[int, int, str]) -> None:
    """It is one mistake, at the first such entry; the limit of all sources together does not hold a single one."""
    assert errors(text) == [(*place, OPEN)]


@pytest.mark.parametrize("limit", ["1000", "unlimited"])
def test_the_limit_that_is_spoken_of_may_be_none(limit: str) -> None:
    """`unlimited` is the default, but here somebody must have meant it."""
    parse_config(f"access: {{allow: [any]}}\nlimits: {{datagrams_per_second: {limit}}}".encode())


@pytest.mark.parametrize(
    "text",
    [
        "access: {allow: [loopback, 192.0.2.0/24]}",
        "access: {deny: [any]}",
        "access: {allow: []}",
        "limits: {slip: 0}",
    ],
)
def test_a_file_that_does_not_let_the_internet_in_need_not_speak_of_it(text: str) -> None:
    """Where nobody can be a victim there is nothing to say."""
    parse_config(text.encode())


def test_an_open_file_is_told_so_beside_its_other_mistakes() -> None:
    """An entry that is none, a list that is none and a section that is none hide it no more than they are hidden."""
    assert [mistake[:3] for mistake in errors("access: {allow: [7, ayn, any], deny: 5}\nlimits: 5")] == [
        (1, 18, "access.allow[0]"),
        (1, 21, "access.allow[1]"),
        (1, 26, "access.allow[2]"),
        (1, 38, "access.deny"),
        (2, 9, "limits"),
    ]
    assert [mistake[:3] for mistake in errors("access: {allow: any}")] == [(1, 17, "access.allow")]
    assert [mistake[:3] for mistake in errors("access: any")] == [(1, 9, "access")]


@pytest.mark.parametrize("listener", ["tcp://127.0.0.1:9007", "tcp://0.0.0.0:9000-9010"])
def test_metrics_and_an_echo_cannot_have_one_port(listener: str) -> None:
    """The listener in the way is named, at the endpoint; a UDP listener is in nobody's way."""
    text = f"listeners: [{listener}]\nmetrics: {{listen: http://127.0.0.1:9007}}"
    ((line, column, path, message),) = errors(text)
    assert (line, column, path) == (2, 19, "metrics.listen")
    assert message == f"{listener.replace('9000-9010', '9007')} has that port: write another"
    parse_config(text.replace("tcp:", "udp:").encode())
    text = f"listeners: [{listener}]\nmetrics: {{listen: [http://127.0.0.1:8, http://127.0.0.1:9007]}}"
    assert [each[2:] for each in errors(text)] == [("metrics.listen[1]", message)]


OPENED = "access: {allow: [any]}\n"
TOO_MUCH = (
    "access.allow reaches into the Internet: above 10,000 a second, replies to a forged source are a flood to whoever "
    "has that address"
)
NO_EFFECT = "no limit is set, so this has no effect"


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("access:\n  allow: []", (2, 3, "access.allow", "the list is empty: nobody gets a reply")),
        (
            "access:\n  allow: [private, '::1']\n  deny: [loopback]",
            (2, 20, "access.allow[1]", "access.deny covers all of ::1 and wins: nothing of it gets a reply"),
        ),
        (
            "access:\n  deny: [fe80::/9, 169.254.0.0/15]",
            (2, 3, "access.deny", "access.deny covers all of link-local and wins: nothing of it gets a reply"),
        ),
        (OPENED + "limits: {datagrams_per_second: unlimited}", (2, 10, "limits.datagrams_per_second", TOO_MUCH)),
        (OPENED + "limits: {datagrams_per_second: 10001}", (2, 10, "limits.datagrams_per_second", TOO_MUCH)),
        (
            "guard:\n  min_source_port: 1023",
            (
                2,
                3,
                "guard.min_source_port",
                "below 1024 live services, such as DNS and NTP: one forged datagram, and echod and they talk for ever",
            ),
        ),
        (
            "guard: {loop_breaker: false}",
            (1, 9, "guard.loop_breaker", "without it a datagram that circulates between two servers never dies"),
        ),
        ("limits: {burst: 255}", (1, 10, "limits.burst", NO_EFFECT)),
        ("limits: {slip: 0}", (1, 10, "limits.slip", NO_EFFECT)),
        ("limits: {dry_run: true}", (1, 10, "limits.dry_run", NO_EFFECT)),
        (
            "limits:\n  total_datagrams_per_second: 9\n  slip: 4",
            (
                3,
                3,
                "limits.slip",
                "limits.datagrams_per_second is not set, so this has no effect: nothing slips through the total",
            ),
        ),
        (
            "limits:\n  total_datagrams_per_second: 9\n  dry_run: true",
            (3, 3, "limits.dry_run", "nothing is refused: what is above a limit is counted, and replied to"),
        ),
        (
            "limits:\n  datagrams_per_second: 1001\n  total_datagrams_per_second: 1000",
            (
                3,
                3,
                "limits.total_datagrams_per_second",
                (
                    "total_datagrams_per_second (1,000) is less than datagrams_per_second (1,001): "
                    "a single source can use all of it up"
                ),
            ),
        ),
        (
            "udp:\n  receive_buffer: 127 KiB",
            (
                2,
                3,
                "udp.receive_buffer",
                "below 128 KiB it cannot hold two datagrams of full length: bursts will be lost",
            ),
        ),
        (
            "udp:\n  send_buffer: 127 KiB",
            (2, 3, "udp.send_buffer", "below 128 KiB it cannot hold two datagrams of full length: bursts will be lost"),
        ),
        (
            "listeners: [udp://1.2.3.4:7]\ntcp: {max_connections: 100}",
            (2, 1, "tcp", "no tcp:// listener is configured, so these settings are for those of a .socket unit alone"),
        ),
        (
            "tcp:\n  max_connections_per_source: 1025",
            (
                2,
                3,
                "tcp.max_connections_per_source",
                (
                    "max_connections_per_source (1,025) is more than max_connections (1,024): "
                    "a single source can take every connection"
                ),
            ),
        ),
        (
            "tcp:\n  max_connections: 63",
            (
                2,
                3,
                "tcp.max_connections",
                (
                    "max_connections_per_source (64) is more than max_connections (63): "
                    "a single source can take every connection"
                ),
            ),
        ),
        (
            "tcp:\n  stall_timeout_seconds: 301",
            (
                2,
                3,
                "tcp.stall_timeout_seconds",
                (
                    "stall_timeout_seconds (301) is more than idle_timeout_seconds (300): "
                    "a stalled connection is closed as idle first"
                ),
            ),
        ),
        (
            "drain_timeout_seconds: 61",
            (1, 1, "drain_timeout_seconds", "systemctl stop can take as long as this, 61 seconds"),
        ),
        (
            "metrics:\n  listen: http://0.0.0.0:9007",
            (
                2,
                3,
                "metrics.listen",
                (
                    "whoever reaches this port reads the metrics and who asked most, for it knows no password: write "
                    "http://127.0.0.1:9007, or let a firewall or a proxy stand before it"
                ),
            ),
        ),
    ],
)
def test_what_is_legal_but_unreasonable_is_warned_of(text: str, warning: tuple[int, int, str, str]) -> None:
    """A warning points at the key that the file sets, and keeps nothing from starting."""
    assert warnings(text) == [warning]


@pytest.mark.parametrize(
    "text",
    [
        "access: {allow: [any], deny: [10.0.0.0/8]}\nlimits: {datagrams_per_second: 10000}",
        OPENED + "limits: {datagrams_per_second: unlimited, total_datagrams_per_second: 10000}",
        "guard: {min_source_port: 1024, refuse_source_ports: []}",
        "limits: {burst: 256, slip: 8, dry_run: false}",
        "limits: {datagrams_per_second: 5, burst: 1, slip: 0}",
        "limits: {datagrams_per_second: 1000, total_datagrams_per_second: 1000}",
        "udp: {receive_buffer: 128 KiB, send_buffer: 128 KiB}",
        "listeners: [udp://1.2.3.4:7]\ntcp: {}",
        "listeners: [udp://1.2.3.4:7]\ntcp: {max_connections: 1024, idle_timeout_seconds: 300}",
        "listeners: [tcp://1.2.3.4:7]\ntcp: {max_connections: 64}",
        "tcp: {stall_timeout_seconds: 300}",
        "drain_timeout_seconds: 60",
        "metrics: {listen: 'http://[::1]:9007'}",
        "metrics: {listen: http://127.9.9.9:9007}",
        "metrics: {listen: off}",
        "log: {level: debug}",
    ],
)
def test_what_is_reasonable_is_not_warned_of(text: str) -> None:
    """A warning that is always there is never read."""
    assert warnings(text) == []


def test_warnings_come_by_line() -> None:
    """Warnings are ordered as mistakes are."""
    text = "drain_timeout_seconds: 90\ntcp: {max_connections: 9}\nudp: {send_buffer: 4 KiB}"
    assert [warning[0] for warning in warnings(text)] == [1, 2, 3]


def outcome(data: bytes) -> tuple[Mistake, ...]:
    """Parse bytes that may or may not be a config, and return its mistakes or warnings."""
    try:
        return parse_config(data)[1]
    except ConfigError as error:
        return error.mistakes


LINES = DEFAULT_FILE.read_text().splitlines(keepends=True)
WORDS = [word for line in LINES for word in line.partition("#")[0].replace(":", " : ").split()]
VALUES = [
    "0",
    "-1",
    "2.5",
    "true",
    "~",
    "'2'",
    "[]",
    "{}",
    "[1]",
    "8 MB",
    "udp://[::]:7",
    "10.0.0.0/8",
    "[any, 1]",
    "1 GiB",
    "{a: 1}",
    "\t",
    "&a",
]
MUTATED = st.one_of(
    st.lists(st.sampled_from(LINES)).map("".join),
    st.lists(st.sampled_from([*WORDS, *VALUES, ": ", "\n", "\n  ", "\n- "])).map("".join),
    st.lists(st.tuples(st.sampled_from([*WORDS, "tcp:\n  level"]), st.sampled_from(VALUES))).map(
        lambda pairs: "".join(f"{key}: {value}\n" for key, value in pairs),
    ),
)


@settings(deadline=None)
@given(st.binary() | st.text().map(str.encode) | MUTATED.map(str.encode))
def test_any_bytes_are_a_config_or_mistakes_within_the_text(data: bytes) -> None:
    """Nothing but ConfigError comes out; every mistake and warning can be pointed at and shown, without jargon."""
    text = data.decode(errors="replace")
    lines = text.split("\n")
    found = outcome(data)
    for mistake in found:
        assert 1 <= mistake.line <= len(lines)
        assert 1 <= mistake.column <= len(lines[mistake.line - 1]) + 1
        assert not any(jargon in mistake.message for jargon in ("Input", "Value error", "int_", "pydantic"))
    assert list(found) == sorted(found, key=lambda m: (m.line, m.column))
    assert render(found, kind="error", file="f", text=text).replace("\n", "").isprintable()


# -- where the status stands


@pytest.mark.parametrize(
    ("text", "directory"),
    [
        ("", "auto"),
        ("workers: 1", "auto"),
        ("status: {directory: /srv/echod}", "/srv/echod"),
        ("status: {directory: /srv/echod}\nworkers: 0\nlistenrs: []", "/srv/echod"),
        ("status: {directory: run}", "auto"),
        ("status: {directry: /srv}", "auto"),
        ("status: no", "auto"),
        ("status: [", "auto"),
    ],
)
def test_the_place_of_the_status_is_found_whatever_else_is_wrong(text: str, directory: str) -> None:
    """Who asks after an echod that runs finds it also while its config is being edited."""
    assert find_status_directory(text.encode()) == directory
