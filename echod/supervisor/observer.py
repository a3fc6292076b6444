"""The daemon's view of its own traffic, renewed when something has changed.

Owns the workers' reports of top and refused sources, and the rates. It reads the counters and changes none; the
publisher distributes the result. Invariant: a look at an idle daemon finds that it is idle without reading the numbers
of each listener.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from echod.net.listener import Listener, Protocol
from echod.net.mode import PLAIN
from echod.stats.counters import CounterPage, TcpField, UdpField
from echod.stats.outcomes import reason_name
from echod.stats.rates import History
from echod.stats.refusals import Report
from echod.stats.snapshot import Activity, Rates, Refused, TcpTraffic, TopSource, UdpTraffic, WorkerState
from echod.stats.top_sources import LastMinute
from echod.stats.totals import Totals
from echod.stats.traffic import describe_tcp, describe_udp
from echod.stats.watch import PageWatch
from echod.supervisor.listening import ListeningSockets
from echod.supervisor.refusal_log import RefusalLog

KERNEL_SECONDS: Final = 10.0
"""Interval between reads of the kernel's drops for idle listeners. With traffic, or with a stuck worker, they are read
at each look, so this is only for listeners whose every datagram is dropped, for example for its checksum."""


@dataclass(slots=True)
class _Observed:
    """One listener, as of the last look."""

    listener: Listener
    traffic: UdpTraffic | TcpTraffic | None = None
    histories: tuple[History, ...] = ()
    changing: bool = True
    """Whether it has not been read yet, or a rate is still above zero."""


class Observer:
    """The observer of one supervisor."""

    def __init__(
        self,
        listening: ListeningSockets,
        totals: Totals,
        refusal_log: RefusalLog,
        restarts: Counter[int],
        now: float,
    ) -> None:
        """Start at a monotonic time in seconds. `restarts` counts the workers that were replaced, by slot."""
        self._listening = listening
        self._totals = totals
        self._refusal_log = refusal_log
        self._restarts = restarts
        self._top_sources: LastMinute[str] = LastMinute(now)
        self._refused: LastMinute[tuple[str, Protocol, str]] = LastMinute(now)
        self._watches: dict[CounterPage, PageWatch] = {}
        self._listeners: Sequence[Listener] = ()
        self._observed: list[_Observed] = []
        self._due: set[Listener] = set()
        self._dropped: dict[Listener, int] = {}
        """The datagrams that the kernel had dropped at the last look, by listener."""
        self._before = self._kernel_due = now
        self._workers: list[WorkerState] = []

    # -- reports of workers

    def add_top_sources(self, sources: Iterable[tuple[str, int]]) -> None:
        """Add a worker's report of its top sources."""
        self._top_sources.add(sources)

    def add_refusals(self, listener: Listener, report: Report) -> None:
        """Add a worker's report of the sources that it refused at a listener, and why.

        Raises ValueError if there is no such reason.
        """
        reason = reason_name(listener.protocol, report.reason)
        self._refusal_log.add(listener, report)
        self._refused.add(((source, listener.protocol, reason), count) for source, count in report.sources.items())

    def take_over(self, page: CounterPage) -> None:
        """Keep the numbers of a generation whose last worker has exited."""
        self._totals.take_over(page)
        self._watches.pop(page, None)
        self._due.update(page.listeners)  # for what came in since the last look

    # -- the snapshot

    def watch(self, page: CounterPage) -> PageWatch:
        """Return the watch over a page."""
        return self._watches.setdefault(page, PageWatch(page))

    def look(
        self, listeners: Sequence[Listener], pages: Sequence[CounterPage], workers: tuple[WorkerState, ...], now: float
    ) -> Activity | None:
        """Return the activity of these listeners, or None if nothing has changed since the last look."""
        due, self._due = self._due.union(*(self.watch(page).changed() for page in pages)), set()
        moved = listeners is not self._listeners
        if moved:
            known = {one.listener: one for one in self._observed}
            self._observed = [known.get(listener) or _Observed(listener) for listener in listeners]
            self._listeners = listeners
            for one in self._observed:
                one.changing = True  # its mode may be another one
        ask_kernel = now >= self._kernel_due or any(worker.heartbeat_age_seconds for worker in workers)
        if ask_kernel:
            self._kernel_due = now + KERNEL_SECONDS
        for one in self._observed:
            if one.changing or (due and one.listener in due) or (ask_kernel and self._dropped_more(one)):
                before = one.traffic
                self._read(one, pages, now)
                moved = moved or one.traffic != before
        # Call all in any case: they forget what is old.
        others = [self._top_sources.moved(now), self._refused.moved(now), self._workers_changed(workers)]
        self._before = now
        return self._activity(workers) if moved or any(others) else None

    def _dropped_more(self, one: _Observed) -> bool:
        """Return whether the kernel has dropped more for a listener on which no worker counted anything."""
        seen = one.traffic
        return isinstance(seen, UdpTraffic) and self._listening.kernel_drops(one.listener) != seen.kernel_drops

    def _workers_changed(self, workers: Sequence[WorkerState]) -> bool:
        """Return whether anything but the CPU time has changed, which each look itself increases."""
        before, self._workers = self._workers, [replace(worker, cpu_seconds=0.0) for worker in workers]
        return before != self._workers

    def _read(self, one: _Observed, pages: Sequence[CounterPage], now: float) -> None:
        """Read the numbers of a listener."""
        listener = one.listener
        row = self._totals.row(listener, pages)
        adopted, options = listener in self._listening.adopted, self._listening.options.get(listener, PLAIN)
        if listener.protocol is Protocol.UDP:
            (rate,) = rates = self._rates(one, [row[UdpField.RECEIVED]], now)
            drops = self._listening.kernel_drops(listener)
            # What a passed socket dropped before this echod was started is not logged.
            before = self._dropped.get(listener, drops if adopted else 0)
            self._dropped[listener] = drops
            self._refusal_log.add_kernel_drops(listener, drops - before)
            one.traffic = describe_udp(listener, options, row, adopted=adopted, kernel_drops=drops, rate=rate)
        else:
            rates = self._rates(one, [row[TcpField.ACCEPTED], row[TcpField.RECEIVED_BYTES]], now)
            one.traffic = describe_tcp(listener, options, row, adopted=adopted, accepted=rates[0], octets=rates[1])
        one.changing = any(rate != Rates() for rate in rates)

    def _rates(self, one: _Observed, counts: Sequence[int], now: float) -> list[Rates]:
        if not one.histories:
            one.histories = tuple(History(count, now) for count in counts)
        for history, count in zip(one.histories, counts, strict=True):
            history.note(count, now, self._before)
        return [history.rates(now) for history in one.histories]

    def _activity(self, workers: tuple[WorkerState, ...]) -> Activity:
        traffic = [one.traffic for one in self._observed]
        return Activity(
            udp=tuple(each for each in traffic if isinstance(each, UdpTraffic)),
            tcp=tuple(each for each in traffic if isinstance(each, TcpTraffic)),
            workers=workers,
            worker_restarts=self._restarts.total(),
            top_sources=tuple(TopSource(source=source, count=count) for source, count in self._top_sources.top()),
            refused=tuple(
                Refused(source=source, protocol=protocol.value, reason=reason, count=count)
                for (source, protocol, reason), count in self._refused.top()
            ),
        )
