"""Which listeners saw anything since the last look at a page of counters.

Owns a copy of the rows as they were, and no number. Invariant: a look at rows that have not changed costs a copy and a
comparison of bytes, however many listeners there are, so that an idle daemon may look once a second.
"""

from echod.core.counters import ROW_BYTES, CounterPage
from echod.core.listener import Listener


class PageWatch:
    """The rows of one page, as they were at the last look."""

    def __init__(self, page: CounterPage) -> None:
        """Begin where nothing was counted yet."""
        self._page = page
        self._rows = [bytes(ROW_BYTES * len(page.listeners))] * page.slots

    def changed(self) -> set[Listener]:
        """Return the listeners with another row than at the last look, in any worker slot."""
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
