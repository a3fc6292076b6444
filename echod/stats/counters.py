"""The layout of the counters that workers write and the supervisor reads.

One generation of workers shares one page. In it each worker slot has a header (its heartbeat), a row of numbers for
each listener, and its part of the connection ledger. Only the worker of a slot writes there, so there is no lock.
A number is eight bytes, aligned, so no reader sees a half-written one.

This module does not allocate the page: it lays one over a buffer. Invariant, asserted by tests: in a UDP row,
received = replied + drops + send failures + interrupted + held.
"""

import errno
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from echod.net.listener import Listener, Protocol
from echod.stats.outcomes import OTHER_SEND_ERROR, SEND_ERRORS, Close, Drop
from echod.stats.snapshot import BATCH_SIZES, TRAIN_LENGTHS

ROW_FIELDS: Final = 64
"""Numbers in a row, some of them free. 512 bytes are whole cache lines, so two workers never write to the same line."""

ROW_BYTES: Final = 8 * ROW_FIELDS

HEADER_FIELDS: Final = 8

MOST: Final = 2**62
"""No count grows so large: a worker that writes a larger one is broken."""


class SlotField(IntEnum):
    """Numbers in the header of a worker slot."""

    HEARTBEAT = 0
    """Turns of the worker's loop, at least one a second."""
    CONNECTIONS = 1
    """Open TCP connections."""
    PLACES = 2
    """Places of the ledger in use, from the first; some may be empty."""


class UdpField(IntEnum):
    """Numbers in the row of a UDP listener. Datagrams, unless the name says bytes."""

    RECEIVED = 0
    RECEIVED_BYTES = 1
    REPLIED = 2
    REPLIED_BYTES = 3
    INTERRUPTED = 4
    """Received by a worker that died before it counted their outcome."""
    SLIPPED = 5
    """Admitted although over a limit: one in `limits.slip`, or all in a dry run. Their outcome is counted as well."""
    SELF_TEST = 6
    """Self tests that were admitted. They also count as received and, if all goes well, as replied."""
    TRAIN_DATAGRAMS = 7
    """Received in trains."""
    DROPPED = 8
    """The first drop counter: reason r is at DROPPED + r."""
    SEND_FAILED = 28
    """The first send failure counter, by the numbers in SEND_ERRORS; the last is OTHER_SEND_ERROR."""
    BATCHES = 40
    """The first counter of receives by slots filled, in powers of two: n slots are at BATCHES + (n - 1).bit_length(),
    in the order of BATCH_SIZES."""
    TRAINS = 48
    """The first counter of received trains by length: see `train_field`."""
    HELD = 56
    """Held by impairment now: their outcome is not known yet."""
    DUPLICATED = 57
    REORDERED = 58
    CORRUPTED = 59
    """What impairment did to datagrams, whose outcome is counted as well. A duplicate is not counted as replied."""
    FIRST_AT = 60
    LAST_AT = 61
    """When a measuring mode received its first and its last datagram, in ns since 1970; zero if none."""
    FAILED_BYTES = 62
    """Payload that a measuring mode received and could not reply to: that of the send failures."""


UDP_DROPS: Final = slice(UdpField.DROPPED, UdpField.SEND_FAILED)
UDP_SEND_FAILURES: Final = slice(UdpField.SEND_FAILED, UdpField.SEND_FAILED + OTHER_SEND_ERROR + 1)
UDP_BATCHES: Final = slice(UdpField.BATCHES, UdpField.BATCHES + len(BATCH_SIZES))
UDP_TRAINS: Final = slice(UdpField.TRAINS, UdpField.TRAINS + len(TRAIN_LENGTHS))


class TcpField(IntEnum):
    """Numbers in the row of a TCP listener. Connections, unless the name says bytes."""

    ACCEPTED = 0
    RECEIVED_BYTES = 1
    SENT_BYTES = 2
    ACCEPT_FAILED = 3
    """Pauses in accepting because the process or the host had no descriptor or memory left."""
    CLOSED = 8
    """The first counter of closed connections: reason r is at CLOSED + r."""


TCP_CLOSED: Final = slice(TcpField.CLOSED + 1, TcpField.CLOSED + max(Close) + 1)


_MORE_UDP: Final = (
    *(UdpField.INTERRUPTED, UdpField.SLIPPED, UdpField.SELF_TEST),
    *(UdpField.HELD, UdpField.DUPLICATED, UdpField.REORDERED, UdpField.CORRUPTED),
)

