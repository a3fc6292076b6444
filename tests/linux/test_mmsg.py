"""The vector lies in memory as the kernel's structures do, and its views point where they say."""

import ctypes
import errno
import itertools
import socket
import struct

import pytest
from support.c_structs import Mmsghdr, control_messages
from support.loopback import queue, udp_client, udp_server

from echod.linux.mmsg import NAMES, Vector
from echod.linux.mmsg_layout import (
    CONTROL_BYTES,
    HEADER_BYTES,
    IOVEC_BYTES,
    MAX_CONTROL_BYTES,
    NAME_LENGTH,
    NOTED_RECEIVED,
    NOTED_ROW,
    SLOT_BYTES,
    SLOTS,
)
from echod.net.peers import NAME_BYTES
from echod.udp.cmsg import ControlLayout, Form
from echod.udp.transmit import Outgoing


@pytest.fixture
def vector() -> Vector:
    """Make a fresh one."""
    return Vector()


def headers(vector: Vector) -> ctypes.Array[Mmsghdr]:
    """Read the received headers as C would."""
    return (Mmsghdr * SLOTS).from_address(vector.base + vector.received_at)


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
    sizes = [HEADER_BYTES, IOVEC_BYTES, NAME_BYTES, MAX_CONTROL_BYTES, HEADER_BYTES, MAX_CONTROL_BYTES, HEADER_BYTES]
    assert [after - start for start, after in itertools.pairwise(starts)] == [
        SLOTS * size for size in (*sizes, IOVEC_BYTES, HEADER_BYTES, IOVEC_BYTES)
    ]
    assert vector.answers_joined_at == vector.answers_control_at + CONTROL_BYTES
    assert vector.answers == slice(vector.answers_at, vector.answers_joined_at + CONTROL_BYTES)
    assert vector.answers.stop <= 8 * NOTED_ROW
    assert len(vector.octets) == 8 * (NOTED_RECEIVED + 1)
    assert all(start % 8 == 0 for start in starts)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_views_show_what_the_kernel_wrote(vector: Vector, host: str) -> None:
    """After a receive, each view of each slot reads the field that C reads, for a datagram and a train."""
    family = family_of(host)
    with udp_server(host) as server, udp_client(host) as client:
        queue(client, server, b"one")
        queue(client, server, b"four")
        queue(client, server, b"aabbc", 2)
        assert vector.receive(server.fileno()) == 3
        span, seen = vector.spans[3], headers(vector)[:3]
        assert {header.hdr.namelen for header in seen} == {NAMES[family][0]}
        assert span.control_length.tolist() == [header.hdr.controllen for header in seen]
        assert span.flags.tolist() == [header.hdr.flags for header in seen]
        assert span.length.tolist() == [header.len for header in seen] == [3, 4, 5]
        assert span.iov_length.tolist() == [header.hdr.iov[0].len for header in seen] == [SLOT_BYTES] * 3
        payloads = [ctypes.string_at(header.hdr.iov[0].base, header.len) for header in seen]
        assert payloads == [b"one", b"four", b"aabbc"]
        size = 8 if family == socket.AF_INET else NAME_LENGTH  # without the zeros behind an IPv4 address
        peers = span.peers[family]()
        assert list(peers) == [ctypes.string_at(header.hdr.name, size) for header in seen]
        assert {int.from_bytes(peer[2:4], "big") for peer in peers} == {client.getsockname()[1]}
        assert vector.payload(1, 1, 4) == b"our"
        control = ControlLayout(family)
        assert span.control_length.tolist() == [control.single.length, control.single.length, control.train.length]
        lo = socket.if_nametoindex("lo")
        packed = socket.inet_pton(family, host)
        if family == socket.AF_INET:
            address = int.from_bytes(packed, "little")
            assert [span.words[word].tolist()[:2] for word in (4, 5, 6)] == [[lo] * 2, [address] * 2, [address] * 2]
        else:
            assert [span.longs[half][0].to_bytes(8, "little") for half in (2, 3)] == [packed[:8], packed[8:]]
            assert span.words[8].tolist()[:2] == [lo, lo]


