"""echod.config.parse: every mistake of a config file at once, by line, or a config and its warnings."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.config_mistakes import errors, warnings

from echod.config.diagnostics import render
from echod.config.parse import find_status_directory, parse_config
from echod.errors import ConfigError, Mistake

DEFAULT_FILE = Path(__file__).parents[2] / "config" / "echod.yaml"


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
