"""Any bytes to a measuring mode: each datagram has at most one reply, which is as long as it was, and is counted.

The seed of a mixture stands in the name of its test.
"""

import hmac
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from random import Random

import pytest
from support.loopback import ANY, queue, udp_client, udp_server
from support.udp_worker import UdpWorker

from echod.net.mode import ListenerOptions, Mode
from echod.stats.counters import UdpField
from echod.stats.refusals import Tally
from echod.udp.modes.stamp import Stamp
from echod.udp.modes.udpecho_plus import UdpEchoPlus
from echod.udp.service import Reply
from echod.udp.sock import UdpSocket

SEEDS = range(4)
TURNS = 25
KEY = b"key"

PLUS = ListenerOptions(mode=Mode.UDPECHO_PLUS)
STAMPS = {
    "stateless": (ListenerOptions(mode=Mode.STAMP), b""),
    "stateful": (ListenerOptions(mode=Mode.STAMP, stateful=True, dscp="reflect"), b""),
    "padded": (ListenerOptions(mode=Mode.STAMP, stateful=True, short_packets="pad"), b""),
    "authenticated": (ListenerOptions(mode=Mode.STAMP, dscp=46), KEY),
    "authenticated sessions": (ListenerOptions(mode=Mode.STAMP, stateful=True), KEY),
}


def tlvs(random: Random) -> bytes:
    """Make TLVs, most of them well formed, some cut short, and some of types that there are not."""
    made = b""
    for _ in range(random.choice([0, 0, 1, 2, 5, 40])):
        kind = random.choice([*range(10), 200])
        usual = {2: 4, 3: 4, 4: 4, 5: 12, 6: 4, 7: 16, 8: 16}.get(kind, 3)
        length = usual if random.random() < 0.8 else random.randint(0, 40)
        made += struct.pack(">BBH", random.choice([0, 0x80, 0xFF]), kind, length) + random.randbytes(length)
    return made if random.random() < 0.8 else made[: random.randint(0, len(made))]


def packet(random: Random) -> bytes:
    """Make what a mode may be sent: noise of any length, or a packet that is right but for its TLVs."""
    match random.randrange(4):
        case 0:
            return random.randbytes(random.choice([0, 1, 14, 23, 24, 40, 41, 43, 44, 111, 112, random.randint(0, 300)]))
        case 1:
            return random.randbytes(44) + tlvs(random)
        case 2:
            return bytes(random.randint(0, 1400))
    base = random.randbytes(96)
    return base + hmac.digest(KEY, base, "sha256")[:16] + tlvs(random)


def train(random: Random) -> tuple[bytes, int]:
    """Make a train of packets of one length, with the length of its segments."""
    made = [packet(random) for _ in range(random.randint(2, 12))]
    segment = max(1, random.choice([len(made[0]), 24, 25, 41, 44, 112]))
    last = packet(random)[: random.randint(1, segment)]
    return b"".join(each.ljust(segment, b"\0")[:segment] for each in made) + last, segment


def received(client: socket.socket) -> list[bytes]:
    """Return all that a client got."""
    got = []
    client.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            got.append(client.recv(65_536))
    return got


def ask(
    random: Random, host: str, options: ListenerOptions, mode: Callable[[UdpSocket, memoryview, Tally], Reply]
) -> None:
    """Send mixtures to a mode from three clients, and hold its replies to what every mode promises."""
    with udp_server(host) as server:
        served = UdpWorker(server, options=options, mode=mode)
        to = served.address[0]
        clients = [udp_client(to) for _ in range(3)]
        sent: list[list[bytes]] = [[] for _ in clients]
        for _ in range(TURNS):
            for _ in range(random.randint(0, 70)):
                index = random.randrange(len(clients))
                data, segment = train(random) if random.random() < 0.3 else (packet(random), 0)
                sent[index] += [data[at : at + segment] for at in range(0, len(data), segment)] if segment else [data]
                queue(clients[index], server, data, segment, host=to)
            served.turn()
        served.turn()
        answers = 0
        for client, mine in zip(clients, sent, strict=True):
            got, rest = received(client), iter(mine)
            client.close()
            answers += len(got)
            assert all(any(len(one) == len(other) for other in rest) for one in got)
        assert served.row[UdpField.RECEIVED] == sum(map(len, sent))
        assert answers == served.row[UdpField.REPLIED]
        assert served.row[UdpField.REPLIED_BYTES] <= served.row[UdpField.RECEIVED_BYTES]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("host", [ANY, "::"])
@pytest.mark.parametrize("name", STAMPS)
def test_any_bytes_to_a_reflector_have_at_most_one_reply(seed: int, host: str, name: str) -> None:
    """Never longer; nothing raises, and the numbers add up after each turn."""
    options, key = STAMPS[name]
    random = Random(f"{seed} {name}")  # noqa: S311 - the same in each run
    ask(random, host, options, lambda _, row, tally: Stamp(row, tally, options=options, key=key, port=1).reply)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("host", [ANY, "::"])
def test_any_bytes_to_udpecho_plus_have_at_most_one_reply(seed: int, host: str) -> None:
    """Likewise."""
    ask(Random(seed), host, PLUS, lambda _, row, __: UdpEchoPlus(row, began=0).reply)  # noqa: S311
