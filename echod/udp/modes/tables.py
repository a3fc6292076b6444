"""The datagrams of a batch that a mode may rewrite, as tables: rows at equal distances in the payload of the vector.

Owns where each datagram of a batch lies. It reads no packet and decides nothing. Invariant: no table has a refused
datagram, a self test, or a datagram shorter than its protocol demands.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from echod.linux.mmsg_layout import SLOT_BYTES
from echod.udp.batch import Batch
from echod.udp.columns import Memory, Rows
from echod.udp.sessions import Session

T = TypeVar("T")


@dataclass(slots=True)
class Table:
    """Datagrams of one form: those of adjacent slots, one in each, or those of the train in one slot."""

    rows: Rows
    slots: range
    """The slots of these datagrams: one for each of them, or one for all."""
    train: bool
    """All came in the train of one slot."""

    def slot(self, row: int) -> int:
        """Return the slot of a datagram."""
        return self.slots.start if self.train else self.slots.start + row

    def of_rows(self, of_slots: Sequence[T]) -> Sequence[T]:
        """Return for each datagram what stands here for its slot."""
        if self.train:
            return [of_slots[self.slots.start]] * self.rows.count
        return of_slots[self.slots.start : self.slots.stop]

    def lengths(self, batch: Batch) -> list[int]:
        """Return the length of each datagram."""
        if not self.train:
            return batch.span.length[self.slots.start : self.slots.stop].tolist()
        last = batch.span.length[self.slots.start] - (self.rows.count - 1) * self.rows.step
        return [self.rows.step] * (self.rows.count - 1) + [min(last, self.rows.step)]


@dataclass(slots=True)
class Layout:
    """The datagrams of a batch."""

    tables: list[Table]
    """In the order of arrival."""
    short: list[tuple[int, int]]
    """The slots that end with datagrams which are too short, and how many these are."""


class Layouts:
    """The layouts of the batches of one socket, whose datagrams should have a certain length."""

    def __init__(self, least: int) -> None:
        """Take the least bytes that a datagram should have."""
        self._least = least
        self._memory: Memory | None = None
        """The payload of the vector of the worker, known from its first batch on."""
        self._whole: dict[int, Layout] = {}
        """That of single datagrams, all of which are long enough, by their number: most batches are such."""

    def of(self, batch: Batch) -> Layout:
        """Find the datagrams of a batch."""
        memory = self._memory = self._memory or Memory(batch.vector.payload_octets)
        lengths, least, count = batch.span.length.tolist(), self._least, batch.span.count
        if batch.trains is None and not batch.refused and not batch.tests and lengths and min(lengths) >= least:
            if count not in self._whole:
                whole = Table(Rows(memory, 0, SLOT_BYTES, count), range(count), train=False)
                self._whole[count] = Layout([whole], [])
            return self._whole[count]
        return self._look(batch, memory, lengths)

    def _look(self, batch: Batch, memory: Memory, lengths: list[int]) -> Layout:
        """Look at each slot."""
        least, found, single = self._least, Layout([], []), []
        for slot, length in enumerate(lengths):
            if slot in batch.refused or slot in batch.tests:
                continue
            weight = batch.weight(slot)
            if weight == 1:
                enough = int(length >= least)
                single += [slot] * enough
            else:
                segment = batch.segments[slot]
                last = length - (weight - 1) * segment
                enough = 0 if segment < least else weight - (last < least)
                if enough:
                    rows = Rows(memory, slot * SLOT_BYTES, segment, enough)
                    found.tables.append(Table(rows, range(slot, slot + 1), train=True))
            if enough < weight:
                found.short.append((slot, weight - enough))
        for run in _runs(single):
            rows = Rows(memory, run.start * SLOT_BYTES, SLOT_BYTES, len(run))
            found.tables.append(Table(rows, run, train=False))
        found.tables.sort(key=lambda table: table.slots.start)
        return found


def _runs(slots: list[int]) -> Iterator[range]:
    """Split slots, in their order, into runs of adjacent ones."""
    first = 0
    for after in range(1, len(slots) + 1):
        if after == len(slots) or slots[after] != slots[after - 1] + 1:
            yield range(slots[first], slots[after - 1] + 1)
            first = after


def note_failures(batch: Batch, counted: Sequence[tuple[Table, Sequence[Session]]]) -> None:
    """Count for each session the replies that could not be sent.

    `counted` has the session of each datagram of a table, or none. Of a train the last datagrams are taken for those.
    """
    for table, sessions in counted:
        for slot in table.slots:
            first = 0 if table.train else slot - table.slots.start
            last = len(sessions) if table.train else first + 1
            failed = min(batch.failed.get(slot, 0), last - first)
            for session in sessions[last - failed : last]:
                session.failed += 1
