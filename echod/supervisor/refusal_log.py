"""Refused sources, and full queues, in a few log entries: one for each listener and reason, at most every ten seconds.

Owns the text and the rate of the entries, and the pending summaries. The exact numbers are in the counters page.
Invariant: however much is refused, from however many sources, the log grows by at most MAX_ENTRIES entries a second and
the memory here is bounded.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import structlog

from echod.errors import plural
from echod.net.listener import Listener, Protocol
from echod.stats.outcomes import Drop, reason_name
from echod.stats.refusals import Report

SUMMARY_SECONDS: Final = 10.0
"""Interval between entries for one listener and reason."""

MAX_ENTRIES: Final = 10
"""Most entries at one call; calls are a second apart. The other summaries wait for the next call."""

MAX_SOURCES: Final = 1024
"""Addresses remembered for one entry."""

_ADVICE: Final = {
    Drop.SOURCE_PORT_OWN: "echod listens on their source port: let honest clients send from another port",
    Drop.SOURCE_PORT_LOW: "their source port is below guard.min_source_port: let honest clients send from a higher "
    "port (nping sends from 53: use -g 40000)",
    Drop.SOURCE_PORT_REFUSED: "guard.refuse_source_ports has their source port: let honest clients send from another "
    "port",
}
"""What an honest client can do to be answered."""

_QUEUE_FULL: Final = None
"""In place of a reason, for datagrams that the kernel dropped."""

_log = structlog.get_logger()


@dataclass(slots=True)
class _Summary:
    """The pending entry for one listener and reason."""

    refused: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    more: bool = False
    due: float = 0.0


class RefusalLog:
    """Gathers the reports of all workers."""

    def __init__(self) -> None:
        """Start empty."""
        self._summaries: dict[tuple[Listener, int | None], _Summary] = {}

    def add(self, listener: Listener, report: Report) -> None:
        """Add a worker's report for a listener."""
        summary = self._summaries.setdefault((listener, report.reason), _Summary())
        summary.refused += report.refused
        summary.more = summary.more or report.more
        for source, refused in report.sources.items():
            if source in summary.sources or len(summary.sources) < MAX_SOURCES:
                summary.sources[source] += refused
            else:
                summary.more = True

    def add_kernel_drops(self, listener: Listener, count: int) -> None:
        """Add what the kernel has dropped before it was received: datagrams or trains, for it counts either as one."""
        if count > 0:
            self._summaries.setdefault((listener, _QUEUE_FULL), _Summary()).refused += count

    def log_due(self, now: float) -> None:
        """Log the summaries that are due, the longest due first. Call it once a second, and at the end with `inf`."""
        waiting = [key for key, each in self._summaries.items() if each.refused and each.due <= now]
        for key in sorted(waiting, key=lambda key: self._summaries[key].due)[:MAX_ENTRIES]:
            listener, reason = key
            if reason is _QUEUE_FULL:
                _log_kernel_drops(listener, self._summaries[key].refused)
            else:
                _log_summary(listener, reason, self._summaries[key])
            self._summaries[key] = _Summary(due=now + SUMMARY_SECONDS)


def _log_kernel_drops(listener: Listener, count: int) -> None:
    _log.warning(
        "queue_full",
        message=f"the kernel dropped at least {count:,} {plural(count, 'datagram')} at {listener} before echod "
        f"received {'it' if count == 1 else 'them'} (a train counts as one), most likely because the queue was full: "
        "raise udp.receive_buffer, or workers if they are busy",
        listener=str(listener),
        dropped=count,
    )


def _log_summary(listener: Listener, reason: int, summary: _Summary) -> None:
    udp = listener.protocol is Protocol.UDP
    name = reason_name(listener.protocol, reason)
    what = plural(summary.refused, "datagram" if udp else "connection")
    top, times = summary.sources.most_common(1)[0]
    count = len(summary.sources)
    sources = f"{'more than ' if summary.more else ''}{count:,} {plural(count, 'source')}"
    advice = f"; {_ADVICE[Drop(reason)]}" if udp and reason in _ADVICE else ""
    _log.warning(
        "refused",
        message=f"refused {summary.refused:,} {what} at {listener}: {name}, from {sources}, most from {top} "
        f"({times:,}){advice}",
        listener=str(listener),
        reason=name,
        refused=summary.refused,
        sources=count,
        more_sources=summary.more,
        top_source=top,
        top_source_refused=times,
    )
