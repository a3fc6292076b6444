"""Any mixture of datagrams and trains to listeners that impair, reveal or discard: counted, and never more than asked.

The seed of a mixture stands in the name of its test.
"""

import socket
from collections import Counter
from contextlib import ExitStack, suppress
from itertools import count
from random import Random

import pytest
from support.loopback import queue, udp_client, udp_server
from support.udp_worker import UdpWorker

from echod.linux.arrival import report_arrivals
from echod.linux.poll import Poll
from echod.net.mode import Impairment
from echod.stats.counters import UDP_DROPS, UdpField
from echod.stats.outcomes import Drop
from echod.stats.refusals import Tally
from echod.udp.modes.discard import Discard
from echod.udp.modes.impair import ImpairedEcho
from echod.udp.modes.reveal import Reveal
from echod.udp.service import Reply
from echod.udp.sock import UdpSocket
from echod.wire.reveal import decode

SEEDS = range(8)
TURNS = 40

hosts = pytest.mark.parametrize("host", ["127.0.0.1", "::1"])


def named(numbers: "count[int]") -> bytes:
    """Return a payload of 18 bytes, of which no two become the same if a bit of each is inverted."""
    return 3 * (b"%d." % next(numbers))


def ask(
    random: Random, clients: list[socket.socket], server: socket.socket, numbers: "count[int]"
) -> list[tuple[int, bytes]]:
    """Send something from one of the clients; return each datagram with the index of who sent it."""
    index = random.randrange(len(clients))
    length = random.choice([0, 18, 18, 18, 60, 300, 500, 1400])
    if random.random() < 0.7 or not length:
        payload = named(numbers).ljust(length, b"x") if length else b""
        queue(clients[index], server, payload)
        return [(index, payload)]
    parts = [named(numbers).ljust(length, b"y") for _ in range(random.randint(2, 40))]
    parts[-1] = parts[-1][: random.randint(18, length)]
    queue(clients[index], server, b"".join(parts), length)
    return [(index, part) for part in parts]


def received(client: socket.socket) -> list[bytes]:
    """Return all that a client got."""
    got = []
    client.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            got.append(client.recv(65_536))
    return got


def is_flipped(one: bytes, other: bytes) -> bool:
    """Tell whether two payloads differ in exactly one bit."""
    return len(one) == len(other) and (int.from_bytes(one) ^ int.from_bytes(other)).bit_count() == 1


def choose(random: Random) -> Impairment:
    """Choose a path."""
    share = [0.0, 0.0, 0.05, 0.3, 1.0]
    delay = random.choice([0, 0, 1000, 2_000_000])
    return Impairment(
        loss=random.choice([0.0, 0.05, 0.3]),
        duplicate=random.choice(share),
        reorder=random.choice(share),
        corrupt=random.choice(share),
        delay=delay,
        jitter=random.choice([0, delay]),
        rate=random.choice([0, 0, 10_000_000_000]),
        seed=random.choice([None, 7]),
        queue=random.choice([10, 10_000]),
    )


@hosts
@pytest.mark.parametrize("seed", SEEDS)
def test_any_mixture_meets_its_fates(seed: int, host: str) -> None:
    """Each datagram comes back once, twice as a duplicate, or not, whole or with one bit inverted; all is counted."""
    random, numbers = Random(seed), count(10_000)  # noqa: S311 - the same in each run
    made = list[ImpairedEcho]()
    path, poll = choose(random), Poll()

    def mode(sock: UdpSocket, row: memoryview, tally: Tally) -> Reply:
        made.append(ImpairedEcho(path, sock, row, tally, poll=poll))
        return made[0].reply

    with ExitStack() as stack:
        server = stack.enter_context(udp_server(host))
        clients = [stack.enter_context(udp_client(host)) for _ in range(3)]
        worker = UdpWorker(server, mode=mode, loop_breaker=False)
        sent: list[tuple[int, bytes]] = []
        got: list[tuple[int, bytes]] = []
        for _ in range(TURNS):
            for _ in range(random.randint(0, 8)):
                sent += ask(random, clients, server, numbers)
            worker.turn()
            for on_due in poll.wait(0.0):
                on_due(0.0)
            worker.balance()
            assert worker.row[UdpField.HELD] == len(made[0])
            got += [(index, reply) for index, client in enumerate(clients) for reply in received(client)]
        made[0].flush()
        worker.balance()
        got += [(index, reply) for index, client in enumerate(clients) for reply in received(client)]
    poll.close()
    row = worker.row
    assert (row[UdpField.RECEIVED], row[UdpField.HELD]) == (len(sent), 0)
    assert len(got) == row[UdpField.REPLIED] + row[UdpField.DUPLICATED]
    assert sum(row[UDP_DROPS]) == row[UdpField.DROPPED + Drop.IMPAIRED] + row[UdpField.DROPPED + Drop.IMPAIR_QUEUE]
    most = 2 if path.duplicate else 1
    asked, came = Counter(sent), Counter(got)
    strange = {each: times for each, times in came.items() if each not in asked}
    assert all(times <= most * asked[each] for each, times in came.items() if each in asked)
    assert path.corrupt or not strange
    for (index, reply), times in strange.items():
        assert times <= most
        assert any(is_flipped(reply, payload) for sender, payload in asked if sender == index), reply
    if not (path.duplicate or path.reorder or path.corrupt or path.jitter):
        for index in range(3):
            rest = iter([payload for sender, payload in sent if sender == index])
            assert all(any(one == other for other in rest) for sender, one in got if sender == index)


@hosts
@pytest.mark.parametrize("seed", SEEDS)
def test_any_mixture_is_revealed(seed: int, host: str) -> None:
    """Each datagram has one reply of its own length: what was seen of it, or its own bytes."""
    random, numbers = Random(seed), count(10_000)  # noqa: S311 - the same in each run
    with ExitStack() as stack:
        server = stack.enter_context(udp_server(host))
        if seed % 2:
            report_arrivals(server, report=True)
        clients = [stack.enter_context(udp_client(host)) for _ in range(3)]
        worker = UdpWorker(server, mode=lambda sock, row, tally: Reveal(sock, row, tally).reply, loop_breaker=False)
        for _ in range(TURNS):
            sent: list[tuple[int, bytes]] = []
            for _ in range(random.randint(0, 8)):
                sent += ask(random, clients, server, numbers)
            report_arrivals(server, report=random.random() < 0.5)
            worker.turn()
            for index, client in enumerate(clients):
                asked = [payload for sender, payload in sent if sender == index]
                replies = received(client)
                assert [len(reply) for reply in replies] == [len(payload) for payload in asked]
                for payload, reply in zip(asked, replies, strict=True):
                    seen = decode(reply)
                    assert reply == payload if seen is None else seen.peer_port == client.getsockname()[1]
                    assert seen is not None or len(payload) < 300


@hosts
@pytest.mark.parametrize("seed", SEEDS)
def test_any_mixture_is_discarded(seed: int, host: str) -> None:
    """Nothing comes back, and everything is counted."""
    random, numbers = Random(seed), count(10_000)  # noqa: S311 - the same in each run
    with ExitStack() as stack:
        server = stack.enter_context(udp_server(host))
        clients = [stack.enter_context(udp_client(host)) for _ in range(3)]
        worker = UdpWorker(server, mode=lambda _, row, __: Discard(row).reply, loop_breaker=False)
        sent = 0
        for _ in range(TURNS):
            for _ in range(random.randint(0, 8)):
                sent += len(ask(random, clients, server, numbers))
            worker.turn()
            assert worker.row[UdpField.DROPPED + Drop.DISCARDED] == sent
            assert not any(received(client) for client in clients)
