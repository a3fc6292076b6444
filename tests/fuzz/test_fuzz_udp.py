"""Any mixture of datagrams and trains from anybody: each is answered at most once, with its own bytes, and counted.

The seed of a mixture stands in the name of its test.
"""

import socket
from collections import Counter
from contextlib import ExitStack, suppress
from ipaddress import IPv4Address, ip_network
from itertools import count
from random import Random

import pytest
from support.loopback import ANY, inject, needs_root, queue, udp_client, udp_server
from support.peers import limit
from support.udp_worker import UdpWorker

from echod.net.peers import NAME_BYTES
from echod.stats.counters import UdpField
from echod.udp.batch import Batch
from echod.udp.sock import UdpSocket

SEEDS = range(6)
TURNS = 60


def limits(random: Random) -> dict[str, object]:
    """Choose what a source may ask."""
    gap = random.choice([1, 3, 40])
    if random.random() < 0.3:
        return {"gap": gap}
    chosen = limit(
        random.choice([1, 7, 256]),
        random.choice([None, 200]),
        per_source=random.choice([1, 100]),
        slip=random.choice([None, lambda: random.random() < 0.5]),
        dry_run=random.random() < 0.2,
    )
    return {"gap": gap, "limit": chosen}


def payloads(random: Random, numbers: "count[int]") -> tuple[bytes, int]:
    """Make a datagram that begins with a new number, or a train of such, with the length of its segments."""
    number = b"%d." % next(numbers)
    if random.random() < 0.6:
        return number + bytes(random.choice([0, 0, 0, 60, 1500])), 0
    segment = len(number) + random.choice([0, 1, 100])
    train = b"".join((b"%d." % next(numbers)).ljust(segment, b"x")[:segment] for _ in range(random.randint(1, 40)))
    return number.ljust(segment) + train + b"e" * random.randint(0, segment), segment


def parts(data: bytes, segment: int) -> list[bytes]:
    """Return the datagrams of a train, or the one there is."""
    return [data[start : start + segment] for start in range(0, len(data), segment)] if segment else [data]


def received(client: socket.socket) -> list[bytes]:
    """Return all that a client got."""
    got = []
    client.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            got.append(client.recv(65_536))
    return got


def is_subsequence(got: list[bytes], sent: list[bytes]) -> bool:
    """Tell whether all that was got was sent, in this order, each once."""
    rest = iter(sent)
    return all(any(one == other for other in rest) for one in got)


def forge(random: Random, to: tuple[str, int]) -> None:
    """Send a datagram from anywhere, also from where none can come."""
    ends = ["0.0.0.0", "127.0.0.1", "127.255.255.255", "224.0.0.1", "255.255.255.255"]  # noqa: S104 - as a source
    source = random.choice([*ends, str(IPv4Address(random.getrandbits(32)))])
    port = random.choice([0, to[1], 53, 1900, random.getrandbits(16)])
    inject(to, b"forged", source=source, source_port=port)


@needs_root
@pytest.mark.parametrize("seed", SEEDS)
def test_any_mixture_is_answered_at_most_once_and_balanced(seed: int, network: None) -> None:
    """Clients get what they sent, in order, none twice and none longer; the numbers add up after each turn."""
    random, numbers = Random(seed), count(1)  # noqa: S311 - the same in each run
    with udp_server(ANY) as server, ExitStack() as stack:
        served = UdpWorker(server, **limits(random))  # type: ignore[arg-type]
        clients = [stack.enter_context(udp_client(f"127.0.0.{number}")) for number in range(1, 5)]
        sent: list[list[bytes]] = [[] for _ in clients]
        now = 1000.0
        for _ in range(TURNS):
            for _ in range(random.randint(0, 70)):
                if random.random() < 0.1:
                    # Many are lost on their way: the kernel takes no datagram from such an address.
                    forge(random, served.address)
                    continue
                index = random.randrange(len(clients))
                data, segment = payloads(random, numbers)
                sent[index] += parts(data, segment)
                queue(clients[index], server, data, segment, host=served.address[0])
            now += random.choice([0, 0.001, 1])
            served.turn(now)
        served.turn(now)
        answers = [received(client) for client in clients]
        for got, mine in zip(answers, sent, strict=True):
            assert is_subsequence(got, mine)
        assert sum(map(len, answers)) <= served.row[UdpField.REPLIED]


class Forged(Batch):
    """A batch of which all that the kernel said of its datagrams, but for where answers go, is made up."""

    def __init__(self, random: Random) -> None:
        """Make it up by these numbers."""
        super().__init__()
        self.random = random

    def receive(self, port: UdpSocket, counted: int = 0) -> int:
        """Receive, and put any addresses, ways and marks in the place of the true ones."""
        # What was made up of the batch before is not to be believed again, where this one is like it.
        self.trains, self.truncated, self.not_unicast = None, set(), set()
        slots, random = super().receive(port, counted), self.random
        some = [random.randbytes(8) for _ in range(random.choice([1, 3, 64]))]
        self._peers = tuple(random.choice(some) for _ in range(slots))
        self.names = b"".join(peer.ljust(NAME_BYTES, b"\0") for peer in self._peers)
        self._parsed.interfaces = [random.choice([0, 1, 2, 2**32 - 1]) for _ in range(slots)]
        self.on_loopback = random.random() < 0.5
        self.whole = self.whole and random.random() < 0.5
        if not self.whole:
            self.trains = self.trains or [1] * slots
            self.truncated |= {slot for slot in range(slots) if random.random() < 0.1}
            self.not_unicast |= {slot for slot in range(slots) if random.random() < 0.1}
        return slots


@pytest.mark.parametrize("seed", SEEDS)
def test_any_address_and_mark_ends_in_one_number(seed: int, server: socket.socket, client: socket.socket) -> None:
    """With random bytes for addresses and random marks nothing raises, all is counted once, and nothing is made up."""
    random, numbers = Random(seed), count(1)  # noqa: S311 - the same in each run
    served = UdpWorker(server, batch=Forged(random), **limits(random))  # type: ignore[arg-type]
    sent = Counter[bytes]()
    now = 1000.0
    for _ in range(TURNS):
        for _ in range(random.randint(0, 70)):
            data, segment = payloads(random, numbers)
            sent.update(parts(data, segment))
            queue(client, server, data, segment)
        if random.random() < 0.1:
            own = [ip_network((random.getrandbits(32), random.randint(0, 32)), strict=False)]
            served.admission.set_own_addresses(own)
        now += random.choice([0, 0.001, 1])
        served.turn(now)
    served.turn(now)
    got = received(client)
    assert len(got) == served.row[UdpField.REPLIED]
    assert not Counter(got) - sent
    assert served.row[UdpField.RECEIVED] == sent.total()
