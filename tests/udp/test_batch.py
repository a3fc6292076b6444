"""A batch answers every datagram with its own bytes, from the address that was asked, in one turn."""

import socket
from collections.abc import Iterator

import pytest
from support.loopback import (
    ANY,
    answer,
    assert_nothing_more,
    at,
    deliver,
    ip,
    namespace,
    needs_root,
    receive_train,
    send_train,
    udp_client,
    udp_server,
)

from echod.linux.mmsg_layout import SLOTS
from echod.linux.sockopt import UDP_GRO
from echod.udp import reply
from echod.udp.batch import Batch
from echod.udp.reply import FEWEST_JOINED
from echod.udp.sock import UdpSocket


@pytest.fixture
def client() -> Iterator[socket.socket]:
    """Open a client on 127.0.0.1."""
    with udp_client() as sock:
        yield sock


def payload(length: int, seed: int = 0) -> bytes:
    """Return bytes that differ from place to place and from seed to seed."""
    return bytes((seed + i + (i >> 8)) & 0xFF for i in range(length))


@pytest.mark.parametrize("length", [0, 1, 64, 1472, 1473, 9000, 65_507])
def test_an_ipv4_datagram_comes_back_byte_for_byte(batch: Batch, server: socket.socket, length: int) -> None:
    """Every size up to the largest that IPv4 has is echoed exactly, once, from the server's address."""
    data = payload(length)
    with udp_client() as client:
        deliver(server, client.sendto, data, at(server))
        assert answer(batch, UdpSocket(server)) == 1
        assert (batch.octets, batch.replied, batch.replied_octets) == (length, 1, length)
        assert client.recvfrom(65_536) == (data, at(server))
        assert_nothing_more(client)


@pytest.mark.parametrize("length", [0, 1, 64, 1452, 1453, 9000, 65_507, 65_527])
def test_an_ipv6_datagram_comes_back_byte_for_byte(batch: Batch, length: int) -> None:
    """Every size up to the largest that IPv6 has is echoed exactly, once, from the server's address."""
    data = payload(length)
    with udp_server("::1") as server, udp_client("::1") as client:
        deliver(server, client.sendto, data, at(server))
        assert answer(batch, UdpSocket(server)) == 1
        assert (batch.octets, batch.replied, batch.replied_octets) == (length, 1, length)
        assert client.recvfrom(65_536) == (data, server.getsockname())
        assert_nothing_more(client)


@pytest.mark.parametrize(("wildcard", "asked"), [(ANY, "127.0.0.9"), ("::", "::1")])
def test_a_wildcard_socket_answers_from_the_address_that_was_asked(batch: Batch, wildcard: str, asked: str) -> None:
    """A connected client, which takes replies from that address alone, gets its reply."""
    own = "::1" if ":" in asked else "127.0.0.1"
    with udp_server(wildcard) as server, udp_client(own) as client:
        client.connect(at(server, asked))
        deliver(server, client.send, b"who is there")
        answer(batch, UdpSocket(server))
        assert client.recv(65_536) == b"who is there"


