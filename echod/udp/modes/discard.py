"""The discard service (RFC 863): no reply to anything but a self test.

Owns nothing. Discarded datagrams are counted and not reported as refusals: the operator asked for it.
"""

from typing import Final

from echod.stats.counters import UdpField
from echod.stats.outcomes import Drop
from echod.udp.batch import Batch
from echod.udp.reply import send
from echod.udp.sock import UdpSocket

_DISCARDED: Final = int(UdpField.DROPPED + Drop.DISCARDED)


class Discard:
    """The reply of one listener in one worker."""

    def __init__(self, row: memoryview) -> None:
        """Count into this row."""
        self._row = row

    def reply(self, batch: Batch, sock: UdpSocket) -> None:
        """Reply to the self tests of a batch, and count the rest."""
        rest = set(range(batch.span.count)) - batch.refused - batch.tests
        self._row[_DISCARDED] += sum(map(batch.weight, rest))
        batch.refused |= rest
        send(batch, sock)
