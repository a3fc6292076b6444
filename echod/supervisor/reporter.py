"""What happens to the daemon and its config: log entries, messages to the service manager, status file and title.

Owns the texts, the line of `systemctl status` and the times of its updates, never a decision. Invariants: every reload
that `reloading` reports is ended by `reloaded`, `rejected` or `stopping`, so neither the service manager nor `echod
reload` waits for ever; the line is plain ASCII, and is sent only when it has changed.
"""

from collections.abc import Callable, Iterable, MutableMapping, Sequence
from pathlib import Path
from time import monotonic_ns
from typing import Final

import structlog
from setproctitle import setproctitle

from echod import __version__
from echod.admission.selftest import SelfTest
from echod.config.diff import Plan
from echod.config.file import Reading
from echod.config.location import DEFAULT_PATH, shown
from echod.config.schema import Config
from echod.config.socket_unit import Units
from echod.errors import ConfigError, EchodError, ExitCode, Mistake, plural
from echod.linux.sockets import Buffers, find_absence
from echod.linux.systemd import Notifier
from echod.net.listener import Endpoint, Listener, Protocol
from echod.stats.counters import CounterPage, describe
from echod.stats.rates import Rate
from echod.stats.snapshot import REJECTED
from echod.stats.totals import Totals
from echod.status import files, instances
from echod.status.publisher import Publisher

MAX_LOGGED_MISTAKES: Final = 20
"""For one rejected reload; `echod check` shows all."""

TRAFFIC_SECONDS: Final = 60.0

STATUS_LINE_SECONDS: Final = 5.0
"""The least interval between updates of the line of `systemctl status`."""

_NO_DIRECTORY: Final = (
    "no status is written, so `echod status` and `echod reload` do not find this echod: it is not root, and has "
    "neither RUNTIME_DIRECTORY nor XDG_RUNTIME_DIR; write a status.directory, or RuntimeDirectory= in its unit"
)

_log = structlog.get_logger()


