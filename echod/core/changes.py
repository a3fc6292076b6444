"""The differences between two configs, as text for a log entry."""

from pydantic import BaseModel

from echod.core.config import Config
from echod.core.plan import Plan

_AT_START = frozenset({"status.directory"})
"""Keys that are read only at start."""


def changes(old: Config, new: Config, listeners: Plan) -> list[str]:
    """Return one short text for each difference: `+` and `-` for listeners, `key: old -> new` for the rest.

    The changes of listeners come from the plan, because passed sockets are served whatever a config says.
    """
    found = [f"+{listener}" for listener in listeners.open] + [f"-{listener}" for listener in listeners.close]
    before, after = _flat(old), _flat(new)
    del before["listeners"]
    return found + [
        f"{key}: {_written(key, value)} -> {_written(key, after[key])}{' at the next start' * (key in _AT_START)}"
        for key, value in before.items()
        if value != after[key]
    ]


def _flat(model: BaseModel, prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in model:
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, BaseModel) else {f"{prefix}{key}": value}
    return flat


def _written(key: str, value: object) -> str:
    """Write a value as the config file has it."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "off" if key == "metrics.listen" else "unlimited"
    return str(value)
