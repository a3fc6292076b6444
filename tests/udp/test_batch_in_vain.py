"""A receive that finds nothing, at a socket of the other family, between two batches that are alike.

A datagram with a wrong checksum, a socket that workers share, and a reload all wake a worker in vain.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from support.loopback import (
    answer,
    assert_nothing_more,
    at,
    deliver,
    ip,
    needs_root,
    udp_client,
    udp_server,
    wait_for_address,
)

from echod.net.peers import PEER4_BYTES, PEER6_BYTES
from echod.udp import reply
from echod.udp.batch import Batch
from echod.udp.sock import UdpSocket

OTHER = {"127.0.0.1": "::1", "::1": "127.0.0.1"}
PEER_BYTES = {"127.0.0.1": PEER4_BYTES, "::1": PEER6_BYTES}

Exchange = Callable[[list[bytes]], None]


@pytest.fixture(params=OTHER)
def host(request: pytest.FixtureRequest) -> str:
    """Serve clients of each family."""
    return str(request.param)


@pytest.fixture
def port(host: str) -> Iterator[UdpSocket]:
    """Open the socket that is asked."""
    with udp_server(host) as server:
        yield UdpSocket(server)


@pytest.fixture
def silent(host: str) -> Iterator[UdpSocket]:
    """Open a socket of the other family that nobody asks."""
    with udp_server(OTHER[host]) as server:
        yield UdpSocket(server)


@pytest.fixture
def clients(host: str) -> Iterator[list[socket.socket]]:
    """Open clients."""
    with ExitStack() as stack:
        yield [stack.enter_context(udp_client(host)) for _ in range(4)]


def ask(port: UdpSocket, clients: list[socket.socket]) -> list[bytes]:
    """Let each client send a datagram of its own, all of one length; return what they sent."""
    data = [b"from %d" % number for number in range(len(clients))]
    for client, each in zip(clients, data, strict=True):
        deliver(port.sock, client.sendto, each, at(port.sock))
    return data


def learn(batch: Batch, port: UdpSocket, clients: list[socket.socket]) -> None:
    """Make the batch learn the pattern of these clients."""
    for _ in range(3):
        data = ask(port, clients)
        assert answer(batch, port) == len(clients)
        assert [client.recv(100) for client in clients] == data
    assert port.pattern is not None


def test_the_peers_are_still_read_in_their_own_family(
    batch: Batch, port: UdpSocket, silent: UdpSocket, clients: list[socket.socket], host: str
) -> None:
    """The batch after it has the true address of each peer, as often as this happens."""
    learn(batch, port, clients)
    for _ in range(3):
        assert batch.receive(silent) == 0
        data = ask(port, clients)
        assert batch.receive(port) == len(clients)
        assert [len(peer) for peer in batch.peers] == [PEER_BYTES[host]] * len(clients)
        assert [batch.peer(slot) for slot in range(len(clients))] == list(batch.peers)
        ports = [int.from_bytes(peer[2:4], "big") for peer in batch.peers]
        assert ports == [client.getsockname()[1] for client in clients]
        reply.send(batch, port)
        assert [client.recv(100) for client in clients] == data


@needs_root
def test_two_hosts_with_one_port_are_not_joined_into_one_train(batch: Batch, network: None) -> None:
    """IPv6 peers that differ only in their address have each their own datagram back."""
    with udp_server("::") as server, udp_server("127.0.0.1") as silent, ExitStack() as stack:
        port, other = UdpSocket(server), UdpSocket(silent)
        clients = [stack.enter_context(udp_client("::1"))]
        number = clients[0].getsockname()[1]
        for last in range(1, 8):
            ip("address", "add", f"fd00::{last}/128", "dev", "lo", "nodad")
            wait_for_address(f"fd00::{last}/128", "lo")
            clients.append(stack.enter_context(udp_client(f"fd00::{last}", number)))
        for turn in range(6):
            data = [b"from %d" % each for each in range(len(clients))]
            for client, each in zip(clients, data, strict=True):
                deliver(server, client.sendto, each, at(server, "::1"))
            assert batch.receive(port) == len(clients)
            batch.refuse(turn, 1)
            reply.send(batch, port)
            for number, client in enumerate(clients):
                if number != turn:
                    assert client.recvfrom(100)[0] == data[number]
                assert_nothing_more(client)
            assert batch.receive(other) == 0
