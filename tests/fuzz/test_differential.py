"""echod beside the reference: both are sent the same, and each client must get the same from both.

A round sends a random mixture to both: datagrams alike and of every size, trains, and what nobody may answer, from both
families, to wildcard and single addresses. While it is sent, echod's workers may be stopped, so that whole batches
wait for them, and a reload may be under way. ECHOD_TEST_SECONDS sets the length of each test, by default 8 seconds.
"""

import os
import select
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from random import Random
from typing import Any, Final

import pytest
from support.daemon import Daemon
from support.loopback import inject, ip, needs_root, send_train, udp_client, wait_for_address
from support.reference_echo import MIN_SOURCE_PORT, Address, Reference
from support.socket_passing import pass_sockets

SECONDS: Final = float(os.environ.get("ECHOD_TEST_SECONDS", "8"))
PATIENCE_SECONDS: Final = 20.0

PORT, SINGLE_PORT, SHIFT = 7007, 7008, 100
"""The reference answers SHIFT ports above echod."""

BOUND: Final = [("0.0.0.0", PORT), ("::", PORT), ("127.0.0.1", SINGLE_PORT), ("fd00::1", SINGLE_PORT)]  # noqa: S104
ASKED: Final = {
    socket.AF_INET: [("127.0.0.1", PORT), ("127.0.0.5", PORT), ("10.9.0.1", PORT), ("127.0.0.1", SINGLE_PORT)],
    socket.AF_INET6: [("::1", PORT), ("fd00::1", PORT), ("fd00::2", PORT), ("fd00::1", SINGLE_PORT)],
}
HOSTS: Final = ["127.0.0.1", "127.0.0.2", "10.9.0.1", "10.9.0.2", "::1", "fd00::1", "fd00::2", "fd00::3"]
SAME_PORT: Final = 40_007
"""Of each host there is one client with this port: they differ in their address alone."""


@dataclass(slots=True)
class Client:
    """A socket that asks both, and what it got from each: payload, and the address that answered."""

    sock: socket.socket
    got: dict[bool, list[tuple[bytes, Address]]] = field(default_factory=lambda: {True: [], False: []})
    """True: of the reference."""

    def take(self, seconds: float = 0.0) -> bool:
        """Take what has come; tell whether anything has."""
        if not select.select([self.sock], [], [], seconds)[0]:
            return False
        data, peer = self.sock.recvfrom(65_536)
        host, port = str(peer[0]), int(peer[1])
        from_reference = port >= PORT + SHIFT
        self.got[from_reference].append((data, (host, port - SHIFT * from_reference)))
        return True

    def compare(self, *, in_order: bool) -> None:
        """Wait until echod has answered as often as the reference; both must have answered the same."""
        while self.take():
            pass
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(self.got[False]) < len(self.got[True]):
            assert self.take(1.0) or time.monotonic() < deadline, f"{self.sock} waits for {self.missing()}"
        arrange: Callable[..., Any] = _by_address if in_order else sorted
        assert arrange(self.got[False]) == arrange(self.got[True])
        self.got = {True: [], False: []}

    def missing(self) -> Counter[tuple[int, Address]]:
        """Return the lengths and addresses of the replies that echod owes."""
        theirs, ours = (Counter((len(data), address) for data, address in self.got[each]) for each in (True, False))
        return theirs - ours


def _by_address(got: list[tuple[bytes, Address]]) -> dict[Address, list[bytes]]:
    """Sort replies by who sent them; each has its own queue, so that the order among them says nothing."""
    return {address: [data for data, peer in got if peer == address] for address in {peer for _, peer in got}}


