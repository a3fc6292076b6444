"""What a batch says of its slots is so, and what is cut from a train is the last of it, and nothing else."""

import socket
from collections.abc import Iterator

import pytest
from support.loopback import (
    ANY,
    add_link,
    assert_nothing_more,
    at,
    deliver,
    needs_root,
    receive_train,
    send_by_link,
    send_train,
    udp_client,
    udp_server,
)

from echod.linux.sockopt import UDP_GRO
from echod.net.peers import address_of
from echod.udp import reply
from echod.udp.batch import Batch
from echod.udp.sock import UdpSocket

IP_RECVTTL = 12
SO_NO_CHECK = 11
TRAIN = b"aabbccddeeffgghhiij"
"""Ten datagrams, the last of them short."""


@pytest.fixture
def client() -> Iterator[socket.socket]:
    """Open a client on 127.0.0.1."""
    with udp_client() as sock:
        yield sock


def finish(batch: Batch, server: socket.socket) -> None:
    """Reply, and hold the batch to its invariant."""
    reply.send(batch, UdpSocket(server))
    assert batch.datagrams == batch.replied + sum(batch.failures.values())


# -- what it says


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_peers_are_addresses_and_ports(batch: Batch, host: str) -> None:
    """Each slot has its peer, equal for datagrams of one socket and for no others, with the port in it."""
    with udp_server(host) as server, udp_client(host) as one, udp_client(host) as other:
        for client in (one, other, one):
            deliver(server, client.sendto, b"x", at(server))
        assert batch.receive(UdpSocket(server)) == 3
        assert batch.peers[0] == batch.peers[2] != batch.peers[1]
        assert [len(peer) for peer in batch.peers] == [28 if ":" in host else 8] * 3
        assert [int.from_bytes(peer[2:4], "big") for peer in batch.peers[:2]] == [
            client.getsockname()[1] for client in (one, other)
        ]
        assert {address_of(peer) for peer in batch.peers} == {socket.inet_pton(server.family, host)}
        finish(batch, server)


def test_a_batch_from_one_interface_is_whole(batch: Batch, server: socket.socket, client: socket.socket) -> None:
    """Plain datagrams are, and with a train among them too; the next plain batch has none any more."""
    for train in (False, True, False):
        deliver(server, client.sendto, b"one", at(server))
        if train:
            deliver(server, send_train, client, TRAIN, 2, at(server))
        batch.receive(UdpSocket(server))
        assert batch.whole
        assert batch.trains == ([1, 10] if train else None)
        finish(batch, server)


def test_a_batch_with_a_broadcast_or_a_cut_datagram_is_not_whole(batch: Batch) -> None:
    """What is not unicast, or not whole, has to be looked at slot by slot."""
    with udp_server(ANY) as server, udp_client() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        port = UdpSocket(server)
        for host, option in (("127.255.255.255", 0), ("127.0.0.1", 1)):
            server.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, option)
            deliver(server, client.sendto, b"x", at(server, host))
            assert batch.receive(port) == 1
            assert not batch.whole


@needs_root
def test_it_is_known_what_came_in_on_loopback(batch: Batch, network: None) -> None:
    """What asks 127.0.0.1 came in on loopback, also a train; what comes by a link, or asks an address of it, did not.

    (Of what this host sends to its own address, the kernel names the link that has the address.)
    """
    add_link("10.0.0.1/24")
    with udp_server(ANY) as server, udp_client() as client:
        for data in (b"one", b"two"):
            deliver(server, client.sendto, data, at(server, "127.0.0.1"))
        batch.receive(UdpSocket(server))
        assert (batch.whole, batch.came_in_on_loopback(0)) == (True, True)
        for _ in range(2):
            deliver(server, send_by_link, at(server, "10.0.0.1"), b"by the link", "10.0.0.9")
        batch.receive(UdpSocket(server))
        assert (batch.whole, batch.came_in_on_loopback(0)) == (True, False)
        deliver(server, client.sendto, b"one", at(server, "127.0.0.1"))
        deliver(server, send_train, client, TRAIN, 2, at(server, "127.0.0.1"))
        deliver(server, client.sendto, b"our own", at(server, "10.0.0.1"))
        deliver(server, send_by_link, at(server, "10.0.0.1"), b"by the link", "10.0.0.9")
        assert batch.receive(UdpSocket(server)) == 4
        assert [batch.came_in_on_loopback(slot) for slot in range(4)] == [True, True, False, False]
        deliver(server, client.sendto, b"one", at(server, "127.0.0.1"))
        deliver(server, send_by_link, at(server, "10.0.0.1"), b"by the link", "10.0.0.9")
        batch.receive(UdpSocket(server))
        assert [batch.came_in_on_loopback(slot) for slot in range(2)] == [True, False]
        assert not batch.whole


