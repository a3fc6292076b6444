"""echod.core.written: a config as text, which is a config again."""

from typing import Any

import pytest
from pydantic import BaseModel

from echod.core.config import FIRST_TRY, Config, parse_config
from echod.core.written import flatten, write_config, write_value

ODD: dict[str, Any] = {
    "listeners": ["udp://0.0.0.0:7000-7003", "udp://[fe80::1%über0]:7", "tcp://[::]:8"],
    "access": {"allow": ["::1", "2001:db8::", "fe80::/10", "any"], "deny": []},
    "guard": {"refuse_source_ports": [], "loop_breaker": False},
    "limits": {"datagrams_per_second": 5, "total_datagrams_per_second": 7, "dry_run": True},
    "workers": 3,
    "udp": {"receive_buffer": 4096},
    "status": {"directory": "/run/ä b: 'c'"},
    "metrics": {"listen": "http://[::1]:9"},
}


def keys(model: type[BaseModel], prefix: str = "") -> set[str]:
    """Return the dotted keys of all that is no section."""
    found = set[str]()
    for name, field in model.model_fields.items():
        kind = field.annotation
        section = isinstance(kind, type) and issubclass(kind, BaseModel)
        found |= keys(kind, f"{prefix}{name}.") if section else {prefix + name}  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize("config", [Config(), FIRST_TRY, Config.model_validate(ODD)])
def test_what_is_written_is_the_same_config(config: Config) -> None:
    """Also what needs quotes in YAML, is off or unlimited, and lists that are empty; in any locale, for it is ASCII."""
    assert write_config(config).isascii()
    assert parse_config(write_config(config).encode())[0] == config


def test_every_key_is_written() -> None:
    """Also those that the file leaves out; without a line break at the end."""
    text = write_config(Config())
    assert flatten(parse_config(text.encode())[0]).keys() == keys(Config)
    for key in keys(Config):
        assert f"{key.rpartition('.')[2]}:" in text
    assert not text.endswith("\n")


def test_single_values_are_written_on_one_line() -> None:
    """As they would stand in the file."""
    flat = flatten(Config())
    assert {
        key: write_value(key, flat[key]) for key in ("access.deny", "access.allow", "limits.dry_run", "workers")
    } == {
        "access.deny": "[]",
        "access.allow": "[loopback, link-local, private]",
        "limits.dry_run": "false",
        "workers": "auto",
    }
    assert write_value("metrics.listen", ()) == "off"
    assert write_value("limits.datagrams_per_second", None) == "unlimited"
