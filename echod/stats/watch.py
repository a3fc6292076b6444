"""Which listeners had traffic since the last look at a page of counters, and which workers write impossible counts.

Owns a copy of the rows at the last look. Invariant: a look at unchanged rows costs one copy and one comparison of bytes
for each worker slot, however many listeners there are, so that an idle daemon can look once a second.
"""

from collections.abc import Sequence
from operator import lt

from echod.net.listener import Listener
from echod.stats.counters import ROW_BYTES, ROW_FIELDS, CounterPage, UdpField


class PageWatch:
    """The rows of one page, as they were at the last look."""

    def __init__(self, page: CounterPage) -> None:
        """Start with rows of zeros."""
        self.page = page
        self._rows = [bytes(ROW_BYTES * len(page.listeners))] * page.slots

    def changed(self) -> set[Listener]:
        """Return the listeners whose row has changed since the last look, in any worker slot."""
        return {listener for slot in range(self.page.slots) for listener in self._look(slot)}

    def check(self, slot: int) -> None:
        """Distrust the worker of this slot if its numbers cannot be true: before they are settled."""
        before = self._rows[slot]
        self._look(slot)
        self._rows[slot] = before

    def _look(self, slot: int) -> Sequence[Listener]:
        """Return the listeners whose row has changed in a slot; what cannot be true is no change, and distrusted."""
        page, before, now = self.page, self._rows[slot], self.page.rows(slot)
        starts = range(0, len(now), ROW_BYTES) if now != before else ()
        changed = [
            listener
            for listener, start in zip(page.listeners, starts, strict=False)
            if now[start : start + ROW_BYTES] != before[start : start + ROW_BYTES]
        ]
        plausible = not (changed and _has_shrunk(now, before)) and page.has_plausible_rows(slot, changed)
        if plausible and page.has_plausible_header(slot):
            page.trust(slot)
        else:
            page.distrust(slot, now if plausible else before)
        if not plausible:
            return []
        self._rows[slot] = now
        return changed


def _has_shrunk(now: bytes, before: bytes) -> bool:
    """Tell whether a number has become smaller that only grows.

    That is any but the datagrams that are held, and the time of the last, since the clock may be set back.
    """
    less = list(map(lt, memoryview(now).cast("Q"), memoryview(before).cast("Q")))
    return any(less) and less.count(True) > sum(
        sum(less[each::ROW_FIELDS]) for each in (UdpField.HELD, UdpField.LAST_AT)
    )
