"""A config written as the file has it: single values for the log, and the whole for `echod config`.

Owns that text. Invariant: `parse_config(write_config(config).encode())` gives the same config.
"""

from typing import Any

import yaml
from pydantic import BaseModel

from echod.config.document import plain
from echod.config.schema import Config
from echod.net.listener import in_ranges


def flatten(model: BaseModel, prefix: str = "") -> dict[str, object]:
    """Return the values by their dotted keys."""
    flat: dict[str, object] = {}
    for key, value in model:
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, BaseModel) else {f"{prefix}{key}": value}
    return flat


def write_value(key: str, value: object) -> str:
    """Write the value of a dotted key on one line."""
    if key == "metrics.listen" and isinstance(value, tuple) and len(value) <= 1:
        return str(value[0]) if value else "off"
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    if value is None:
        return "unlimited"
    return str(value).lower() if isinstance(value, bool) else str(value)


def write_config(config: Config) -> str:
    """Write every key as a config file, in ASCII, which any stream can take, and without a newline at the end."""
    tree: dict[str, Any] = {}
    for key, value in flatten(config).items():
        section, _, name = key.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[name] = simple(key, value)
    tree["listeners"] = list(map(str, in_ranges(config.listeners)))  # as warnings have them: one for a range
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, default_flow_style=False).rstrip("\n")


class _Dumper(yaml.SafeDumper):
    """PyYAML writes without quotes what is text in YAML 1.1; here that must also be text in what `document` reads."""


def _write_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain(text) == text else "'")


_Dumper.add_representer(str, _write_text)


def simple(key: str, value: object) -> object:
    """Return the value of a dotted key as one of the kinds that YAML and JSON have."""
    if isinstance(value, tuple) and (value or key != "metrics.listen"):
        return [simple(key, each) for each in value]
    return value if isinstance(value, bool | int) else write_value(key, value)
