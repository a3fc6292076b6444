"""The differences between two configs: which listeners to keep, open and close, and every change as text for the log.

It opens and closes no socket. Invariant: every listener, old or new, is in exactly one of the three.
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from echod.config.schema import Config
from echod.config.written import flatten, write_options, write_value
from echod.net.listener import Listener
from echod.net.mode import PLAIN, ListenerOptions


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


def describe(options: ListenerOptions) -> str:
    """Write options on one line: `echo` of a plain listener, `stamp, stateful: true`."""
    written = write_options(options)
    texts = [str(written.pop("mode", options.mode.value)), *_flat("", written)]
    return ", ".join(texts)


def _flat(prefix: str, values: Mapping[str, object]) -> Iterable[str]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{prefix}{key}.", value)
        else:
            yield f"{prefix}{key}: {str(value).lower() if isinstance(value, bool) else value}"


def changes(old: Config, new: Config, listeners: Plan, new_keys: Container[Listener] = ()) -> list[str]:
    """Return one short text for each difference: `+` and `-` for listeners, `key: old -> new` for the rest.

    A listener that is kept has its options in place of a key, and is in `new_keys` if its `hmac_key` has other content.
    The changes of listeners come from the plan, because passed sockets are served whatever a config says.
    """
    found = [f"+{listener}" for listener in listeners.open]
    found += [f"-{listener}" for listener in listeners.close]
    for listener in listeners.keep:
        was, is_now = (config.listeners.get(listener, PLAIN) for config in (old, new))
        if was != is_now:
            found.append(f"{listener}: {describe(was)} -> {describe(is_now)}")
        if listener in new_keys:
            found.append(f"{listener}: new key")
    before, after = flatten(old), flatten(new)
    del before["listeners"]
    return found + [
        f"{key}: {write_value(key, value)} -> {write_value(key, after[key])}"
        + (" at the next start" if key == "status.directory" else "")
        for key, value in before.items()
        if value != after[key]
    ]
