"""Over many datagrams the shares are those of the config, and a seed has the same fates again.

ECHOD_TEST_DATAGRAMS is how many: `./tests/long` sends a million.
"""

import os
import socket
from hashlib import sha256
from math import sqrt

import pytest
from support.loopback import udp_client, udp_server
from support.udp_worker import UdpWorker

from echod.linux.poll import Poll
from echod.net.mode import Impairment
from echod.stats.counters import UdpField
from echod.stats.outcomes import Drop
from echod.udp.modes.impair import ImpairedEcho

DATAGRAMS = int(os.environ.get("ECHOD_TEST_DATAGRAMS", "30000"))
PATH = Impairment(loss=0.02, duplicate=0.01, reorder=0.01, corrupt=0.001, seed=7)
IN_99_PER_CENT = 2.5758
"""Standard deviations from the mean: 99% of a normal distribution lie within, to which a binomial one is close here."""

BLOCK = 250


def is_likely(count: int, datagrams: int, share: float) -> bool:
    """Tell whether a share of so many datagrams is within its 99% bounds."""
    return abs(count - share * datagrams) <= IN_99_PER_CENT * sqrt(datagrams * share * (1 - share))


def run(server: socket.socket, client: socket.socket) -> tuple[dict[str, int], str]:
    """Send all datagrams; return what befell them, and the hash of the replies in their order."""
    poll = Poll()
    worker = UdpWorker(
        server, mode=lambda sock, row, tally: ImpairedEcho(PATH, sock, row, tally, poll=poll).reply, loop_breaker=False
    )
    client.connect(worker.address)
    client.setblocking(False)
    replies, seen, row = sha256(), 0, worker.row
    for number in range(DATAGRAMS):
        client.send(b"%07d" % number)
        if number % BLOCK == BLOCK - 1:  # no more than every buffer holds
            while row[UdpField.RECEIVED] <= number:
                worker.turn()
            while seen < row[UdpField.REPLIED] + row[UdpField.DUPLICATED]:
                replies.update(client.recv(100))
                seen += 1
    poll.close()
    fields = {"lost": UdpField.DROPPED + Drop.IMPAIRED, "duplicated": UdpField.DUPLICATED, "held": UdpField.HELD}
    fields |= {"reordered": UdpField.REORDERED, "corrupted": UdpField.CORRUPTED, "replied": UdpField.REPLIED}
    return {name: row[field] for name, field in fields.items()}, replies.hexdigest()


@pytest.mark.timeout(900)
def test_the_shares_are_within_their_bounds_and_the_same_again() -> None:
    """What is lost is a share of all; the others are shares of what is not lost."""
    runs = []
    for _ in range(2):
        with udp_server() as server, udp_client() as client:
            runs.append(run(server, client))
    counts, _ = runs[0]
    alive = DATAGRAMS - counts["lost"]
    assert counts["replied"] + counts["held"] == alive
    assert is_likely(counts["lost"], DATAGRAMS, 0.02), counts
    assert is_likely(counts["duplicated"], alive, 0.01), counts
    assert is_likely(counts["reordered"] + counts["held"], alive, 0.01), counts
    assert is_likely(counts["corrupted"], alive, 0.001), counts
    assert runs[1] == runs[0]
