"""What is learned of batches that are alike, and which neighbours in a batch are joined into one message."""

import socket
from collections.abc import Sequence
from contextlib import ExitStack

import pytest
from support.loopback import (
    answer,
    assert_nothing_more,
    ip,
    let_trains_fail,
    needs_root,
    queue,
    receive_train,
    take_without_checksum,
    udp_client,
    udp_server,
    wait_for_address,
)

from echod.linux.mmsg_layout import MAX_PAYLOAD, SLOTS
from echod.linux.sockopt import UDP_GRO
from echod.udp import reply
from echod.udp.batch import Batch
from echod.udp.sock import UdpSocket


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize(
    ("length", "segment", "weight"), [(64, 0, 1), (0, 0, 1), (47, 10, 5), (40, 10, 4), (64, 1, 64)]
)
def test_the_second_of_two_equal_batches_is_learned(host: str, length: int, segment: int, weight: int) -> None:
    """From then on its pattern serves any number of slots, and other kinds and sockets in between do not hide it."""
    with udp_server(host) as server, udp_server(host) as other, udp_client(host) as client:
        batch, port, plain = Batch(), UdpSocket(server), UdpSocket(other)

        def ask(port: UdpSocket, slots: int, length: int = length, segment: int = segment) -> object:
            for _ in range(slots):
                queue(client, port.sock, bytes(length), segment)
            assert answer(batch, port) == slots
            assert batch.replied_octets == slots * length
            return batch.pattern

        ask(plain, 3, 16, 0)
        ask(plain, 3, 16, 0)
        assert ask(port, 3) is port.pattern is None
        assert ask(port, 2) is None
        pattern = port.pattern
        assert pattern is not None
        assert (pattern.length, pattern.segment, pattern.weight, pattern.on_loopback) == (length, segment, weight, True)
        for slots in (1, 5, SLOTS, 2, SLOTS - 1):
            assert ask(port, slots) is pattern
            assert batch.receive(port) == 0
            assert ask(plain, 5, 16, 0) is plain.pattern is not None


WHOLE = {"a": ["000102"], "b": ["030405"], "c": ["06"]}


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize(
    ("order", "refused", "pieces"),
    [
        ("aaa", [], {"a": ["00", "01", "02"]}),  # too few for the search
        ("aaaa", [], {"a": ["00010203"]}),
        ("aaaaaa", [], {"a": ["000102030405"]}),
        ("aabbcc", [], {"a": ["0001"], "b": ["0203"], "c": ["0405"]}),
        ("aaabbc", [], {"a": ["000102"], "b": ["0304"], "c": ["05"]}),
        ("aabbba", [], {"a": ["0001", "05"], "b": ["020304"]}),
        ("aabacc", [], {"a": ["00", "01", "03"], "b": ["02"], "c": ["04", "05"]}),  # four for six do not pay
        ("abcabc", [], {"a": ["00", "03"], "b": ["01", "04"], "c": ["02", "05"]}),
        ("aaabbbc", [], WHOLE),
        ("aaabbbc", [0], {**WHOLE, "a": ["0102"]}),
        ("aaabbbc", [1], {**WHOLE, "a": ["00", "02"]}),
        ("aaabbbc", [2, 3], {"a": ["0001"], "b": ["0405"], "c": ["06"]}),
        ("aaabbbc", [4, 6], {"a": ["000102"], "b": ["03", "05"]}),
        ("aaabbbc", range(7), {}),
    ],
)
def test_neighbours_are_joined_where_it_pays(
    host: str, order: str, refused: Sequence[int], pieces: dict[str, list[str]]
) -> None:
    """Those side by side go out in one piece if two come to one on average, with a pattern and without.

    The refused part them. What another family left in the slots does not. Where a train fails, all go out one by one,
    and none of that length is joined again.
    """
    batch = Batch()
    with ExitStack() as stack:
        port = UdpSocket(stack.enter_context(udp_server(host)))
        before = stack.enter_context(udp_server("127.0.0.1" if ":" in host else "::1"))
        clients = {letter: stack.enter_context(udp_client(host)) for letter in "abc"}
        for _ in order:
            client = stack.enter_context(udp_client(before.getsockname()[0]))
            queue(client, before, b"x")
        answer(batch, UdpSocket(before))
        for client in clients.values():
            client.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
            take_without_checksum(client)
        for turn in range(5):
            if turn == 4:
                let_trains_fail(port.sock)
            for number, letter in enumerate(order):
                queue(clients[letter], port.sock, b"%02d" % number)
            assert batch.receive(port) == len(order)
            assert (batch.pattern is None) == (turn < 2)
            batch.refused.update(refused)
            reply.send(batch, port)
            assert (batch.replied, batch.failures) == (len(order) - len(refused), {})
            failed = turn == 4 and any(len(piece) > 2 for each in pieces.values() for piece in each)
            assert port.longest_joined == (1 if failed else MAX_PAYLOAD)
            for letter, client in clients.items():
                expected = pieces.get(letter, [])
                if failed:
                    expected = ["".join(expected)[at : at + 2] for at in range(0, len("".join(expected)), 2)]
                got = [receive_train(client) for _ in expected]
                assert got == [(piece.encode(), 2 if len(piece) > 2 else 0) for piece in expected]
                assert_nothing_more(client)


def test_more_than_a_message_can_join_are_joined_into_two(batch: Batch) -> None:
    """Of 64 that are too long for one message, in the order in which they were sent; before and with a pattern."""
    with udp_server() as server, udp_client() as client:
        port = UdpSocket(server)
        client.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        sent = [b"%02d" % number * 700 for number in range(64)]
        for _ in range(3):
            for data in sent:
                queue(client, server, data)
            assert answer(batch, port) == batch.replied == 64
            pieces = [(b"".join(sent[:46]), 1400), (b"".join(sent[46:]), 1400)]
            assert [receive_train(client) for _ in pieces] == pieces
            assert_nothing_more(client)
        assert batch.pattern is port.pattern is not None


@needs_root
def test_names_of_ipv6_hosts_do_not_part_neighbours(network: None) -> None:
    """After datagrams of different IPv6 hosts in the same slots, those of one IPv4 peer are joined."""
    ip("address", "add", "fd00:ec::2/128", "dev", "lo", "nodad")
    wait_for_address("fd00:ec::2/128", "lo")
    with udp_server("::") as six, udp_server() as four, udp_client() as client, ExitStack() as stack:
        hosts = [stack.enter_context(udp_client(host)) for host in ("::1", "fd00:ec::2")]
        batch, ports = Batch(), (UdpSocket(six), UdpSocket(four))
        client.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        for _ in range(4):
            for number in (0, 1, 0, 1, 1, 0):
                queue(hosts[number], six, b"six", host="::1")
                queue(client, four, b"4")
            for port in ports:
                assert answer(batch, port) == batch.replied == 6
            assert receive_train(client) == (b"444444", 1)