@needs_root
@pytest.mark.parametrize(
    ("wildcard", "first", "second"), [(ANY, "127.0.0.2", "127.0.0.3"), ("::", "fd00:ec::2", "fd00:ec::3")]
)
def test_each_of_a_clients_datagrams_is_answered_from_the_address_it_asked(
    batch: Batch, wildcard: str, first: str, second: str
) -> None:
    """Neighbours of one peer and one length that asked different addresses are not joined into one reply."""
    hosts = [first, first, second, second, first, first]
    with namespace():
        for host in ("fd00:ec::2", "fd00:ec::3"):
            ip("address", "add", f"{host}/128", "dev", "lo", "nodad")
        with udp_server(wildcard) as server, udp_client("::1" if ":" in first else "127.0.0.1") as client:
            for number, host in enumerate(hosts):
                deliver(server, client.sendto, b"%d" % number, at(server, host))
            answer(batch, UdpSocket(server))
            replies = [client.recvfrom(16) for _ in hosts]
            expected = [(b"%d" % number, at(server, host)) for number, host in enumerate(hosts)]
            assert [(data, source[:2]) for data, source in replies] == expected


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize(
    ("segment", "total", "count"),
    [
        pytest.param(100, 500, 5, id="equal segments"),
        pytest.param(100, 501, 6, id="last of one byte"),
        pytest.param(1400, 1401, 2, id="two segments"),
        pytest.param(1, 64, 64, id="64 of one byte"),
        pytest.param(511, 128 * 511, 128, id="128 segments"),
        pytest.param(511, 127 * 511 + 9, 128, id="128 segments, the last short"),
        pytest.param(32_000, 65_400, 3, id="as long as a device takes"),
    ],
)
def test_a_train_comes_back_whole(batch: Batch, host: str, segment: int, total: int, count: int) -> None:
    """A train is one slot, counts as its datagrams, and every one of them comes back."""
    data = payload(total)
    with udp_server(host) as server, udp_client(host) as client:
        try:
            deliver(server, send_train, client, data, segment, at(server))
        except OSError as error:
            pytest.skip(f"this kernel sends no train of {count} segments: {error.strerror}")
        assert answer(batch, UdpSocket(server)) == 1
        assert (batch.datagrams, batch.octets, batch.replied, batch.replied_octets) == (count, total, count, total)
        got = [client.recv(65_536) for _ in range(count)]
        assert got == [data[i : i + segment] for i in range(0, total, segment)]
        assert_nothing_more(client)


def test_a_reply_to_a_train_is_a_train(batch: Batch, server: socket.socket, client: socket.socket) -> None:
    """A client that takes trains receives its train's reply in one piece."""
    client.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    data = payload(1050)
    deliver(server, send_train, client, data, 100, at(server))
    answer(batch, UdpSocket(server))
    assert receive_train(client) == (data, 100)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_neighbours_of_one_peer_are_joined_into_one_train(batch: Batch, host: str) -> None:
    """Datagrams of one length, sent one by one, come back to a client that takes trains as one, if they are not few."""
    with udp_server(host) as server, udp_client(host) as client:
        client.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        sent = [payload(200, number) for number in range(FEWEST_JOINED)]
        for data in sent:
            deliver(server, client.sendto, data, at(server))
        assert answer(batch, UdpSocket(server)) == FEWEST_JOINED
        assert receive_train(client) == (b"".join(sent), 200)
        for data in sent[1:]:
            deliver(server, client.sendto, data, at(server))
        assert answer(batch, UdpSocket(server)) == FEWEST_JOINED - 1
        assert [receive_train(client)[0] for _ in sent[1:]] == sent[1:]
        assert_nothing_more(client)


def test_neighbours_of_different_peers_or_lengths_are_not_joined(batch: Batch, server: socket.socket) -> None:
    """Only datagrams of one peer and one length that lie side by side go out as one."""
    with udp_client() as one, udp_client() as other:
        for client in (one, other):
            client.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        for client, length in ((one, 10), (other, 10), (one, 10), (one, 11)):
            for _ in range(3):
                deliver(server, client.sendto, payload(length), at(server))
        answer(batch, UdpSocket(server))
        assert [receive_train(one) for _ in range(3)] == [(payload(length) * 3, length) for length in (10, 10, 11)]
        assert receive_train(other) == (payload(10) * 3, 10)
        for client in (one, other):
            assert_nothing_more(client)


def test_a_peers_datagrams_come_back_in_the_order_sent(batch: Batch, server: socket.socket) -> None:
    """Joined, single and train replies of two peers in one batch keep the order of each peer."""
    sent: dict[socket.socket, list[bytes]] = {}
    with udp_client() as one, udp_client() as other:
        lengths = [8, 8, 8, 9, 8, 0, 0, 8, 8, 300, 300]
        for number, length in enumerate(lengths * 3):
            for client in (one, other) if number % 2 else (other, one):
                data = payload(length, number)
                sent.setdefault(client, []).append(data)
                deliver(server, client.sendto, data, at(server))
        while answer(batch, UdpSocket(server)):
            assert not batch.failures
        for client, expected in sent.items():
            assert [client.recv(512) for _ in expected] == expected
            assert_nothing_more(client)


