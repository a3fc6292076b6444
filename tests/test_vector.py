"""The vector lies in memory as the kernel's structures do, and its views point where they say."""

import ctypes
import itertools
import socket
import struct

import pytest
from loopback import at, deliver, send_train, udp_client, udp_server

from echod.core.admission import NAME_BYTES
from echod.dispatch import Outgoing
from echod.vector import (
    CONTROL_BYTES,
    HEADER_BYTES,
    IOVEC_BYTES,
    LAYOUTS,
    NAME_LENGTH,
    SEGMENT_CMSG_BYTES,
    SLOT_BYTES,
    SLOTS,
    Vector,
)


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


@pytest.fixture
def vector() -> Vector:
    """Make a fresh one."""
    return Vector()


def headers(vector: Vector) -> ctypes.Array[Mmsghdr]:
    """Read the received headers as C would."""
    return (Mmsghdr * SLOTS).from_address(vector.base + vector.received_at)


def test_sizes_are_those_of_the_kernels_structures() -> None:
    """The sizes that the offsets are computed from are those that a C compiler finds."""
    assert ctypes.sizeof(Mmsghdr) == HEADER_BYTES
    assert ctypes.sizeof(Iovec) == IOVEC_BYTES
    assert len(struct.pack("HHI16sI", 0, 0, 0, b"", 0)) == NAME_LENGTH <= NAME_BYTES
    assert socket.CMSG_SPACE(4) == SEGMENT_CMSG_BYTES
    assert LAYOUTS[socket.AF_INET].plain == socket.CMSG_SPACE(12)
    assert LAYOUTS[socket.AF_INET6].plain == socket.CMSG_SPACE(20)
    assert all(layout.train == layout.plain + SEGMENT_CMSG_BYTES <= CONTROL_BYTES for layout in LAYOUTS.values())


def test_every_header_points_to_room_of_its_own(vector: Vector) -> None:
    """Names, control messages and payload of the slots neither overlap nor leave their mapping."""
    for field, size, first in (
        ("name", NAME_BYTES, vector.base + vector.names_at),
        ("control", CONTROL_BYTES, vector.base + vector.control_at),
    ):
        pointers = [getattr(header.hdr, field) for header in headers(vector)]
        assert pointers == [first + slot * size for slot in range(SLOTS)]
    payloads = [header.hdr.iov[0].base for header in headers(vector)]
    assert payloads == [payloads[0] + slot * SLOT_BYTES for slot in range(SLOTS)]
    assert {header.hdr.iovlen for header in headers(vector)} == {1}


