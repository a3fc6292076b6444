"""Trains like those of the batch before: known by their pattern, and answered exactly, whatever came between."""

import socket
from collections.abc import Iterator

import pytest
from support.loopback import (
    ANY,
    add_link,
    answer,
    at,
    deliver,
    ip,
    needs_root,
    receive_train,
    send_train,
    udp_client,
    udp_server,
    wait_for_address,
)
from support.train_batches import (
    HOSTS,
    LENGTH,
    SEGMENT,
    Clients,
    assert_got,
    filled,
    learned,
    parts,
    round_trip,
    send_each,
)
from support.train_batches import clients as open_clients

from echod.linux.mmsg_layout import SLOTS
from echod.linux.sockopt import UDP_GRO
from echod.udp import reply
from echod.udp.batch import Batch
from echod.udp.sock import UdpSocket

each_family = pytest.mark.parametrize("host", HOSTS)


@pytest.fixture
def clients() -> Iterator[Clients]:
    """Open as many clients on each address as there are slots."""
    with open_clients() as some:
        yield some


# -- known by their pattern


@each_family
@pytest.mark.parametrize(("length", "segment", "weight"), [(47, 10, 5), (40, 10, 4), (11, 10, 2), (64, 1, 64)])
def test_the_second_batch_of_equal_trains_is_learned(
    host: str, length: int, segment: int, weight: int, clients: Clients
) -> None:
    """From then on its pattern serves any number of slots, the last datagrams full or short."""
    with udp_server(host) as server:
        batch, port = Batch(), UdpSocket(server)
        round_trip(batch, port, clients[host][:3], length, segment)
        assert not port.pattern
        round_trip(batch, port, clients[host][:2], length, segment)
        pattern = port.pattern
        assert pattern is not None
        assert (pattern.length, pattern.segment, pattern.weight, pattern.on_loopback) == (length, segment, weight, True)
        for count in (1, 3, SLOTS, 2, SLOTS - 1):
            round_trip(batch, port, clients[host][:count], length, segment)
            assert batch.pattern is port.pattern is pattern
            assert (batch.whole, batch.on_loopback) == (True, True)
            assert (batch.truncated, batch.not_unicast) == (set(), set())


@each_family
@pytest.mark.parametrize("segments", [(10, 20), (0, 10), (10, 0)])
def test_trains_that_differ_in_their_segments_alone_are_no_pattern(
    batch: Batch, host: str, segments: tuple[int, int], clients: Clients
) -> None:
    """Of one length, in each batch again, and answered as they are."""
    with udp_server(host) as server:
        port, some = UdpSocket(server), clients[host][:2]
        for _ in range(4):
            expected = []
            for client, segment in zip(some, segments, strict=True):
                expected += send_each(port, [client], segment=segment)
            assert answer(batch, port) == 2
            assert not port.pattern
            assert batch.trains == list(map(len, expected))
            assert_got(some, expected)


@each_family
def test_a_train_alike_is_answered_as_a_train(batch: Batch, host: str, clients: Clients) -> None:
    """A client that takes trains has it back in one piece."""
    with udp_server(host) as server:
        port, one = UdpSocket(server), clients[host][0]
        learned(batch, port, [one])
        one.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        send_each(port, [one])
        answer(batch, port)
        assert batch.pattern is port.pattern
        assert receive_train(one) == (filled(0), SEGMENT)


@each_family
@pytest.mark.parametrize("known", [False, True])
def test_of_trains_alike_each_slot_is_told(batch: Batch, host: str, clients: Clients, *, known: bool) -> None:
    """Its peer, the last of its datagrams, and which datagrams it holds; with or without a pattern."""
    with udp_server(host) as server:
        port, some = UdpSocket(server), clients[host][:3]
        if known:
            learned(batch, port, some)
        expected = send_each(port, some)
        assert batch.receive(port) == 3
        assert (batch.pattern is not None) == known
        assert tuple(batch.peer(slot) for slot in range(3)) == batch.peers
        assert [int.from_bytes(batch.peer(slot)[2:4], "big") for slot in range(3)] == [
            client.getsockname()[1] for client in some
        ]
        assert [batch.slot_of(datagram) for datagram in range(15)] == [slot for slot in range(3) for _ in range(5)]
        assert [batch.last_datagram(slot) for slot in range(3)] == [each[-1] for each in expected]
        reply.send(batch, port)


