"""UDPEchoPlus (TR-143, A.1): the same bytes, with counters and time stamps of the server written into them.

Owns what is written, and the sessions. Invariant: bytes 4 to 19 of a datagram of at least 24 bytes are rewritten, and
no other byte; a shorter datagram is echoed.

Receive time stamp: when the kernel took the datagram in (SO_TIMESTAMPNS), so before it waited in the queue. Reply time
stamp: read when the batch has been rewritten, just before the kernel is asked to send all its replies. Both are
microseconds since the daemon started, by the monotonic clock, modulo 2**32.
"""

import time
from collections.abc import Sequence
from struct import pack
from typing import Final

from echod.linux.clock import read_together
from echod.stats.counters import UdpField
from echod.udp.arrivals import SECOND
from echod.udp.batch import Batch
from echod.udp.modes.tables import Layouts, Table, note_failures
from echod.udp.reply import send
from echod.udp.sessions import Session, Sessions, count_requests, count_train
from echod.udp.sock import UdpSocket
from echod.wire.lanes import Lanes
from echod.wire.udpecho_plus import FAILURES_AT, HEADER_BYTES, RECEIVED_AT, RESPONSE_SEQUENCE_AT, WRAP

_FIELD: Final = 4
_PER_MICROSECOND_SHIFT: Final = 38
_PER_MICROSECOND: Final = -(-(1 << _PER_MICROSECOND_SHIFT) // 1000)
"""Times ns and divided by 2**38 it is microseconds, for less than 2**30 ns."""
_FIRST_AT: Final = int(UdpField.FIRST_AT)
_LAST_AT: Final = int(UdpField.LAST_AT)
_FAILED_BYTES: Final = int(UdpField.FAILED_BYTES)


class UdpEchoPlus:
    """The replies of one socket."""

    def __init__(self, row: memoryview, *, began: int) -> None:
        """Take the row of counters of its listener, and when the daemon started, in ns of the monotonic clock."""
        self._row = row
        self._began = began
        self._sessions = Sessions()
        self._layouts = Layouts(HEADER_BYTES)
        self._failed = False
        """A reply could not be sent, once."""

    def reply(self, batch: Batch, sock: UdpSocket) -> None:
        """Reply to a batch."""
        tables, arrivals, began = self._layouts.of(batch).tables, batch.arrivals, self._began
        now, wall = read_together()
        second, offsets = arrivals.known(wall)
        self._note_times(batch, second, offsets)
        # The clock of the daemon when that second began, had the wall clock always been set as it is now.
        received = _microseconds(offsets, second - wall + now - began)
        counted = [(table, self._count(batch, table, now / 1e9)) for table in tables]
        stamps = received.pack(low=(time.monotonic_ns() - began) // 1000 % WRAP)
        for table in tables:
            first = 2 * _FIELD * table.slots.start
            if table.train:
                table.rows.fill(RECEIVED_AT, stamps[first : first + 2 * _FIELD])
            else:
                table.rows.write(RECEIVED_AT, 2 * _FIELD, stamps[first : 2 * _FIELD * table.slots.stop])
        send(batch, sock)
        if batch.failures:
            self._failed = True
            note_failures(batch, counted)
            refused = sum(map(batch.span.length.__getitem__, batch.refused))
            self._row[_FAILED_BYTES] += batch.octets - refused - batch.replied_octets

    def _count(self, batch: Batch, table: Table, now: float) -> list[Session]:
        """Count requests for their sessions, and write the counts into the replies; return the session of each."""
        numbers: Sequence[int]
        if table.train:
            sessions = self._sessions.find([batch.peer(table.slots.start)], now)
            numbers = count_train(sessions[0], table.rows.count)
            sessions *= table.rows.count
        else:
            sessions = self._sessions.find(table.of_rows(batch.peers), now)
            numbers = count_requests(sessions)
        failures = bytes(_FIELD * len(sessions))
        if self._failed:
            numbers = [number - session.failed for number, session in zip(numbers, sessions, strict=True)]
            failures = _pack([session.failed for session in sessions])
        table.rows.write(RESPONSE_SEQUENCE_AT, _FIELD, _pack(numbers))
        table.rows.write(FAILURES_AT, _FIELD, failures)
        return sessions

    def _note_times(self, batch: Batch, second: int, offsets: list[int]) -> None:
        """Note when the first and the last datagram were received that is neither refused nor a self test."""
        if batch.refused or batch.tests:
            left_out = batch.refused | batch.tests
            offsets = [offset for slot, offset in enumerate(offsets) if slot not in left_out]
        if offsets:
            self._row[_FIRST_AT] = self._row[_FIRST_AT] or second + offsets[0]
            self._row[_LAST_AT] = second + offsets[-1]


def _pack(numbers: Sequence[int]) -> bytes:
    """Return fields of a packet, which wrap."""
    if max(numbers) >= WRAP:
        numbers = [number % WRAP for number in numbers]
    return pack(f">{len(numbers)}I", *numbers)


def _microseconds(offsets: list[int], zero: int) -> Lanes:
    """Return times, in ns, in microseconds of the clock of a daemon, modulo 2**32: the offset 0 is its time `zero`."""
    micros, rest = divmod(zero, 1000)
    if max(offsets) < SECOND:
        lanes = Lanes(offsets)
        lanes.add(rest)
        lanes.scale(_PER_MICROSECOND, _PER_MICROSECOND_SHIFT)
    else:
        lanes = Lanes([(offset + rest) // 1000 % WRAP for offset in offsets])
    lanes.add(micros % WRAP)
    return lanes
