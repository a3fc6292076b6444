"""The refusal of datagrams of a batch: unanswered, and counted.

Invariant: each refused datagram is counted once, with its reason.
"""

from echod.net.peers import address_of
from echod.stats.counters import UdpField
from echod.stats.outcomes import Drop
from echod.stats.refusals import Tally
from echod.udp.batch import Batch


def refuse(batch: Batch, row: memoryview, tally: Tally, slot: int, drop: Drop, datagrams: int) -> None:  # noqa: PLR0913, PLR0917
    """Leave the last so many datagrams of a slot unanswered, and count why."""
    batch.refuse(slot, datagrams)
    count_refused(batch, row, tally, slot, drop, datagrams)


def count_refused(batch: Batch, row: memoryview, tally: Tally, slot: int, drop: Drop, datagrams: int) -> None:  # noqa: PLR0913, PLR0917
    """Count datagrams of a slot that were left unanswered."""
    row[UdpField.DROPPED + drop] += datagrams
    tally.add(drop, address_of(batch.peers[slot]), datagrams)