DROP_FIELDS: Final = {drop.name.lower(): UdpField.DROPPED + drop for drop in Drop}
SEND_FAILED_FIELDS: Final = {
    errno.errorcode[error]: UdpField.SEND_FAILED + number for error, number in SEND_ERRORS.items()
} | {"other": UdpField.SEND_FAILED + OTHER_SEND_ERROR}
CLOSED_FIELDS: Final = {reason.name.lower(): TcpField.CLOSED + reason for reason in Close}
"""Indices in a row of the drops, send failures and closed connections, by name."""


def send_failed_field(error: int) -> int:
    """Return the index in a UDP row of the failures with this errno."""
    return UdpField.SEND_FAILED + SEND_ERRORS.get(error, OTHER_SEND_ERROR)


def train_field(datagrams: int) -> int:
    """Return the index in a UDP row for a train of this length: by powers of two, in the order of TRAIN_LENGTHS."""
    return UdpField.TRAINS + min((datagrams - 1).bit_length(), len(TRAIN_LENGTHS) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """The last receive of a worker: if the UDP row of this index still says `counted`, it has not counted these."""

    row: int
    counted: int
    datagrams: int
    octets: int


class CounterPage:
    """The numbers of one generation: `slots` workers, each with a row for each of `listeners`."""

    def __init__(self, buffer: memoryview, *, slots: int, listeners: Sequence[Listener], places: int) -> None:
        """Lay the page over a zeroed, writable buffer of at least `size` bytes."""
        self.slots = slots
        self.listeners = tuple(listeners)
        self._rows = {listener: index for index, listener in enumerate(self.listeners)}
        self._stride = _slot_fields(len(self.listeners), places)
        self._ledger = HEADER_FIELDS + len(self.listeners) * ROW_FIELDS
        self._page = buffer.cast("B").cast("Q")
        self._last_good: dict[int, memoryview] = {}
        """For each slot whose worker was found to be broken: its rows before that."""

    @staticmethod
    def size(*, slots: int, listeners: int, places: int) -> int:
        """Return the bytes of a page."""
        return 8 * slots * _slot_fields(listeners, places)

    def header(self, slot: int) -> memoryview:
        """Return the header of a worker slot, indexed by SlotField."""
        start = slot * self._stride
        return self._page[start : start + HEADER_FIELDS]

    def row(self, slot: int, listener: Listener) -> memoryview:
        """Return the row of a listener in a worker slot, indexed by UdpField or TcpField."""
        start = slot * self._stride + HEADER_FIELDS + self._rows[listener] * ROW_FIELDS
        return self._page[start : start + ROW_FIELDS]

    def rows(self, slot: int) -> bytes:
        """Return a copy of all rows of a worker slot, in the order of `listeners`: ROW_BYTES each."""
        start = slot * self._stride + HEADER_FIELDS
        return self._page[start : start + len(self.listeners) * ROW_FIELDS].tobytes()

    def ledger(self, slot: int) -> memoryview:
        """Return the part of the connection ledger that belongs to a worker slot: 64-bit source keys."""
        start = slot * self._stride
        return self._page[start + self._ledger : start + self._stride]

    # -- what can be believed

    def has_plausible_header(self, slot: int) -> bool:
        """Tell whether the header of a worker slot can be true, also while its worker is counting."""
        header = self.header(slot)
        connections = header[SlotField.CONNECTIONS]  # read first: whoever enters a connection has its place by then
        places = self._stride - self._ledger
        return connections <= header[SlotField.PLACES] <= places and header[SlotField.HEARTBEAT] <= MOST

    def has_plausible_rows(self, slot: int, listeners: Iterable[Listener]) -> bool:
        """Tell whether these rows of a worker slot can be true, also while its worker is counting."""
        for listener in listeners:
            row = self.row(slot, listener)
            ended = _ended(row, listener.protocol)  # read first: what has ended had come before
            if ended > row[_come(listener.protocol)] or max(row) > MOST:
                return False
        return True

    def distrust(self, slot: int, rows: bytes) -> None:
        """Read these rows in place of what the worker of this slot writes, until it is trusted or settled."""
        self._last_good[slot] = memoryview(rows).cast("Q")

    def trust(self, slot: int) -> None:
        """Read what the worker of this slot writes."""
        self._last_good.pop(slot, None)

    @property
    def distrusted(self) -> Collection[int]:
        """Return the slots whose worker writes what cannot be true."""
        return self._last_good.keys()

    def settle(self, slot: int, unfinished: Unfinished | None = None) -> None:
        """Balance the counters of a worker that died: what it had received and not counted becomes interrupted.

        If the worker wrote impossible numbers, its last possible ones count.
        """
        header, good = self.header(slot), self._last_good.pop(slot, None)
        header[SlotField.CONNECTIONS] = header[SlotField.PLACES] = 0
        if header[SlotField.HEARTBEAT] > MOST:
            header[SlotField.HEARTBEAT] = 0  # else the next worker could not count its turns
        if good is not None:
            start = slot * self._stride + HEADER_FIELDS
            self._page[start : start + len(good)] = good
        elif unfinished is not None:
            self._finish(slot, unfinished)
        for listener in self.listeners:
            row, protocol = self.row(slot, listener), listener.protocol
            if protocol is Protocol.UDP:
                row[UdpField.HELD] = 0
            rest = UdpField.INTERRUPTED if protocol is Protocol.UDP else TcpField.CLOSED + Close.INTERRUPTED
            row[rest] += row[_come(protocol)] - _ended(row, protocol)

    def _finish(self, slot: int, unfinished: Unfinished) -> None:
        """Count as received what a worker had not counted. Its note may be invalid."""
        listener = self.listeners[unfinished.row] if unfinished.row < len(self.listeners) else None
        if listener is not None and listener.protocol is Protocol.UDP:
            row = self.row(slot, listener)
            if row[UdpField.RECEIVED] == unfinished.counted:
                row[UdpField.RECEIVED] += unfinished.datagrams
                row[UdpField.RECEIVED_BYTES] += unfinished.octets

    def _believed(self, slot: int, listener: Listener) -> memoryview:
        """Return the row of a listener in a worker slot, to be read."""
        good = self._last_good.get(slot)
        if good is None:
            return self.row(slot, listener)
        return good[self._rows[listener] * ROW_FIELDS :][:ROW_FIELDS]

    def datagrams(self) -> int:
        """Return how many datagrams were received in all: cheap enough to call often."""
        udp = [listener for listener in self.listeners if listener.protocol is Protocol.UDP]
        return sum(self._believed(slot, listener)[UdpField.RECEIVED] for slot in range(self.slots) for listener in udp)

    def shares(self, listener: Listener) -> list[memoryview]:
        """Return the rows of one listener in all worker slots, to be read; none if it is not on this page."""
        return [self._believed(slot, listener) for slot in range(self.slots)] if listener in self._rows else []


def _come(protocol: Protocol) -> int:
    """Return the index in a row of the datagrams or connections that have come."""
    return UdpField.RECEIVED if protocol is Protocol.UDP else TcpField.ACCEPTED


def _ended(row: memoryview, protocol: Protocol) -> int:
    """Return how many datagrams or connections of a row have ended, in one way or another."""
    if protocol is Protocol.TCP:
        return sum(row[TCP_CLOSED])
    return row[UdpField.REPLIED] + row[UdpField.INTERRUPTED] + sum(row[UDP_DROPS]) + sum(row[UDP_SEND_FAILURES])


def describe(listener: Listener, row: Sequence[int]) -> dict[str, int]:
    """Name the numbers of a row: always the main ones, and all others that are not zero."""
    if listener.protocol is Protocol.UDP:
        main: tuple[IntEnum, ...] = (
            UdpField.RECEIVED,
            UdpField.RECEIVED_BYTES,
            UdpField.REPLIED,
            UdpField.REPLIED_BYTES,
        )
        rest = {f"dropped_{name}": place for name, place in DROP_FIELDS.items()}
        rest |= {f"send_failed_{name.lower()}": place for name, place in SEND_FAILED_FIELDS.items()}
        rest |= {field.name.lower(): field for field in _MORE_UDP}
    else:
        main = (TcpField.ACCEPTED, TcpField.RECEIVED_BYTES, TcpField.SENT_BYTES)
        rest = {f"closed_{name}": place for name, place in CLOSED_FIELDS.items()}
        rest["accept_failed"] = TcpField.ACCEPT_FAILED
    numbers = {field.name.lower(): row[field] for field in main}
    return numbers | {name: row[index] for name, index in rest.items() if row[index]}


def _slot_fields(listeners: int, places: int) -> int:
    """Return the numbers of one worker slot, rounded up to a cache line."""
    fields = HEADER_FIELDS + listeners * ROW_FIELDS + places
    return -(-fields // HEADER_FIELDS) * HEADER_FIELDS
