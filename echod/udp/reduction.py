"""Control messages of a socket that is changing: reduced to those of an echo.

A socket begins or ends to report arrivals with three system calls (`linux.arrival`), and datagrams come between them.
Owns which messages report an arrival. Invariant: all others are kept, so that a slot with one is of no form.
"""

import socket
from mmap import mmap
from struct import Struct
from typing import Final

from echod.linux import sockopt

_HEADER: Final = Struct("<Qii")
"""`struct cmsghdr`: length, level and type."""

_OF_ARRIVALS: Final = (
    *((sockopt.SOL_SOCKET, sockopt.SO_TIMESTAMPNS), (sockopt.IPPROTO_IP, socket.IP_TTL)),
    *((sockopt.IPPROTO_IP, socket.IP_TOS), (sockopt.IPPROTO_IPV6, socket.IPV6_HOPLIMIT)),
    (sockopt.IPPROTO_IPV6, socket.IPV6_TCLASS),
)
"""Level and type of what reports an arrival."""


def reduce(memory: mmap, at: int, length: int) -> int:
    """Leave out what reports an arrival from the control messages at this offset; return their length after that."""
    kept, first, end = b"", at, at + length
    while at + _HEADER.size <= end:
        size, level, kind = _HEADER.unpack_from(memory, at)
        after = at + max(_HEADER.size, size + -size % 8)
        if (level, kind) not in _OF_ARRIVALS:
            kept += memory[at:after]
        at = after
    memory[first : first + len(kept)] = kept
    return len(kept)
