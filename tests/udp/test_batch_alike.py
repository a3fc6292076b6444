"""Batches that look like the one before: answered without a look at each slot, and exactly, whatever came between."""

import socket
from collections.abc import Callable, Iterator

import pytest
from support.loopback import (
    ANY,
    add_link,
    answer,
    assert_nothing_more,
    at,
    deliver,
    needs_root,
    send_train,
    udp_client,
    udp_server,
)

from echod.linux.mmsg_layout import SLOTS
from echod.udp import reply
from echod.udp.batch import Batch
from echod.udp.sock import UdpSocket

HOSTS = ["127.0.0.1", "::1"]


@pytest.fixture
def clients() -> Iterator[Callable[[str, int], list[socket.socket]]]:
    """Open clients on an address; all are closed at the end."""
    opened: list[socket.socket] = []

    def start(host: str, count: int) -> list[socket.socket]:
        some = [udp_client(host) for _ in range(count)]
        opened.extend(some)
        return some

    yield start
    for sock in opened:
        sock.close()


def round_trip(
    batch: Batch, port: UdpSocket, clients: list[socket.socket], size: int, *, to: str | None = None
) -> None:
    """Let each client ask once, all in one batch, and hold each answer to what was asked, and where."""
    address = at(port.sock, to) if to else at(port.sock)
    data = [bytes([number]) * size for number in range(len(clients))]
    for client, each in zip(clients, data, strict=True):
        deliver(port.sock, client.sendto, each, address)
    assert answer(batch, port) == len(clients)
    assert (batch.replied, batch.octets, batch.replied_octets) == (
        len(clients),
        size * len(clients),
        size * len(clients),
    )
    for client, each in zip(clients, data, strict=True):
        got, source = client.recvfrom(65_536)
        assert (got, source[:2]) == (each, address[:2])
        assert_nothing_more(client)


@pytest.mark.parametrize("host", HOSTS)
def test_a_batch_like_the_one_before_is_known_by_its_pattern(
    batch: Batch, host: str, clients: Callable[..., list[socket.socket]]
) -> None:
    """After two of a kind its pattern is known, and it serves batches of any number of slots."""
    with udp_server(host) as server:
        port = UdpSocket(server)
        round_trip(batch, port, clients(host, 2), 64)
        assert not port.pattern
        for count in (1, 3, SLOTS, 2, SLOTS - 1):
            round_trip(batch, port, clients(host, count), 64)
            pattern = port.pattern
            assert pattern is not None
            assert (pattern.length, pattern.on_loopback) == (64, True)
            assert batch.whole
            assert batch.trains is None
            assert batch.on_loopback
        assert port.pattern is pattern


def test_after_a_broadcast_a_batch_of_the_known_pattern_is_whole_again(
    batch: Batch, clients: Callable[..., list[socket.socket]]
) -> None:
    """What was said of the slots of a batch that had to be looked at one by one is not said of the next."""
    with udp_server(ANY) as server:
        port, some = UdpSocket(server), clients("127.0.0.1", 3)
        some[0].setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        for _ in range(3):
            round_trip(batch, port, some, 64, to="127.0.0.1")
            assert (batch.whole, batch.not_unicast) == (True, set())
            deliver(server, some[0].sendto, b"all", at(server, "127.255.255.255"))
            assert answer(batch, port) == 1
            assert (batch.whole, batch.not_unicast) == (False, {0})


@needs_root
def test_by_which_way_a_batch_came_is_known_also_by_its_pattern(batch: Batch, network: None) -> None:
    """Of two sockets in turn, one asked on loopback and one by an address of a link, each is told right each time."""
    add_link("10.0.0.1/24")
    with (
        udp_server("127.0.0.1") as inner,
        udp_server("10.0.0.1") as outer,
        udp_client() as near,
        udp_client(ANY) as far,
    ):
        ports = [(UdpSocket(inner), near, True), (UdpSocket(outer), far, False)]
        for _ in range(4):
            for port, client, on_loopback in ports:
                deliver(port.sock, client.sendto, b"which way", at(port.sock))
                assert answer(batch, port) == 1
                assert batch.on_loopback is on_loopback
        assert all(port.pattern is not None for port, *_ in ports)


@pytest.mark.parametrize("host", HOSTS)
def test_other_lengths_are_answered_in_their_length(
    batch: Batch, host: str, clients: Callable[..., list[socket.socket]]
) -> None:
    """A pattern of one length makes no answer of another: longer, shorter and empty ones come back whole."""
    with udp_server(host) as server:
        port, some = UdpSocket(server), clients(host, 5)
        for size in (64, 1, 9000, 0, 64, 0, 65_000, 64):
            for _ in range(3):
                round_trip(batch, port, some, size)
            assert port.pattern is not None
            assert port.pattern.length == size


