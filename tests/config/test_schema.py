"""echod.config.schema: what each key may be, what it is by default, and what is legal but unreasonable."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from echod.config.document import dotted, read
from echod.config.parse import parse_config
from echod.config.schema import FIRST_TRY, Config
from echod.config.written import flatten
from echod.net.mode import Mode

DEFAULT_FILE = Path(__file__).parents[2] / "config" / "echod.yaml"


def test_the_file_that_is_installed_says_the_defaults() -> None:
    """config/echod.yaml is the reference of the defaults: it may not differ from them, or be warned of."""
    assert parse_config(DEFAULT_FILE.read_bytes()) == (Config(), ())


def test_the_file_that_is_installed_names_every_key() -> None:
    """Whoever reads config/echod.yaml has seen every setting there is."""
    assert flatten(Config()).keys() <= {dotted(path) for path in read(DEFAULT_FILE.read_bytes()).places}


def test_the_file_that_is_installed_has_one_listener_of_each_mode() -> None:
    """Each is a comment; with the sign removed it is an entry of the list."""
    text = re.sub(r"^# - ", "  - ", DEFAULT_FILE.read_text(), flags=re.MULTILINE)
    listeners = parse_config(text.encode())[0].listeners
    assert {options.mode for options in listeners.values()} == set(Mode)
    assert [str(each) for each, options in listeners.items() if options.impair] == [
        "udp://127.0.0.1:7072",
        "tcp://127.0.0.1:7072",
    ]
    assert [options.dscp for options in listeners.values() if options.dscp is not None] == ["reflect"]


def test_without_a_file_only_this_host_is_answered() -> None:
    """The first try needs no privilege and opens nothing to the network; all else is default."""
    assert [str(listener) for listener in FIRST_TRY.listeners] == [
        "udp://127.0.0.1:7007",
        "udp://[::1]:7007",
        "tcp://127.0.0.1:7007",
        "tcp://[::1]:7007",
    ]
    assert Config().model_copy(update={"listeners": FIRST_TRY.listeners}) == FIRST_TRY


def test_a_config_never_changes() -> None:
    """A generation of workers is born with its config; nothing can be set afterwards."""
    with pytest.raises(ValidationError, match="frozen"):
        FIRST_TRY.workers = 2


def test_a_config_without_listeners_cannot_be_made() -> None:
    """The bounds hold for a config that code makes, not only for one from a file."""
    with pytest.raises(ValidationError, match="at least 1 item"):
        Config(listeners=())