class Reporter:
    """The reports of one daemon."""

    def __init__(self, config: str, units: Units, environment: MutableMapping[str, str], publisher: Publisher) -> None:
        """Take the config's path, as it is shown, and the units of this echod, for messages."""
        self._config = config
        self._units = units
        self._environment = environment
        self._notifier = Notifier(environment)
        self._publisher = publisher
        self._directory: Path | None = None
        self._serving = ""
        self._rejected = False
        self._sent = ""
        self._rate = Rate()
        self._line_due = self._watchdog_due = 0.0

    def starting(self, reading: Reading) -> None:
        """Report the start, where the config comes from, and where the status is: `files.find` names this entry."""
        self._directory = files.directory(self._environment, reading.config.status.directory)
        self.entitle(reading)
        config = self._config if reading.path else "built-in defaults"
        status = {} if self._directory is None else {"status": shown(self._directory)}
        _log.info("starting", version=__version__, config=config, **status)
        if reading.path is None:
            _log.info("defaults_used", message=f"there is no {DEFAULT_PATH}: serving the built-in defaults")
        if self._directory is None:
            _log.info("status_not_written", message=_NO_DIRECTORY)
        self._publisher.start(self._directory)

    def entitle(self, reading: Reading) -> None:
        """Show in the title of this process which config is in force."""
        setproctitle(instances.title(self._config if reading.path else None))

    def reading(self, reading: Reading, adopted: Iterable[Listener]) -> None:
        """Report what is unreasonable in a config that is about to be used, and what of it has no effect."""
        for warning in reading.warnings:
            where = f"{self._config}:{warning.line}:{warning.column}"
            _log.warning("config_warning", message=f"{where}: {warning}", key=warning.path)
        directory = reading.config.status.directory
        if files.directory(self._environment, directory) != self._directory:
            _log.warning(
                "status_directory_ignored",
                message=f"{self._config}: status.directory: {directory} is read only at the start: restart echod, or "
                f"write the previous value; until then the status is in {self._directory or 'no directory'}",
                key="status.directory",
            )
        for listener in adopted if reading.path else ():
            if listener not in reading.config.listeners:
                _log.warning(
                    "listener_not_configured",
                    message=f"{listener} is served although {self._config} does not have it, because systemd holds "
                    f"it: to end that, remove {listener.unit_line} from {self._units.socket} (systemctl edit "
                    f"{self._units.socket}) and restart that and {self._units.service}",
                    listener=str(listener),
                )

    def descriptors(self, wanted: int, *, limit: int) -> None:
        """Report a limit of descriptors that is lower than what the config can need."""
        if limit < wanted:
            _log.warning(
                "descriptors_capped",
                message=f"this config can need {wanted:,} file descriptors and the limit is {limit:,}: raise "
                "LimitNOFILE= or lower tcp.max_connections; until then some connections wait to be accepted",
                wanted=wanted,
                limit=limit,
            )

    def serving(
        self,
        listeners: Sequence[Listener],
        workers: int,
        generation: int,
        self_test: SelfTest | None,
        read: float | None,
    ) -> None:
        """Take over what is served from now on, with a config that was read at this time."""
        counts = {protocol.value: sum(each.protocol is protocol for each in listeners) for protocol in Protocol}
        parts = " and ".join(f"{number} {protocol}" for protocol, number in counts.items() if number)
        noun = plural(len(listeners), "listener")
        self._serving = f"serving {parts} {noun} with {workers} {plural(workers, 'worker')}"
        self._publisher.serving(generation, self_test, read)

    def ready(self) -> None:
        """Report that the daemon serves, for the first time."""
        self._send_ready(self._serving)
        _log.info("ready", message=f"ready: {self._serving}")

    def reloading(self) -> None:
        """Report that a reload begins. systemd 253 and later match READY=1 with MONOTONIC_USEC."""
        self._publisher.reload_begun()
        self._notifier.send("RELOADING=1", f"MONOTONIC_USEC={monotonic_ns() // 1000}")
        _log.info("reloading", config=self._config)

    def reloaded(self, changed: Sequence[str], generation: int) -> None:
        """Report that the new config serves, and what has changed."""
        changed = changed or ["nothing"]
        _log.info("reloaded", changed=changed, generation=generation)
        self._rejected = False
        self._send_ready(self._serving)
        self._publisher.reload_finished(ExitCode.OK, f"reloaded; changed: {'; '.join(changed)}")

    def rejected(self, error: EchodError) -> None:
        """Report why the previous config stays in force, one entry per mistake. READY=1 is sent: the reload is over."""
        mistakes = error.mistakes if isinstance(error, ConfigError) else ()
        lines = [self._located(each) for each in mistakes[:MAX_LOGGED_MISTAKES]]
        for line, mistake in zip(lines, mistakes, strict=False):
            _log.error("reload_rejected", message=f"reload rejected: {line}", file_line=mistake.line, key=mistake.path)
        if len(mistakes) > MAX_LOGGED_MISTAKES:
            lines.append(f"{len(mistakes) - MAX_LOGGED_MISTAKES:,} more mistakes; see echod check")
            _log.error("reload_rejected", message=f"reload rejected: {lines[-1]}")
        if not mistakes:
            lines.append(str(error))
            _log.error("reload_rejected", message=f"reload {REJECTED}: {lines[-1]}")
        self._rejected = True
        self._send_ready(f"reload {REJECTED}: {lines[0]}")
        self._publisher.reload_finished(error.exit_code, "\n".join(lines))

    def stopping(self, seconds: float) -> None:
        """Report that the drain begins, and how long it may take, whatever TimeoutStopSec= says."""
        self._notifier.send("STOPPING=1", "STATUS=draining", f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")
        self._publisher.remove()

    def stopped(self) -> None:
        """Report the end: `systemctl status` shows the last line until the next start."""
        self._notifier.send("STATUS=stopped")

    def failed(self, error: EchodError) -> None:
        """Report why the daemon does not start, but not in the log: the code that catches the error does that.

        Between two starts, `systemctl status` shows no line of the journal.
        """
        reason = self._located(error.mistakes[0]) if isinstance(error, ConfigError) else str(error)
        self._notifier.send(f"STATUS={_ascii(f'does not start: {reason}')}")

    def catch_up(self) -> None:
        """Send what the service manager's queue had no room for. Call it once a second."""
        self._notifier.catch_up()

    def refresh(self, datagrams: Callable[[], int], pids: Sequence[int | None], now: float) -> None:
        """Update the line, if that is due. `pids` has the process id of each worker, or None for one that is missing.

        `datagrams` returns the datagrams received since the start; it is called only when the update is due.
        """
        if now < self._line_due:
            return
        self._line_due = now + STATUS_LINE_SECONDS
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

    def _located(self, mistake: Mistake) -> str:
        return f"{self._config}:{mistake.line}:{mistake.column}: error: {mistake}"


def _ascii(line: str) -> str:
    return line.encode("ascii", "replace").decode()


class CounterLog:
    """The log entries about counters."""

    def __init__(self, totals: Totals, kernel_drops: Callable[[Listener], int]) -> None:
        """Take the counters, and a function that returns the kernel's drops at a listener."""
        self._totals = totals
        self._kernel_drops = kernel_drops
        self._logged: dict[str, int] = {}
        self._due: float | None = None

    def log_all(self, living: Iterable[CounterPage]) -> None:
        """Log every number of every listener."""
        for listener, row in self._totals.rows(living).items():
            drops = {"kernel_drops": self._kernel_drops(listener)} if listener.protocol is Protocol.UDP else {}
            _log.info("counters", listener=str(listener), **describe(listener, row), **drops)

    def log_due(self, living: Iterable[CounterPage], now: float) -> None:
        """Log the sums, at most once a minute, if any has changed since the last entry."""
        if self._due is None or now < self._due:
            self._due = self._due or now + TRAFFIC_SECONDS
            return
        self._due = now + TRAFFIC_SECONDS
        sums = self._totals.sums(living, self._kernel_drops)
        if sums != self._logged:
            self._logged = sums
            _log.debug("traffic", **sums)

    def log_stopped(self) -> None:
        """Log the sums of the daemon's life."""
        _log.info("stopped", **self._totals.sums((), self._kernel_drops))


def log_listeners(plan: Plan, metrics: Iterable[Endpoint]) -> None:
    """Log the listeners that were added and removed, and the addresses that this host does not have yet."""
    for listener in plan.open:
        _log.info("listener_bound", listener=str(listener))
        _log_absence(listener, str(listener))
    for endpoint in metrics:
        _log_absence(endpoint.listener, f"metrics.listen: {endpoint}")
    for listener in plan.close:
        _log.info("listener_closed", listener=str(listener))


def _log_absence(listener: Listener, name: str) -> None:
    if reason := find_absence(listener):
        message = f"{name} {reason}: it is bound all the same, and served when this host has it"
        _log.warning("address_absent", message=message, listener=name)


def log_buffers(asked: Buffers, got: Buffers | None) -> None:
    """Log for each buffer, not for each socket, that the kernel granted less than the config asks for.

    Not for the defaults, which nobody asked for.
    """
    if got is None:
        return
    usual = Config().udp
    for name, wanted, default, granted, limit, directive in (
        ("receive_buffer", asked.receive, usual.receive_buffer, got.receive, "rmem_max", "ReceiveBuffer="),
        ("send_buffer", asked.send, usual.send_buffer, got.send, "wmem_max", "SendBuffer="),
    ):
        if granted < wanted != default:
            _log.warning(
                "buffer_capped",
                message=f"udp.{name} asks for {wanted:,} bytes and the kernel grants {granted:,}: write sysctl "
                f"net.core.{limit}={wanted}, or {directive}{wanted} into the .socket unit",
                key=f"udp.{name}",
                asked=wanted,
                granted=granted,
            )