def test_of_a_mixture_each_slot_is_told(batch: Batch, server: socket.socket, clients: Clients) -> None:
    """Single ones and trains hold as many datagrams as they weigh; single ones alone are each their own slot."""
    port, one = UdpSocket(server), clients["127.0.0.1"][0]
    for segment in (0, 10, 10, 0, 40):
        send_each(port, [one], segment=segment)
    assert batch.receive(port) == 5
    assert [batch.slot_of(datagram) for datagram in range(14)] == [0, *[1] * 5, *[2] * 5, 3, 4, 4]
    reply.send(batch, port)
    send_each(port, [one] * 3, segment=0)
    batch.receive(port)
    assert [batch.slot_of(datagram) for datagram in range(3)] == [0, 1, 2]
    reply.send(batch, port)


# -- what comes between


@each_family
def test_plain_batches_between_trains_are_exact(batch: Batch, host: str, clients: Clients) -> None:
    """In turns, of any number of slots, also of the bytes that the whole trains have; each is learned in its turn."""
    with udp_server(host) as server:
        port, some = UdpSocket(server), clients[host]
        for trains, singles in ((3, 2), (SLOTS, 5), (2, SLOTS), (1, 1)):
            for _ in range(3):
                round_trip(batch, port, some[:trains])
            assert batch.pattern is not None
            for length in (LENGTH, 1, LENGTH):
                for _ in range(3):
                    round_trip(batch, port, some[:singles], length, 0)
                assert batch.pattern is port.pattern
                assert batch.pattern is not None
                assert (batch.pattern.segment, batch.pattern.weight) == (0, 1)


@each_family
@pytest.mark.parametrize(
    ("length", "segment"), [(LENGTH, 20), (LENGTH, 0), (LENGTH - 1, SEGMENT), (2 * LENGTH, SEGMENT), (60, 30)]
)
def test_a_train_or_a_single_one_that_differs_is_answered_as_it_is(
    batch: Batch, host: str, length: int, segment: int, clients: Clients
) -> None:
    """In its segment or its length alone, and wherever in a batch of trains alike it is; the others are as ever."""
    with udp_server(host) as server:
        port, some = UdpSocket(server), clients[host][:3]
        for odd in range(3):
            learned(batch, port, some)
            expected: list[list[bytes]] = []
            for slot, client in enumerate(some):
                expected += send_each(port, [client], *((length, segment) if slot == odd else ()))
            assert answer(batch, port) == 3
            assert batch.pattern is None
            assert batch.trains == list(map(len, expected))
            assert batch.replied == batch.datagrams == sum(map(len, expected))
            assert_got(some, expected)


@each_family
def test_many_segments_and_lengths_in_one_batch_are_exact(batch: Batch, host: str, clients: Clients) -> None:
    """A batch of trains alone that are all different, among batches of equal ones."""
    with udp_server(host) as server:
        port, some = UdpSocket(server), clients[host]
        for _ in range(2):
            learned(batch, port, some[:2])
            kinds = [(20 + number, 3 + number % 9) for number in range(SLOTS)]
            expected = [send_each(port, [client], *kind)[0] for client, kind in zip(some, kinds, strict=True)]
            assert answer(batch, port) == SLOTS
            assert batch.trains == list(map(len, expected))
            assert_got(some, expected)


def test_sockets_of_both_families_share_one_batch_of_trains(batch: Batch, clients: Clients) -> None:
    """In turns, with trains and single ones, each has its own pattern, and none is taken for the other's."""
    with udp_server("127.0.0.1") as one, udp_server("::1") as other:
        ports = list(zip([UdpSocket(one), UdpSocket(other)], HOSTS, strict=True))
        for port, host in ports:
            learned(batch, port, clients[host][:4])
        patterns = [port.pattern for port, _ in ports]
        for count in (4, SLOTS, 1, 3):
            for port, host in ports:
                round_trip(batch, port, clients[host][:count])
        assert [port.pattern for port, _ in ports] == patterns
        for segments in ((0, SEGMENT), (SEGMENT, 0)):
            for _ in range(3):
                for (port, host), segment in zip(ports, segments, strict=True):
                    round_trip(batch, port, clients[host][:5], segment=segment)
            assert [port.pattern and port.pattern.segment for port, _ in ports] == list(segments)


