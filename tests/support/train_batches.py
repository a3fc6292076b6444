"""Batches of trains that are alike: asked for by many clients, and held to what was asked, byte for byte."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from support.loopback import answer, assert_nothing_more, at, deliver, send_train, udp_client

from echod.linux.mmsg_layout import SLOTS
from echod.udp.batch import Batch
from echod.udp.sock import UdpSocket

HOSTS = ["127.0.0.1", "::1"]

LENGTH, SEGMENT = 47, 10
"""A train of five, the last of them short."""

Clients = dict[str, list[socket.socket]]


@contextmanager
def clients() -> Iterator[Clients]:
    """Open as many clients on each address as there are slots."""
    with ExitStack() as stack:
        yield {host: [stack.enter_context(udp_client(host)) for _ in range(SLOTS)] for host in HOSTS}


def filled(number: int, length: int = LENGTH) -> bytes:
    """Return bytes that differ from those of other numbers in each datagram."""
    return bytes((number * 7 + place) % 251 for place in range(length))


def parts(data: bytes, segment: int) -> list[bytes]:
    """Return the datagrams of a train."""
    return [data[start : start + segment] for start in range(0, len(data), segment)]


def send_each(
    port: UdpSocket, clients: list[socket.socket], length: int = LENGTH, segment: int = SEGMENT
) -> list[list[bytes]]:
    """Send a train of each client, or, without a segment, a single datagram; return what each is to get back."""
    sent = [filled(number, length) for number in range(len(clients))]
    for client, data in zip(clients, sent, strict=True):
        if segment:
            deliver(port.sock, send_train, client, data, segment, at(port.sock))
        else:
            deliver(port.sock, client.sendto, data, at(port.sock))
    return [parts(data, segment) if segment else [data] for data in sent]


def assert_got(clients: list[socket.socket], expected: list[list[bytes]]) -> None:
    """Prove that each client got its answers, in order, and nothing else."""
    for client, wanted in zip(clients, expected, strict=True):
        assert [client.recv(65_536) for _ in wanted] == wanted
        assert_nothing_more(client)


def round_trip(
    batch: Batch, port: UdpSocket, clients: list[socket.socket], length: int = LENGTH, segment: int = SEGMENT
) -> None:
    """Let each client ask once, all in one batch, and hold the batch and each answer to what was asked."""
    expected = send_each(port, clients, length, segment)
    assert answer(batch, port) == len(clients)
    weights = list(map(len, expected))
    assert batch.trains == (weights if segment else None)
    assert (batch.datagrams, batch.replied) == (sum(weights), sum(weights))
    assert (batch.octets, batch.replied_octets) == (length * len(clients), length * len(clients))
    assert_got(clients, expected)


def learned(batch: Batch, port: UdpSocket, clients: list[socket.socket]) -> None:
    """Have the batch know these trains by their pattern."""
    for _ in range(2):
        round_trip(batch, port, clients)
    assert port.pattern is not None
    assert port.pattern.segment == SEGMENT
