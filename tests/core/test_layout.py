"""echod.core.layout: the sizes are those of the C structs, and the parts of the mapping do not overlap."""

import ctypes
import socket
import struct

from structs import Iovec, Mmsghdr

from echod.core import layout
from echod.core.peers import NAME_BYTES


def test_the_sizes_are_those_of_the_kernel() -> None:
    """As the C library's structs have them, and its CMSG_SPACE and CMSG_LEN."""
    assert ctypes.sizeof(Mmsghdr) == layout.HEADER_BYTES
    assert ctypes.sizeof(Iovec) == layout.IOVEC_BYTES
    assert socket.CMSG_SPACE(4) == layout.SEGMENT_CMSG_BYTES == 4 * layout.SEGMENT_WORDS
    assert socket.CMSG_LEN(2) == layout.SEGMENT_CMSG_LENGTH
    assert len(struct.pack("HHI16sI", 0, 0, 0, b"", 0)) == layout.NAME_LENGTH <= NAME_BYTES
    assert socket.CMSG_SPACE(4) + socket.CMSG_SPACE(20) == layout.CONTROL_BYTES


def test_the_parts_of_the_mapping_follow_each_other() -> None:
    """Each has room for every slot; the two sets of control messages and the note come last."""
    sizes = [64, 16, 32, 64, 64, 64, 64, 16, 64, 16]
    assert [sum(sizes[: n + 1]) * layout.SLOTS for n in range(len(sizes))] == list(layout.ENDS)
    assert layout.CONTROL_AT == (64 + 16 + 32) * layout.SLOTS
    assert layout.ENDS[-1] + 2 * layout.CONTROL_BYTES == 8 * layout.NOTED_ROW
    assert 8 * (layout.NOTED_RECEIVED + 1) == layout.MEMORY_BYTES
