"""Echo on one UDP socket: receive, admit, reply.

Owns the walk of a datagram and its accounting. Never waits, never logs, never raises for what a peer sent.
Invariant: every datagram received ends in exactly one number: replied, one drop, or one send failure.
"""

from collections import Counter
from typing import Final

from echod.batch import Batch
from echod.core.admission import Admission, Drop, address_of
from echod.core.counters import UdpField, send_failed_field
from echod.core.tally import Tally
from echod.port import Port

MAX_BATCHES_PER_WAKEUP: Final = 8
"""Batches of one socket in one turn of the loop, so that a flood on it starves no other."""


WORTH_ANOTHER_LOOK: Final = 16
"""Slots of a batch from which on more has most likely come while it was answered. Else the loop's poll is asked, which
costs less than a receive in vain."""

# As plain numbers: with the enum itself as the index, finding the place costs as much as counting.
_RECEIVED: Final = int(UdpField.RECEIVED)
_RECEIVED_BYTES: Final = int(UdpField.RECEIVED_BYTES)
_REPLIED: Final = int(UdpField.REPLIED)
_REPLIED_BYTES: Final = int(UdpField.REPLIED_BYTES)


class UdpEcho:
    """One UDP socket of a worker."""

    def __init__(self, port: Port, batch: Batch, admission: Admission, row: memoryview, tally: Tally) -> None:
        """Share the worker's batch and admission; count into this listener's row, and into its tally of the refused."""
        self.port = port
        self._batch = batch
        self._admission = admission
        self._row = row
        self._tally = tally

    def on_readable(self, now: float) -> None:
        """Answer what is queued, at most MAX_BATCHES_PER_WAKEUP batches of it."""
        batch, admission, row, port = self._batch, self._admission, self._row, self.port
        for _ in range(MAX_BATCHES_PER_WAKEUP):
            slots = batch.receive(port)
            if not slots:
                return
            row[_RECEIVED] += batch.datagrams
            row[_RECEIVED_BYTES] += batch.octets
            counts = admission.counts_this_batch()
            if not batch.uniform:
                self._admit_each(now, counts=counts)
            elif counts or not admission.admits_all(batch.names, port.peer_length, on_loopback=batch.on_loopback):
                self._admit_all(now, counts=counts)
            batch.reply(port)
            row[_REPLIED] += batch.replied
            row[_REPLIED_BYTES] += batch.replied_octets
            if batch.failures:
                for error, datagrams in batch.failures.items():
                    row[send_failed_field(error)] += datagrams
            if slots < WORTH_ANOTHER_LOOK:
                return

    def _admit_all(self, now: float, *, counts: bool) -> None:
        """Decide on a batch of plain datagrams by its peers."""
        batch, admission = self._batch, self._admission
        spared = admission.spared
        refused, due = admission.admit_all(batch.peers, on_loopback=batch.on_loopback, counts=counts, now=now)
        if refused:
            self._refuse_each(refused)
        for slot in due:
            self._look_closer(slot)
        if admission.spared != spared:
            self._row[UdpField.SPARED] += admission.spared - spared

    def _admit_each(self, now: float, *, counts: bool) -> None:
        """Decide slot by slot: on trains, and where one is not whole, not unicast, or came in another way."""
        batch, admission = self._batch, self._admission
        spared = admission.spared
        for slot, peer in enumerate(batch.peers):
            weight, on_loopback = batch.weight(slot), batch.came_in_on_loopback(slot)
            unicast, truncated = slot not in batch.not_unicast, slot in batch.truncated
            drop = admission.admit(peer, on_loopback=on_loopback, unicast=unicast, truncated=truncated)
            if drop is not None:
                self._refuse(slot, drop, weight)
                continue
            within = admission.take(peer, weight, now)
            if within < weight:
                self._refuse(slot, Drop.RATE, weight - within)
            if counts and within and admission.count(peer, within):
                self._look_closer(slot)
        if admission.spared != spared:
            self._row[UdpField.SPARED] += admission.spared - spared

    def _look_closer(self, slot: int) -> None:
        """Refuse the last datagram of a slot if it goes round."""
        peer = self._batch.peers[slot]
        if self._admission.repeats(peer, self._batch.last_datagram(slot)):
            self._refuse(slot, Drop.LOOP, 1)

    def _refuse_each(self, refused: dict[int, Drop]) -> None:
        """Leave these slots, of one datagram each, unanswered: what they have in common is counted at once."""
        peers = self._batch.peers
        self._batch.refuse_each(refused)
        alike = Counter((drop, address_of(peers[slot])) for slot, drop in refused.items())
        for (drop, address), datagrams in alike.items():
            self._row[UdpField.DROPPED + drop] += datagrams
            self._tally.add(drop, address, datagrams)

    def _refuse(self, slot: int, drop: Drop, datagrams: int) -> None:
        """Leave so many datagrams of a slot unanswered, and say why in numbers."""
        self._batch.refuse(slot, datagrams)
        self._row[UdpField.DROPPED + drop] += datagrams
        self._tally.add(drop, address_of(self._batch.peers[slot]), datagrams)
