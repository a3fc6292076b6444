"""Ordinary clients on the far side of a wire that ask at a pace, and know of each datagram what became of it.

Owns their sockets and their books. Nothing runs beside the test: clients ask while `Traffic` is told to, and so long as
a command runs that changes the network. Invariant, asserted: each answer is the exact answer to one datagram, once.
"""

import select
import socket
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Final, Self

from support.loopback import ip
from support.netns.datagrams import PORT
from support.netns.wire import LINK, Wire
from support.system.network import entered
from support.waiting import wait_until

from echod.linux.sockopt import SO_RCVBUFFORCE

_BUFFER_BYTES: Final = 8 << 20
_NUMBER_BYTES: Final = 8
_TURN_SECONDS: Final = 0.001


def add_source(wire: Wire, address: str) -> None:
    """Give the clients' host an address more, which the server knows the station of."""
    length = ("128", "nodad") if ":" in address else ("32",)
    ip("-n", wire.client, "address", "add", f"{address}/{length[0]}", "dev", LINK, *length[1:])
    wire.know(address)


class Client:
    """One socket that sends numbered datagrams, so many a second."""

    def __init__(self, wire: Wire, host: str, *, port: int = PORT, source: str = "", rate: int) -> None:
        """Ask that address and port, from that source where one is given."""
        with entered(wire.client):
            self.sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _BUFFER_BYTES)
        self.sock.bind((source, 0))
        self.sock.connect((host, port))
        self.sock.setblocking(False)
        self.rate = rate
        self.sent_at: list[float] = []
        """By number; on the monotonic clock."""
        self.missing: set[int] = set()
        self.collected = 0.0
        """When that was sent which was answered last."""

    @property
    def answered(self) -> int:
        """Return how many of its datagrams were answered."""
        return len(self.sent_at) - len(self.missing)

    @property
    def lost(self) -> list[float]:
        """Return when those were sent that were not, in order."""
        return [self.sent_at[number] for number in sorted(self.missing)]

    def send(self, now: float) -> None:
        """Send one; what our own side cannot send is not counted."""
        number = len(self.sent_at)
        with suppress(OSError):
            self.sock.send(number.to_bytes(_NUMBER_BYTES, "big"))
            self.sent_at.append(now)
            self.missing.add(number)

    def receive(self) -> None:
        """Take in all answers that have come. (A connected socket is told of errors on the way, too: passed over.)"""
        with suppress(OSError):
            while True:
                answer = self.sock.recv(65_536)
                number = int.from_bytes(answer, "big")
                assert len(answer) == _NUMBER_BYTES
                assert number in self.missing, "an answer to nothing, or a second one"
                self.missing.remove(number)
                self.collected = self.sent_at[number]


class Traffic:
    """Clients that ask together."""

    def __init__(self, clients: Sequence[Client]) -> None:
        """Take the clients; nothing is sent yet."""
        self.clients = clients

    def __enter__(self) -> Self:
        """Go on."""
        return self

    def __exit__(self, *_: object) -> None:
        """Send the clients home."""
        for client in self.clients:
            client.sock.close()

    def run(self, seconds: float) -> float:
        """Ask for so long; return how long it was."""
        return self._run(lambda now: now >= seconds)

    def during(self, *command: str) -> None:
        """Ask while a command runs, to its end."""
        with subprocess.Popen(command) as process:
            self._run(lambda _: process.poll() is not None)
            assert process.returncode == 0, command

    def settle(self, is_settled: Callable[[], bool]) -> None:
        """Ask no more, and hear answers until that is true."""

        def collect() -> bool:
            self._receive()
            return is_settled()

        wait_until(collect, "all were answered that were to be")

    @property
    def sent(self) -> int:
        """Return how many datagrams were sent."""
        return sum(len(client.sent_at) for client in self.clients)

    @property
    def answered(self) -> int:
        """Return how many of them were answered."""
        return sum(client.answered for client in self.clients)

    def _run(self, is_over: Callable[[float], bool]) -> float:
        began = monotonic()
        first = [len(client.sent_at) for client in self.clients]
        while True:
            now = monotonic()
            for client, start in zip(self.clients, first, strict=True):
                for _ in range(int((now - began) * client.rate) - (len(client.sent_at) - start)):
                    client.send(now)
            self._receive(_TURN_SECONDS)
            if is_over(now - began):
                return monotonic() - began

    def _receive(self, seconds: float = 0.0) -> None:
        if select.select([client.sock for client in self.clients], [], [], seconds)[0]:
            for client in self.clients:
                client.receive()
