"""echod.core.config: what each key may be, and what an operator is told who writes something else."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from echod.core.config import FIRST_TRY, Config, LogConfig, TcpConfig, UdpConfig, parse_config
from echod.core.document import read, render
from echod.core.errors import ConfigError, Mistake

DEFAULT_FILE = Path(__file__).parents[2] / "config" / "echod.yaml"
Found = list[tuple[int, int, str, str]]


def rows(mistakes: tuple[Mistake, ...]) -> Found:
    """Write mistakes as line, column, path and message."""
    return [(m.line, m.column, m.path, m.message) for m in mistakes]


def errors(text: str) -> Found:
    """Parse a config that must be refused."""
    with pytest.raises(ConfigError) as caught:
        parse_config(text.encode())
    return rows(caught.value.mistakes)


def warnings(text: str) -> Found:
    """Parse a config that is accepted, and return what it is warned of."""
    return rows(parse_config(text.encode())[1])


def listeners(*texts: str) -> Found:
    """Parse a list of listeners that must be refused; the first stands in line 2."""
    return errors("listeners:\n" + "".join(f"  - {text}\n" for text in texts))


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
    assert Config().model_dump(exclude={"listeners"}) == {
        "workers": "auto",
        "udp": {"receive_buffer": 8_388_608, "send_buffer": 8_388_608},
        "tcp": {
            "max_connections": 1024,
            "max_connections_per_source": 64,
            "idle_timeout_seconds": 300,
            "stall_timeout_seconds": 30,
        },
        "drain_timeout_seconds": 10,
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
    """A file that sets every key to something else than its default is taken at its word."""
    text = """
        listeners: ["udp://[fe80::1%eth0]:7000-7001", tcp://127.0.0.1:7]
        workers: 64
        udp: {receive_buffer: 128 KiB, send_buffer: 1 GiB}
        tcp:
            max_connections: 65536
            max_connections_per_source: 65536
            idle_timeout_seconds: 86400
            stall_timeout_seconds: 86400
        drain_timeout_seconds: 0
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
        workers=64,
        udp=UdpConfig(receive_buffer=131_072, send_buffer=1_073_741_824),
        tcp=TcpConfig(
            max_connections=65_536,
            max_connections_per_source=65_536,
            idle_timeout_seconds=86_400,
            stall_timeout_seconds=86_400,
        ),
        drain_timeout_seconds=0,
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
    ("text", "size"),
    [
        ("4096", 4096),
        ("4096B", 4096),
        ("4096 B", 4096),
        ("512KiB", 524_288),
        ("8 MiB", 8_388_608),
        ("'8  MiB'", 8_388_608),
        ("1 GiB", 1_073_741_824),
        ("'65536'", 65_536),
        ("0x10000", 65_536),
    ],
)
def test_a_size_is_bytes_or_has_a_binary_unit(text: str, size: int) -> None:
    """B, KiB, MiB and GiB are known, with a space before them or without."""
    assert parse_config(f"udp: {{receive_buffer: {text}}}".encode())[0].udp.receive_buffer == size


SIZE = "write a size from 4 KiB to 1 GiB, such as 8 MiB"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8 MB", '"MB" is no unit here: write 8 MiB'),
        ("8M", '"M" is no unit here: write 8 MiB'),
        ("64k", '"k" is no unit here: write 64 KiB'),
        ("1 gib", '"gib" is no unit here: write 1 GiB'),
        ("8 Mbit", f'"8 Mbit" is no size: {SIZE}'),
        ("8.5 MiB", f'"8.5 MiB" is no size: {SIZE}'),
        ("-8 MiB", f'"-8 MiB" is no size: {SIZE}'),
        ("'{message} {x'", f'"{{message}} {{x" is no size: {SIZE}'),
        ("4095", f"4095 is out of bounds: {SIZE}"),
        ("3 KiB", f"3 KiB is out of bounds: {SIZE}"),
        ("2 GiB", f"2 GiB is out of bounds: {SIZE}"),
        ("9" * 5000 + " B", f"{'9' * 60}... is out of bounds: {SIZE}"),
        ("8.5", f"8.5 is a decimal number: {SIZE}"),
        ("true", f"true is a truth value: {SIZE}"),
        ("[8 MiB]", f"is a list: {SIZE}"),
    ],
)
def test_a_size_that_cannot_be_is_refused(text: str, message: str) -> None:
    """Decimal units are ambiguous and refused with the unit to write; the rest with the bounds."""
    assert errors(f"udp:\n  send_buffer: {text}\n") == [(2, 16, "udp.send_buffer", message)]


