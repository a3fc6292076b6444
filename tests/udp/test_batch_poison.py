"""What the kernel refuses costs itself alone, and a full send buffer is counted, not waited for."""

import errno
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

import pytest
from support.loopback import (
    add_link,
    answer,
    assert_got,
    assert_nothing_more,
    at,
    deliver,
    inject,
    let_trains_fail,
    needs_root,
    poison,
    queue,
    udp_client,
    udp_server,
)

from echod.linux.mmsg_layout import SLOTS
from echod.udp import reply
from echod.udp.batch import Batch
from echod.udp.sock import UdpSocket

POISON = b"poison"

Poison: TypeAlias = Callable[[tuple[str, int], bytes], object]
"""Sends something to an address."""


# -- poison


def assert_costs_itself_alone(
    batch: Batch, index: int, error: int | None, server: socket.socket, deadly: Poison
) -> None:
    """Fill a batch with the datagrams of two clients but for one, at the index, that `sendmmsg` refuses, or none.

    No rule has looked at it: the batch itself decides on nothing. Assert that every other datagram is answered.
    """
    host, failures = server.getsockname()[0], {error: 1} if error else {}
    with udp_client(host) as one, udp_client(host) as other:
        sent: dict[socket.socket, list[bytes]] = {one: [], other: []}
        for slot in range(SLOTS):
            if slot == index:
                deliver(server, deadly, at(server), POISON)
                continue
            client, data = (one, other)[slot % 2], b"%d" % slot
            sent[client].append(data)
            queue(client, server, data)
        assert batch.receive(UdpSocket(server)) == SLOTS
        assert batch.peers.count(batch.peers[index]) == 1
        reply.send(batch, UdpSocket(server))
        assert (batch.datagrams, batch.replied, batch.failures) == (SLOTS, SLOTS - len(failures), failures)
        octets = sum(len(data) for expected in sent.values() for data in expected)
        assert batch.replied_octets == octets + (0 if failures else len(POISON))
        for client, expected in sent.items():
            assert_got(client, *expected)


@needs_root
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("index", range(SLOTS))
def test_one_poisoned_datagram_costs_itself_alone(batch: Batch, host: str, index: int) -> None:
    """Wherever in a full batch it lies, all others get their reply and exactly one failure is recorded."""
    with udp_server(host) as server:
        assert_costs_itself_alone(batch, index, errno.EINVAL, server, poison)


@needs_root
@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("255.255.255.255", errno.EACCES),
        ("10.0.0.255", errno.EACCES),
        ("198.51.100.1", errno.ENETUNREACH),
        ("2001:db8::1", errno.ENETUNREACH),
        ("::127.0.0.1", errno.ENETUNREACH),
        ("::ffff:127.0.0.1", errno.ENETUNREACH),
        ("::", None),  # no poison but worse: the reply goes to [::1]
    ],
)
def test_one_forged_source_costs_itself_alone(batch: Batch, network: None, source: str, error: int | None) -> None:
    """A broadcast address, one without a route, IPv4 in IPv6, none: each at every index of a full batch."""
    ipv6 = ":" in source
    own = "fd00:ec::1" if ipv6 else "10.0.0.1"
    add_link(f"{own}/64" if ipv6 else f"{own}/24")
    forged = partial(inject, source=source, source_port=9)
    with udp_server(own) as server:
        for index in range(SLOTS):
            assert_costs_itself_alone(batch, index, error, server, forged)


@needs_root
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_batch_of_nothing_but_poison_is_all_failures(batch: Batch, host: str) -> None:
    """64 datagrams from port 0 are 64 failures, and the datagram behind them is answered."""
    with udp_server(host) as server, udp_client(host) as client:
        for slot in range(SLOTS):
            deliver(server, poison, at(server), b"%d" % slot)
        queue(client, server, b"good")
        assert answer(batch, UdpSocket(server)) == SLOTS
        assert (batch.replied, batch.failures) == (0, {errno.EINVAL: SLOTS})
        assert answer(batch, UdpSocket(server)) == 1
        assert (batch.replied, batch.failures) == (1, {})
        assert client.recv(16) == b"good"


@needs_root
@pytest.mark.parametrize("times", [1, 4])
def test_sources_that_cannot_be_reached_fail_with_their_own_reason(batch: Batch, network: None, times: int) -> None:
    """Each datagram of a forged broadcast or unroutable source, joined or not, fails; the others are answered."""
    add_link("10.0.0.1/24")
    with udp_server("10.0.0.1") as server, udp_client("10.0.0.1") as client:
        queue(client, server, b"first")
        for source in ("255.255.255.255", "10.0.0.255", "198.51.100.1"):
            for _ in range(times):
                deliver(server, inject, at(server), b"x", source=source, source_port=9)
        queue(client, server, b"last")
        answer(batch, UdpSocket(server))
        assert (batch.datagrams, batch.replied) == (2 + 3 * times, 2)
        assert batch.failures == {errno.EACCES: 2 * times, errno.ENETUNREACH: times}
        assert_got(client, b"first", b"last")


# -- a full send buffer


@pytest.fixture
def clogged(network: None) -> Iterator[socket.socket]:
    """Open a server whose send buffer fills with replies to a neighbour that never answers ARP."""
    add_link("10.0.0.1/24")
    with udp_server("10.0.0.1") as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        yield sock


def from_nowhere(server: socket.socket, length: int, source_port: int = 9) -> None:
    """Deliver a datagram from a neighbour that does not exist."""
    deliver(server, inject, at(server), bytes(length), source="10.0.0.77", source_port=source_port)


@needs_root
def test_a_full_send_buffer_drops_the_rest_of_the_batch(batch: Batch, clogged: socket.socket) -> None:
    """EAGAIN ends the sending at once: what went out before stays replied, all the rest is counted with it."""
    with udp_client("10.0.0.1") as client:
        queue(client, clogged, b"in time")
        for number in range(SLOTS - 2):
            from_nowhere(clogged, 1000 + number, 9 + number)
        queue(client, clogged, b"too late")
        assert answer(batch, UdpSocket(clogged)) == SLOTS
        assert set(batch.failures) == {errno.EAGAIN}
        assert 1 < batch.replied < SLOTS
        assert_got(client, b"in time")


@needs_root
def test_a_full_send_buffer_is_counted_in_datagrams_of_trains(batch: Batch, clogged: socket.socket) -> None:
    """A train and joined neighbours that meet EAGAIN fail with each of their datagrams, once."""
    with udp_client("10.0.0.1") as client:
        for number in range(10):
            from_nowhere(clogged, 1000 + number, 9 + number)
        queue(client, clogged, b"aabbc", 2)
        for _ in range(30):
            queue(client, clogged, b"one")
        assert answer(batch, UdpSocket(clogged)) == 41
        assert batch.datagrams == 43
        assert batch.failures == {errno.EAGAIN: 43 - batch.replied}
        assert batch.replied < 10
        assert_nothing_more(client)


@needs_root
def test_a_full_send_buffer_amid_a_failed_train_is_counted(batch: Batch, clogged: socket.socket) -> None:
    """Neighbours that are sent one by one because joined they failed, and then meet EAGAIN, are all accounted for."""
    let_trains_fail(clogged)
    for _ in range(20):
        from_nowhere(clogged, 1000)
    port = UdpSocket(clogged)
    assert answer(batch, port) == 20
    assert port.longest_joined == 999
    assert 0 < batch.replied < 20
    assert batch.failures == {errno.EAGAIN: 20 - batch.replied}
