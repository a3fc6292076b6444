"""The messages to the service manager: the state of the daemon, the line of `systemctl status`, the watchdog.

Owns the line and the times of its updates. Invariant: the line is plain ASCII, and is sent only when it has changed.
"""

from collections.abc import Callable, Sequence
from time import monotonic_ns
from typing import Final

from echod.linux.systemd import Notifier
from echod.stats.rates import Rate
from echod.stats.snapshot import REJECTED

STATUS_LINE_SECONDS: Final = 5.0
"""The least interval between updates of the line."""


class StatusLine:
    """The messages to the service manager."""

    def __init__(self, notifier: Notifier) -> None:
        """Send nothing yet."""
        self._notifier = notifier
        self._serving = "not serving"
        self._rejected = False
        self._sent = ""
        self._rate = Rate()
        self._update_due = self._watchdog_due = 0.0

    def ready(self, serving: str) -> None:
        """Report that the daemon serves, and what; this also ends a reload."""
        self._serving, self._rejected = serving, False
        self._send_ready(serving)

    def reloading(self) -> None:
        """Report that a reload begins. systemd 253 and later match READY=1 with MONOTONIC_USEC."""
        self._notifier.send("RELOADING=1", f"MONOTONIC_USEC={monotonic_ns() // 1000}")

    def rejected(self, reason: str) -> None:
        """Report that a reload was rejected. READY=1 is sent: the reload is over."""
        self._rejected = True
        self._send_ready(f"reload {REJECTED}: {reason}")

    def stopping(self, seconds: float) -> None:
        """Report that the drain begins, and how long it may take, whatever TimeoutStopSec= says."""
        self._notifier.send("STOPPING=1", "STATUS=draining", f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def stopped(self) -> None:
        """Report the end: `systemctl status` shows the last line until the next start."""
        self._notifier.send("STATUS=stopped")

    def failed(self, reason: str) -> None:
        """Report why there is no service: between two starts, `systemctl status` shows no line of the journal."""
        self._notifier.send(f"STATUS={_ascii(f'does not start: {reason}')}")

    def catch_up(self) -> None:
        """Send what the service manager's queue had no room for. Call it once a second."""
        self._notifier.catch_up()

    def refresh(self, datagrams: Callable[[], int], pids: Sequence[int | None], now: float) -> None:
        """Update the line, if that is due. `pids` has the process id of each worker, or None for one that is missing.

        `datagrams` returns the datagrams received since the start; it is called only when the update is due.
        """
        if now < self._update_due:
            return
        self._update_due = now + STATUS_LINE_SECONDS
        line = f"{self._serving}; {self._rate.per_second(datagrams(), now):,} datagrams/s"
        if missing := pids.count(None):
            line += f"; {missing} of {len(pids)} workers missing"
        if self._rejected:
            line += "; the last reload was rejected, see the journal"
        if line != self._sent:
            self._sent = line
            self._notifier.send(f"STATUS={line}")

    def alive(self, now: float) -> None:
        """Notify the watchdog, if there is one and it is due."""
        seconds = self._notifier.watchdog_seconds
        if seconds is not None and now >= self._watchdog_due:
            self._watchdog_due = now + seconds / 3
            self._notifier.watchdog()

    def _send_ready(self, line: str) -> None:
        self._sent = line
        self._notifier.send("READY=1", f"STATUS={_ascii(line)}")


def _ascii(line: str) -> str:
    return line.encode("ascii", "replace").decode()
