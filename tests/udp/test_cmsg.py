"""echod.udp.cmsg: on sockets that receive all control messages together, each slot is parsed and answered exactly."""

import errno
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from itertools import product
from mmap import mmap

import pytest
from support.c_structs import Mmsghdr, control_messages
from support.loopback import (
    ANY,
    answer,
    assert_nothing_more,
    at,
    let_trains_fail,
    queue,
    take_without_checksum,
    udp_client,
    udp_server,
)

from echod.linux.arrival import report_arrivals
from echod.linux.mmsg_layout import CONTROL_BYTES, MAX_CONTROL_BYTES, MEMORY_BYTES
from echod.linux.sockopt import IP_RECVTOS, IP_RECVTTL, IPV6_RECVHOPLIMIT, IPV6_RECVTCLASS, SO_TIMESTAMPNS, UDP_GRO
from echod.net.mode import REFLECT, ListenerOptions, Mode
from echod.udp.batch import Batch
from echod.udp.cmsg import ControlLayout, _is_link_local
from echod.udp.sock import UdpSocket
from echod.udp.unfinished import read_unfinished

IP_PKTINFO = 8
TTL, TOS = 9, 0x28
"""Of requests: no default."""
WILDCARDS = [ANY, "::"]
each_family = pytest.mark.parametrize("wildcard", WILDCARDS)


def options(sock: socket.socket) -> tuple[tuple[int, int], ...]:
    """Return the options that have a socket receive a timestamp, TTL and TOS with each datagram."""
    if sock.family == socket.AF_INET6:
        numbers = (socket.IPPROTO_IPV6, IPV6_RECVHOPLIMIT), (socket.IPPROTO_IPV6, IPV6_RECVTCLASS)
    else:
        numbers = (socket.IPPROTO_IP, IP_RECVTTL), (socket.IPPROTO_IP, IP_RECVTOS)
    return ((socket.SOL_SOCKET, SO_TIMESTAMPNS), *numbers)


TTLS = (socket.IP_TTL, socket.IPV6_HOPLIMIT)
TOSES = (socket.IP_TOS, socket.IPV6_TCLASS)


def set_tos(sock: socket.socket, tos: int) -> None:
    """Have a client send with this TOS or traffic class."""
    ipv6 = sock.family == socket.AF_INET6
    sock.setsockopt(socket.IPPROTO_IPV6 if ipv6 else socket.IPPROTO_IP, TOSES[ipv6], tos)


def tos_of(control: list[tuple[int, int, bytes]]) -> int:
    """Return the TOS among the control messages of a receive."""
    (tos,) = [value[0] for level, kind, value in control if kind in TOSES and level != socket.SOL_SOCKET]
    return tos


@pytest.fixture
def wide() -> Batch:
    """Make a batch with room for all control messages."""
    return Batch(control_bytes=MAX_CONTROL_BYTES)


@pytest.fixture
def server(wildcard: str) -> Iterator[socket.socket]:
    """Open a socket that receives all of them."""
    with udp_server(wildcard) as sock:
        for level, option in options(sock):
            sock.setsockopt(level, option, 1)
        yield sock


@pytest.fixture
def clients(wildcard: str) -> Iterator[list[socket.socket]]:
    """Open two clients that set TTL and TOS, and receive those of replies."""
    opened = [udp_client("::1" if ":" in wildcard else "127.0.0.1") for _ in range(2)]
    for client in opened:
        for level, option in options(client)[1:]:
            client.setsockopt(level, option, 1)
        if ":" in wildcard:
            client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, TTL)
            client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, TOS)
        else:
            client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, TTL)
            client.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, TOS)
    yield opened
    for client in opened:
        client.close()


def asked(server: socket.socket) -> str:
    """Return the address at which the server is asked; in IPv4 not the one that a socket would answer from itself."""
    return "::1" if server.family == socket.AF_INET6 else "127.0.0.9"


def assert_received(client: socket.socket, server: socket.socket, *payloads: bytes) -> None:
    """Take replies: their payload, the address that was asked, and the TTL and TOS of this host, not of the request."""
    for payload in payloads:
        data, control, _, source = client.recvmsg(65_536, 256)
        assert (data, source[:2]) == (payload, at(server, asked(server)))
        assert [int.from_bytes(value, "little") for _, _, value in control] == [64, 0]
    assert_nothing_more(client)