def test_a_batch_of_mixed_lengths_is_no_pattern(batch: Batch, clients: Callable[..., list[socket.socket]]) -> None:
    """Each slot has its own length, also where the first is that of the pattern before."""
    with udp_server() as server:
        port, some = UdpSocket(server), clients("127.0.0.1", 4)
        for _ in range(3):
            round_trip(batch, port, some, 16)
        for client, size in zip(some, (16, 16, 15, 17), strict=True):
            deliver(server, client.sendto, b"m" * size, at(server))
        assert answer(batch, port) == 4
        assert [client.recv(100) for client in some] == [b"m" * size for size in (16, 16, 15, 17)]


def test_another_local_address_is_another_pattern(batch: Batch, clients: Callable[..., list[socket.socket]]) -> None:
    """On a wildcard socket each is answered from the address it asked, in turns and mixed in one batch."""
    with udp_server(ANY) as server:
        port, some = UdpSocket(server), clients("127.0.0.1", 6)
        for to in ("127.0.0.2", "127.0.0.3", "127.0.0.2", "127.0.0.4"):
            for _ in range(3):
                round_trip(batch, port, some, 32, to=to)
        asked = [("127.0.0.4", 4), ("127.0.0.4", 4), ("127.0.0.5", 4), ("127.0.0.4", 4)]
        for client, (to, size) in zip(some, asked, strict=False):
            deliver(server, client.sendto, b"x" * size, at(server, to))
        assert answer(batch, port) == 4
        assert [client.recvfrom(100)[1][0] for client in some[:4]] == [to for to, _ in asked]


@pytest.mark.parametrize("host", HOSTS)
def test_a_train_leaves_nothing_behind_in_the_slots(
    batch: Batch, host: str, clients: Callable[..., list[socket.socket]]
) -> None:
    """What a train wrote into a slot is gone before the next receive: the pattern is recognised again, and right."""
    with udp_server(host) as server:
        port, some = UdpSocket(server), clients(host, 3)
        for _ in range(2):
            round_trip(batch, port, some, 64)
        pattern = port.pattern
        assert pattern is not None
        for trains in (1, 2, 3):
            for _ in range(trains):
                for client in some:
                    deliver(server, send_train, client, b"ab" * 32, 2, at(server))
                assert answer(batch, port) == 3
                assert batch.trains == [32] * 3
                assert batch.replied == 3 * 32
                for client in some:
                    assert [client.recv(100) for _ in range(32)] == [b"ab"] * 32
            for _ in range(3):
                round_trip(batch, port, some, 64)
            assert batch.pattern is port.pattern
            assert port.pattern == pattern


def test_sockets_of_both_families_share_one_batch(batch: Batch, clients: Callable[..., list[socket.socket]]) -> None:
    """In turns, each has its own pattern, and none is taken for the other's."""
    with udp_server("127.0.0.1") as one, udp_server("::1") as other:
        ports = [UdpSocket(one), UdpSocket(other)]
        asking = [clients("127.0.0.1", 4), clients("::1", 4)]
        for _ in range(2):
            round_trip(batch, ports[0], asking[0], 20)
            round_trip(batch, ports[1], asking[1], 20)
        patterns = [port.pattern for port in ports]
        assert None not in patterns
        for _ in range(3):
            for port, some in zip(ports, asking, strict=True):
                round_trip(batch, port, some, 20)
        assert [port.pattern for port in ports] == patterns


@pytest.mark.parametrize("host", HOSTS)
def test_what_is_refused_in_a_batch_alike_costs_no_other(
    batch: Batch, host: str, clients: Callable[..., list[socket.socket]]
) -> None:
    """Every slot in turn is left out, and the others are answered; the next batch is whole again."""
    with udp_server(host) as server:
        port, some = UdpSocket(server), clients(host, 4)
        for _ in range(2):
            round_trip(batch, port, some, 8)
        for left_out in range(4):
            for number, client in enumerate(some):
                deliver(server, client.sendto, b"%08d" % number, at(server))
            assert batch.receive(port) == 4
            batch.refuse(left_out, 1)
            reply.send(batch, port)
            assert (batch.replied, batch.replied_octets) == (3, 24)
            for number, client in enumerate(some):
                if number == left_out:
                    assert_nothing_more(client)
                else:
                    assert client.recv(100) == b"%08d" % number
            round_trip(batch, port, some, 8)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("order", ["aaaa", "aabb", "abbb", "aaab", "abab", "aabbaabb", "abbbbbba"])
def test_neighbours_in_a_batch_alike_keep_their_order(
    batch: Batch, host: str, order: str, clients: Callable[..., list[socket.socket]]
) -> None:
    """However many are joined, each client has its own back, in the order in which it sent them."""
    with udp_server(host) as server:
        port = UdpSocket(server)
        asking = dict(zip("ab", clients(host, 2), strict=True))
        for _ in range(3):
            for number, name in enumerate(order):
                deliver(server, asking[name].sendto, b"%s %d" % (name.encode(), number), at(server))
            assert answer(batch, port) == len(order)
            assert batch.replied == len(order)
            for name, client in asking.items():
                due = [b"%s %d" % (name.encode(), number) for number, each in enumerate(order) if each == name]
                assert [client.recv(100) for _ in due] == due
                assert_nothing_more(client)
