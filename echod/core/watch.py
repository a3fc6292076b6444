"""Which listeners had traffic since the last look at a page of counters.

Owns a copy of the rows at the last look. Invariant: a look at unchanged rows costs one copy and one comparison of bytes
for each worker slot, however many listeners there are, so that an idle daemon can look once a second.
"""

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
        for slot, before in enumerate(self._rows):
            now = self._page.rows(slot)
            if now == before:
                continue
            self._rows[slot] = now
            for listener, start in zip(self._page.listeners, range(0, len(now), ROW_BYTES), strict=True):
                if now[start : start + ROW_BYTES] != before[start : start + ROW_BYTES]:
                    found.add(listener)
        return found
