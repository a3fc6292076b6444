"""What a source may ask, on real sockets: who is over a limit loses its last, and nothing else."""

import socket
from itertools import cycle

import pytest
from support.loopback import (
    ANY,
    assert_got,
    assert_nothing_more,
    at,
    deliver,
    inject,
    needs_root,
    receive_train,
    udp_client,
    udp_server,
)
from support.peers import limit
from support.udp_worker import UdpWorker, send, send_as_train

from echod.linux.sockopt import UDP_GRO
from echod.stats.outcomes import Drop

AS_SINGLES = [b"aa", b"bb", b"cc", b"dd", b"ee", b"ff", b"gg", b"hh", b"ii", b"j"]
"""The datagrams of TRAIN."""


def numbered(count: int) -> list[bytes]:
    """Make datagrams that differ."""
    return [b"%d" % number for number in range(count)]


# -- rate


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_source_over_its_limit_loses_its_last(host: str) -> None:
    """Of five with a burst of three the first three are answered; a second later as many more as the rate allows."""
    with udp_server(host) as server, udp_client(host) as client:
        served = UdpWorker(server, limit=limit(3, per_source=2))
        send(served, client, *numbered(5))
        row = served.turn(100.0)
        assert (row["received"], row["replied"], row["dropped_rate"]) == (5, 3, 2)
        send(served, client, *numbered(5))
        assert served.turn(101.0)["replied"] == 3 + 2
        assert_got(client, b"0", b"1", b"2", b"0", b"1")


def test_a_source_over_its_limit_does_not_touch_another(client: socket.socket) -> None:
    """The neighbour of a noisy source gets each answer, in the same batches."""
    with udp_server(ANY) as server, udp_client("127.0.0.2") as neighbour:
        served = UdpWorker(server, limit=limit(40))
        for number in range(40):
            send(served, client, b"noise %d" % number, b"more noise %d" % number)
            send(served, neighbour, b"%d" % number)
        row = served.turn(100.0)
        assert (row["replied"], row["dropped_rate"]) == (80, 40)
        assert_got(neighbour, *numbered(40))


def test_of_a_train_those_within_the_limit_are_answered(server: socket.socket, client: socket.socket) -> None:
    """A train of ten with four left in the account is answered with its first four, as a train; the rest is counted."""
    served = UdpWorker(server, limit=limit(6))
    client.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    send(served, client, b"one", b"two")
    send_as_train(served, client)
    send(served, client, b"late")
    send_as_train(served, client)
    row = served.turn(100.0)
    assert row == {
        "received": 2 + 10 + 1 + 10,
        "received_bytes": 6 + 19 + 4 + 19,
        "replied": 6,
        "replied_bytes": 6 + 8,
        "dropped_rate": 6 + 1 + 10,
    }
    assert [receive_train(client) for _ in range(2)] == [(b"onetwo", 3), (b"aabbccdd", 2)]
    assert_nothing_more(client)


def test_the_same_datagrams_are_answered_alone_and_as_trains(client: socket.socket) -> None:
    """Ten datagrams one by one, and as a train, with the same account: the same are answered."""
    for as_train in (False, True):
        with udp_server() as server:
            served = UdpWorker(server, limit=limit(7, total=50))
            if as_train:
                send_as_train(served, client)
            else:
                send(served, client, *AS_SINGLES)
            row = served.turn(100.0)
            assert (row["replied"], row["dropped_rate"]) == (7, 3)
            assert_got(client, *AS_SINGLES[:7])


def test_all_sources_together_are_held_to_their_limit() -> None:
    """Three sources, each within its own limit, are answered as far as the total goes."""
    with udp_server(ANY) as server, udp_client() as one, udp_client("127.0.0.2") as two:
        served = UdpWorker(server, limit=limit(5, total=60, per_source=5))
        for number in range(4):
            send(served, one, b"%d" % number)
            send(served, two, b"%d" % number)
        row = served.turn(100.0)
        assert (row["replied"], row["dropped_rate"]) == (6, 2)
        assert_got(one, *numbered(3))
        assert_got(two, *numbered(3))


