"""A Session-Reflector of STAMP (RFC 8762, 4.3), with SSID and TLVs (RFC 8972); TWAMP-Light (RFC 5357) too.

Owns what is written into a test packet, and the sessions of stateful mode. Invariant: a reply is as long as its
request; a request that is too short or does not verify gets none, and is counted.

Receive time stamp: when the kernel took the packet in (SO_TIMESTAMPNS), so before it waited in the queue. Transmit time
stamp: read when the batch has been rewritten, before the replies are authenticated and the kernel is asked to send
them. Both are NTP stamps of the wall clock. That of the sender is copied, whatever its format.
"""

import time
from array import array
from collections.abc import Sequence
from struct import pack
from typing import Final

from echod.linux.clock import UNKNOWN, read_clock
from echod.net.mode import REFLECT, ListenerOptions
from echod.stats.outcomes import Drop
from echod.stats.refusals import Tally
from echod.udp.batch import Batch
from echod.udp.modes.stamp_tlvs import TlvAnswers
from echod.udp.modes.tables import Layouts, Table, note_failures
from echod.udp.refusal import count_refused, refuse
from echod.udp.reply import send
from echod.udp.sessions import Session, Sessions, count_requests, count_train
from echod.udp.sock import UdpSocket
from echod.wire.authentication import CODE_BYTES, code_of, verifies
from echod.wire.ntp import ErrorEstimate, pack_ntp, to_ntp
from echod.wire.stamp import HMAC_AT, SHORT_BYTES, WRAP, layout

CLOCK_SECONDS: Final = 1.0
"""The kernel is asked so often how far its clock may be off."""

_EVERY_DSCP: Final = frozenset(range(64))
_NO_SSID: Final = bytes(2)


class Stamp:
    """The replies of one socket."""

    def __init__(self, row: memoryview, tally: Tally, *, options: ListenerOptions, key: bytes, port: int) -> None:
        """Take row of counters, tally, options and port of the listener, and its key; empty without one."""
        self._row = row
        self._tally = tally
        self._key = key
        self._places = layout(key)
        pads = options.short_packets == "pad" and not key
        self._layouts = Layouts(SHORT_BYTES if pads else self._places.length)
        self._sessions = Sessions() if options.stateful else None
        permitted = _EVERY_DSCP if options.dscp == REFLECT else frozenset({options.dscp or 0})
        self._tlvs = TlvAnswers(self._places, permitted=permitted, key=key, port=port)
        self._clock = UNKNOWN
        self._estimate = b""
        self._look_at = 0.0
        """When to ask for the clock again, by the monotonic clock."""

    def reply(self, batch: Batch, sock: UdpSocket) -> None:
        """Reply to a batch."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look(now)
        tables, arrivals = self._admit(batch), batch.arrivals
        second, offsets = arrivals.known(time.time_ns())
        numbered = []
        for table in tables:
            self._rewrite(table, second, offsets, arrivals.ttls)
            sessions = self._number(batch, table, now)
            self._tlvs.write(batch, sock, table, sessions, self._clock)
            numbered.append((table, sessions))
        sent = to_ntp(time.time_ns()).to_bytes(8, "big")
        for table in tables:
            table.rows.fill(self._places.stamp, sent)
            if self._key:
                self._authenticate(table)
        send(batch, sock)
        if batch.failures:
            note_failures(batch, numbered)

    def _look(self, now: float) -> None:
        """Ask the kernel for the state of its clock."""
        self._clock, self._look_at = read_clock(), now + CLOCK_SECONDS
        estimate = ErrorEstimate.of(self._clock.error, synchronized=self._clock.synchronized)
        self._estimate = estimate.field.to_bytes(2, "big")

    def _admit(self, batch: Batch) -> list[Table]:
        """Refuse what is no request, and return the rest."""
        found = self._layouts.of(batch)
        for slot, datagrams in found.short:
            refuse(batch, self._row, self._tally, slot, Drop.MALFORMED, datagrams)
        forged = 0
        for table in found.tables if self._key else ():
            forged += self._refuse_forged(batch, table)
        return self._layouts.of(batch).tables if forged else found.tables

    def _refuse_forged(self, batch: Batch, table: Table) -> int:
        """Refuse requests that do not verify; return how many."""
        packets = table.rows.read(0, HMAC_AT + CODE_BYTES)
        forged = [row for row, each in enumerate(packets) if not verifies(self._key, each[:HMAC_AT], each[HMAC_AT:])]
        if table.train and forged:
            slot = table.slots.start
            batch.leave_out(slot, frozenset(forged))
            count_refused(batch, self._row, self._tally, slot, Drop.UNAUTHENTICATED, len(forged))
        for row in () if table.train else forged:
            refuse(batch, self._row, self._tally, table.slot(row), Drop.UNAUTHENTICATED, 1)
        return len(forged)

    def _rewrite(self, table: Table, second: int, offsets: list[int], ttls: list[int]) -> None:
        """Turn requests into replies, but for sequence number, TLVs, transmit time stamp and HMAC."""
        rows, places, first = table.rows, self._places, table.slots.start
        for source, at, length in places.copies:
            rows.copy(source, at, length)
        for at, length in places.zeros:
            rows.fill(at, bytes(length))
        rows.fill(places.error_estimate, self._estimate)
        if table.train:
            rows.fill(places.received, to_ntp(second + offsets[first]).to_bytes(8, "big"))
            # The packets of TWAMP-Light end before the zeros behind the TTL.
            rows.fill(places.ttl, ttls[first].to_bytes(min(4, rows.step - places.ttl), "little"))
        else:
            rows.write(places.received, 8, pack_ntp(second, table.of_rows(offsets)))
            rows.write(places.ttl, 4, array("I", table.of_rows(ttls)).tobytes())  # the TTL, and three zeros

    def _number(self, batch: Batch, table: Table, now: float) -> list[Session]:
        """Count requests for their sessions, and number the replies; return the session of each; none if stateless."""
        if self._sessions is None:
            return []
        sessions = self._sessions.find(self._keys(batch, table), now)
        if len(sessions) < table.rows.count:
            counted: Sequence[int] = count_train(sessions[0], table.rows.count)
            sessions *= table.rows.count
        else:
            counted = count_requests(sessions)
        numbers = [(number - 1) % WRAP for number in counted]
        table.rows.write(0, 4, pack(f">{len(numbers)}I", *numbers))
        return sessions

    def _keys(self, batch: Batch, table: Table) -> list[bytes]:
        """Return the peer of each request, with its SSID if that is not zero; only one if all are of one session."""
        ssids, peers = table.rows.gather(self._places.ssid, 2), [batch.peer(table.slots.start)]
        first, count = ssids[:2], table.rows.count
        if not table.train:
            peers = list(table.of_rows(batch.peers))
        elif ssids != first * count:
            peers *= count
        if ssids == first * count:
            return peers if first == _NO_SSID else [peer + first for peer in peers]
        each = [ssids[at : at + 2] for at in range(0, len(ssids), 2)]
        return [peer if ssid == _NO_SSID else peer + ssid for peer, ssid in zip(peers, each, strict=True)]

    def _authenticate(self, table: Table) -> None:
        """Write the HMAC of each reply."""
        for row in range(table.rows.count):
            packet = table.rows.packet(row, HMAC_AT + CODE_BYTES)
            packet[HMAC_AT:] = code_of(self._key, bytes(packet[:HMAC_AT]))
