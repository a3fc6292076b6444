"""The counters of all workers over the daemon's life, by listener.

Owns the numbers of past generations; reads those of living ones from their pages. Invariant: a number that was read
once never becomes smaller.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

from echod.net.listener import Listener, Protocol
from echod.net.mode import PLAIN, ListenerOptions
from echod.stats.counters import ROW_FIELDS, UDP_DROPS, UDP_SEND_FAILURES, CounterPage, TcpField, UdpField
from echod.stats.snapshot import Rates, TcpTraffic, UdpTraffic
from echod.stats.traffic import describe_tcp, describe_udp
from echod.stats.watch import PageWatch

_NOTHING: Final = [0] * ROW_FIELDS


class Totals:
    """A row of counters for each listener that was ever served."""

    def __init__(self) -> None:
        """Start at zero."""
        self._gone: dict[Listener, list[int]] = {}

    def take_over(self, page: CounterPage) -> None:
        """Keep the numbers of a generation whose last worker has exited."""
        self._gone = self.rows([page])

    def rows(self, living: Iterable[CounterPage]) -> dict[Listener, list[int]]:
        """Return the rows of all listeners since the start, including the living pages."""
        pages = list(living)
        listeners = dict.fromkeys([*self._gone, *(listener for page in pages for listener in page.listeners)])
        return {listener: self.row(listener, pages) for listener in listeners}

    def row(self, listener: Listener, living: Iterable[CounterPage]) -> list[int]:
        """Return the row of one listener, including the living pages."""
        rows: list[Sequence[int]] = [self._gone.get(listener, _NOTHING)]
        rows += [row for page in living for row in page.shares(listener)]
        total = list(map(sum, zip(*rows, strict=True)))
        if listener.protocol is Protocol.UDP:
            total[UdpField.FIRST_AT] = min(filter(None, (row[UdpField.FIRST_AT] for row in rows)), default=0)
            total[UdpField.LAST_AT] = max(row[UdpField.LAST_AT] for row in rows)
        return total

    def datagrams(self, living: Iterable[CounterPage]) -> int:
        """Return how many datagrams have been received."""
        gone = sum(row[UdpField.RECEIVED] for listener, row in self._gone.items() if listener.protocol is Protocol.UDP)
        return gone + sum(page.datagrams() for page in living)

    def sums(self, living: Iterable[CounterPage], kernel_drops: Callable[[Listener], int]) -> dict[str, int]:
        """Return the most important numbers, summed over all listeners."""
        rows = self.rows(living)
        udp = [row for listener, row in rows.items() if listener.protocol is Protocol.UDP]
        tcp = [row for listener, row in rows.items() if listener.protocol is Protocol.TCP]
        sums = {
            "datagrams_received": sum(row[UdpField.RECEIVED] for row in udp),
            "datagrams_replied": sum(row[UdpField.REPLIED] for row in udp),
            "datagrams_dropped": sum(sum(row[UDP_DROPS]) for row in udp),
            "send_failures": sum(sum(row[UDP_SEND_FAILURES]) for row in udp),
            "kernel_drops": sum(map(kernel_drops, rows)),
        }
        if tcp:
            sums["connections"] = sum(row[TcpField.ACCEPTED] for row in tcp)
            sums["tcp_bytes"] = sum(row[TcpField.SENT_BYTES] for row in tcp)
        return sums


def read_traffic(
    totals: Totals,
    watches: Sequence[PageWatch],
    adopted: Collection[Listener],
    drops: Mapping[Listener, int],
    options: Mapping[Listener, ListenerOptions],
) -> tuple[list[UdpTraffic], list[TcpTraffic]]:
    """Describe all listeners, without rates: the reader computes them.

    `drops` are the kernel's; `options` has those of listeners that are not plain.
    """
    for watch in watches:
        watch.changed()  # for its check alone: it does not believe what a broken worker writes
    rows = totals.rows([watch.page for watch in watches])
    udp = [
        describe_udp(one, options.get(one, PLAIN), row, adopted=one in adopted, kernel_drops=drops[one], rate=Rates())
        for one, row in rows.items()
        if one.protocol is Protocol.UDP
    ]
    tcp = [
        describe_tcp(one, options.get(one, PLAIN), row, adopted=one in adopted, accepted=Rates(), octets=Rates())
        for one, row in rows.items()
        if one.protocol is Protocol.TCP
    ]
    return udp, tcp
