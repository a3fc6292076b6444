"""The totals of all workers over the daemon's life, and the log entries made of them.

Owns the numbers of past generations; reads those of living ones from their pages. Never changes a number.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import structlog

from echod.net.listener import Listener, Protocol
from echod.stats.counters import (
    ROW_FIELDS,
    UDP_DROPS,
    UDP_SEND_FAILURES,
    CounterPage,
    TcpField,
    UdpField,
    add,
    describe,
)
from echod.supervisor.listening import Holdings

TRAFFIC_SECONDS: Final = 60.0

_NOTHING: Final = [0] * ROW_FIELDS

_log = structlog.get_logger()


class Books:
    """Totals by listener."""

    def __init__(self, holdings: Holdings) -> None:
        """Start at zero. The kernel's drops are read from the sockets held."""
        self._holdings = holdings
        self._gone: dict[Listener, list[int]] = {}
        self._reported: dict[str, int] = {}
        self._traffic_due: float | None = None

    def take_over(self, page: CounterPage) -> None:
        """Keep the numbers of a generation whose last worker has exited."""
        add(self._gone, page.totals())

    def totals(self, living: Iterable[CounterPage]) -> dict[Listener, list[int]]:
        """Return the rows of all listeners since the start, including the living pages."""
        totals = {listener: list(row) for listener, row in self._gone.items()}
        for page in living:
            add(totals, page.totals())
        return totals

    def total(self, listener: Listener, living: Iterable[CounterPage]) -> list[int]:
        """Return the row of one listener, including the living pages."""
        rows: list[Sequence[int]] = [self._gone.get(listener, _NOTHING)]
        rows += [row for page in living for row in page.shares(listener)]
        return list(map(sum, zip(*rows, strict=True)))

    def datagrams(self, living: Iterable[CounterPage]) -> int:
        """Return how many datagrams have been received."""
        gone = sum(row[UdpField.RECEIVED] for listener, row in self._gone.items() if listener.protocol is Protocol.UDP)
        return gone + sum(page.datagrams() for page in living)

    def log_counters(self, living: Iterable[CounterPage]) -> None:
        """Log every number of every listener."""
        for listener, row in self.totals(living).items():
            drops = self._holdings.kernel_drops(listener)
            kernel = {"kernel_drops": drops} if listener.protocol is Protocol.UDP else {}
            _log.info("counters", listener=str(listener), **describe(listener, row), **kernel)

    def log_traffic(self, living: Iterable[CounterPage], now: float) -> None:
        """Log the sums, at most once a minute, if any has changed since the last entry."""
        if self._traffic_due is None or now < self._traffic_due:
            self._traffic_due = self._traffic_due or now + TRAFFIC_SECONDS
            return
        self._traffic_due = now + TRAFFIC_SECONDS
        sums = self._sums(living)
        if sums != self._reported:
            self._reported = sums
            _log.debug("traffic", **sums)

    def log_stopped(self) -> None:
        """Log the totals of the daemon's life."""
        _log.info("stopped", **self._sums(()))

    def _sums(self, living: Iterable[CounterPage]) -> dict[str, int]:
        totals = self.totals(living)
        udp = [row for listener, row in totals.items() if listener.protocol is Protocol.UDP]
        tcp = [row for listener, row in totals.items() if listener.protocol is Protocol.TCP]
        sums = {
            "datagrams_received": sum(row[UdpField.RECEIVED] for row in udp),
            "datagrams_replied": sum(row[UdpField.REPLIED] for row in udp),
            "datagrams_dropped": sum(sum(row[UDP_DROPS]) for row in udp),
            "send_failures": sum(sum(row[UDP_SEND_FAILURES]) for row in udp),
            "kernel_drops": sum(map(self._holdings.kernel_drops, totals)),
        }
        if tcp:
            sums["connections"] = sum(row[TcpField.ACCEPTED] for row in tcp)
            sums["tcp_bytes"] = sum(row[TcpField.SENT_BYTES] for row in tcp)
        return sums
