"""The differences between two configs, as text for a log entry."""

from echod.config.diff import Plan
from echod.config.schema import Config
from echod.config.written import flatten, write_value

_AT_START = frozenset({"status.directory"})
"""Keys that are read only at start."""


def changes(old: Config, new: Config, listeners: Plan) -> list[str]:
    """Return one short text for each difference: `+` and `-` for listeners, `key: old -> new` for the rest.

    The changes of listeners come from the plan, because passed sockets are served whatever a config says.
    """
    found = [f"+{listener}" for listener in listeners.open] + [f"-{listener}" for listener in listeners.close]
    before, after = flatten(old), flatten(new)
    del before["listeners"]
    return found + [
        f"{key}: {write_value(key, value)} -> {write_value(key, after[key])}{' at the next start' * (key in _AT_START)}"
        for key, value in before.items()
        if value != after[key]
    ]
