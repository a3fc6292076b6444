"""Two servers that answer each other: what circulates between them dies of the loop breaker, and of nothing else.

Two echods, one on either side of a wire, on ports so different that neither knows the other for an echo server
(CERT CA-1996-01, CVE-2024-2169); and one echod beside a server that answers whatever comes, as chargen does (RFC 864).
"""

import random
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest
from loopback import needs_root
from netns.datagrams import CLIENT, CLIENT6, SERVER, SERVER6, Datagram, numbered, over_ipv4, over_ipv6
from netns.stage import MAX_GROWTH_BYTES
from netns.wire import Wire
from running import Daemon, is_balanced, wait_until
from system.network import entered

pytestmark = needs_root

NEAR, FAR = 7777, 8888
"""The ports of the two echods, of which neither has the other's: rule 3 does not stop them."""

TRIGGERS: Final = 100
ROUNDS: Final = 2_000
"""How often a datagram goes round before we believe that it would for ever: the breaker looks at each 1,024th."""

DEATH_SECONDS: Final = 30
LINES: Final = 200
LONGEST_LINE: Final = 1_400

Over = Callable[..., Datagram]
each_family = pytest.mark.parametrize("over", [over_ipv4, over_ipv6])


class Pair:
    """An echod on the server's side of a wire, another on the client's, and a bystander of each on the other side."""

    def __init__(self, wire: Wire, near: Daemon, far: Daemon, over: Over) -> None:
        """Take two that are ready."""
        is_ipv6 = over().is_ipv6
        self.daemons = (near, far)
        self._wire = wire
        self._over = over
        self._far_address = CLIENT6 if is_ipv6 else CLIENT
        self._bystanders = (wire.client_of(SERVER6 if is_ipv6 else SERVER, NEAR), self._client_of_far())
        self._asked = 0

    def _client_of_far(self) -> socket.socket:
        sock = self._wire.listen(SERVER6 if ":" in self._far_address else SERVER, 0)
        sock.connect((self._far_address, FAR))
        return sock

    def close(self) -> None:
        """Send the bystanders home."""
        for sock in self._bystanders:
            sock.close()

    def trigger(self, payloads: Sequence[bytes]) -> None:
        """Send datagrams to the near echod in the name of the far one."""
        for payload in payloads:
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
        return [resident_bytes(*daemon.workers()) for daemon in self.daemons]

    def assert_dead(self) -> None:
        """Hold that nothing goes round any more: but for the bystanders neither echod hears anything."""
        before, asked = self._received(), self._asked
        for _ in range(10):
            self.ask()
        assert self._received() - before == self._asked - asked

    def _received(self) -> int:
        rows = [row for daemon in self.daemons for row in daemon.counters().values()]
        assert all(is_balanced(row) for row in rows)
        return sum(row["received"] for row in rows)


def resident_bytes(*workers: int) -> int:
    """Return what processes have mapped."""
    status = "".join(Path(f"/proc/{pid}/status").read_text() for pid in workers)
    return sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) << 10


def payloads(*, different: bool) -> list[bytes]:
    """Return what the triggers carry, of one length."""
    return [b"round and round %03d" % (number if different else 0) for number in range(TRIGGERS)]


def loops(counted: dict[str, dict[str, int]]) -> int:
    """Return how many datagrams an echod did not answer because they went round."""
    return sum(row.get("dropped_loop", 0) for row in counted.values())


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
            daemons.append(Daemon(own, config, prefix=("ip", "netns", "exec", name)))
            stack.callback(daemons[-1].end)
        for daemon in daemons:
            daemon.wait_for("ready")
        pair = Pair(wire, *daemons, over)
        stack.callback(pair.close)
        yield pair
        for daemon in daemons:
            assert "Traceback" not in daemon.stderr


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
        pair.trigger(payloads(different=different))
        wait_until(lambda: pair.count("dropped_loop") >= TRIGGERS, "all had died", seconds=DEATH_SECONDS)
        pair.assert_dead()
        died = [loops(daemon.counters()) for daemon in pair.daemons]
        assert sum(died) == TRIGGERS
        assert all(breaker or not count for breaker, count in zip((near, far), died, strict=True))
        assert all(now - was < MAX_GROWTH_BYTES for now, was in zip(pair.resident_bytes(), resident, strict=True))


def test_without_a_breaker_they_go_on(tmp_path: Path) -> None:
    """What dies with it goes on without it: the same triggers, until the test ends them."""
    with pair_of(tmp_path, over_ipv4, near=False, far=False) as pair:
        pair.trigger(payloads(different=False))
        wait_until(lambda: pair.count("received") > TRIGGERS * ROUNDS, "all went on", seconds=DEATH_SECONDS)
        assert pair.count("dropped_loop") == 0
        pair.daemons[1].end()
        pair.daemons[0].stop()


class Chargen:
    """A server that answers each datagram with another line, longer and random (RFC 864 leaves open which)."""

    def __init__(self, wire: Wire, over: Over, port: int) -> None:
        """Be on the client's side of a wire."""
        self._over = over
        self._wire = wire
        self._address = CLIENT6 if over().is_ipv6 else CLIENT
        with entered(wire.client):
            self.sock = socket.socket(socket.AF_INET6 if over().is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.settimeout(10)
        self.sock.bind((self._address, port))
        self._random = random.Random(864)  # noqa: S311 - no secret, and the same in each run

    def close(self) -> None:
        """Be gone."""
        self.sock.close()

    def begin(self, datagram: bytes = b"?") -> None:
        """Send echod a datagram in the name of this server, as a forger does."""
        port = self.sock.getsockname()[1]
        self._wire.inject(self._over(source=self._address, source_port=port, payload=datagram).frame())

    def answer(self, echo: bytes, peer: tuple[str, int]) -> bytes:
        """Answer, longer than what came; return the line."""
        line = self._random.randbytes(min(len(echo) + 7, LONGEST_LINE))
        self.sock.sendto(line, peer)
        return line

    def hears_nothing(self) -> bool:
        """Tell whether nothing is in the queue."""
        self.sock.setblocking(False)
        try:
            self.sock.recv(65_536)
        except BlockingIOError:
            return True
        return False


@contextmanager
def beside_chargen(stage: "Stage", over: Over, port: int) -> Iterator[Chargen]:
    """Put a chargen on the other side."""
    chargen = Chargen(stage.wire, over, port)
    try:
        yield chargen
    finally:
        chargen.close()