WORKERS = "write auto or a whole number from 1 to 64"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", f"0 is out of bounds: {WORKERS}"),
        ("65", f"65 is out of bounds: {WORKERS}"),
        ("-1", f"-1 is out of bounds: {WORKERS}"),
        ("9" * 5000, f"{'9' * 60}... is out of bounds: {WORKERS}"),
        ('"2"', "is text because of the quotes: write 2 without quotes"),
        ('""', f'"" is no number: {WORKERS}'),
        ("'true'", f'"true" is no number: {WORKERS}'),
        ("017", "017 begins with a zero: write 17"),
        ("many", f'"many" is no number: {WORKERS}'),
        ("Auto", f'"Auto" is no number: {WORKERS}'),
        ("true", f"true is a truth value: {WORKERS}"),
        ("2.0", f"2.0 is a decimal number: {WORKERS}"),
        (".nan", f".nan is a decimal number: {WORKERS}"),
        ("[2]", f"is a list: {WORKERS}"),
        ("{int: 2}", f"is a mapping: {WORKERS}"),
        ("null", "has no value: write one or remove the key"),
    ],
)
def test_a_number_that_cannot_be_is_explained(text: str, message: str) -> None:
    """What was written is said beside what may be written, at the place of the value."""
    assert errors(f"workers: {text}\n") == [(1, 10, "workers", message)]


@pytest.mark.parametrize(
    ("section", "key", "low", "high"),
    [
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
        assert message == f"{value} is out of bounds: write a whole number from {low} to {high}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("loud", '"loud" is not known: write debug, info, warning or error'),
        ("INFO", '"INFO" is not known: write debug, info, warning or error'),
        ("'5'", '"5" is not known: write debug, info, warning or error'),
        ("5", "5 is a number: write debug, info, warning or error"),
        ("false", "false is a truth value: write debug, info, warning or error"),
        ("[info]", "is a list: write debug, info, warning or error"),
    ],
)
def test_a_word_that_cannot_be_is_refused_with_those_that_can(text: str, message: str) -> None:
    """A choice is told with all its words."""
    assert errors(f"log: {{level: {text}}}") == [(1, 14, "log.level", message)]


@pytest.mark.parametrize("key", ["listeners", "workers", "udp", "tcp", "drain_timeout_seconds", "log"])
def test_a_key_with_nothing_behind_its_colon_is_pointed_at(key: str) -> None:
    """It may be half an edit: whether the default was meant is not for echod to guess."""
    assert errors(f"\n{key}:\n") == [(2, 1, key, "has no value: write one or remove the key")]


@pytest.mark.parametrize(("text", "kind"), [("5", "5 is a number"), ("x", '"x" is text'), ("[]", "is a list")])
def test_a_section_must_be_keys_and_values(text: str, kind: str) -> None:
    """A value where a section belongs is told as what it is."""
    assert errors(f"udp: {text}") == [(1, 6, "udp", f"{kind}: write keys and values, indented below it")]


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("worker: 2", (1, 1, "worker"), 'unknown key; did you mean "workers"?'),
        ("tcp:\n  max_connection: 5", (2, 3, "tcp.max_connection"), 'unknown key; did you mean "max_connections"?'),
        ("level: info", (1, 1, "level"), "unknown key here; it belongs below log"),
        ("udp: {workers: 2}", (1, 7, "udp.workers"), "unknown key here; it belongs to the top level"),
        ("udp: {log: {level: 1}}", (1, 7, "udp.log"), "unknown key here; it belongs to the top level"),
        ("log: {color: 1}", (1, 7, "log.color"), "unknown key; the keys here are level, format"),
        (
            "'': 1",
            (1, 1, ""),
            "unknown key; the keys here are listeners, workers, udp, tcp, drain_timeout_seconds, log",
        ),
    ],
)
def test_an_unknown_key_is_told_with_the_likely_one(text: str, place: tuple[int, int, str], message: str) -> None:
    """The key is pointed at, not its value; a key that belongs elsewhere is sent there."""
    assert errors(text) == [(*place, message)]


