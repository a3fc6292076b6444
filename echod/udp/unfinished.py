"""What a worker had received, and not yet counted, when it died.

A worker that is killed inside `recvmmsg`, or just after it, has taken datagrams from the kernel that no counter names.
The kernel has written their headers into the worker's vector, whose mapping outlives the worker. Owns the reading of
that mapping; decides nothing and changes nothing. Whatever a broken worker left there, the result is within bounds.
"""

from mmap import mmap
from struct import Struct
from typing import Final

from echod.linux.mmsg import LAYOUTS
from echod.linux.mmsg_layout import (
    CONTROL_AT,
    CONTROL_BYTES,
    HEADER_BYTES,
    NAME_LENGTH,
    NOTED_ROW,
    SLOT_BYTES,
    SLOTS,
)
from echod.linux.sockopt import UDP_GRO, UDP_SEGMENT
from echod.stats.counters import Unfinished

_HEADER: Final = Struct("<8xI28xQI4xI4x")
"""Of a `struct mmsghdr`: msg_namelen, msg_controllen, msg_flags, msg_len."""
_FRESH: Final = (NAME_LENGTH, CONTROL_BYTES, 0, 0)
"""As they are before a receive. No datagram leaves them so: an IPv6 train, which has names and control messages of
these lengths, is not empty. And each has a control message, or a flag that says why not."""

_CONTROL: Final = Struct("<12xiI")
"""Of the first control message: `cmsg_type`, and the segment length of a train."""
_TRAINS: Final = frozenset(layout.train for layout in LAYOUTS.values())
_TRAIN_TYPES: Final = (UDP_GRO, UDP_SEGMENT)
"""The worker turns the one into the other for its reply."""

_NOTED: Final = Struct("<QQ")


def read_unfinished(memory: mmap) -> Unfinished:
    """Read the mapping of a worker that has died: `vector.MEMORY_BYTES`."""
    row, counted = _NOTED.unpack_from(memory, 8 * NOTED_ROW)
    headers = (_HEADER.unpack_from(memory, slot * HEADER_BYTES) for slot in range(SLOTS))
    filled = [(slot, header) for slot, header in enumerate(headers) if header != _FRESH and any(header[1:3])]
    return Unfinished(
        row=row,
        counted=counted,
        datagrams=sum(_weight(memory, slot, control, length) for slot, (_, control, _, length) in filled),
        octets=sum(min(length, SLOT_BYTES) for _, (_, _, _, length) in filled),
    )


def _weight(memory: mmap, slot: int, control_length: int, length: int) -> int:
    """Return how many datagrams a slot holds."""
    kind, segment = _CONTROL.unpack_from(memory, CONTROL_AT + slot * CONTROL_BYTES)
    if control_length not in _TRAINS or kind not in _TRAIN_TYPES or not segment:
        return 1
    return -(-min(length, SLOT_BYTES) // int(segment))