def test_what_trains_leave_behind_in_their_slots_hides_no_pattern(batch: Batch, clients: Clients) -> None:
    """Of another socket, whose batch is of more slots than the last of trains: it is known at once."""
    some = clients["127.0.0.1"]
    with udp_server() as one, udp_server() as other:
        port, plain = UdpSocket(one), UdpSocket(other)
        for _ in range(2):
            round_trip(batch, plain, some[:3], segment=0)
        learned(batch, port, some[:5])
        for _ in range(2):
            for count in (5, 1):
                round_trip(batch, port, some[:count])
            assert batch.receive(port) == 0
            round_trip(batch, plain, some[:5], segment=0)
            assert batch.pattern is plain.pattern is not None


# -- what must not be answered


@pytest.mark.parametrize("slots", [[0], [1], [2], [0, 1, 2]])
def test_a_train_to_a_broadcast_address_amid_trains_alike_is_not_answered(
    batch: Batch, slots: list[int], clients: Clients
) -> None:
    """It differs from the others in its destination alone; alone or all of the batch, it is marked."""
    with udp_server(ANY) as server:
        port, some = UdpSocket(server), clients["127.0.0.1"][:3]
        for known in (False, True):
            for _ in range(2 * known):
                expected = [filled(number) for number in range(3)]
                for client, data in zip(some, expected, strict=True):
                    deliver(server, send_train, client, data, SEGMENT, at(server, "127.0.0.1"))
                answer(batch, port)
                assert_got(some, [parts(data, SEGMENT) for data in expected])
            assert (port.pattern is not None) == known
            for slot, client in enumerate(some):
                client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                to = at(server, "127.255.255.255" if slot in slots else "127.0.0.1")
                deliver(server, send_train, client, filled(slot), SEGMENT, to)
            assert answer(batch, port) == 3
            assert (batch.not_unicast, batch.whole) == (set(slots), False)
            assert batch.replied == 5 * (3 - len(slots))
            assert_got(some, [[] if slot in slots else parts(filled(slot), SEGMENT) for slot in range(3)])


def test_marks_do_not_outlast_their_batch_where_the_next_is_alike(batch: Batch, clients: Clients) -> None:
    """Trains of a known pattern behind one to a broadcast address are marked as nothing."""
    with udp_server(ANY) as server, udp_client() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        port = UdpSocket(server)
        for host in ["127.0.0.1"] * 3 + ["127.255.255.255", "127.0.0.1"]:
            deliver(server, send_train, client, filled(0), SEGMENT, at(server, host))
            assert answer(batch, port) == 1
            assert batch.not_unicast == ({0} if host == "127.255.255.255" else set())
        assert batch.pattern is port.pattern
        assert batch.pattern is not None
        assert_got([client], [parts(filled(0), SEGMENT) * 4])


@needs_root
def test_a_train_to_a_multicast_address_is_not_answered(batch: Batch, network: None) -> None:
    """Of IPv6, where the first byte of the destination alone tells; alone or amid trains to our own address."""
    add_link("fd00:ec::1/64")
    ip("address", "add", "fd00:ec::2/128", "dev", "lo", "nodad")
    wait_for_address("fd00:ec::2/128", "lo")
    with udp_server("::") as server, udp_client("fd00:ec::2") as client:
        client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex("near"))
        port = UdpSocket(server)
        for hosts in (["ff02::1"], ["fd00:ec::2"] * 2, ["fd00:ec::2", "ff02::1"], ["ff02::1"] * 2):
            for number, host in enumerate(hosts):
                deliver(server, send_train, client, filled(number), SEGMENT, at(server, host))
            assert answer(batch, port) == len(hosts)
            refused = {slot for slot, host in enumerate(hosts) if host == "ff02::1"}
            assert (batch.not_unicast, batch.trains) == (refused, [5] * len(hosts))
            answered = [part for slot in range(len(hosts)) if slot not in refused for part in parts(filled(slot), 10)]
            assert_got([client], [answered])