def test_the_regions_of_the_mapping_do_not_overlap(vector: Vector) -> None:
    """Received, composed, apart and ready headers lie behind one another, each aligned for its views."""
    starts = [
        vector.received_at,
        vector.iovecs_at,
        vector.names_at,
        vector.control_at,
        vector.composed_at,
        vector.composed_control_at,
        vector.apart_at,
        vector.apart_iovecs_at,
        vector.answers_at,
        vector.answers_iovecs_at,
        vector.answers_control_at,
    ]
    sizes = [HEADER_BYTES, IOVEC_BYTES, NAME_BYTES, CONTROL_BYTES, HEADER_BYTES, CONTROL_BYTES, HEADER_BYTES]
    assert [after - start for start, after in itertools.pairwise(starts)] == [
        SLOTS * size for size in (*sizes, IOVEC_BYTES, HEADER_BYTES, IOVEC_BYTES)
    ]
    assert vector.answers == slice(vector.answers_at, len(vector.octets))
    assert len(vector.octets) == vector.answers_control_at + CONTROL_BYTES
    assert all(start % 8 == 0 for start in starts)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_views_show_what_the_kernel_wrote(vector: Vector, host: str) -> None:
    """After a receive, each view of each slot reads the field that C reads, for a datagram and a train."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with udp_server(host) as server, udp_client(host) as client:
        deliver(server, client.sendto, b"one", at(server))
        deliver(server, client.sendto, b"four", at(server))
        deliver(server, send_train, client, b"aabbc", 2, at(server))
        assert vector.receive(server.fileno()) == 3
        span, seen = vector.spans[3], headers(vector)[:3]
        layout = LAYOUTS[family]
        assert {header.hdr.namelen for header in seen} == {layout.name}
        assert span.control_length.tolist() == [header.hdr.controllen for header in seen]
        assert span.flags.tolist() == [header.hdr.flags for header in seen]
        assert span.length.tolist() == [header.len for header in seen] == [3, 4, 5]
        assert span.iov_length.tolist() == [header.hdr.iov[0].len for header in seen] == [SLOT_BYTES] * 3
        payloads = [ctypes.string_at(header.hdr.iov[0].base, header.len) for header in seen]
        assert payloads == [b"one", b"four", b"aabbc"]
        size = 8 if family == socket.AF_INET else NAME_LENGTH  # without the zeros behind an IPv4 address
        peers = vector.peers(span, family)
        assert list(peers) == [ctypes.string_at(header.hdr.name, size) for header in seen]
        assert {int.from_bytes(peer[2:4], "big") for peer in peers} == {client.getsockname()[1]}
        assert vector.payload(1, 1, 4) == b"our"
        assert span.control_length.tolist() == [layout.plain, layout.plain, layout.train]
        lo = socket.if_nametoindex("lo")
        assert span.ifindex[family].tolist()[:2] == [lo, lo]
        packed = socket.inet_pton(family, host)
        if family == socket.AF_INET:
            address = int.from_bytes(packed, "little")
            assert span.spec_dst.tolist()[:2] == span.destination.tolist()[:2] == [address] * 2
        else:
            assert [half[0].to_bytes(8, "little") for half in span.destination6] == [packed[:8], packed[8:]]
            assert span.destination6_first.tolist()[:2] == [packed[0]] * 2


def test_restore_gives_the_kernel_its_room_back(vector: Vector) -> None:
    """What a receive wrote over is as it was, so the longest datagram fits after the shortest."""
    with udp_server() as server, udp_client() as client:
        for data in (b"", bytes(65_507), b""):
            deliver(server, client.sendto, data, at(server))
            assert vector.receive(server.fileno()) == 1
            span = vector.spans[1]
            assert (span.length[0], span.flags[0], headers(vector)[0].hdr.namelen) == (len(data), 0, 16)
            span.iov_length[:] = span.length
            vector.restore(span)
            header = headers(vector)[0].hdr
            room = (header.namelen, header.controllen, header.iov[0].len)
            assert room == (NAME_LENGTH, CONTROL_BYTES, SLOT_BYTES)
            assert not any(vector.memory[span.control])


def test_a_span_covers_as_many_slots_as_asked(vector: Vector) -> None:
    """Each of the 65 spans is as long as its count, in every view."""
    for count, span in enumerate(vector.spans):
        views = [span.length, span.flags, span.zeros, span.zeros32, span.iov_length, span.control_length]
        views += [*span.ifindex.values(), *span.plain_control.values(), *span.destination6, span.destination6_first]
        assert {len(view) for view in views} == {count}
        regions = (span.headers, span.iovecs, span.control)
        assert [region.stop - region.start for region in regions] == [len(fresh) for fresh in span.fresh]


def test_an_error_is_told_and_nothing_received(vector: Vector) -> None:
    """A receive without a socket is -1, and the errno can be asked for."""
    assert vector.receive(-1) == -1
    assert vector.error() == 9
    assert vector.send(-1, vector.received_at, 1) == -1
    assert vector.error() == 9


def test_outgoing_weighs_messages_by_their_datagrams(vector: Vector) -> None:
    """Without weights a message is one datagram in a slot of its own; with them it is what they say."""
    plain = Outgoing(vector.received_at, vector.composed_length[:4])
    assert (plain.weight(1, 3), plain.run(2)) == (2, range(2, 3))
    joined = Outgoing(vector.composed_at, vector.composed_length[:2], [3, 1], [range(3), range(5, 6)])
    assert (joined.weight(0, 2), joined.weight(1, 2), joined.run(1)) == (4, 1, range(5, 6))
