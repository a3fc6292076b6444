"""What is wrong with a config: for the tests of the modules that have a part in finding it."""

from collections.abc import Callable, Sequence

import pytest

from echod.config.diagnostics import render
from echod.config.parse import parse_config
from echod.errors import ConfigError, Mistake

Found = list[tuple[int, int, str, str]]


def rows(mistakes: tuple[Mistake, ...]) -> Found:
    """Write mistakes as line, column, path and message."""
    return [(m.line, m.column, m.path, m.message) for m in mistakes]


def errors(text: str | bytes, parse: Callable[[bytes], object] = parse_config) -> Found:
    """Parse a config that must be refused."""
    with pytest.raises(ConfigError) as caught:
        parse(text.encode() if isinstance(text, str) else text)
    return rows(caught.value.mistakes)


def warnings(text: str) -> Found:
    """Parse a config that is accepted, and return its warnings."""
    return rows(parse_config(text.encode())[1])


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
