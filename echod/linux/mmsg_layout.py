"""How the memory of a vector is laid out: the sizes of the kernel's structs, and where each part lies.

Owns numbers alone. `mmsg` writes this memory, and `unfinished` reads it after its process has died.
"""

from itertools import accumulate
from typing import Final

from echod.net.peers import NAME_BYTES

SLOTS: Final = 64
"""Slots in a vector. More than 64 gained nothing in any load measured; fewer cost calls."""

SLOT_BYTES: Final = 65536 + 64
"""Payload room of a slot: a GRO train may carry up to 65,535 bytes. Mappings are touched lazily. There is a cache line
more, because 65,536 bytes apart the beginnings of all slots would compete for the same few lines of the cache."""

HEADER_BYTES: Final = 64
"""`sizeof(struct mmsghdr)`: name 0, namelen 8, iov 16, iovlen 24, control 32, controllen 40, flags 48, len 56."""

IOVEC_BYTES: Final = 16
NAME_LENGTH: Final = 28
CONTROL_BYTES: Final = 64
"""Room for UDP_GRO and IPV6_PKTINFO, which is what an echo receives."""

MAX_CONTROL_BYTES: Final = 160
"""Room for a timestamp, hop limit and traffic class too; see `cmsg`."""

SEGMENT_CMSG_BYTES: Final = 24
"""`CMSG_SPACE(sizeof(int))`: the size of a received UDP_GRO and of a sent UDP_SEGMENT."""

MAX_JOINED: Final = 64
"""Most segments of one send: UDP_MAX_SEGMENTS of the oldest kernels that know UDP_SEGMENT (udp(7))."""

MAX_PAYLOAD: Final = 65_507
"""Most bytes of one send: 65,535 less an IPv4 and a UDP header. (IPv6 has room for a little more.)"""

SEGMENT_CMSG_LENGTH: Final = 18
"""`CMSG_LEN(sizeof(u16))`, the only length that UDP_SEGMENT takes."""

PARTS: Final = (
    *(HEADER_BYTES, IOVEC_BYTES, NAME_BYTES, MAX_CONTROL_BYTES),  # received
    *(HEADER_BYTES, MAX_CONTROL_BYTES),  # composed
    *(HEADER_BYTES, IOVEC_BYTES),  # apart
    *(HEADER_BYTES, IOVEC_BYTES),  # answers
)
"""The bytes of each part of the mapping, for one slot."""

ENDS: Final = tuple(accumulate(SLOTS * size for size in PARTS))
"""The offset of the end of each part."""

CONTROL_AT: Final = ENDS[2]
"""The offset of the control messages. (The headers are the first part.)"""

_ANSWERS_END: Final = ENDS[-1] + 2 * MAX_CONTROL_BYTES

NOTED_ROW: Final = _ANSWERS_END // 8
NOTED_RECEIVED: Final = NOTED_ROW + 1
"""The offset, in 64-bit words, of the note that is made before a receive: the row of the counters, and the datagrams
that this row has counted as received."""

MEMORY_BYTES: Final = _ANSWERS_END + 16
"""The size of the mapping without the payload."""
