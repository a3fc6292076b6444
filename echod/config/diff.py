"""A change of listeners: which to keep, which to open, which to close.

Owns the comparison and nothing else: it opens and closes no socket. Invariant: every listener, old or new, is in
exactly one of the three.
"""

from collections.abc import Iterable
from dataclasses import dataclass

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
