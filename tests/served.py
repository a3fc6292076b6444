"""A UDP socket served by hand: real datagrams, its row of the counters, and a time that the test says."""

import socket
from collections.abc import Callable
from ipaddress import ip_network

from loopback import at, listener

from echod.batch import Batch
from echod.core.admission import Access, Admission, Rules
from echod.core.counters import SEND_ERRORS, CounterPage, UdpField, describe
from echod.core.loops import Circulation
from echod.core.ratelimit import RateLimit
from echod.core.tally import Tally
from echod.port import Port
from echod.udp import UdpEcho

LISTENER = listener()
BATCH = Batch()


def rules(*own_ports: int, allow: str = "127.0.0.0/8") -> Rules:
    """Make rules that let all of IPv6 and one network of IPv4 in."""
    access = Access(allow=[ip_network(allow), ip_network("::/0")], deny=[])
    return Rules(access, own_ports=own_ports, min_source_port=1024, refuse_source_ports=[1900])


def rate_limit(per_source: int, burst: int, total: int | None = None) -> RateLimit:
    """Make a limit of so many datagrams a second."""
    memory = memoryview(bytearray(RateLimit.size(1024)))
    return RateLimit(memory, sources=1024, per_source=per_source, burst=burst, total=total)


class Served:
    """A UDP socket served by hand."""

    def __init__(  # noqa: PLR0913 - each is one of the rules under test
        self,
        sock: socket.socket,
        *own_ports: int,
        allow: str = "0.0.0.0/0",
        limit: RateLimit | None = None,
        spare: Callable[[int], int] = lambda _refused: 0,
        loop_breaker: bool = True,
        batch: Batch = BATCH,
    ) -> None:
        """Serve on this socket, whose port is always one of our own. Each batch is counted, not one in eight."""
        size = CounterPage.size(slots=1, listeners=1, places=0)
        page = CounterPage(memoryview(bytearray(size)), slots=1, listeners=[LISTENER], places=0)
        self.row = page.row(0, LISTENER)
        self.sock = sock
        self.tally = Tally(0)
        own = rules(sock.getsockname()[1], *own_ports, allow=allow)
        circulation = Circulation(sources=1024) if loop_breaker else None
        self.admission = Admission(own, sources=1024, limit=limit, spare=spare, circulation=circulation)
        self.echo = UdpEcho(Port(sock), batch, self.admission, self.row, self.tally)

    @property
    def address(self) -> tuple[str, int]:
        """Where a client of this host asks."""
        return at(self.sock, "::1" if self.sock.family == socket.AF_INET6 else "127.0.0.1")

    def turn(self, now: float = 0.0) -> dict[str, int]:
        """Answer what is queued; return the row by name. Asserts that received = replied + drops + failures."""
        self.echo.on_readable(now)
        row = self.row
        drops = sum(row[UdpField.DROPPED : UdpField.SEND_FAILED])
        failures = sum(row[UdpField.SEND_FAILED : UdpField.SEND_FAILED + len(SEND_ERRORS) + 1])
        assert row[UdpField.RECEIVED] == row[UdpField.REPLIED] + drops + failures
        assert row[UdpField.REPLIED_BYTES] <= row[UdpField.RECEIVED_BYTES]
        return describe(LISTENER, row)
