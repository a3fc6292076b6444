"""What is left of a batch of a known pattern, where a rule or the kernel refuses some: all of it is answered."""

import socket
from collections.abc import Iterator

import pytest
from support.loopback import (
    ANY,
    add_link,
    answer,
    assert_nothing_more,
    at,
    deliver,
    ip,
    needs_root,
    receive_train,
    send_train,
    udp_client,
    udp_server,
)
from support.train_batches import HOSTS, SEGMENT, Clients, assert_got, filled, learned, parts, round_trip, send_each
from support.train_batches import clients as open_clients

from echod.linux.sockopt import UDP_GRO
from echod.udp import reply
from echod.udp.batch import Batch
from echod.udp.sock import UdpSocket

SO_NO_CHECK = 11
"""Without checksums the kernel makes no trains, of IPv4."""
UDP_NO_CHECK6_TX, UDP_NO_CHECK6_RX = 101, 102

each_family = pytest.mark.parametrize("host", HOSTS)


@pytest.fixture
def clients() -> Iterator[Clients]:
    """Open as many clients on each address as there are slots."""
    with open_clients() as some:
        yield some


def let_trains_fail(server: socket.socket, clients: list[socket.socket]) -> None:
    """Switch off the checksums of a server, and let these clients take what has none."""
    if server.family == socket.AF_INET:
        server.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
        return
    server.setsockopt(socket.IPPROTO_UDP, UDP_NO_CHECK6_TX, 1)
    for client in clients:
        client.setsockopt(socket.IPPROTO_UDP, UDP_NO_CHECK6_RX, 1)


# -- of trains


@each_family
@pytest.mark.parametrize("cuts", [{0: 1}, {1: 4}, {2: 3}, {1: 5}, {0: 2, 2: 4}, {0: 5, 1: 1}, {0: 5, 1: 5, 2: 5}])
def test_what_is_cut_from_trains_alike_costs_no_other(
    batch: Batch, host: str, cuts: dict[int, int], clients: Clients
) -> None:
    """The last of these slots are left out, or all of them; the others are whole, and so is the next batch."""
    with udp_server(host) as server:
        port, some = UdpSocket(server), clients[host][:3]
        learned(batch, port, some)
        pattern = port.pattern
        for _ in range(2):
            expected = [each[: 5 - cuts.get(slot, 0)] for slot, each in enumerate(send_each(port, some))]
            assert batch.receive(port) == 3
            assert batch.pattern is pattern
            for slot, datagrams in cuts.items():
                batch.refuse(slot, datagrams)
                assert batch.refuses(slot) == (datagrams == 5)
            left = [slot for slot, each in enumerate(expected) for _ in each]
            if 5 not in cuts.values():
                assert [batch.slot_of(datagram) for datagram in range(batch.datagrams)] == left
            reply.send(batch, port)
            octets = sum(len(part) for each in expected for part in each)
            assert (batch.replied, batch.replied_octets, batch.failures) == (len(left), octets, {})
            assert_got(some, expected)
            round_trip(batch, port, some)
            assert batch.pattern is port.pattern is pattern


@each_family
def test_what_is_left_of_trains_alike_are_trains(batch: Batch, host: str, clients: Clients) -> None:
    """One that was cut, and the whole ones beside it, go out in one piece each."""
    with udp_server(host) as server:
        port, some = UdpSocket(server), clients[host][:3]
        learned(batch, port, some)
        for client in some:
            client.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        send_each(port, some)
        batch.receive(port)
        batch.refuse(1, 2)
        reply.send(batch, port)
        expected = [filled(0), filled(1)[: 3 * SEGMENT], filled(2)]
        assert [receive_train(client) for client in some] == [(data, SEGMENT) for data in expected]


@each_family
@pytest.mark.parametrize("cuts", [{}, {1: 2}, {0: 5}, {1: 4, 2: 5}])
def test_trains_alike_go_out_one_by_one_where_a_train_fails(
    batch: Batch, host: str, cuts: dict[int, int], clients: Clients
) -> None:
    """Whole, cut, and amid refused ones: each datagram that is left is answered, in its turn."""
    with udp_server(host) as server:
        port, some = UdpSocket(server), clients[host][:3]
        learned(batch, port, some)
        let_trains_fail(server, some)
        for _ in range(2):
            expected = [each[: 5 - cuts.get(slot, 0)] for slot, each in enumerate(send_each(port, some))]
            assert batch.receive(port) == 3
            assert batch.pattern is not None
            for slot, datagrams in cuts.items():
                batch.refuse(slot, datagrams)
            reply.send(batch, port)
            assert (batch.replied, batch.failures) == (sum(map(len, expected)), {})
            assert_got(some, expected)
        assert port.pattern is not None


