"""Where the kernel refuses a train, its datagrams go out one by one, and the socket's owner learns from it."""

import socket
from collections.abc import Iterator

import pytest
from support.loopback import (
    BUFFERS,
    add_link,
    answer,
    assert_got,
    assert_nothing_more,
    at,
    deliver,
    inject,
    ip,
    let_trains_fail,
    needs_root,
    poison,
    queue,
    receive_train,
    take_without_checksum,
    udp_client,
    udp_server,
)

from echod.linux.mmsg_layout import MAX_PAYLOAD
from echod.linux.sockets import set_up
from echod.linux.sockopt import UDP_GRO
from echod.udp import reply
from echod.udp.batch import Batch
from echod.udp.sock import UdpSocket

IPPROTO_UDPLITE = 136
"""Takes UDP's options, and refuses each train with EIO (udp_send_skb in net/ipv4/udp.c)."""


@pytest.fixture(params=["127.0.0.1", "::1"])
def no_trains(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """Open a server on which every train fails."""
    with udp_server(request.param) as server:
        let_trains_fail(server)
        yield server


@pytest.fixture
def client(no_trains: socket.socket) -> Iterator[socket.socket]:
    """Open a client of that server, one that takes replies without a checksum."""
    with udp_client(at(no_trains)[0]) as sock:
        take_without_checksum(sock)
        yield sock


def test_what_failed_as_a_train_is_not_joined_again(
    batch: Batch, no_trains: socket.socket, client: socket.socket
) -> None:
    """Once a train failed, datagrams as long go out alone, also where a train would pass; shorter ones are joined."""
    port = UdpSocket(no_trains)
    client.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    for length, expected in ((8, [8] * 4), (8, [8] * 4), (7, [28])):
        for _ in range(4):
            queue(client, no_trains, bytes(length))
        answer(batch, port)
        assert [len(receive_train(client)[0]) for _ in expected] == expected
        let_trains_fail(no_trains, fail=False)
    assert_nothing_more(client)


def test_a_train_of_more_segments_than_slots_goes_out_one_by_one(
    batch: Batch, no_trains: socket.socket, client: socket.socket
) -> None:
    """128 segments need two turns of the headers that there are, and all arrive."""
    data = bytes(i % 251 for i in range(128 * 100))
    try:
        queue(client, no_trains, data, 100)
    except OSError as error:
        pytest.skip(f"this kernel sends no train of 128 segments: {error.strerror}")
    assert answer(batch, UdpSocket(no_trains)) == 1
    assert (batch.datagrams, batch.replied, batch.replied_octets) == (128, 128, len(data))
    assert_got(client, *(data[i : i + 100] for i in range(0, len(data), 100)))


@needs_root
def test_joined_neighbours_that_nobody_can_answer_fail_each(batch: Batch) -> None:
    """Six datagrams from port 0, joined, are six failures; those around them are answered, and joined as before."""
    with udp_server() as server, udp_client() as client:
        port = UdpSocket(server)
        queue(client, server, b"before")
        for number in range(6):
            deliver(server, poison, at(server), b"%d" % number)
        queue(client, server, b"after")
        answer(batch, port)
        assert (batch.replied, sum(batch.failures.values()), port.longest_joined) == (2, 6, MAX_PAYLOAD)
        assert_got(client, b"before", b"after")


def test_after_a_route_that_takes_no_train_nothing_is_joined(batch: Batch) -> None:
    """After EIO; but the trains of other peers still come whole: taking one apart costs no more than its datagrams."""
    try:
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, IPPROTO_UDPLITE)
    except OSError as error:
        pytest.skip(f"no socket that answers EIO to a train: {error.strerror}")
    with server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM, IPPROTO_UDPLITE) as client:
        for sock in (server, client):
            sock.bind(("127.0.0.1", 0))
        client.settimeout(10)
        set_up(server, BUFFERS)
        port = UdpSocket(server)
        for data in (b"one", b"two", b"six", b"ten"):
            queue(client, server, data)
        answer(batch, port)
        assert (batch.replied, batch.failures, port.longest_joined) == (4, {}, 0)
        assert server.getsockopt(socket.IPPROTO_UDP, UDP_GRO) == 1
        assert [client.recv(16) for _ in range(4)] == [b"one", b"two", b"six", b"ten"]


@needs_root
def test_neighbours_longer_than_the_device_takes_go_out_as_fragments(batch: Batch, network: None) -> None:
    """On a device of MTU 1500 a train of longer datagrams fails; each goes out alone, and shorter are joined still."""
    add_link("10.0.0.1/24", mtu=1500)
    # A neighbour that exists in the table alone: what is sent to it goes out by the device, and nobody takes it.
    ip("neighbour", "add", "10.0.0.2", "lladdr", "02:00:00:00:00:02", "dev", "near")
    with udp_server("10.0.0.1") as server:
        port = UdpSocket(server)
        for length in (3000, 3000, 3000, 1000, 1000):
            deliver(server, inject, at(server), bytes(length), source="10.0.0.2", source_port=9)
        assert answer(batch, port) == 5
        assert (batch.replied, batch.replied_octets, batch.failures) == (5, 11_000, {})
        assert port.longest_joined == 2999


@pytest.mark.parametrize("cut", [0, 1, 8, 9])
def test_a_train_that_was_cut_goes_out_one_by_one_where_a_train_fails(
    batch: Batch, no_trains: socket.socket, client: socket.socket, cut: int
) -> None:
    """Where the kernel takes no train, each datagram that is left of it goes out alone, also a single one."""
    train = b"aabbccddeeffgghhiij"
    queue(client, no_trains, train, 2)
    assert batch.receive(UdpSocket(no_trains)) == 1
    if cut:
        batch.refuse(0, cut)
    reply.send(batch, UdpSocket(no_trains))
    assert (batch.replied, batch.failures) == (10 - cut, {})
    assert_got(client, *([b"aa", b"bb", b"cc", b"dd", b"ee", b"ff", b"gg", b"hh", b"ii", b"j"][: 10 - cut]))
