"""Sequences of batches on shared sockets, many of them alike: each datagram is answered exactly, whatever came before.

Batches like the one before are answered by a pattern. The expectation knows nothing of patterns, slots and joins: it
says which bytes each client gets, in which order, from which address, and what is counted.
"""

import errno
import socket
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.loopback import (
    ANY,
    add_link,
    assert_nothing_more,
    at,
    deliver,
    ip,
    let_trains_fail,
    namespace,
    needs_root,
    poison,
    queue,
    take_without_checksum,
    udp_client,
    udp_server,
    wait_for_address,
)

from echod.linux.mmsg_layout import SLOTS
from echod.linux.sockopt import UDP_GRO
from echod.udp import reply
from echod.udp.batch import Batch
from echod.udp.sock import UdpSocket

UNICAST = [["127.0.0.1", "127.0.0.5", "10.1.0.1"], ["::1", "fd00:ec::1"]]
"""By family, the addresses that are asked. The last is on a link: what is sent to it does not come in on loopback."""
TO_MANY = ["127.255.255.255", "ff02::1"]
HOSTS = [["127.0.0.1", "127.0.0.2", "10.0.0.1", "127.0.0.1"], ["fd00:ec::1", "fd00:ec::2", "fd00:ec::3", "fd00:ec::1"]]
"""Of the clients of each family; the first three of a family have the same port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A datagram, or with a segment length a train, to the address of this number: the last one is no unicast."""

    length: int
    segment: int = 0
    to: int = 0

    def datagrams(self, data: bytes) -> list[bytes]:
        """Return the datagrams of these bytes."""
        return [data[i : i + self.segment] for i in range(0, len(data), self.segment)] if self.segment else [data]


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """A batch: `clients` send datagrams of one kind, except in the `odd` slots. Client -1 sends from port 0."""

    ipv6: bool
    kind: Kind
    clients: list[int]
    odd: dict[int, Kind]
    cuts: list[tuple[int, int]]
    """Slots, and how many of the last datagrams of each are refused."""
    no_trains: bool
    """The kernel refuses every train of the server."""
    times: int
    """It is sent and answered so many times, which makes its pattern known."""
    in_vain: bool
    """Before it, a socket of the other family finds nothing."""


lengths = st.one_of(st.integers(0, 40), st.sampled_from([64, 1472, 1473, 9000, 65_507]))
trains = st.builds(
    lambda segment, weight, short, to: Kind(
        length=min(segment * weight, 60_000) - min(short, segment - 1), segment=segment, to=to
    ),
    st.sampled_from([1, 2, 10, 700]) | st.integers(1, 1400),
    st.integers(2, 10) | st.just(64),
    st.integers(0, 3),
    st.integers(0, 3),
)
kinds = st.one_of(st.builds(Kind, length=lengths, to=st.integers(0, 3)), trains)
runs = st.tuples(st.sampled_from([0, 1, 2, 3, 3, -1]), st.sampled_from([1, 1, 2, 3, 5, SLOTS]))


def shorter(some: list[Kind]) -> list[Kind]:
    """Return those of these that can be a byte shorter, so."""
    return [replace(kind, length=kind.length - 1) for kind in some if kind.length > kind.segment + 1]


@st.composite
def sequences(draw: st.DrawFn) -> list[Round]:
    """Make rounds of few kinds, so that equal batches recur, and of kinds that differ in one thing from these."""
    some = draw(st.lists(kinds, min_size=1, max_size=2))
    pool = st.sampled_from(some * 2 + [replace(kind, to=(kind.to + 1) % 4) for kind in some] + shorter(some))
    rounds = st.builds(
        Round,
        ipv6=st.booleans(),
        kind=pool,
        clients=st.lists(runs, min_size=1, max_size=6).map(lambda of: [one for one, times in of for _ in range(times)]),
        odd=st.dictionaries(st.integers(0, 5), pool | kinds, max_size=2) if draw(st.booleans()) else st.just({}),
        cuts=st.lists(st.tuples(st.integers(0, 5), st.sampled_from([1, 1, 2, 5, 64])), max_size=3)
        if draw(st.booleans())
        else st.just([]),
        no_trains=st.booleans() if draw(st.booleans()) else st.just(False),
        times=st.sampled_from([1, 3]),
        in_vain=st.booleans(),
    )
    return draw(st.lists(rounds, min_size=1, max_size=8))


