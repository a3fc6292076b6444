"""Which listeners had traffic since the last look at a page of counters, and which workers write what cannot be true.

Owns a copy of the rows at the last look. Invariant: a look at unchanged rows costs one copy and one comparison of bytes
for each worker slot, however many listeners there are, so that an idle daemon can look once a second.
"""

from collections.abc import Sequence
from operator import lt

from echod.core.counters import ROW_BYTES, CounterPage
from echod.core.listener import Listener


class PageWatch:
    """The rows of one page, as they were at the last look."""

    def __init__(self, page: CounterPage) -> None:
        """Start with rows of zeros."""
        self._page = page
        self._rows = [bytes(ROW_BYTES * len(page.listeners))] * page.slots

    def changed(self) -> set[Listener]:
        """Return the listeners whose row has changed since the last look, in any worker slot."""
        found: set[Listener] = set()
        for slot in range(self._page.slots):
            now, changed = self._look(slot)
            if slot not in self._page.distrusted:
                self._rows[slot] = now
                found.update(changed)
        return found

    def check(self, slot: int) -> None:
        """Distrust the worker of this slot if its numbers cannot be true: before they are settled."""
        self._look(slot)

    def _look(self, slot: int) -> tuple[bytes, Sequence[Listener]]:
        """Return the rows of a slot and the listeners whose row has changed; distrust what cannot be true."""
        before, now = self._rows[slot], self._page.rows(slot)
        starts = range(0, len(now), ROW_BYTES) if now != before else ()
        changed = [
            listener
            for listener, start in zip(self._page.listeners, starts, strict=False)
            if now[start : start + ROW_BYTES] != before[start : start + ROW_BYTES]
        ]
        shrunk = changed and any(map(lt, memoryview(now).cast("Q"), memoryview(before).cast("Q")))
        if shrunk or not self._page.is_plausible(slot, changed):
            self._page.distrust(slot, before)
        return now, changed