def test_a_mistake_in_a_listener_is_told_with_its_index() -> None:
    """Each text that is no listener is one mistake at its place."""
    assert listeners("udp://localhost:7", "udp://0.0.0.0:7", "0.0.0.0:9", "7", "udp://0.0.0.0: 7", "") == [
        (
            2,
            5,
            "listeners[0]",
            '"localhost" is no address: host names are not looked up, write the address itself',
        ),
        (4, 5, "listeners[2]", "names no protocol: write udp://0.0.0.0:9 or tcp://0.0.0.0:9"),
        (5, 5, "listeners[3]", "is a number: write udp://ADDRESS:PORT, without a space after a colon"),
        (6, 5, "listeners[4]", "is a mapping: write udp://ADDRESS:PORT, without a space after a colon"),
        (7, 4, "listeners[5]", "is empty: write udp://ADDRESS:PORT or remove the dash"),
    ]


def test_listeners_in_each_others_way_are_told_with_the_line_of_the_other() -> None:
    """Equal and covered listeners are mistakes, one a text, however large the ranges are."""
    assert listeners("udp://127.0.0.1:5", "udp://0.0.0.0:1-300", "udp://0.0.0.0:1-300", "tcp://0.0.0.0:1") == [
        (
            2,
            5,
            "listeners[0]",
            "udp://127.0.0.1:5 is already covered by udp://0.0.0.0:5 in listeners[1], line 3: remove one of them",
        ),
        (4, 5, "listeners[2]", "udp://0.0.0.0:1 is already listed in listeners[1], line 3: remove one of them"),
    ]


def test_a_thousand_and_twenty_four_listeners_are_the_most() -> None:
    """The text that brings the total above the cap is told, and none of those after it."""
    text = "listeners: [udp://0.0.0.0:1-1000, tcp://0.0.0.0:1-24]"
    assert len(parse_config(text.encode())[0].listeners) == 1024
    assert listeners("udp://0.0.0.0:1-1000", "tcp://0.0.0.0:1-25", "tcp://[::]:7", "udp://[::]:1-65535") == [
        (3, 5, "listeners[1]", "brings the listeners to 1,025: at most 1,024 are allowed"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "the list is empty: write at least one listener, such as udp://0.0.0.0:7"),
        ("{}", "is a mapping: write a list, one listener a line, each after a dash"),
        ("udp://0.0.0.0:7", '"udp://0.0.0.0:7" is text: write a list, one listener a line, each after a dash'),
    ],
)
def test_listeners_must_be_a_list_that_is_not_empty(text: str, message: str) -> None:
    """A daemon that listens nowhere, and a single listener without its dash, are mistakes."""
    assert errors(f"listeners: {text}") == [(1, 12, "listeners", message)]


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


@pytest.mark.parametrize(
    ("text", "warning"),
    [
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
            (2, 1, "tcp", "no tcp:// listener is configured, so these settings have no effect"),
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
    ],
)
def test_what_is_legal_but_unreasonable_is_warned_of(text: str, warning: tuple[int, int, str, str]) -> None:
    """A warning points at the key that the file sets, and keeps nothing from starting."""
    assert warnings(text) == [warning]


@pytest.mark.parametrize(
    "text",
    [
        "udp: {receive_buffer: 128 KiB, send_buffer: 128 KiB}",
        "listeners: [udp://1.2.3.4:7]\ntcp: {}",
        "listeners: [tcp://1.2.3.4:7]\ntcp: {max_connections: 64}",
        "tcp: {stall_timeout_seconds: 300}",
        "drain_timeout_seconds: 60",
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
