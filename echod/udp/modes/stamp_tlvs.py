"""The TLVs of the requests in a batch, as a Session-Reflector of STAMP answers them (RFC 8972, 4).

Owns what the reflector saw of a request, and the DSCP of a reply that a request asks for. The rules for each TLV are in
`wire.reflection`. A train has one DSCP: that of the first request in it that asks for one; it is refused to the others.
"""

from collections.abc import Sequence
from typing import Final

from echod.linux.clock import Clock
from echod.net.peers import address_of
from echod.udp.batch import Batch
from echod.udp.modes.tables import Table
from echod.udp.sessions import Session
from echod.udp.sock import UdpSocket
from echod.wire.reflection import Seen, reflect
from echod.wire.stamp import WRAP, Layout
from echod.wire.tlv import HEADER_BYTES, PADDING

_ECN: Final = 0x03
_PORT: Final = slice(2, 4)
"""Of a peer, in network byte order."""


class TlvAnswers:
    """The TLVs in the replies of one listener."""

    def __init__(self, places: Layout, *, permitted: frozenset[int], key: bytes, port: int) -> None:
        """Take the layout of its packets, each DSCP that a sender may ask for, its key, and its port."""
        self._places = places
        self._permitted = permitted
        self._key = key
        self._port = port

    def write(self, batch: Batch, sock: UdpSocket, table: Table, sessions: Sequence[Session], clock: Clock) -> None:
        """Answer the TLVs of those requests that have some; without `sessions` nobody counts.

        The base of the replies is written already, but for what authenticates it.
        """
        places, rows = self._places, table.rows
        least = places.length + HEADER_BYTES
        if (rows.step if table.train else max(table.lengths(batch))) < least:
            return
        kinds = rows.gather(places.length + 1, 1)
        if kinds.count(PADDING) == rows.count:
            return
        given: dict[int, int] = {}
        """The DSCP of the replies in a slot, where a request asked for one."""
        for row, (length, kind) in enumerate(zip(table.lengths(batch), kinds, strict=True)):
            if kind == PADDING:
                continue
            packet, slot = rows.packet(row, length), table.slot(row)
            asked = bytes(packet[places.sender_sequence : places.sender_sequence + 4])
            session = sessions[row] if sessions else None
            seen = self._see(batch, sock, slot, bytes(packet[:4]), session, clock, given.get(slot))
            answer = reflect(bytes(packet[places.length :]), asked, seen)
            packet[places.length :] = answer.tlvs
            if answer.dscp is not None and slot not in given:
                given[slot] = answer.dscp
                sock.control.mark(batch.vector, slot, batch.forms[slot], answer.dscp)

    def _see(  # noqa: PLR0913, PLR0917 - all that is known of a request
        self,
        batch: Batch,
        sock: UdpSocket,
        slot: int,
        sequence: bytes,
        session: Session | None,
        clock: Clock,
        given: int | None,
    ) -> Seen:
        peer, tos = batch.peer(slot), batch.arrivals.toses[slot]
        received = int.from_bytes(sequence, "big") + 1  # the replies of a session are numbered from zero
        return Seen(
            source=address_of(peer),
            source_port=int.from_bytes(peer[_PORT], "big"),
            destination=sock.control.destination(batch.vector, slot, batch.forms[slot]),
            destination_port=self._port,
            dscp=tos >> 2,
            ecn=tos & _ECN,
            permitted=self._permitted,
            given=given,
            synchronized=clock.synchronized,
            counted=None if session is None else (received % WRAP, (received - session.failed) % WRAP),
            sequence=sequence,
            key=self._key,
        )