@needs_root
def test_trains_alike_that_go_out_one_by_one_find_their_way(batch: Batch, network: None) -> None:
    """By the routing table, not by the link that they came in by: what asked for another one is answered."""
    add_link("10.0.0.1/24")
    ip("link", "add", "other", "type", "veth", "peer", "name", "beyond")
    for name in ("other", "beyond"):
        ip("link", "set", name, "up")
    ip("address", "add", "10.1.0.1/24", "dev", "other")
    with udp_server(ANY) as server, udp_client("10.0.0.1") as client:
        port = UdpSocket(server)
        for number in range(4):
            if number == 3:
                let_trains_fail(server, [])
            deliver(server, send_train, client, filled(number), SEGMENT, at(server, "10.1.0.1"))
            assert answer(batch, port) == 1
            assert (batch.pattern is not None) == (number >= 2)
            assert (batch.replied, batch.on_loopback) == (5, False)
            assert_got([client], [parts(filled(number), SEGMENT)])


# -- of neighbours that are joined


def known_singles(batch: Batch, port: UdpSocket, clients: list[socket.socket]) -> None:
    """Have the batch know datagrams of two bytes by their pattern; let the clients take trains."""
    for _ in range(2):
        round_trip(batch, port, clients, 2, 0)
    for client in clients:
        client.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)


def send_in_order(port: UdpSocket, clients: list[socket.socket], order: str) -> None:
    """Send a datagram of the client of each letter, that tells its place."""
    for number, letter in enumerate(order):
        deliver(port.sock, clients["abc".index(letter)].sendto, b"%02d" % number, at(port.sock))


ORDERS = {
    "aaaaaa": {"a": ["000102030405"]},
    "aabbcc": {"a": ["0001"], "b": ["0203"], "c": ["0405"]},
    "aaabbc": {"a": ["000102"], "b": ["0304"], "c": ["05"]},
    "abbbaa": {"a": ["00", "0405"], "b": ["010203"]},
    "aabbba": {"a": ["0001", "05"], "b": ["020304"]},
    "aabacc": {"a": ["00", "01", "03"], "b": ["02"], "c": ["04", "05"]},  # four for six: not worth it
    "abcabc": {"a": ["00", "03"], "b": ["01", "04"], "c": ["02", "05"]},
}
"""What each client gets in one piece, by the order in which they ask."""


@each_family
@pytest.mark.parametrize("order", ORDERS)
def test_neighbours_in_a_batch_alike_are_joined_where_it_pays(
    batch: Batch, host: str, order: str, clients: Clients
) -> None:
    """Each client has its own back, those that lie side by side in one piece, where two come to one on the average."""
    with udp_server(host) as server:
        port, some = UdpSocket(server), clients[host][:3]
        known_singles(batch, port, some)
        for _ in range(2):
            send_in_order(port, some, order)
            assert answer(batch, port) == 6
            assert batch.pattern is port.pattern
            assert batch.pattern is not None
            assert (batch.replied, batch.replied_octets) == (6, 12)
            for letter, client in zip("abc", some, strict=True):
                expected = [piece.encode() for piece in ORDERS[order].get(letter, [])]
                assert [receive_train(client)[0] for _ in expected] == expected
                assert_nothing_more(client)


REFUSED = {
    (0,): {"a": ["0102"], "b": ["030405"], "c": ["06"]},
    (1,): {"a": ["00", "02"], "b": ["030405"], "c": ["06"]},
    (2, 3): {"a": ["0001"], "b": ["0405"], "c": ["06"]},
    (4,): {"a": ["000102"], "b": ["03", "05"], "c": ["06"]},
    (6,): {"a": ["000102"], "b": ["030405"]},
    (0, 1, 2, 6): {"b": ["030405"]},
    tuple(range(7)): {},
}
"""Of three, three and one that ask, the slots that are refused, and what each client gets in one piece."""


