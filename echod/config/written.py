"""A config written as the file has it: single values for the log, and the whole for `echod config`.

Owns that text. Invariant: `parse_config(write_config(config).encode())` gives the same config.
"""

from collections.abc import Mapping
from dataclasses import fields
from itertools import groupby
from typing import Any

import yaml
from pydantic import BaseModel

from echod.config.document import plain
from echod.config.listeners import RATES, TIMES
from echod.config.schema import Config
from echod.net.listener import Listener, in_ranges
from echod.net.mode import PLAIN, Impairment, ListenerOptions


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


def write_listeners(listeners: Mapping[Listener, ListenerOptions]) -> list[str | dict[str, Any]]:
    """Write the entries of listeners, as warnings have them: one for a range."""
    return [
        listener if options == PLAIN else {"address": listener, **write_options(options)}
        for options, each in groupby(listeners, key=listeners.__getitem__)
        for listener in map(str, in_ranges(each))
    ]


def write_options(options: ListenerOptions) -> dict[str, Any]:
    """Write the options that are not those of a plain listener."""
    written = _changed(options, PLAIN)
    if "mode" in written:
        written["mode"] = options.mode.value
    if options.impair is not None:
        changed = _changed(options.impair, Impairment())
        written["impair"] = {key: _write_impairment(key, value) for key, value in changed.items()}
    return written


def _changed(value: ListenerOptions | Impairment, default: ListenerOptions | Impairment) -> dict[str, Any]:
    """Return the fields that differ from a default, with their values."""
    names = [field.name for field in fields(value)]
    return {name: getattr(value, name) for name in names if getattr(value, name) != getattr(default, name)}


def _write_impairment(key: str, value: float) -> str | float:
    if key in ("delay", "jitter"):
        return _with_unit(value, TIMES)
    if key == "rate":
        return _with_unit(value, RATES)
    return value if key in ("seed", "queue") else f"{value * 100:.6f}".rstrip("0").rstrip(".") + "%"


def _with_unit(value: float, units: Mapping[str, int]) -> str:
    """Write a number with the largest unit of which it is a whole multiple, or else with the smallest."""
    by_size = sorted(units.items(), key=lambda unit: unit[1])
    unit, size = next((each for each in reversed(by_size) if value % each[1] == 0), by_size[0])
    return f"{value / size:.15g} {unit}"


def write_config(config: Config) -> str:
    """Write every key as a config file, in ASCII, which any stream can take, and without a newline at the end."""
    tree: dict[str, Any] = {}
    for key, value in flatten(config).items():
        section, _, name = key.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[name] = simple(key, value)
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, default_flow_style=False).rstrip("\n")


class _Dumper(yaml.SafeDumper):
    """PyYAML writes without quotes what is text in YAML 1.1; here that must also be text in what `document` reads."""


def _write_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain(text) == text else "'")


_Dumper.add_representer(str, _write_text)


def simple(key: str, value: object) -> object:
    """Return the value of a dotted key as one of the kinds that YAML and JSON have."""
    if key == "listeners" and isinstance(value, Mapping):
        return write_listeners(value)
    if isinstance(value, tuple) and (value or key != "metrics.listen"):
        return [simple(key, each) for each in value]
    return value if isinstance(value, bool | int) else write_value(key, value)
