"""A batch answers every datagram with its own bytes, from the address that was asked, in one turn."""

import socket

import pytest
from support.loopback import answer, assert_got, assert_nothing_more, queue, receive_train, udp_client, udp_server

from echod.linux.sockopt import UDP_GRO
from echod.udp import reply
from echod.udp.batch import Batch
from echod.udp.sock import UdpSocket


def payload(length: int, seed: int = 0) -> bytes:
    """Return bytes that differ from place to place and from seed to seed."""
    return bytes((seed + i + (i >> 8)) & 0xFF for i in range(length))


@pytest.mark.parametrize(
    ("host", "length"),
    [
        *(("127.0.0.1", length) for length in (0, 1, 64, 1472, 1473, 9000, 65_507)),
        *(("::1", length) for length in (0, 1, 64, 1452, 1453, 9000, 65_507, 65_527)),
    ],
)
def test_a_datagram_comes_back_byte_for_byte(batch: Batch, host: str, length: int) -> None:
    """Every size up to the largest of its family is echoed exactly, once, from the server's address."""
    data = payload(length)
    with udp_server(host) as server, udp_client(host) as client:
        queue(client, server, data)
        assert answer(batch, UdpSocket(server)) == 1
        assert (batch.octets, batch.replied, batch.replied_octets) == (length, 1, length)
        assert client.recvfrom(65_536) == (data, server.getsockname())
        assert_nothing_more(client)


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
            queue(client, server, data, segment)
        except OSError as error:
            pytest.skip(f"this kernel sends no train of {count} segments: {error.strerror}")
        assert answer(batch, UdpSocket(server)) == 1
        assert (batch.datagrams, batch.octets, batch.replied, batch.replied_octets) == (count, total, count, total)
        assert_got(client, *(data[i : i + segment] for i in range(0, total, segment)))


def test_an_empty_queue_is_an_empty_batch(batch: Batch, server: socket.socket) -> None:
    """Where nothing is queued, nothing was received, from nobody, and nothing is sent."""
    assert answer(batch, UdpSocket(server)) == 0
    assert (batch.datagrams, batch.octets, batch.replied, batch.peers) == (0, 0, 0, ())


def test_a_batch_takes_as_many_datagrams_as_it_has_slots(
    batch: Batch, server: socket.socket, client: socket.socket
) -> None:
    """Of more than a batch can hold, the rest waits for the next one, and a short batch leaves nothing of a long."""
    with udp_client() as other:
        for number in range(67):
            queue(other if number % 2 else client, server, b"%d" % number)
        assert [answer(batch, UdpSocket(server)) for _ in range(3)] == [64, 3, 0]
        assert_got(client, *(b"%d" % number for number in range(0, 67, 2)))
        assert_got(other, *(b"%d" % number for number in range(1, 67, 2)))


def test_a_socket_that_is_closed_is_a_defect_and_raised(batch: Batch, client: socket.socket) -> None:
    """Neither receive nor reply passes over EBADF: every later call would meet it too."""
    server = udp_server()
    queue(client, server, b"late")
    batch.receive(UdpSocket(server))
    server.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        reply.send(batch, UdpSocket(server))
    with pytest.raises(OSError, match="Bad file descriptor"):
        batch.receive(UdpSocket(server))


def test_neighbours_of_different_peers_or_lengths_are_not_joined(batch: Batch, server: socket.socket) -> None:
    """Only datagrams of one peer and one length that lie side by side go out as one."""
    with udp_client() as one, udp_client() as other:
        for client in (one, other):
            client.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        for client, length in ((one, 10), (other, 10), (one, 10), (one, 11)):
            for _ in range(3):
                queue(client, server, payload(length))
        answer(batch, UdpSocket(server))
        assert [receive_train(one) for _ in range(3)] == [(payload(length) * 3, length) for length in (10, 10, 11)]
        assert receive_train(other) == (payload(10) * 3, 10)
        for client in (one, other):
            assert_nothing_more(client)
