"""What parse_config says of a text: for the tests of the modules that have a part in it."""

import pytest

from echod.config.parse import parse_config
from echod.errors import ConfigError, Mistake

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
