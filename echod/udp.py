"""Echo on one UDP socket: receive, admit, reply.

Owns the walk of a datagram and its accounting. Never waits, never logs, never raises for what a peer sent.
Invariant: every datagram received ends in exactly one number: replied, one drop, or one send failure.
"""

from typing import Final

from echod.batch import Batch, Port
from echod.core.admission import Admission
from echod.core.counters import UdpField, send_failed_field
from echod.vector import SLOTS

MAX_BATCHES_PER_WAKEUP: Final = 8
"""Batches of one socket in one turn of the loop, so that a flood on it starves no other."""


class UdpEcho:
    """One UDP socket of a worker."""

    def __init__(self, port: Port, batch: Batch, admission: Admission, row: memoryview) -> None:
        """Share the worker's batch; count into this listener's row of the counters page."""
        self.port = port
        self._batch = batch
        self._admission = admission
        self._row = row

    def on_readable(self, _now: float) -> None:
        """Answer what is queued, at most MAX_BATCHES_PER_WAKEUP batches of it."""
        batch, row, port = self._batch, self._row, self.port
        for _ in range(MAX_BATCHES_PER_WAKEUP):
            slots = batch.receive(port)
            if not slots:
                return
            row[UdpField.RECEIVED] += batch.datagrams
            row[UdpField.RECEIVED_BYTES] += batch.octets
            if batch.suspect or not self._admission.admits_all(batch.source_ports()):
                self._admit_each()
            batch.reply(port)
            row[UdpField.REPLIED] += batch.replied
            row[UdpField.REPLIED_BYTES] += batch.replied_octets
            for error, datagrams in batch.failures.items():
                row[send_failed_field(error)] += datagrams
            if slots < SLOTS:
                return

    def _admit_each(self) -> None:
        """Decide slot by slot, where one look over the whole batch did not settle it."""
        batch = self._batch
        for slot, source_port in enumerate(batch.source_ports()):
            unicast, truncated = slot not in batch.not_unicast, slot in batch.truncated
            drop = self._admission.admit(source_port, unicast=unicast, truncated=truncated)
            if drop is not None:
                self._row[UdpField.DROPPED + drop] += batch.refuse(slot)
