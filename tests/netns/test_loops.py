"""Two servers that answer each other: what circulates between them dies of the loop breaker, and of nothing else.

Two echods, one on either side of a wire, on ports so different that neither knows the other for an echo server
(CERT CA-1996-01, CVE-2024-2169); and one echod beside a server that answers whatever comes, as chargen does (RFC 864).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from random import Random
from typing import Final

import pytest
from support.beside import daemon_in
from support.daemon import Daemon
from support.loopback import needs_root
from support.netns.datagrams import CLIENT, CLIENT6, SERVER, SERVER6, Datagram, over_ipv4, over_ipv6
from support.netns.stage import MAX_GROWTH_BYTES, Stage, totals
from support.netns.wire import Wire
from support.processes import resident_bytes
from support.waiting import wait_until

pytestmark = needs_root

NEAR, FAR = 7777, 8888
"""The ports of the two echods, of which neither has the other's: rule 3 does not stop them."""

TRIGGERS: Final = 100
ROUNDS: Final = 2_000
"""How often a datagram goes round before we believe that it would for ever: the breaker looks at about each 1,024th."""

DEATH_SECONDS: Final = 30
LINES: Final = 200
LONGEST_LINE: Final = 1_400
RANDOM: Final = Random(864)  # noqa: S311 - no secret, and the same in each run

Over = Callable[..., Datagram]


class Pair:
    """An echod on the server's side of a wire, another on the client's, and a bystander of each on the other side."""

    def __init__(self, wire: Wire, daemons: Sequence[Daemon], over: Over) -> None:
        """Take two that are ready, the near one and the far one."""
        is_ipv6 = over().is_ipv6
        self.daemons = daemons
        self._wire = wire
        self._over = over
        self._far_address = CLIENT6 if is_ipv6 else CLIENT
        of_far = wire.listen(SERVER6 if is_ipv6 else SERVER, 0)
        of_far.connect((self._far_address, FAR))
        self._bystanders = (wire.client_of(SERVER6 if is_ipv6 else SERVER, NEAR), of_far)
        self._asked = 0

    def close(self) -> None:
        """Send the bystanders home."""
        for sock in self._bystanders:
            sock.close()

    def trigger(self, *, different: bool) -> None:
        """Send datagrams of one length to the near echod in the name of the far one."""
        for number in range(TRIGGERS):
            payload = b"round and round %03d" % (number if different else 0)
            forged = self._over(source=self._far_address, source_port=FAR, to_port=NEAR, payload=payload)
            self._wire.inject(forged.frame())

    def ask(self) -> None:
        """Have both bystanders ask, and get their answers."""
        for sock in self._bystanders:
            payload = b"bystander %d" % self._asked
            self._asked += 1
            sock.send(payload)
            assert sock.recv(65_536) == payload

    def count(self, name: str) -> int:
        """Return a counter of both, while they are busy, with the bystanders asking meanwhile."""
        self.ask()
        return sum(row.get(name, 0) for daemon in self.daemons for row in daemon._counters().values())

    def resident_bytes(self) -> list[int]:
        """Return what the worker of each has mapped."""
        return [sum(map(resident_bytes, daemon.workers())) for daemon in self.daemons]

    def assert_dead(self) -> None:
        """Hold that nothing goes round any more: but for the bystanders neither echod hears anything."""
        before, asked = self._received(), self._asked
        for _ in range(10):
            self.ask()
        assert self._received() - before == self._asked - asked

    def _received(self) -> int:
        return sum(totals(daemon)["received"] for daemon in self.daemons)


@contextmanager
def pair_of(folder: Path, over: Over, *, near: bool = True, far: bool = True) -> Iterator[Pair]:
    """Lay a wire with an echod on either side, each with its loop breaker on or off."""
    with Wire() as wire, ExitStack() as stack:
        daemons = []
        for name, port, loop_breaker in ((wire.server, NEAR, near), (wire.client, FAR, far)):
            listeners = [f"udp://0.0.0.0:{port}", f"udp://[::]:{port}"]
            config = {"listeners": listeners, "workers": 1, "guard": {"loop_breaker": loop_breaker}}
            own = folder / name
            own.mkdir()
            daemons.append(stack.enter_context(daemon_in(name, own, config)))
        yield stack.enter_context(closing(Pair(wire, daemons, over)))


@pytest.mark.parametrize(
    ("over", "near", "far", "different"),
    [
        (over_ipv4, True, True, False),
        (over_ipv4, True, True, True),
        (over_ipv4, True, False, False),
        (over_ipv4, False, True, True),
        (over_ipv6, True, True, True),
        (over_ipv6, False, True, False),
    ],
)
def test_a_hundred_that_circulate_die(tmp_path: Path, over: Over, *, near: bool, far: bool, different: bool) -> None:
    """Equal or different, and though but one side has a breaker: each dies, by it, while bystanders are answered."""
    with pair_of(tmp_path, over, near=near, far=far) as pair:
        for _ in range(100):
            pair.ask()
        resident = pair.resident_bytes()
        pair.trigger(different=different)
        wait_until(lambda: pair.count("dropped_loop") >= TRIGGERS, "all had died", seconds=DEATH_SECONDS)
        pair.assert_dead()
        died = [totals(daemon)["dropped_loop"] for daemon in pair.daemons]
        assert sum(died) == TRIGGERS
        assert all(breaker or not count for breaker, count in zip((near, far), died, strict=True))
        assert all(now - was < MAX_GROWTH_BYTES for now, was in zip(pair.resident_bytes(), resident, strict=True))


def test_without_a_breaker_they_go_on(tmp_path: Path) -> None:
    """What dies with it goes on without it: the same triggers, until the test ends them."""
    with pair_of(tmp_path, over_ipv4, near=False, far=False) as pair:
        pair.trigger(different=False)
        wait_until(lambda: pair.count("received") > TRIGGERS * ROUNDS, "all went on", seconds=DEATH_SECONDS)
        assert pair.count("dropped_loop") == 0
        pair.daemons[1].end()
        pair.daemons[0].stop()


@pytest.mark.parametrize("over", [over_ipv4, over_ipv6])
def test_one_that_answers_whatever_comes_has_one_answer_each(stage: Stage, over: Over) -> None:
    """Each line has one echo, never longer, and a random line is no repetition that a breaker could see.

    So such a loop lasts as long as the other end will have it. What stops it in practice is the other end's port: that
    of chargen is 19, those of other servers are below 1024 too or in `guard.refuse_source_ports`.
    """
    address = CLIENT6 if over().is_ipv6 else CLIENT
    stage.wire.replies()
    lines = [b"?"]
    with stage.wire.listen(address, 40_019, stage.wire.client) as chargen:
        stage.wire.inject(over(source=address, source_port=40_019, payload=lines[0]).frame())
        for _ in range(LINES):
            echo, echod = chargen.recvfrom(65_536)
            assert echo == lines[-1]
            lines.append(RANDOM.randbytes(min(len(echo) + 7, LONGEST_LINE)))
            chargen.sendto(lines[-1], echod)
        assert chargen.recv(65_536) == lines[-1]
        stage.ask(is_ipv6=over().is_ipv6)
    collected = [reply for reply in stage.wire.replies() if reply.to_port == 40_019]
    assert [reply.payload for reply in collected] == lines
