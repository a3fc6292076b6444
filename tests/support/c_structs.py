"""Structs of the C library, as a C compiler lays them out."""

import ctypes
import struct


class Iovec(ctypes.Structure):
    """`struct iovec`, readv(2)."""

    _fields_ = (("base", ctypes.c_void_p), ("len", ctypes.c_size_t))


class Msghdr(ctypes.Structure):
    """`struct msghdr`, recvmsg(2)."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.POINTER(Iovec)),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class Mmsghdr(ctypes.Structure):
    """`struct mmsghdr`, recvmmsg(2)."""

    _fields_ = (("hdr", Msghdr), ("len", ctypes.c_uint))


def control_messages(header: Msghdr) -> list[tuple[int, int, bytes]]:
    """Read control messages as C would (cmsg(3)): level, type and data of each."""
    memory, found, place = ctypes.string_at(header.control, header.controllen), [], 0
    while place < len(memory):
        length, level, kind = struct.unpack_from("=QII", memory, place)
        found.append((level, kind, memory[place + 16 : place + length]))
        place += length + -length % 8
    return found