def test_restore_gives_the_kernel_its_room_back(vector: Vector) -> None:
    """What a receive wrote over is as it was, so the longest datagram fits after the shortest."""
    with udp_server() as server, udp_client() as client:
        for data in (b"", bytes(65_507), b""):
            queue(client, server, data)
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
        views += [span.words[0], span.words[CONTROL_BYTES // 4 - 1], span.longs[0], span.longs[CONTROL_BYTES // 8 - 1]]
        assert {len(view) for view in views} == {count}
        regions = (span.headers, span.iovecs, span.control)
        assert [region.stop - region.start for region in regions] == [len(fresh) for fresh in span.fresh]


def test_an_error_is_told_and_nothing_received(vector: Vector) -> None:
    """A receive or a send without a socket is the negative of its errno."""
    assert vector.receive(-1) == -errno.EBADF
    assert vector.send(-1, vector.received_at, 1) == -errno.EBADF


def test_outgoing_weighs_messages_by_their_datagrams(vector: Vector) -> None:
    """Without weights a message is one datagram in a slot of its own; with them it is what they say."""
    plain = Outgoing(vector.received_at, vector.composed_length[:4])
    assert (plain.weight(1, 3), plain.run(2)) == (2, range(2, 3))
    joined = Outgoing(vector.composed_at, vector.composed_length[:2], [3, 1], [range(3), range(5, 6)])
    assert (joined.weight(0, 2), joined.weight(1, 2), joined.run(1)) == (4, 1, range(5, 6))


# -- the answers to what is alike


EACH = [(host, train) for host in ("127.0.0.1", "::1") for train in (False, True)]
each_form = pytest.mark.parametrize(("host", "train"), EACH)


def family_of(host: str) -> socket.AddressFamily:
    """Return the family of an address."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def form_of(host: str, *, train: bool) -> Form:
    """Return the form of the control messages that come with a datagram, or a train."""
    layout = ControlLayout(family_of(host))
    return layout.train if train else layout.single


def receive_alike(vector: Vector, server: socket.socket, clients: list[socket.socket], *, train: bool) -> None:
    """Receive a datagram of five bytes of each client, or a train of as many."""
    for client in clients:
        data = b"%5d" % client.getsockname()[1]
        if train:
            queue(client, server, data, 2)
        else:
            queue(client, server, data)
    assert vector.receive(server.fileno()) == len(clients)


def pktinfo(host: str, ifindex: int) -> tuple[int, int, bytes]:
    """Return the message that says which way a datagram came, or is to go: for 0, any; see ip(7), ipv6(7)."""
    packed = socket.inet_pton(family_of(host), host)
    if ":" in host:
        return socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, packed + struct.pack("I", ifindex)
    return socket.IPPROTO_IP, 8, struct.pack("I", ifindex) + packed + packed


@each_form
def test_control_messages_are_turned_round(vector: Vector, host: str, *, train: bool) -> None:
    """Of each slot: the same addresses by any interface, and of a train the length of its segments; no other slot."""
    with udp_server(host) as server, udp_client(host) as client:
        receive_alike(vector, server, [client] * 3, train=train)
        came_in = pktinfo(host, socket.if_nametoindex("lo"))
        came = [(socket.IPPROTO_UDP, 104, struct.pack("i", 2)), came_in] if train else [came_in]
        assert [control_messages(header.hdr) for header in headers(vector)[:3]] == [came] * 3
        ControlLayout(family_of(host)).turn(vector.spans[2], form_of(host, train=train))
        goes_out = pktinfo(host, 0)
        goes = [(socket.IPPROTO_UDP, 103, struct.pack("H", 2)), goes_out] if train else [goes_out]
        assert [control_messages(header.hdr) for header in headers(vector)[:3]] == [goes, goes, came]


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("look", ["at all", "at each"])
def test_from_a_link_local_address_the_way_back_is_the_way_it_came(vector: Vector, look: str, *, train: bool) -> None:
    """fe80::/10 and no other address keeps the interface: any other is routed."""
    family, form = socket.AF_INET6, form_of("::1", train=train)
    locals_ = ["fe80::1", "::1", "febf::1", "fec0::1"]
    with udp_server("::1") as server, udp_client("::1") as client:
        receive_alike(vector, server, [client] * len(locals_), train=train)
        span = vector.spans[len(locals_)]
        for slot, local in enumerate(locals_):
            at = vector.control_at + slot * CONTROL_BYTES + 4 * form.destination
            vector.memory[at : at + 16] = socket.inet_pton(family, local)
        if look == "at all":
            ControlLayout(family).turn(span, form)
        else:
            ControlLayout(family).parse_each(vector, span, span.length.tolist())
        lo = socket.if_nametoindex("lo")
        ways = [control_messages(header.hdr)[-1] for header in headers(vector)[: len(locals_)]]
        assert ways == [pktinfo(local, index) for local, index in zip(locals_, (lo, 0, lo, 0), strict=True)]


@each_form
def test_what_is_alike_looks_like_what_is_received(vector: Vector, host: str, *, train: bool) -> None:
    """The headers that it says are, byte for byte, those of a receive, in as many slots as it filled."""
    with udp_server(host) as server, udp_client(host) as client:
        receive_alike(vector, server, [client] * 3, train=train)
        alike, _ = vector.alike(family_of(host), form_of(host, train=train).length, 5, bytes(CONTROL_BYTES), b"")
        assert len(alike) == SLOTS * HEADER_BYTES
        span = vector.spans[3]
        assert alike[: 3 * HEADER_BYTES] == vector.memory[span.headers]
        assert alike[3 * HEADER_BYTES : 4 * HEADER_BYTES] != vector.memory[vector.spans[4].headers][-HEADER_BYTES:]


def test_reopened_slots_have_their_room_again_and_keep_the_rest(vector: Vector) -> None:
    """After a receive that was alike the kernel is told its room in each of these slots, and only that is undone."""
    with udp_server() as server, udp_client() as client:
        fresh = vector.memory[vector.spans[3].headers]
        receive_alike(vector, server, [client] * 3, train=False)
        span = vector.spans[2]
        control, third = vector.memory[vector.spans[3].control], vector.memory[span.headers.stop : 3 * HEADER_BYTES]
        vector.reopen(span)
        assert vector.memory[span.headers] == fresh[: 2 * HEADER_BYTES]
        assert vector.memory[span.headers.stop : 3 * HEADER_BYTES] == third != fresh[:HEADER_BYTES]
        assert vector.memory[vector.spans[3].control] == control
        assert any(control)
        vector.reopen(vector.spans[3])
        for number in range(3):
            queue(client, server, bytes(10 + number))
        assert vector.receive(server.fileno()) == 3
        assert vector.spans[3].length.tolist() == [10, 11, 12]