def test_weights_are_datagrams(batch: Batch, server: socket.socket, client: socket.socket) -> None:
    """A train weighs its datagrams, the others one, with and without a train in the batch."""
    deliver(server, client.sendto, b"one", at(server))
    batch.receive(UdpSocket(server))
    assert batch.weight(0) == 1
    finish(batch, server)
    deliver(server, client.sendto, b"", at(server))
    deliver(server, send_train, client, TRAIN, 2, at(server))
    batch.receive(UdpSocket(server))
    assert [batch.weight(slot) for slot in range(2)] == [1, 10]
    finish(batch, server)


def test_the_last_datagram_of_a_slot_is_told(batch: Batch, server: socket.socket, client: socket.socket) -> None:
    """The only one of a single, also an empty one; the short or full last one of a train, also of one that was cut."""
    for data in (b"one", b""):
        deliver(server, client.sendto, data, at(server))
    deliver(server, send_train, client, TRAIN, 2, at(server))
    deliver(server, send_train, client, TRAIN[:-1], 2, at(server))
    assert batch.receive(UdpSocket(server)) == 4
    assert [batch.last_datagram(slot) for slot in range(4)] == [b"one", b"", b"j", b"ii"]
    batch.refuse(2, 1)
    assert batch.last_datagram(2) == b"ii"
    batch.refuse(2, 3)
    assert batch.last_datagram(2) == b"ff"
    finish(batch, server)
    assert [client.recv(16) for _ in range(17)][:3] == [b"one", b"", b"aa"]


# -- what is cut


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("cuts", [[1], [4], [8], [9], [1, 1], [4, 5], [2, 3, 4]])
def test_the_last_of_a_train_are_cut(batch: Batch, host: str, cuts: list[int]) -> None:
    """The first of a train are answered, as a train, with neighbours unharmed; the rest is neither sent nor counted."""
    kept = 10 - sum(cuts)
    with udp_server(host) as server, udp_client(host) as client:
        client.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        deliver(server, client.sendto, b"xx", at(server))
        deliver(server, send_train, client, TRAIN, 2, at(server))
        deliver(server, client.sendto, b"yy", at(server))
        assert batch.receive(UdpSocket(server)) == 3
        for cut in cuts:
            batch.refuse(1, cut)
        finish(batch, server)
        assert (batch.replied, batch.replied_octets, batch.failures) == (2 + kept, 4 + 2 * kept, {})
        whole = [(b"xx", 0), (TRAIN[: 2 * kept], 2 if kept > 1 else 0), (b"yy", 0)]
        assert [receive_train(client) for _ in whole] == whole
        assert_nothing_more(client)


@pytest.mark.parametrize("cuts", [[10], [5, 5], [9, 1], [11]])
def test_a_train_of_which_all_is_cut_is_not_answered(
    batch: Batch, server: socket.socket, client: socket.socket, cuts: list[int]
) -> None:
    """Nothing of it goes out, in however many cuts, and its neighbour is answered."""
    deliver(server, send_train, client, TRAIN, 2, at(server))
    deliver(server, client.sendto, b"xx", at(server))
    assert batch.receive(UdpSocket(server)) == 2
    for cut in cuts:
        batch.refuse(0, cut)
    reply.send(batch, UdpSocket(server))
    assert (batch.replied, batch.replied_octets, batch.failures) == (1, 2, {})
    assert client.recv(16) == b"xx"
    assert_nothing_more(client)


def test_a_cut_does_not_outlast_its_batch(batch: Batch, server: socket.socket, client: socket.socket) -> None:
    """The slot whose train was cut holds a whole train in the next batch."""
    for cut in (3, 0):
        deliver(server, send_train, client, TRAIN, 2, at(server))
        assert batch.receive(UdpSocket(server)) == 1
        if cut:
            batch.refuse(0, cut)
        finish(batch, server)
        got = b"".join(client.recv(16) for _ in range(10 - cut))
        assert got == TRAIN[: 14 if cut else None]
    assert_nothing_more(client)


@pytest.mark.parametrize("cut", [0, 1, 8, 9])
def test_a_train_that_was_cut_goes_out_one_by_one_where_a_train_fails(
    batch: Batch, server: socket.socket, client: socket.socket, cut: int
) -> None:
    """Where the kernel takes no train, each datagram that is left of it goes out alone, also a single one."""
    server.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
    deliver(server, send_train, client, TRAIN, 2, at(server))
    assert batch.receive(UdpSocket(server)) == 1
    if cut:
        batch.refuse(0, cut)
    finish(batch, server)
    assert batch.failures == {}
    assert b"".join(client.recv(16) for _ in range(10 - cut)) == TRAIN[: 2 * (10 - cut)]
    assert_nothing_more(client)