@each_family
def test_the_layout_is_the_order_of_the_kernel(
    wide: Batch, server: socket.socket, clients: list[socket.socket]
) -> None:
    """A timestamp, UDP_GRO on a train, PKTINFO, TTL and TOS: the lengths and offsets are those of a receive."""
    queue(clients[0], server, b"single", host=asked(server))
    queue(clients[0], server, b"aabbc", 2, host=asked(server))
    vector, layout = wide.vector, ControlLayout(socket.AddressFamily(server.family))
    assert vector.receive(server.fileno()) == 2
    ipv6 = server.family == socket.AF_INET6
    level, pktinfo = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO) if ipv6 else (socket.IPPROTO_IP, IP_PKTINFO)
    ttl, tos = (socket.IPV6_HOPLIMIT, socket.IPV6_TCLASS) if ipv6 else (socket.IP_TTL, socket.IP_TOS)
    before, after = [(socket.SOL_SOCKET, SO_TIMESTAMPNS)], [(level, pktinfo), (level, ttl), (level, tos)]
    train = [*before, (socket.IPPROTO_UDP, UDP_GRO), *after]
    for slot, form, expected in ((0, layout.measured, [*before, *after]), (1, layout.measured_train, train)):
        found = control_messages((Mmsghdr * 64).from_address(vector.base)[slot].hdr)
        assert [(level, kind) for level, kind, _ in found] == expected
        assert [int.from_bytes(data, "little") for _, _, data in found[-2:]] == [TTL, TOS]
        assert vector.spans[2].control_length[slot] == form.length <= MAX_CONTROL_BYTES
        words = vector.words[(vector.control_at + slot * MAX_CONTROL_BYTES) // 4 :]
        assert form.stamp is not None
        for data, head in ((form.stamp, before[0]), (form.ttl, (level, ttl)), (form.tos, (level, tos))):
            assert (words[data - 2], words[data - 1]) == head
        assert words[form.ifindex] == socket.if_nametoindex("lo")
        address = socket.inet_pton(server.family, asked(server))
        assert words[form.spec_dst : form.spec_dst + len(address) // 4].tobytes() == address


@each_family
def test_each_slot_is_answered_alone(wide: Batch, server: socket.socket, clients: list[socket.socket]) -> None:
    """A train between single datagrams of two lengths: what a reply has no use for is not sent back."""
    port = UdpSocket(server)
    for _ in range(3):
        queue(clients[0], server, b"one", host=asked(server))
        queue(clients[1], server, b"aabbc", 2, host=asked(server))
        queue(clients[1], server, b"three", host=asked(server))
        assert answer(wide, port) == 3
        assert (wide.trains, wide.replied, wide.failures) == ([1, 3, 1], 5, {})
        assert (wide.truncated, wide.not_unicast, wide.on_loopback) == (set(), set(), True)
        assert_received(clients[0], server, b"one")
        assert_received(clients[1], server, b"aa", b"bb", b"c", b"three")


@each_family
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("measured", [False, True])
def test_a_batch_of_one_form_is_answered(
    wide: Batch, server: socket.socket, clients: list[socket.socket], *, train: bool, measured: bool
) -> None:
    """All single or all trains. Without a timestamp, which differs each time, later batches match a pattern."""
    report_arrivals(server, report=measured)
    port = UdpSocket(server)
    for _ in range(4):
        for client in clients:
            queue(client, server, b"aabb", 2 * train, host=asked(server))
        assert answer(wide, port) == 2
        assert wide.failures == {}
        for client in clients:
            assert_received(client, server, *((b"aa", b"bb") if train else (b"aabb",)))
    assert (wide.pattern is None) is measured


@each_family
@pytest.mark.parametrize("measured", [False, True])
def test_neighbours_are_joined(
    wide: Batch, server: socket.socket, clients: list[socket.socket], *, measured: bool
) -> None:
    """Slots of one client to one address go out as one message, whether the batch matches a pattern or not."""
    report_arrivals(server, report=measured)
    port, other = UdpSocket(server), "::1" if server.family == socket.AF_INET6 else "127.0.0.8"
    for client in clients:
        client.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    for _ in range(4):
        for client in clients:
            for number in range(4):
                queue(client, server, b"%d" % number, host=asked(server))
        assert answer(wide, port) == wide.replied == 8
        for client in clients:
            data, control, _, source = client.recvmsg(65_536, 256)
            assert (data, source[:2]) == (b"0123", at(server, asked(server)))
            assert (socket.IPPROTO_UDP, UDP_GRO, struct.pack("i", 1)) in control
    for to in (*[asked(server)] * 3, *[other] * 3):
        queue(clients[0], server, b"x", host=to)
    assert answer(wide, port) == wide.replied == 6
    received = []
    while sum(len(data) for data, _ in received) < 6:
        data, source = clients[0].recvfrom(65_536)
        received.append((data, source[0]))
    assert received == ([(b"xxxxxx", other)] if other == "::1" else [(b"xxx", asked(server)), (b"xxx", other)])


@each_family
def test_a_train_that_the_kernel_refuses_is_sent_datagram_by_datagram(
    wide: Batch, server: socket.socket, clients: list[socket.socket]
) -> None:
    """Without UDP_SEGMENT, and without what precedes it."""
    let_trains_fail(server)
    take_without_checksum(clients[0])
    queue(clients[0], server, b"aabbc", 2, host=asked(server))
    assert answer(wide, UdpSocket(server)) == 1
    assert (wide.replied, wide.failures) == (3, {})
    assert_received(clients[0], server, b"aa", b"bb", b"c")


@each_family
def test_without_room_for_all_of_them_a_slot_is_truncated(server: socket.socket, clients: list[socket.socket]) -> None:
    """The room of an echo is for UDP_GRO and PKTINFO. A slot without its address gets no reply."""
    batch = Batch(control_bytes=CONTROL_BYTES)
    queue(clients[0], server, b"single", host=asked(server))
    queue(clients[0], server, b"aabbc", 2, host=asked(server))
    assert answer(batch, UdpSocket(server)) == 2
    assert (batch.truncated, batch.replied, batch.failures) == ({0, 1}, 0, {})
    assert_nothing_more(clients[0])


@each_family
def test_messages_of_the_right_length_and_another_type_are_not_believed(
    wide: Batch, server: socket.socket, clients: list[socket.socket]
) -> None:
    """PKTINFO and TTL together are as long as UDP_GRO and PKTINFO; each is recognised by its type, and reduced."""
    port = UdpSocket(server)
    report_arrivals(server, report=False)
    for data in (b"single", b"aabbc"):
        for _ in range(2):
            queue(clients[0], server, data, host=asked(server))
        assert answer(wide, port) == 2
        assert wide.replied == 2
    plain = ControlLayout(port.family)
    server.setsockopt(*options(server)[1], 1)
    queue(clients[0], server, b"single", host=asked(server))
    wide.vector.restore(wide.vector.spans[2])
    assert wide.vector.receive(server.fileno()) == 1
    span = wide.vector.spans[1]
    assert span.control_length[0] == plain.train.length
    assert plain.common_form(span) is None
    assert plain.parse_each(wide.vector, span, [6]).truncated == set()
    assert span.control_length[0] == plain.single.length


@each_family
@pytest.mark.parametrize("some", list(product([0, 1], repeat=3)), ids=lambda some: "".join(map(str, some)))
def test_a_socket_that_begins_or_ends_to_report_loses_nothing(
    wide: Batch, server: socket.socket, clients: list[socket.socket], some: tuple[int, int, int]
) -> None:
    """Time, TTL and TOS are switched one after the other; single datagrams and trains come between."""
    port = UdpSocket(server, options=ListenerOptions(mode=Mode.STAMP, dscp=REFLECT))
    for (level, option), value in zip(options(server), some, strict=True):
        server.setsockopt(level, option, value)
    for datagrams in ((b"one", b"two"), (b"one", b"aabbc", b"ddeef"), (b"aabbc",) * 2):
        for data in datagrams:
            queue(clients[0], server, data, 2 * (len(data) > 3), host=asked(server))
        assert answer(wide, port) == len(datagrams)
        assert (wide.truncated, wide.failures, wide.replied) == (set(), {}, wide.datagrams)
        got = [clients[0].recv(64) for _ in range(wide.replied)]
        assert b"".join(got) == b"".join(datagrams)


@each_family
def test_the_arrival_of_each_slot_is_known(wide: Batch, server: socket.socket, clients: list[socket.socket]) -> None:
    """Time, TTL and TOS: of slots of one form, of a mixture, and of a socket that begins or ends to report them."""
    port, begun = UdpSocket(server), time.time_ns()
    for datagrams in ((b"one", b"two"), (b"one", b"aabbc")):
        for data in datagrams:
            queue(clients[0], server, data, 2 * (len(data) > 3), host=asked(server))
        wide.receive(port)
        arrivals = wide.arrivals
        assert (arrivals.ttls, arrivals.toses) == ([TTL] * 2, [TOS] * 2)
        assert begun < arrivals.stamps[0] < arrivals.stamps[1] < time.time_ns()
    report_arrivals(server, report=False)
    queue(clients[0], server, b"one", host=asked(server))
    wide.receive(port)
    assert (wide.arrivals.stamps, wide.arrivals.ttls, wide.arrivals.toses) == ([0], [255], [0])
    assert wide.truncated == set()


@each_family
def test_a_clock_that_is_set_back_between_two_arrivals_is_no_trouble(
    wide: Batch, server: socket.socket, clients: list[socket.socket]
) -> None:
    """No time is before the second that the others count from."""
    port = UdpSocket(server)
    for data in (b"one", b"two"):
        queue(clients[0], server, data, host=asked(server))
    wide.receive(port)
    [form] = set(wide.forms)
    assert form is not None
    assert form.stamp is not None
    seconds = wide.span.longs[form.stamp // 2]
    before = wide.arrivals.stamps
    seconds[1] -= 5
    arrivals = port.control._measure(wide.span, form)
    assert arrivals.stamps == [before[0], before[1] - 5_000_000_000]
    assert min(arrivals.offsets) >= 0


@each_family
@pytest.mark.parametrize("mixed", [False, True])
def test_a_reply_has_the_dscp_of_its_datagram_and_no_mark_of_congestion(
    wide: Batch, server: socket.socket, clients: list[socket.socket], *, mixed: bool
) -> None:
    """ECN (RFC 3168) is of one direction. Neighbours of two classes are two messages."""
    port = UdpSocket(server, options=ListenerOptions(dscp=REFLECT))
    for tos in (0xBB, 0x01, 0x28):
        set_tos(clients[0], tos)
        for _ in range(2):
            queue(clients[0], server, b"data", host=asked(server))
    if mixed:
        queue(clients[0], server, b"aabbc", 2, host=asked(server))
    answer(wide, port)
    assert (wide.failures, wide.datagrams) == ({}, wide.replied)
    found = [tos_of(clients[0].recvmsg(64, 256)[1]) for _ in range(wide.replied)]
    assert found == [0xB8, 0xB8, 0, 0, 0x28, 0x28, *[0x28] * 3 * mixed]


@each_family
@pytest.mark.parametrize("mixed", [False, True])
def test_a_reply_of_stamp_has_a_ttl_of_its_own(
    wide: Batch, server: socket.socket, clients: list[socket.socket], *, mixed: bool
) -> None:
    """It is 255, whatever that of the datagram."""
    port = UdpSocket(server, options=ListenerOptions(mode=Mode.STAMP))
    queue(clients[0], server, b"data", host=asked(server))
    queue(clients[0], server, b"aabbc", 2 * mixed, host=asked(server))
    answer(wide, port)
    assert wide.failures == {}
    replies = [clients[0].recvmsg(64, 256)[1] for _ in range(wide.replied)]
    numbers = [[value[0] for level, kind, value in control if kind in TTLS and level != 1] for control in replies]
    assert numbers == [[255]] * (4 if mixed else 2)


@each_family
def test_what_a_killed_worker_had_received_is_read(server: socket.socket, clients: list[socket.socket]) -> None:
    """The supervisor finds the trains in the memory of a batch with any room, also an empty datagram."""
    memory = mmap(-1, MEMORY_BYTES)
    queue(clients[0], server, b"aabbc", 2, host=asked(server))
    queue(clients[0], server, b"", host=asked(server))
    child = os.fork()
    if child == 0:
        try:
            Batch(memory, MAX_CONTROL_BYTES).receive(UdpSocket(server))
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    found = read_unfinished(memory)
    assert (found.datagrams, found.octets) == (4, 5)


def test_link_local_addresses_are_those_of_one_network() -> None:
    """fe80::/10 (RFC 4291, 2.5.6), to its edges, by the first word as it lies in memory."""
    hosts = ("fe80::1", "febf:ffff::1", "fe7f:ffff::1", "fec0::1", "ff80::1", "80fe::1", "::1")
    words = [int.from_bytes(socket.inet_pton(socket.AF_INET6, host)[:4], sys.byteorder) for host in hosts]
    assert list(map(_is_link_local, words)) == [True, True, False, False, False, False, False]


@pytest.mark.parametrize("wildcard", ["127.0.0.1", "::1"])
def test_an_echo_receives_what_it_needs_and_no_more(wildcard: str) -> None:
    """The layout of a socket as echod sets it up: PKTINFO, and UDP_GRO on trains, in the room of an echo."""
    with udp_server(wildcard) as server:
        layout = ControlLayout(socket.AddressFamily(server.family))
        pktinfo = socket.CMSG_SPACE(20 if ":" in wildcard else 12)
        assert (layout.single.length, layout.train.length) == (pktinfo, pktinfo + socket.CMSG_SPACE(4))
        assert layout.train.length <= CONTROL_BYTES
        assert (layout.single.stamp, layout.train.stamp) == (None, None)


def test_a_message_of_no_level_is_ignored_by_a_send() -> None:
    """The kernel skips it, where it refuses a timestamp or a type that it does not know."""
    with udp_server() as server, udp_client() as client:
        control = (0xFFFF_FFFF - 2**32, SO_TIMESTAMPNS, bytes(16))
        assert server.sendmsg([b"x"], [control], 0, client.getsockname()) == 1
        assert client.recv(16) == b"x"
        with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
            server.sendmsg([b"x"], [(socket.SOL_SOCKET, SO_TIMESTAMPNS, bytes(16))], 0, client.getsockname())
