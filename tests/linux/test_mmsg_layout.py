"""echod.linux.mmsg_layout: the sizes are those of the C structs, and the parts of the mapping do not overlap."""

import ctypes
import socket
import struct

from support.c_structs import Iovec, Mmsghdr

from echod.linux import mmsg_layout
from echod.net.peers import NAME_BYTES


def test_the_sizes_are_those_of_the_kernel() -> None:
    """As the C library's structs have them, and its CMSG_SPACE and CMSG_LEN."""
    assert ctypes.sizeof(Mmsghdr) == mmsg_layout.HEADER_BYTES
    assert ctypes.sizeof(Iovec) == mmsg_layout.IOVEC_BYTES
    assert socket.CMSG_SPACE(4) == mmsg_layout.SEGMENT_CMSG_BYTES
    assert socket.CMSG_LEN(2) == mmsg_layout.SEGMENT_CMSG_LENGTH
    assert len(struct.pack("HHI16sI", 0, 0, 0, b"", 0)) == mmsg_layout.NAME_LENGTH <= NAME_BYTES
    assert socket.CMSG_SPACE(4) + socket.CMSG_SPACE(20) == mmsg_layout.CONTROL_BYTES
    every = [16, 4, 20, 4, 4]  # timestamp, UDP_GRO, IPV6_PKTINFO, hop limit, traffic class
    assert sum(map(socket.CMSG_SPACE, every)) <= mmsg_layout.MAX_CONTROL_BYTES


def test_the_parts_of_the_mapping_follow_each_other() -> None:
    """Each has room for every slot; the two sets of control messages and the note come last."""
    sizes = [64, 16, 32, 160, 64, 160, 64, 16, 64, 16]
    assert [sum(sizes[: n + 1]) * mmsg_layout.SLOTS for n in range(len(sizes))] == list(mmsg_layout.ENDS)
    assert mmsg_layout.CONTROL_AT == (64 + 16 + 32) * mmsg_layout.SLOTS
    assert mmsg_layout.ENDS[-1] + 2 * mmsg_layout.MAX_CONTROL_BYTES == 8 * mmsg_layout.NOTED_ROW
    assert 8 * (mmsg_layout.NOTED_RECEIVED + 1) == mmsg_layout.MEMORY_BYTES