def test_a_refused_slot_is_not_answered(batch: Batch, server: socket.socket, client: socket.socket) -> None:
    """Refusing leaves out that slot alone, also between neighbours that are joined."""
    for number in range(6):
        deliver(server, client.sendto, b"%d" % number, at(server))
    assert batch.receive(UdpSocket(server)) == 6
    for slot in (0, 3):
        batch.refuse(slot, batch.weight(slot))
    reply.send(batch, UdpSocket(server))
    assert (batch.datagrams, batch.replied, batch.failures) == (6, 4, {})
    assert [client.recv(16) for _ in range(4)] == [b"1", b"2", b"4", b"5"]
    assert_nothing_more(client)


def test_a_train_that_is_refused_whole_is_not_answered(
    batch: Batch, server: socket.socket, client: socket.socket
) -> None:
    """Refusing eleven datagrams of a train of eleven leaves none, and its neighbour is answered."""
    deliver(server, send_train, client, payload(1050), 100, at(server))
    deliver(server, client.sendto, b"after", at(server))
    assert batch.receive(UdpSocket(server)) == 2
    assert batch.weight(0) == 11
    batch.refuse(0, 11)
    reply.send(batch, UdpSocket(server))
    assert (batch.datagrams, batch.replied, batch.failures) == (12, 1, {})
    assert client.recv(16) == b"after"
    assert_nothing_more(client)


def test_a_batch_with_everything_refused_sends_nothing(
    batch: Batch, server: socket.socket, client: socket.socket
) -> None:
    """Nobody gets a reply where every slot is refused, and the next batch is answered as ever."""
    deliver(server, client.sendto, b"no", at(server))
    batch.receive(UdpSocket(server))
    batch.refuse(0, 1)
    reply.send(batch, UdpSocket(server))
    assert (batch.replied, batch.replied_octets, batch.failures) == (0, 0, {})
    deliver(server, client.sendto, b"yes", at(server))
    assert answer(batch, UdpSocket(server)) == 1
    assert client.recv(16) == b"yes"
    assert_nothing_more(client)


def test_an_empty_queue_is_an_empty_batch(batch: Batch, server: socket.socket) -> None:
    """Where nothing is queued, nothing was received, from nobody, and nothing is sent."""
    assert answer(batch, UdpSocket(server)) == 0
    assert (batch.datagrams, batch.octets, batch.replied, batch.peers) == (0, 0, 0, ())


def test_a_batch_takes_as_many_datagrams_as_it_has_slots(batch: Batch, server: socket.socket) -> None:
    """Of more than a batch can hold, the rest waits for the next one, and a short batch leaves nothing of a long."""
    with udp_client() as one, udp_client() as other:
        for number in range(SLOTS + 3):
            client = other if number % 2 else one
            deliver(server, client.sendto, b"%d" % number, at(server))
        assert [answer(batch, UdpSocket(server)) for _ in range(3)] == [SLOTS, 3, 0]
        assert [one.recv(16) for _ in range(34)] == [b"%d" % number for number in range(0, SLOTS + 3, 2)]
        assert [other.recv(16) for _ in range(33)] == [b"%d" % number for number in range(1, SLOTS + 3, 2)]


def test_a_train_slot_does_not_outlast_its_batch(batch: Batch, server: socket.socket, client: socket.socket) -> None:
    """A plain datagram in the slot where a train was before is a plain datagram."""
    for data, weight in ((payload(300), 3), (payload(100), 1), (payload(299), 3), (b"", 1)):
        if weight > 1:
            deliver(server, send_train, client, data, 100, at(server))
        else:
            deliver(server, client.sendto, data, at(server))
        answer(batch, UdpSocket(server))
        assert (batch.datagrams, batch.replied, batch.replied_octets) == (weight, weight, len(data))
        assert b"".join(client.recv(512) for _ in range(weight)) == data


def test_a_socket_that_is_closed_is_a_defect_and_raised(batch: Batch, client: socket.socket) -> None:
    """Neither receive nor reply passes over EBADF: every later call would meet it too."""
    server = udp_server()
    deliver(server, client.sendto, b"late", at(server))
    batch.receive(UdpSocket(server))
    server.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        reply.send(batch, UdpSocket(server))
    with pytest.raises(OSError, match="Bad file descriptor"):
        batch.receive(UdpSocket(server))