@each_family
@pytest.mark.parametrize("refused", REFUSED)
def test_the_refused_among_joined_neighbours_are_left_out(
    batch: Batch, host: str, refused: tuple[int, ...], clients: Clients
) -> None:
    """They part their neighbours, and all others are answered, of a batch alike too, and the next one is whole."""
    with udp_server(host) as server:
        port, some = UdpSocket(server), clients[host][:3]
        known_singles(batch, port, some)
        for left_out in (refused, ()):
            send_in_order(port, some, "aaabbbc")
            assert batch.receive(port) == 7
            batch.refuse_each(left_out)
            assert [slot for slot in range(7) if batch.refuses(slot)] == list(left_out)
            reply.send(batch, port)
            assert batch.pattern is port.pattern
            assert (batch.replied, batch.failures) == (7 - len(left_out), {})
            whole = {"a": ["000102"], "b": ["030405"], "c": ["06"]}
            for letter, client in zip("abc", some, strict=True):
                expected = [piece.encode() for piece in (REFUSED[refused] if left_out else whole).get(letter, [])]
                assert [receive_train(client)[0] for _ in expected] == expected
                assert_nothing_more(client)


@each_family
@pytest.mark.parametrize("refused", [(), (1,), (0, 5)])
def test_joined_neighbours_of_a_batch_alike_go_out_one_by_one_where_a_train_fails(
    batch: Batch, host: str, refused: tuple[int, ...], clients: Clients
) -> None:
    """Nothing is lost or reordered, and datagrams of that length are not joined again; longer ones are not either."""
    with udp_server(host) as server:
        port, some = UdpSocket(server), clients[host][:3]
        known_singles(batch, port, some)
        let_trains_fail(server, some)
        for longest in (1, 1):
            send_in_order(port, some, "aaabbb")
            assert batch.receive(port) == 6
            assert batch.pattern is port.pattern
            batch.refuse_each(refused)
            reply.send(batch, port)
            assert port.longest_joined == longest
            assert (batch.replied, batch.replied_octets) == (6 - len(refused), 12 - 2 * len(refused))
            assert batch.failures == {}
            for first, client in zip((0, 3), some, strict=False):
                expected = [(b"%02d" % number, 0) for number in range(first, first + 3) if number not in refused]
                assert [receive_train(client) for _ in expected] == expected
                assert_nothing_more(client)


@needs_root
def test_names_of_ipv6_leave_nothing_behind_that_parts_neighbours(network: None) -> None:
    """After datagrams of different IPv6 hosts in the same slots, those of one IPv4 peer are joined as ever."""
    ip("address", "add", "fd00:ec::2/128", "dev", "lo", "nodad")
    batch = Batch()
    with udp_server("::") as six, udp_server() as four, udp_client() as client:
        with udp_client("::1") as one, udp_client("fd00:ec::2") as other:
            for sock in (one, other, one, other, other, one):
                deliver(six, sock.sendto, b"six", at(six, "::1"))
        answer(batch, UdpSocket(six))
        port = UdpSocket(four)
        known_singles(batch, port, [client])
        send_in_order(port, [client], "aaaaaa")
        assert answer(batch, port) == 6
        assert batch.pattern is port.pattern
        assert receive_train(client) == (b"000102030405", 2)


@each_family
def test_more_than_a_message_can_join_are_joined_into_two(batch: Batch, host: str, clients: Clients) -> None:
    """Of 64 that are too long for one message, in the order in which they were sent."""
    with udp_server(host) as server:
        port, one = UdpSocket(server), clients[host][0]
        for _ in range(3):
            sent = [b"%02d" % number * 700 for number in range(64)]
            for data in sent:
                deliver(server, one.sendto, data, at(server))
            assert answer(batch, port) == 64
            assert batch.replied == 64
            assert [one.recv(65_536) for _ in sent] == sent
        assert batch.pattern is port.pattern
        one.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        for data in sent:
            deliver(server, one.sendto, data, at(server))
        answer(batch, port)
        assert [receive_train(one) for _ in range(2)] == [(b"".join(sent[:46]), 1400), (b"".join(sent[46:]), 1400)]
        assert_nothing_more(one)
