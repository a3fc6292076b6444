"""The differences between two configs: which listeners to keep, open and close, and every change as text for the log.

It opens and closes no socket. Invariant: every listener, old or new, is in exactly one of the three.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from echod.config.schema import Config
from echod.config.written import flatten, write_value
from echod.net.listener import Listener


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The steps from the old listeners to the new: `keep` and `open` in the order of the new, `close` of the old."""

    keep: tuple[Listener, ...]
    open: tuple[Listener, ...]
    close: tuple[Listener, ...]


def plan(old: Iterable[Listener], new: Iterable[Listener]) -> Plan:
    """Compare the open listeners with the wanted ones. Neither may contain duplicates."""
    old, new = tuple(old), tuple(new)
    was, wanted = frozenset(old), frozenset(new)
    return Plan(
        keep=tuple(listener for listener in new if listener in was),
        open=tuple(listener for listener in new if listener not in was),
        close=tuple(listener for listener in old if listener not in wanted),
    )


def changes(old: Config, new: Config, listeners: Plan) -> list[str]:
    """Return one short text for each difference: `+` and `-` for listeners, `key: old -> new` for the rest.

    The changes of listeners come from the plan, because passed sockets are served whatever a config says.
    """
    found = [f"+{listener}" for listener in listeners.open] + [f"-{listener}" for listener in listeners.close]
    before, after = flatten(old), flatten(new)
    del before["listeners"]
    return found + [
        f"{key}: {write_value(key, value)} -> {write_value(key, after[key])}"
        + (" at the next start" if key == "status.directory" else "")
        for key, value in before.items()
        if value != after[key]
    ]
