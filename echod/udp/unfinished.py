"""What a worker had received, and not yet counted, when it died.

A worker that is killed inside `recvmmsg`, or just after it, has taken datagrams from the kernel that no counter names.
The kernel has written their headers into the worker's vector, whose mapping outlives the worker. Owns the reading of
that mapping; decides nothing and changes nothing. Whatever a broken worker left there, the result is within bounds.
"""

from mmap import mmap
from struct import Struct
from typing import Final

from echod.linux.mmsg_layout import (
    CONTROL_AT,
    CONTROL_BYTES,
    HEADER_BYTES,
    MAX_CONTROL_BYTES,
    NAME_LENGTH,
    NOTED_ROW,
    SLOT_BYTES,
    SLOTS,
)
from echod.linux.sockopt import IPPROTO_UDP, UDP_GRO, UDP_SEGMENT
from echod.stats.counters import Unfinished

_HEADER: Final = Struct("<8xI20xQQI4xI4x")
"""Of a `struct mmsghdr`: msg_namelen, msg_control, msg_controllen, msg_flags, msg_len."""

_MESSAGE: Final = Struct("<QIII4x")
"""A `struct cmsghdr` and a number: cmsg_len, cmsg_level, cmsg_type, and the segment length of a train."""
_TRAIN_TYPES: Final = (UDP_GRO, UDP_SEGMENT)
"""The worker turns the one into the other for its reply."""

_NOTED: Final = Struct("<QQ")


def read_unfinished(memory: mmap) -> Unfinished:
    """Read the mapping of a worker that has died: `mmsg_layout.MEMORY_BYTES`."""
    row, counted = _NOTED.unpack_from(memory, 8 * NOTED_ROW)
    headers = [_HEADER.unpack_from(memory, slot * HEADER_BYTES) for slot in range(SLOTS)]
    room = min(max(headers[1][1] - headers[0][1], CONTROL_BYTES), MAX_CONTROL_BYTES)
    # As they are before a receive. No datagram leaves them so: each has a control message, or a flag that says why
    # not; and with an IPv6 train, which may have control messages of this length, it is not empty.
    fresh = [NAME_LENGTH, room, 0, 0]
    filled = [
        (slot, control, length)
        for slot, (name, _, control, flags, length) in enumerate(headers)
        if [name, control, flags, length] != fresh and (control or flags)
    ]
    return Unfinished(
        row=row,
        counted=counted,
        datagrams=sum(
            _weight(memory, CONTROL_AT + slot * room, min(control, room), length) for slot, control, length in filled
        ),
        octets=sum(min(length, SLOT_BYTES) for _, _, length in filled),
    )


def _weight(memory: mmap, at: int, control_length: int, length: int) -> int:
    """Return how many datagrams a slot of `length` bytes holds, by its control messages at this offset."""
    end = at + control_length
    while at + _MESSAGE.size <= end:
        size, level, kind, segment = _MESSAGE.unpack_from(memory, at)
        if level == IPPROTO_UDP and kind in _TRAIN_TYPES and segment:
            return -(-min(length, SLOT_BYTES) // int(segment))
        at += max(_MESSAGE.size, size + -size % 8)
    return 1
