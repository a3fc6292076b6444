"""What differs between two configs, in words for a log entry."""

from typing import Any

from echod.core.config import Config
from echod.core.plan import plan


def changes(old: Config, new: Config) -> list[str]:
    """Return one short text for each difference: `+` and `-` for listeners, `key: old -> new` for the rest."""
    listeners = plan(old.listeners, new.listeners)
    found = [f"+{listener}" for listener in listeners.open] + [f"-{listener}" for listener in listeners.close]
    before, after = _flat(old.model_dump(exclude={"listeners"})), _flat(new.model_dump(exclude={"listeners"}))
    return found + [f"{key}: {value} -> {after[key]}" for key, value in before.items() if value != after[key]]


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
