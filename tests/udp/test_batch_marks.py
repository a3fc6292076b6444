"""What must not be answered is marked so, and what was queued early is answered all the same."""

import errno
import socket

import pytest
from support.loopback import (
    ANY,
    BUFFERS,
    add_link,
    answer,
    assert_got,
    at,
    deliver,
    needs_root,
    queue,
    send_by_link,
    udp_client,
    udp_server,
)

from echod.linux.sockets import set_up
from echod.linux.sockopt import IP_RECVTTL
from echod.udp.batch import Batch
from echod.udp.sock import UdpSocket

IP_RECVORIGDSTADDR = 20  # linux/in.h


@needs_root
@pytest.mark.parametrize(
    ("wildcard", "group", "own"), [(ANY, "224.0.0.1", "10.0.0.1"), ("::", "ff02::1", "fd00:ec::1")]
)
def test_a_multicast_destination_is_marked(batch: Batch, network: None, wildcard: str, group: str, own: str) -> None:
    """What is sent to all hosts of a link reaches a wildcard socket, is marked, and gets no reply."""
    add_link(f"{own}/64" if ":" in own else f"{own}/24")
    with udp_server(wildcard) as server, udp_client(own) as client:
        if ":" in own:
            client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex("near"))
        else:
            client.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(own))
        for host in (own, group):  # the first alone does not tell what the others are
            queue(client, server, host.encode(), host=host)
        assert answer(batch, UdpSocket(server)) == 2
        assert batch.not_unicast == {1}
        assert_got(client, own.encode())


@pytest.mark.parametrize(("wildcard", "asked"), [(ANY, "127.0.0.9"), ("::", "::1")])
def test_what_was_queued_before_the_socket_was_set_up_is_answered(batch: Batch, wildcard: str, asked: str) -> None:
    """The datagram that starts a socket-activated service gets its reply, from the address that it asked."""
    family, own = (socket.AF_INET6, "::1") if ":" in asked else (socket.AF_INET, "127.0.0.1")
    with socket.socket(family, socket.SOCK_DGRAM) as server, udp_client(own) as client:
        server.bind((wildcard, 0))
        queue(client, server, b"early", host=asked)
        set_up(server, BUFFERS)
        queue(client, server, b"later", host=asked)
        assert answer(batch, UdpSocket(server)) == 2
        assert (batch.not_unicast, batch.truncated, batch.failures) == (set(), set(), {})
        expected = [(data, *at(server, asked)) for data in (b"early", b"later")]
        assert [(data, *source[:2]) for data, source in (client.recvfrom(16), client.recvfrom(16))] == expected


def test_a_broadcast_that_was_queued_before_the_socket_was_set_up_is_not_answered(batch: Batch) -> None:
    """The kernel itself refuses the broadcast address as the source of a reply."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, udp_client() as client:
        server.bind((ANY, 0))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        queue(client, server, b"early", host="127.255.255.255")
        set_up(server, BUFFERS)
        queue(client, server, b"later", host="127.0.0.1")
        assert answer(batch, UdpSocket(server)) == 2
        assert (batch.replied, list(batch.failures.values())) == (1, [1])
        assert set(batch.failures) <= {errno.EINVAL, errno.ENETUNREACH}, "older kernels say the one, newer the other"
        assert_got(client, b"later")


@pytest.mark.parametrize("option", [IP_RECVORIGDSTADDR])
def test_a_control_message_that_nobody_asked_for_marks_a_slot_as_truncated(
    batch: Batch, server: socket.socket, client: socket.socket, option: int
) -> None:
    """One extra message, even one as long as UDP_GRO's, is not mistaken for a train; later slots are as ever."""
    port = UdpSocket(server)
    server.setsockopt(socket.IPPROTO_IP, option, 1)
    queue(client, server, b"odd")
    assert answer(batch, port) == 1
    assert (batch.truncated, batch.replied, batch.whole) == ({0}, 0, False)
    server.setsockopt(socket.IPPROTO_IP, option, 0)
    queue(client, server, b"even")
    assert answer(batch, port) == 1
    assert (batch.truncated, batch.replied) == (set(), 1)
    assert_got(client, b"even")


def test_a_control_message_as_long_as_that_of_a_train_makes_none(
    batch: Batch, server: socket.socket, client: socket.socket
) -> None:
    """Nor one whose bytes, where a train has its addresses, look like those of a unicast: a TTL of two."""
    port = UdpSocket(server)
    server.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
    client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 2)
    for _ in range(3):
        for data in (b"odd", b"too"):
            queue(client, server, data)
        assert answer(batch, port) == 2
        assert (batch.truncated, batch.datagrams, batch.replied, batch.segments) == (set(), 2, 2, {})
        assert_got(client, b"odd", b"too")


@needs_root
def test_it_is_known_what_came_in_on_loopback(batch: Batch, network: None) -> None:
    """What asks 127.0.0.1 came in on loopback, also a train; what comes by a link, or asks an address of it, did not.

    (Of what this host sends to its own address, the kernel names the link that has the address.)
    """
    add_link("10.0.0.1/24")
    with udp_server(ANY) as server, udp_client() as client:
        for data in (b"one", b"two"):
            queue(client, server, data, host="127.0.0.1")
        batch.receive(UdpSocket(server))
        assert (batch.whole, batch.came_in_on_loopback(0)) == (True, True)
        for _ in range(2):
            deliver(server, send_by_link, at(server, "10.0.0.1"), b"by the link", "10.0.0.9")
        batch.receive(UdpSocket(server))
        assert (batch.whole, batch.came_in_on_loopback(0)) == (True, False)
        queue(client, server, b"one", host="127.0.0.1")
        queue(client, server, b"aabbc", 2, host="127.0.0.1")
        queue(client, server, b"our own", host="10.0.0.1")
        deliver(server, send_by_link, at(server, "10.0.0.1"), b"by the link", "10.0.0.9")
        assert batch.receive(UdpSocket(server)) == 4
        assert [batch.came_in_on_loopback(slot) for slot in range(4)] == [True, True, False, False]
        queue(client, server, b"one", host="127.0.0.1")
        deliver(server, send_by_link, at(server, "10.0.0.1"), b"by the link", "10.0.0.9")
        batch.receive(UdpSocket(server))
        assert [batch.came_in_on_loopback(slot) for slot in range(2)] == [True, False]
        assert not batch.whole