class Mixture:
    """What is sent, from one seed."""

    def __init__(self, seed: int, clients: list[Client]) -> None:
        """Take the clients of both families."""
        self.random = Random(seed)  # noqa: S311 - the same in each run
        self._numbers = count(1)
        self._clients = clients
        self._round = [self._alike, self._alike, self._mixed, self._trains]

    def send(self) -> None:
        """Send one round."""
        self.random.choice(self._round)()

    def _to_both(self, send: Callable[[Address], object], address: Address) -> None:
        for port in (address[1], address[1] + SHIFT):
            send((address[0], port))

    def _payload(self, size: int) -> bytes:
        number = b"%d." % next(self._numbers)
        return (number + self.random.randbytes(8) * (size // 8 + 1))[:size]

    def _some(self) -> list[tuple[Client, Address]]:
        """Choose who asks which address."""
        clients = self.random.sample(self._clients, self.random.randint(1, len(self._clients)))
        family = self.random.choice([socket.AF_INET, socket.AF_INET6])
        one = {family: [self.random.choice(asked)] for family, asked in ASKED.items()}
        asked = self.random.choice([one, one, ASKED])
        if self.random.random() < 0.7:
            clients = [client for client in clients if client.sock.family == family]
        return [(client, self.random.choice(asked[client.sock.family])) for client in clients]

    def _alike(self) -> None:
        """All of one length, as most traffic is, with a few in between that nobody may answer."""
        size = self.random.choice([0, 1, 12, 64, 64, 1400, 9000])
        for _ in range(self.random.randint(1, 4)):
            for client, address in self._some():
                self._to_both(partial(client.sock.sendto, self._payload(size)), address)
                self._poison(0.05)

    def _mixed(self) -> None:
        for client, address in self._some():
            size = self.random.choice([0, 1, 64, 1400, self.random.randint(0, 3000), self.random.randint(0, 65_507)])
            self._to_both(partial(client.sock.sendto, self._payload(size)), address)
            self._poison(0.2)

    def _trains(self) -> None:
        for client, address in self._some():
            segment = self.random.choice([1, 16, 16, 1000])
            data = self._payload(segment * self.random.randint(1, 40) + self.random.randint(0, segment - 1))
            self._to_both(partial(send_train, client.sock, data, segment), address)
            self._poison(0.1)

    def _poison(self, chance: float) -> None:
        """Send what nobody may answer: from port 0 or a low port, or with a checksum that is wrong."""
        if self.random.random() >= chance:
            return
        asked, source = self.random.choice([(ASKED[socket.AF_INET], "127.0.0.9"), (ASKED[socket.AF_INET6], "fd00::3")])
        data, port = self._payload(self.random.choice([0, 70, 500])), self.random.choice([0, 53, 40_000])
        forge = partial(inject, payload=data, source=source, source_port=port, wrong=int(port > MIN_SOURCE_PORT))
        self._to_both(forge, self.random.choice(asked))


@pytest.fixture
def clients(network: None) -> Iterator[list[Client]]:
    """Have many hosts in a network of our own, and clients on each, one of which has the same port on all."""
    for host in HOSTS:
        if not host.startswith(("127.", "::1")):
            ipv6 = ":" in host
            ip("address", "add", *([f"{host}/128", "nodad"] if ipv6 else [f"{host}/32"]), "dev", "lo")
            if ipv6:
                wait_for_address(f"{host}/128", "lo")
    with ExitStack() as stack:
        yield [Client(stack.enter_context(udp_client(host, port))) for host in HOSTS for port in (SAME_PORT, *[0] * 5)]


def config(workers: int) -> dict[str, object]:
    """Serve with as many workers; no datagram is refused for what its payload repeats."""
    listeners = [f"udp://[{host}]:{port}" if ":" in host else f"udp://{host}:{port}" for host, port in BOUND]
    return {"listeners": listeners, "workers": workers, "guard": {"loop_breaker": False}}


class Pair:
    """echod and the reference, side by side."""

    def __init__(self, daemon: Daemon, reference: Reference, clients: list[Client], *, seed: int, workers: int) -> None:
        """Take both, and the clients that ask them."""
        self.daemon = daemon
        self.reference = reference
        self.clients = clients
        self._mixture = Mixture(seed, clients)
        self._workers = workers
        self._reloads = 0

    def round(self, *, in_order: bool) -> None:
        """Send the same to both, and compare what each client gets."""
        random = self._mixture.random
        reloading = random.random() < 0.05
        if reloading:
            self._reloads += 1
            self.daemon.write(config(1 + self._reloads % self._workers))
            self.daemon.signal(signal.SIGHUP)
        with self._held() if random.random() < 0.6 else nullcontext():
            self._mixture.send()
            self.reference.serve()
        for client in self.clients:
            client.compare(in_order=in_order and not reloading)
        if reloading:
            self.daemon.wait_for("reloaded", self._reloads)

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Let the workers stand still, so that they find all of a round at once."""
        held = self.daemon.workers()
        for worker in held:
            os.kill(worker, signal.SIGSTOP)
        yield
        for worker in set(held) & set(self.daemon.workers()):  # a reload may have ended some
            os.kill(worker, signal.SIGCONT)


@needs_root
@pytest.mark.parametrize("kind", ["one worker", "own sockets", "shared sockets"])
def test_each_client_gets_what_the_simplest_echo_gives(
    clients: list[Client], echod: Callable[..., Daemon], kind: str
) -> None:
    """The same bytes, from the address that was asked, as often and in the same order; and the counters agree."""
    shared, workers = kind == "shared sockets", 1 if kind == "one worker" else 2
    daemon = echod(config(workers), prefix=pass_sockets(BOUND) if shared else ())
    ports = [(host, port + SHIFT) for host, port in BOUND]
    with Reference(ports, own_ports=[PORT, SINGLE_PORT, PORT + SHIFT, SINGLE_PORT + SHIFT]) as reference:
        pair, end = Pair(daemon, reference, clients, seed=len(kind), workers=workers), time.monotonic() + SECONDS
        while time.monotonic() < end:
            pair.round(in_order=not shared)
        assert not any(client.take() for client in clients)
    rows = daemon.counters().values()
    totals = Counter({name: sum(row.get(name, 0) for row in rows) for name in reference.outcomes})
    assert totals == reference.outcomes
    assert reference.outcomes["replied"] > 1000
    assert reference.outcomes["dropped_source_port_low"] > 0
    assert sum(row["kernel_drops"] for row in rows) > 0  # the wrong checksums
    assert daemon.stop() == 0