@needs_root
def test_addresses_of_one_ipv6_network_are_one_source(network: None) -> None:
    """From another address of its /64, a host has no more than from one."""
    with udp_server("::1") as server:
        served = UdpWorker(server, limit=limit(2))
        for number in range(1, 5):
            deliver(server, inject, at(server), b"x", source=f"fd00:ec::{number}", source_port=40_000)
        row = served.turn(100.0)
        assert (row["received"], row["dropped_rate"]) == (4, 2)


def test_some_of_the_refused_are_slipped(server: socket.socket, client: socket.socket) -> None:
    """What slips through is answered, counted as replied and as slipped; of a train the first."""
    chances = cycle([True, False, False, False])
    served = UdpWorker(server, limit=limit(4, slip=lambda: next(chances)))
    send(served, client, b"one", b"two", b"three", b"four", b"lent", b"over")
    send_as_train(served, client)
    row = served.turn(100.0)
    assert (row["replied"], row["dropped_rate"], row["slipped"]) == (4 + 1 + 2, 1 + 8, 1 + 2)
    assert_got(client, b"one", b"two", b"three", b"four", b"lent", b"aa", b"bb")


@pytest.mark.parametrize("as_train", [False, True])
def test_in_a_dry_run_all_are_answered_and_counted(
    server: socket.socket, client: socket.socket, *, as_train: bool
) -> None:
    """Over the limit, every datagram gets its answer, and the operator sees how many would have been refused."""
    served = UdpWorker(server, limit=limit(3, dry_run=True), loop_breaker=False)
    for _ in range(2):
        if as_train:
            send_as_train(served, client)
        else:
            send(served, client, *numbered(10))
    row = served.turn(100.0)
    assert (row["replied"], row["slipped"], "dropped_rate" in row) == (20, 17, False)
    assert_got(client, *(2 * (AS_SINGLES if as_train else numbered(10))))


# -- all together


@needs_root
def test_in_one_batch_every_rule_holds(network: None) -> None:
    """Singles and trains, refused and answered, for every reason of a source: each in its number, and by its source."""
    with udp_server(ANY) as server, udp_client() as client:
        served = UdpWorker(server, allow="127.0.0.0/8", limit=limit(14))
        for source, port in (("127.0.0.9", 99), ("127.0.0.9", 1900), ("224.0.0.9", 4000), ("192.0.2.9", 4000)):
            deliver(server, inject, served.address, b"forged", source=source, source_port=port)
        send(served, client, b"one", b"two")
        send_as_train(served, client)
        deliver(server, inject, served.address, b"forged", source="192.0.2.8", source_port=4000)
        send_as_train(served, client)
        assert served.turn(100.0) == {
            "received": 5 + 2 + 10 + 10,
            "received_bytes": 5 * 6 + 6 + 19 + 19,
            "replied": 14,
            "replied_bytes": 6 + 19 + 4,
            "dropped_source_port_low": 1,
            "dropped_source_port_refused": 1,
            "dropped_source_invalid": 1,
            "dropped_access": 2,
            "dropped_rate": 8,
        }
        assert {(Drop(report.reason), report.refused, *report.sources) for report in served.tally.reports()} == {
            (Drop.SOURCE_PORT_LOW, 1, "127.0.0.9"),
            (Drop.SOURCE_PORT_REFUSED, 1, "127.0.0.9"),
            (Drop.SOURCE_INVALID, 1, "224.0.0.9"),
            (Drop.ACCESS, 2, "192.0.2.9", "192.0.2.8"),
            (Drop.RATE, 8, "127.0.0.1"),
        }
        assert_got(client, b"one", b"two", *AS_SINGLES, b"aa", b"bb")
