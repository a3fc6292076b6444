"""echod.config.parse: every mistake of a config file at once, in an operator's terms; or a config and its warnings."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.config_mistakes import errors, hold_to_the_text, mistake_of, warnings

from echod.config.parse import find_instance, find_status_directory, parse_config
from echod.errors import ConfigError, Mistake

DEFAULT_FILE = Path(__file__).parents[2] / "config" / "echod.yaml"

WORKERS = "write auto or a whole number from 1 to 64"
LEVELS = "write debug, info, warning or error"
TRUTH = "write true or false"
SECTION = "write keys and values, indented below this key"
NOTHING = "has no value: write one or remove the key"


def test_every_mistake_is_reported_at_once_by_line() -> None:
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


def test_a_mistake_of_yaml_is_reported_before_any_value_is_judged() -> None:
    """What a file means is only looked at once it is clear what it contains."""
    assert [mistake[:3] for mistake in errors("workers: 0\nworkers: 0\n")] == [(2, 1, "workers")]


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
    found = outcome(data)
    hold_to_the_text(found, data)
    for mistake in found:
        assert not any(jargon in mistake.message for jargon in ("Input", "Value error", "int_", "pydantic"))


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


def test_an_instance_is_named_by_its_config() -> None:
    """It is NAME of /etc/echod/NAME.yaml, escaped as systemd does; of any other file there is none."""
    assert find_instance("/etc/echod/vrf-red.yaml") == "vrf-red"
    assert find_instance("/etc/echod/a\\x2db.yaml") == r"a\x2db"
    for path in (
        "/etc/echod.yaml",
        "/srv/etc/echod/red.yaml",
        "/etc/echod/red",
        "/etc/echod/a/b.yaml",
        "/etc/echod/.yaml",
    ):
        assert find_instance(path) == ""


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("workers", "0", f"0 is out of bounds: {WORKERS}"),
        ("workers", "65", f"65 is out of bounds: {WORKERS}"),
        ("workers", "-1", f"-1 is out of bounds: {WORKERS}"),
        ("workers", "9" * 5000, f"{'9' * 60}... is out of bounds: {WORKERS}"),
        ("workers", '"2"', "is text because of the quotes: write 2 without quotes"),
        ("workers", '""', f'"" is not a number: {WORKERS}'),
        ("workers", "'true'", f'"true" is not a number: {WORKERS}'),
        ("workers", "017", "017 begins with a zero: write 17"),
        ("workers", "many", f'"many" is not a number: {WORKERS}'),
        ("workers", "Auto", f'"Auto" is not a number: {WORKERS}'),
        ("workers", "true", f"true is a boolean: {WORKERS}"),
        ("workers", "2.0", f"2.0 is a decimal number: {WORKERS}"),
        ("workers", ".nan", f".nan is a decimal number: {WORKERS}"),
        ("workers", "[2]", f"is a list: {WORKERS}"),
        ("workers", "{int: 2}", f"is a mapping: {WORKERS}"),
        ("workers", "null", NOTHING),
        # A choice is reported with the word that is close, else with all its words.
        ("log.level", "loud", f'"loud" is not known: {LEVELS}'),
        ("log.level", "INFO", '"INFO" is not known: did you mean info?'),
        ("log.level", "'5'", f'"5" is not known: {LEVELS}'),
        ("log.level", "5", f"5 is a number: {LEVELS}"),
        ("log.level", "false", f"false is a boolean: {LEVELS}"),
        ("log.level", "[info]", f"is a list: {LEVELS}"),
        # The words of YAML 1.1, and what is true in some languages, are not guessed at.
        ("guard.loop_breaker", "yes", f'"yes" is text: {TRUTH}'),
        ("guard.loop_breaker", "'false'", "is text because of the quotes: write false without quotes"),
        ("guard.loop_breaker", "'no'", f'"no" is text: {TRUTH}'),
        ("guard.loop_breaker", "0", f"0 is a number: {TRUTH}"),
        ("guard.loop_breaker", "[]", f"is a list: {TRUTH}"),
        ("guard.loop_breaker", "null", NOTHING),
        # Where a section belongs.
        ("udp", "5", f"5 is a number: {SECTION}"),
        ("udp", "x", f'"x" is text: {SECTION}'),
        ("udp", "[]", f"is a list: {SECTION}"),
        # Nothing behind the colon may be half an edit: whether the default was meant is not for echod to guess.
        *((key, "", NOTHING) for key in ("listeners", "access", "guard", "limits", "workers", "udp", "tcp", "log")),
        ("drain_timeout_seconds", "", NOTHING),
    ],
)
def test_a_value_that_cannot_be_is_explained(key: str, text: str, message: str) -> None:
    """What was written is reported beside what may be written, at the place of the value, or else of the key."""
    assert mistake_of(key, text) == message


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("worker: 2", (1, 1, "worker"), 'unknown key; did you mean "workers"?'),
        ("tcp:\n  max_connection: 5", (2, 3, "tcp.max_connection"), 'unknown key; did you mean "max_connections"?'),
        ("level: info", (1, 1, "level"), "unknown key here; it belongs below log"),
        ("listen: x", (1, 1, "listen"), 'unknown key here; it belongs below metrics, or did you mean "listeners"?'),
        ("udp: {workers: 2}", (1, 7, "udp.workers"), "unknown key here; it belongs to the top level"),
        ("udp: {log: {level: 1}}", (1, 7, "udp.log"), "unknown key here; it belongs to the top level"),
        ("access: {disallow: [any]}", (1, 10, "access.disallow"), "unknown key; the keys here are allow, deny"),
        ("access: {alow: [any]}", (1, 10, "access.alow"), "unknown key; the keys here are allow, deny"),
        ("guard: {slip: 1}", (1, 9, "guard.slip"), "unknown key here; it belongs below limits"),
        ("log: {color: 1}", (1, 7, "log.color"), "unknown key; the keys here are level, format"),
        (
            "'': 1",
            (1, 1, ""),
            (
                "unknown key; the keys here are listeners, access, guard, limits, workers, user, udp, tcp, "
                "drain_timeout_seconds, log, status, metrics, kernel"
            ),
        ),
    ],
)
def test_an_unknown_key_is_reported_with_the_likely_one(text: str, place: tuple[int, int, str], message: str) -> None:
    """The key is pointed at, not its value; a key that belongs elsewhere is sent there."""
    assert errors(text) == [(*place, message)]


def test_a_mistake_in_a_list_of_a_section_is_reported_at_its_item() -> None:
    """What is listed twice is reported with the line of the first; a mistake of one item keeps its own sentence."""
    assert errors("guard:\n  refuse_source_ports:\n    - 1\n    - x\n    - 1\n") == [
        (4, 7, "guard.refuse_source_ports[1]", "is text: write a whole number from 1 to 65535"),
        (5, 7, "guard.refuse_source_ports[2]", "1 is already listed, line 3: remove one of them"),
    ]
