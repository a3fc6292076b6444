"""echod.config.parse: every mistake of a config file at once, in an operator's terms; or a config and its warnings."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.config_mistakes import errors, warnings

from echod.config.diagnostics import render
from echod.config.parse import find_status_directory, parse_config
from echod.errors import ConfigError, Mistake

DEFAULT_FILE = Path(__file__).parents[2] / "config" / "echod.yaml"

WORKERS = "write auto or a whole number from 1 to 64"


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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", f"0 is out of bounds: {WORKERS}"),
        ("65", f"65 is out of bounds: {WORKERS}"),
        ("-1", f"-1 is out of bounds: {WORKERS}"),
        ("9" * 5000, f"{'9' * 60}... is out of bounds: {WORKERS}"),
        ('"2"', "is text because of the quotes: write 2 without quotes"),
        ('""', f'"" is not a number: {WORKERS}'),
        ("'true'", f'"true" is not a number: {WORKERS}'),
        ("017", "017 begins with a zero: write 17"),
        ("many", f'"many" is not a number: {WORKERS}'),
        ("Auto", f'"Auto" is not a number: {WORKERS}'),
        ("true", f"true is a boolean: {WORKERS}"),
        ("2.0", f"2.0 is a decimal number: {WORKERS}"),
        (".nan", f".nan is a decimal number: {WORKERS}"),
        ("[2]", f"is a list: {WORKERS}"),
        ("{int: 2}", f"is a mapping: {WORKERS}"),
        ("null", "has no value: write one or remove the key"),
    ],
)
def test_a_number_that_cannot_be_is_explained(text: str, message: str) -> None:
    """What was written is reported beside what may be written, at the place of the value."""
    assert errors(f"workers: {text}\n") == [(1, 10, "workers", message)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("loud", '"loud" is not known: write debug, info, warning or error'),
        ("INFO", '"INFO" is not known: write debug, info, warning or error'),
        ("'5'", '"5" is not known: write debug, info, warning or error'),
        ("5", "5 is a number: write debug, info, warning or error"),
        ("false", "false is a boolean: write debug, info, warning or error"),
        ("[info]", "is a list: write debug, info, warning or error"),
    ],
)
def test_a_word_that_cannot_be_is_refused_with_those_that_can(text: str, message: str) -> None:
    """A choice is reported with all its words."""
    assert errors(f"log: {{level: {text}}}") == [(1, 14, "log.level", message)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("yes", '"yes" is text: write true or false'),
        ("'false'", "is text because of the quotes: write false without quotes"),
        ("'no'", '"no" is text: write true or false'),
        ("0", "0 is a number: write true or false"),
        ("[]", "is a list: write true or false"),
        ("null", "has no value: write one or remove the key"),
    ],
)
def test_a_truth_value_is_true_or_false(text: str, message: str) -> None:
    """The words of YAML 1.1, and what is true in some languages, are not guessed at."""
    assert errors(f"guard: {{loop_breaker: {text}}}") == [(1, 23, "guard.loop_breaker", message)]


@pytest.mark.parametrize(
    "key",
    ["listeners", "access", "guard", "limits", "workers", "udp", "tcp", "drain_timeout_seconds", "log"],
)
def test_a_key_with_nothing_behind_its_colon_is_pointed_at(key: str) -> None:
    """It may be half an edit: whether the default was meant is not for echod to guess."""
    assert errors(f"\n{key}:\n") == [(2, 1, key, "has no value: write one or remove the key")]


@pytest.mark.parametrize(("text", "kind"), [("5", "5 is a number"), ("x", '"x" is text'), ("[]", "is a list")])
def test_a_section_must_be_keys_and_values(text: str, kind: str) -> None:
    """A value where a section belongs is reported as what it is."""
    assert errors(f"udp: {text}") == [(1, 6, "udp", f"{kind}: write keys and values, indented below this key")]


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("worker: 2", (1, 1, "worker"), 'unknown key; did you mean "workers"?'),
        ("tcp:\n  max_connection: 5", (2, 3, "tcp.max_connection"), 'unknown key; did you mean "max_connections"?'),
        ("level: info", (1, 1, "level"), "unknown key here; it belongs below log"),
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
                "drain_timeout_seconds, log, status, metrics"
            ),
        ),
    ],
)
def test_an_unknown_key_is_told_with_the_likely_one(text: str, place: tuple[int, int, str], message: str) -> None:
    """The key is pointed at, not its value; a key that belongs elsewhere is sent there."""
    assert errors(text) == [(*place, message)]


def test_a_mistake_in_a_list_of_a_section_is_reported_at_its_item() -> None:
    """What is listed twice is reported with the line of the first; a mistake of one item keeps its own sentence."""
    assert errors("guard:\n  refuse_source_ports:\n    - 1\n    - x\n    - 1\n") == [
        (4, 7, "guard.refuse_source_ports[1]", "is text: write a whole number from 1 to 65535"),
        (5, 7, "guard.refuse_source_ports[2]", "1 is already listed, line 3: remove one of them"),
    ]
