"""What is wrong with a config: for the tests of the modules that have a part in finding it.

Whatever these tests have parsed as a whole is also held to the schema: it takes what echod takes, and refuses what
echod refuses, unless all its mistakes are among those that a schema cannot say.
"""

import re
from collections.abc import Callable, Sequence
from typing import Final

import pytest
from jsonschema import Draft202012Validator

from echod.config.diagnostics import render
from echod.config.document import read
from echod.config.json_schema import make_schema
from echod.config.parse import parse_config
from echod.errors import ConfigError, Mistake

Found = list[tuple[int, int, str, str]]

SCHEMA: Final = Draft202012Validator(make_schema())

NOT_IN_THE_SCHEMA: Final = (
    # Two values, or all of them: of listeners, ports and endpoints it finds only those that are written the same.
    r"is already (listed|covered by)|already uses this port|uses this port: write another",
    r"makes [\d,]+ listeners in all|the port range runs backwards",
    # What an address means. Of public networks it knows `any`.
    r"is one address of a network|/0 is every address|is multicast|is never the source|is an IPv4-mapped|link-local",
    r"is not the address of a single host|includes public addresses",
    # Which options a mode and a protocol know, and what bounds a number with a unit.
    r"does not know it|is a mode of udp:// alone|is for udp:// alone|of its own to reflect",
    r"does nothing|is longer than delay",
    r"is not a (time|rate): write one up to",
    # In JSON 2.0 is an integer.
    r"2\.0 is a decimal number",
)
"""The mistakes that the schema cannot say."""


def rows(mistakes: tuple[Mistake, ...]) -> Found:
    """Write mistakes as line, column, path and message."""
    return [(m.line, m.column, m.path, m.message) for m in mistakes]


def errors(text: str | bytes, parse: Callable[[bytes], object] = parse_config) -> Found:
    """Parse a config that must be refused."""
    with pytest.raises(ConfigError) as caught:
        parse(text.encode() if isinstance(text, str) else text)
    if parse is parse_config:
        _hold_to_the_schema(text.encode() if isinstance(text, str) else text, caught.value.mistakes)
    return rows(caught.value.mistakes)


def warnings(text: str) -> Found:
    """Parse a config that is accepted, and return its warnings."""
    assert SCHEMA.is_valid(read(text.encode()).value)
    return rows(parse_config(text.encode())[1])


def _hold_to_the_schema(data: bytes, mistakes: Sequence[Mistake]) -> None:
    """Hold the schema to refusing what was refused, if it is YAML and has a mistake that a schema can say."""
    try:
        value = read(data).value
    except ConfigError:
        return
    if not all(re.search("|".join(NOT_IN_THE_SCHEMA), mistake.message) for mistake in mistakes):
        assert not SCHEMA.is_valid(value), mistakes


def listeners(*texts: str) -> Found:
    """Parse a list of listeners that must be refused; the first stands in line 2."""
    return errors("listeners:\n" + "".join(f"  - {text}\n" for text in texts))


def config_with(key: str, value: str) -> str:
    """Return a config with this dotted key alone."""
    top, _, name = key.partition(".")
    return f"{top}:\n  {name}: {value}" if name else f"{key}: {value}"


def mistake_of(key: str, value: str) -> str:
    """Return the mistake of a config with this key alone: one, at the value, or at the key where there is no value."""
    *above, line = config_with(key, value).splitlines()
    ((*place, path, message),) = errors(config_with(key, value))
    column = len(line) - len(value) + 1 if value else len(line) - len(line.lstrip()) + 1
    assert (place, path) == ([len(above) + 1, column], key)
    return message


def hold_to_the_text(found: Sequence[Mistake], data: bytes) -> None:
    """Hold mistakes or warnings to what is promised of any: in order, within the text, and printable as a report."""
    text = data.decode(errors="replace")
    lines = text.split("\n")
    assert list(found) == sorted(found, key=lambda m: (m.line, m.column))
    for mistake in found:
        assert 1 <= mistake.line <= len(lines)
        assert 1 <= mistake.column <= len(lines[mistake.line - 1]) + 1
    assert render(found, kind="error", file="f", text=text).replace("\n", "").isprintable()
