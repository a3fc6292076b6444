"""A UDP socket served by hand: real datagrams, its row of the counters, and a time that the test says."""

import socket
from collections.abc import Callable
from ipaddress import ip_network

from support.loopback import at, deliver, listener, send_train

from echod.admission.admission import Admission
from echod.admission.loops import LoopDetector
from echod.admission.ratelimit import RateLimit
from echod.admission.rules import Rules, RuleSet
from echod.admission.selftest import SelfTest
from echod.linux.arrival import report_arrivals
from echod.net.mode import PLAIN, ListenerOptions
from echod.stats.counters import (
    UDP_BATCHES,
    UDP_DROPS,
    UDP_SEND_FAILURES,
    UDP_TRAINS,
    CounterPage,
    UdpField,
    describe,
)
from echod.stats.refusals import Tally
from echod.stats.top_sources import TopSources
from echod.udp import reply
from echod.udp.batch import Batch
from echod.udp.service import Reply, UdpEcho
from echod.udp.sock import UdpSocket

LISTENER = listener()
FEWEST, MOST = (1, 2, 3, 5, 9, 17, 33), (1, 2, 4, 8, 16, 32, 64)
BATCH = Batch()
TRAIN = b"aabbccddeeffgghhiij"
"""Ten datagrams, the last of them short."""
GAP = 5
"""Datagrams from one look to the next: of most batches some are looked at, and of small ones none."""


def rules(*own_ports: int, allow: str = "127.0.0.0/8") -> Rules:
    """Make rules that let all of IPv6 and one network of IPv4 in."""
    declared = RuleSet(
        allow=(ip_network(allow), ip_network("::/0")),
        deny=(),
        own_ports=frozenset(own_ports),
        min_source_port=1024,
        refuse_source_ports=frozenset({1900}),
    )
    return Rules(declared)


class UdpWorker:
    """A UDP socket served by hand."""

    def __init__(  # noqa: PLR0913 - each is one of the rules under test
        self,
        sock: socket.socket,
        *own_ports: int,
        allow: str = "0.0.0.0/0",
        limit: RateLimit | None = None,
        loop_breaker: bool = True,
        gap: int = GAP,
        batch: Batch = BATCH,
        self_test: SelfTest | None = None,
        options: ListenerOptions = PLAIN,
        mode: Callable[[UdpSocket, memoryview, Tally], Reply] = lambda *_: reply.send,
    ) -> None:
        """Serve on this socket, whose port is always one of our own. Each `gap`th datagram is looked at.

        `options` are those of its listener; `mode` makes what replies.
        """
        size = CounterPage.size(slots=1, listeners=1, places=0)
        page = CounterPage(memoryview(bytearray(size)), slots=1, listeners=[LISTENER], places=0)
        self.row = page.row(0, LISTENER)
        self.sock = sock
        self.tally = Tally(0)
        test_ports = [] if self_test is None else [self_test.port]
        self.admission = Admission(
            rules(sock.getsockname()[1], *own_ports, *test_ports, allow=allow),
            sources=1024,
            limit=limit,
            loop_detector=LoopDetector(sources=1024, gap=lambda: gap, patience=0) if loop_breaker else None,
            self_test=self_test,
        )
        self.top_sources = TopSources(lambda: 0.5)
        if options.measured:
            report_arrivals(sock, report=True)
        served = UdpSocket(sock, options=options)
        self.echo = UdpEcho(
            served,
            batch,
            self.admission,
            self.row,
            tally=self.tally,
            top_sources=self.top_sources,
            reply=mode(served, self.row, self.tally),
        )

    @property
    def address(self) -> tuple[str, int]:
        """Where a client of this host asks."""
        return at(self.sock, "::1" if self.sock.family == socket.AF_INET6 else "127.0.0.1")

    def turn(self, now: float = 0.0) -> dict[str, int]:
        """Answer what is queued; return the row by name. Asserts what `balance` does, and more."""
        self.echo.on_readable(now)
        row = self.row
        self.balance()
        in_slots = row[UdpField.RECEIVED] - row[UdpField.TRAIN_DATAGRAMS] + sum(row[UDP_TRAINS])
        batches = row[UDP_BATCHES]
        # Of n slots, a batch stands in the place of the powers of two that n lies between.
        least, most = (sum(n * count for n, count in zip(sizes, batches, strict=True)) for sizes in (FEWEST, MOST))
        assert least <= in_slots <= most
        assert row[UdpField.REPLIED_BYTES] <= row[UdpField.RECEIVED_BYTES]
        return describe(LISTENER, row)

    def balance(self) -> None:
        """Assert that received = replied + drops + failures + held."""
        row = self.row
        drops, failures = sum(row[UDP_DROPS]), sum(row[UDP_SEND_FAILURES])
        assert row[UdpField.RECEIVED] == row[UdpField.REPLIED] + drops + failures + row[UdpField.HELD]


def send(served: UdpWorker, client: socket.socket, *payloads: bytes) -> None:
    """Send datagrams, so that all are queued in this order."""
    for data in payloads:
        deliver(served.sock, client.sendto, data, served.address)


def send_as_train(served: UdpWorker, client: socket.socket, data: bytes = TRAIN, segment: int = 2) -> None:
    """Send datagrams as one train."""
    deliver(served.sock, send_train, client, data, segment, served.address)