class World:
    """A wildcard server and clients of each family, one batch for both servers, and what must come of each round."""

    def __init__(self, stack: ExitStack) -> None:
        """Open all sockets; the odd clients of each family take trains."""
        self.batch = Batch()
        self.servers = [stack.enter_context(udp_server(host)) for host in (ANY, "::")]
        self.ports = [UdpSocket(server) for server in self.servers]
        self.silent = [UdpSocket(stack.enter_context(udp_server(hosts[0]))) for hosts in UNICAST]
        self.clients: list[list[socket.socket]] = [[], []]
        for mine, hosts in zip(self.clients, HOSTS, strict=True):
            for number, host in enumerate(hosts):
                port = mine[0].getsockname()[1] if number in (1, 2) else 0
                mine.append(stack.enter_context(udp_client(host, port)))
                mine[-1].setsockopt(socket.IPPROTO_UDP, UDP_GRO, number % 2)
        for client in self.clients[0]:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        for client in self.clients[1]:
            take_without_checksum(client)
            client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex("near"))
        self._serial = 0
        self._last: list[set[Kind]] = [set(), set()]
        self._known: list[set[Kind]] = [set(), set()]
        """The kind of two equal batches in a row, as long as no other follows: its pattern is known."""

    def send(self, ipv6: bool, sender: int, kind: Kind) -> tuple[int, Kind, list[bytes]]:  # noqa: FBT001 - an index
        """Send what a slot is to hold; return it, with its datagrams. No train and no broadcast comes from port 0."""
        server, to = self.servers[ipv6], [*UNICAST[ipv6], TO_MANY[ipv6]]
        self._serial += 1
        data = (b"%d." % self._serial * (kind.length // 2 + 1))[: kind.length]
        if sender < 0:
            kind = Kind(length=min(kind.length, 1400), to=kind.to % len(UNICAST[ipv6]))
            deliver(server, poison, at(server, to[kind.to]), data[: kind.length])
            return sender, kind, [data[: kind.length]]
        kind = replace(kind, to=kind.to % len(to))
        queue(self.clients[ipv6][sender], server, data, kind.segment, host=to[kind.to])
        return sender, kind, kind.datagrams(data)

    def play(self, turn: Round) -> None:
        """Send a round, answer it, and hold all that the batch reports and all that is received to what was sent."""
        ipv6, batch, port = turn.ipv6, self.batch, self.ports[turn.ipv6]
        let_trains_fail(self.servers[ipv6], fail=turn.no_trains)
        if turn.in_vain:
            assert batch.receive(self.silent[not ipv6]) == 0
        pattern, asked = port.pattern, enumerate(turn.clients[:SLOTS])
        slots = [self.send(ipv6, sender, turn.odd.get(slot, turn.kind)) for slot, sender in asked]
        assert batch.receive(port) == len(slots)
        self._assert_described(turn, slots)
        if len({kind for _, kind, _ in slots}) > 1:
            assert port.pattern is pattern  # nothing is learned of a mixture
        refused = {slot for slot, (_, kind, _) in enumerate(slots) if kind.to == len(UNICAST[ipv6])}
        for slot in refused:
            batch.refuse(slot, batch.weight(slot))
        for at_slot, datagrams in turn.cuts:
            slot = at_slot % len(slots)
            if slot not in refused:
                batch.refuse(slot, datagrams)
                del slots[slot][2][max(0, len(slots[slot][2]) - datagrams) :]
                if not slots[slot][2]:
                    refused.add(slot)
        assert batch.refused == refused
        left = [(slot, *each) for slot, each in enumerate(slots) if slot not in refused]
        assert [batch.last_datagram(slot) for slot, _, _, kept in left] == [kept[-1] for *_, kept in left]
        reply.send(batch, port)
        self._assert_answered(turn, left)

    def _assert_described(self, turn: Round, slots: list[tuple[int, Kind, list[bytes]]]) -> None:
        batch, ipv6, count = self.batch, turn.ipv6, len(slots)
        weights = [len(datagrams) for *_, datagrams in slots]
        assert [batch.weight(slot) for slot in range(count)] == weights
        assert (batch.datagrams, batch.octets) == (sum(weights), sum(kind.length for _, kind, _ in slots))
        assert [batch.slot_of(one) for one in range(sum(weights))] == [
            slot for slot, weight in enumerate(weights) for _ in range(weight)
        ]
        numbers = [self.clients[ipv6][sender].getsockname()[1] if sender >= 0 else 0 for sender, *_ in slots]
        assert [(len(peer), int.from_bytes(peer[2:4], "big")) for peer in batch.peers] == [
            (28 if ipv6 else 8, number) for number in numbers
        ]
        assert [batch.peer(slot) for slot in range(count)] == [*batch.peers]
        assert len(set(batch.peers)) == len({sender for sender, *_ in slots})
        to_many = {slot for slot, (_, kind, _) in enumerate(slots) if kind.to == len(UNICAST[ipv6])}
        assert (batch.truncated, batch.not_unicast) == (set(), to_many)
        on_loopback = [kind.to != len(UNICAST[ipv6]) - 1 for _, kind, _ in slots]
        for slot in set(range(count)) - to_many:
            assert batch.came_in_on_loopback(slot) == on_loopback[slot]
        assert batch.whole == (not to_many and len(set(on_loopback)) == 1)
        alike = {kind for _, kind, _ in slots}
        if len(alike) > 1 or to_many:
            assert batch.pattern is None
        elif alike == self._known[ipv6]:
            assert batch.pattern is self.ports[ipv6].pattern is not None
        self._known[ipv6] = alike if alike == self._last[ipv6] and len(alike) == 1 and not to_many else set()
        self._last[ipv6] = alike

    def _assert_answered(self, turn: Round, left: Sequence[tuple[int, int, Kind, list[bytes]]]) -> None:
        batch, ipv6 = self.batch, turn.ipv6
        expected = defaultdict[int, list[tuple[bytes, str]]](list)
        trains = defaultdict[int, list[tuple[bytes, int]]](list)
        failed = octets = 0
        for _, sender, kind, kept in left:
            if sender < 0:
                failed += 1
                continue
            octets += sum(map(len, kept))
            expected[sender] += [(data, UNICAST[ipv6][kind.to]) for data in kept]
            if len(kept) > 1 and not turn.no_trains:
                trains[sender].append((b"".join(kept), kind.segment))
        assert batch.failures == ({errno.EINVAL: failed} if failed else {})
        assert (batch.replied, batch.replied_octets) == (sum(map(len, expected.values())), octets)
        for number, client in enumerate(self.clients[ipv6]):
            got: list[tuple[bytes, str]] = []
            whole = []
            while len(got) < len(expected[number]):
                data, messages, _, source = client.recvmsg(65_536, 64)
                segment = int.from_bytes(messages[0][2], "little") if messages else 0
                got += [(each, source[0]) for each in Kind(length=len(data), segment=segment).datagrams(data)]
                whole.append((data, segment))
            assert got == expected[number]
            assert_nothing_more(client)
            if number % 2:
                pieces = iter(whole)
                assert all(train in pieces for train in trains[number])


@pytest.fixture(scope="module")
def hosts() -> Iterator[None]:
    """Be in a network that has two links and all these addresses."""
    with namespace():
        add_link("10.0.0.1/24")
        ip("link", "add", "other", "type", "veth", "peer", "name", "beyond")
        for name in ("other", "beyond"):
            ip("link", "set", name, "up")
        ip("address", "add", "10.1.0.1/24", "dev", "other")
        for host in HOSTS[1][:3]:
            ip("address", "add", f"{host}/64", "dev", "near", "nodad")
            wait_for_address(f"{host}/64", "near")
        yield


@needs_root
@settings(max_examples=150)
@given(sequence=sequences())
def test_any_sequence_of_batches_is_answered_exactly(hosts: None, sequence: list[Round]) -> None:
    """Each peer gets its own bytes in order from the address that it asked, but for what was refused, and no more.

    The batch reports of each slot what was sent, and each datagram is counted once. Trains come back as trains.
    """
    with ExitStack() as stack:
        world = World(stack)
        for turn in sequence:
            for _ in range(turn.times):
                world.play(turn)
