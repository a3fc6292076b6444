"""An echod with one worker, and what a test of a fault asks of it: its numbers, its clients, its processes.

Owns the view that a test has of one daemon; never starts or ends it. Invariant: numbers are those since the view was
made, so that many tests can share one daemon.
"""

import socket
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack

from support.daemon import Daemon, connect_udp
from support.waiting import wait_until

BYSTANDERS = 4
EACH = 5
SERVED = BYSTANDERS * EACH
"""Datagrams of `Service.assert_served`."""


def config(port: int) -> dict[str, object]:
    """Serve one port in UDP and TCP, with one worker, so that the worker is known."""
    return {"listeners": [f"udp://127.0.0.1:{port}", f"tcp://127.0.0.1:{port}"], "workers": 1}


class Service:
    """One daemon and its port, from now on."""

    def __init__(self, daemon: Daemon, port: int) -> None:
        """Remember the worker and where the numbers stand."""
        self.daemon = daemon
        self.port = port
        (self.worker,) = daemon.workers()
        self._before = daemon.counters()

    def gained(self, protocol: str) -> dict[str, int]:
        """Return the numbers of the UDP or the TCP listener that have grown, and by how much; no bytes."""
        name = f"{protocol}://127.0.0.1:{self.port}"
        more = Counter(self.daemon.counters()[name]) - Counter(self._before[name])
        return {field: number for field, number in more.items() if not field.endswith("_bytes")}

    def wait_for_gain(self, protocol: str, **numbers: int) -> None:
        """Wait until the numbers that have grown are these, exactly."""
        wait_until(lambda: self.gained(protocol) == numbers, f"{protocol} gained {numbers}")

    def clients(self, stack: ExitStack, count: int) -> list[socket.socket]:
        """Open so many UDP clients."""
        return [stack.enter_context(connect_udp("127.0.0.1", self.port)) for _ in range(count)]

    def assert_served(self) -> None:
        """Assert that each of four bystanders gets each of its five datagrams back, in order, and no other."""
        with ExitStack() as stack:
            for client in (clients := self.clients(stack, BYSTANDERS)):
                for number in range(EACH):
                    client.send(b"%d" % number)
            for client in clients:
                assert [client.recv(16) for _ in range(EACH)] == [b"%d" % number for number in range(EACH)]

    def assert_unharmed(self, received: int, lost: Mapping[str, int] | None = None) -> None:
        """Assert that neither the supervisor nor the worker was replaced, and that all clients are served.

        So many datagrams were received, with those of this look; all were replied to but the lost, by counter.
        """
        self.assert_served()
        assert self.daemon.process.poll() is None
        assert self.daemon.workers() == [self.worker]
        lost = lost or {}
        assert self.gained("udp") == {"received": received, "replied": received - sum(lost.values()), **lost}
