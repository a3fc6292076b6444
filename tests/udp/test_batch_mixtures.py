"""Whatever comes in one batch, in whatever order, every datagram that can be answered is answered exactly."""

import socket
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.loopback import (
    answer,
    assert_nothing_more,
    at,
    deliver,
    needs_root,
    poison,
    send_train,
    udp_client,
    udp_server,
)

from echod.udp.batch import Batch
from echod.udp.sock import UdpSocket

HOSTS = ("127.0.0.1", "::1")
PEERS = 6
LONGEST_TRAIN = 60_000

BATCH = Batch()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What a peer sends: `times` datagrams, or trains of this segment length; without a peer it is poison."""

    peer: int | None
    length: int
    segment: int = 0
    times: int = 1

    def datagrams(self, data: bytes) -> list[bytes]:
        """Return the datagrams that the peer gets back."""
        if not self.segment:
            return [data] * self.times
        return [data[i : i + self.segment] for i in range(0, len(data), self.segment)] * self.times


lengths = st.one_of(st.integers(0, 40), st.sampled_from([64, 1472, 1473, 9000, 65_507]))
peers = st.integers(0, PEERS - 1)
datagrams = st.builds(Sent, peer=peers, length=lengths, times=st.integers(1, 8))
trains = st.integers(1, 1400).flatmap(
    lambda segment: st.builds(
        Sent,
        peer=peers,
        length=st.integers(segment + 1, min(64 * segment, LONGEST_TRAIN)),
        segment=st.just(segment),
        times=st.integers(1, 2),
    )
)
poisons = st.builds(Sent, peer=st.none(), length=st.integers(0, 40), times=st.integers(1, 3))
mixtures = st.lists(st.one_of(datagrams, datagrams, trains, poisons), max_size=40)


def filled(length: int, number: int) -> bytes:
    """Return bytes that tell this datagram from the others, as far as its length allows."""
    return (b"%d." % number * (length // 2 + 1))[:length]


def send_all(mixture: list[Sent], servers: list[socket.socket], clients: list[socket.socket]) -> list[list[bytes]]:
    """Send a mixture: even peers to the first server, odd ones to the second. Return what each is to get back."""
    expected: list[list[bytes]] = [[] for _ in clients]
    for number, sent in enumerate(mixture):
        data = filled(sent.length, number)
        if sent.peer is not None:
            expected[sent.peer] += sent.datagrams(data)
        for _ in range(sent.times):
            server = servers[(number if sent.peer is None else sent.peer) % 2]
            if sent.peer is None:
                deliver(server, poison, at(server), data)
            elif sent.segment:
                deliver(server, send_train, clients[sent.peer], data, sent.segment, at(server))
            else:
                deliver(server, clients[sent.peer].sendto, data, at(server))
    return expected


@needs_root
@pytest.mark.parametrize("without_trains", [False, True])
@settings(max_examples=60, deadline=None)
@given(mixture=mixtures)
def test_every_good_datagram_of_any_mixture_comes_back_in_order(*, without_trains: bool, mixture: list[Sent]) -> None:
    """Each peer gets what it sent, in order, byte for byte, and nothing else; poison fails, each datagram once.

    The same holds on a socket where the kernel refuses every train (SO_NO_CHECK; of IPv4).
    """
    with ExitStack() as stack:
        servers = [stack.enter_context(udp_server(host)) for host in HOSTS]
        clients = [stack.enter_context(udp_client(HOSTS[peer % 2])) for peer in range(PEERS)]
        if without_trains:
            servers[0].setsockopt(socket.SOL_SOCKET, 11, 1)
        expected = send_all(mixture, servers, clients)
        replied = failed = 0
        for port in map(UdpSocket, servers):
            while answer(BATCH, port):
                replied += BATCH.replied
                failed += sum(BATCH.failures.values())
        assert failed == sum(sent.times for sent in mixture if sent.peer is None)
        assert replied == sum(map(len, expected))
        for client, wanted in zip(clients, expected, strict=True):
            assert [client.recv(65_536) for _ in wanted] == wanted
            assert_nothing_more(client)
