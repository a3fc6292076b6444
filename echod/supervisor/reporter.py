"""What the supervisor reports about itself: to the service manager, in the status file, and in log entries.

Owns the texts and the last report, never a decision. Invariant: every reload that `reloading` announces is ended by
`reloaded`, `rejected` or `stopping`, so neither the service manager nor `echod reload` waits for ever.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog

from echod import __version__
from echod.admission.selftest import SelfTest
from echod.config.diff import Plan
from echod.config.file import DEFAULT_PATH, Reading, shown
from echod.config.schema import Config
from echod.errors import ConfigError, EchodError, ExitCode, Mistake, plural
from echod.linux.sockets import Buffers, find_absence
from echod.linux.systemd import Notifier
from echod.net.endpoint import Endpoint
from echod.net.listener import Listener, Protocol
from echod.stats.rates import Rate
from echod.stats.snapshot import REJECTED, Activity, LastReload, Snapshot
from echod.status import files, instances
from echod.status.files import StatusFiles

MAX_LOGGED_MISTAKES: Final = 20
"""For one rejected reload; `echod check` shows all."""

STATUS_SECONDS: Final = 5.0
"""The least interval between updates of STATUS=, and the greatest between updates of the status file."""

_NO_PLACE: Final = (
    "no status is written, so `echod status` and `echod reload` do not find this echod: it is not root, and has "
    "neither RUNTIME_DIRECTORY nor XDG_RUNTIME_DIR; write a status.directory, or RuntimeDirectory=echod in its unit"
)

_log = structlog.get_logger()


class Announcer:
    """The reports of one daemon."""

    def __init__(self, *, path: Path | None, notifier: Notifier, environment: Mapping[str, str]) -> None:
        """Take the config's path, None for the default, and the service manager's notifier."""
        self._path = shown(path or DEFAULT_PATH)
        self._notifier = notifier
        self._environment = environment
        self._files = StatusFiles(None)
        self._place: Path | None = None
        self._born = instances.birth(os.getpid())
        self._started, self._started_monotonic = time.time(), instances.monotonic()
        self._config_read: float | None = None
        self._config_reading: float | None = None
        self._activity = Activity()
        self._serving = "not serving"
        self._said = ""
        self._refresh_due = 0.0
        self._write_due = 0.0
        self._watchdog_due = 0.0
        self._rate = Rate()
        self._begun = self._finished = self._generation = 0
        self._reload = LastReload()
        self.tell: Callable[[bytes], None] = lambda _snapshot: None
        """Called with every snapshot, in addition to the status file."""

    def starting(self, reading: Reading) -> None:
        """Log the start, where the config comes from, and where the status will be: `files.find` sends people here."""
        self._place = files.directory(self._environment, reading.config.status.directory)
        config = self._path if reading.path else "built-in defaults"
        where = {} if self._place is None else {"status": shown(self._place)}
        _log.info("starting", version=__version__, config=config, **where)
        if reading.path is None:
            _log.info("defaults_used", message=f"there is no {DEFAULT_PATH}: serving the built-in defaults")
        self._files = StatusFiles(self._place)
        if self._place is None:
            _log.info("status_not_written", message=_NO_PLACE)

    def reading(self, reading: Reading, adopted: Sequence[Listener]) -> None:
        """Log what is unreasonable in a config that is about to be used, and what of it cannot take effect."""
        self._config_reading = reading.at
        for warning in reading.warnings:
            place = f"{self._path}:{warning.line}:{warning.column}"
            _log.warning("config_warning", message=f"{place}: {warning}", key=warning.path)
        directory = reading.config.status.directory
        if files.directory(self._environment, directory) != self._place:
            _log.warning(
                "status_directory_ignored",
                message=f"{self._path}: status.directory: {directory} is read at start alone: restart echod, or write "
                f"what was there; until then the status stands in {self._place or 'no directory'}",
                key="status.directory",
            )
        for listener in adopted if reading.path else ():
            if listener not in reading.config.listeners:
                _log.warning(
                    "listener_not_configured",
                    message=f"{listener} is served, though {self._path} does not have it, for systemd holds it: to end "
                    f"that, remove {listener.unit_line} from the .socket unit (systemctl edit echod.socket) and "
                    "restart that and echod",
                    listener=str(listener),
                )

    def serving(
        self, listeners: Iterable[Listener], *, workers: int, generation: int, self_test: SelfTest | None
    ) -> None:
        """Note what is served from now on."""
        self._serving = _count(tuple(listeners), workers)
        self._generation = generation
        self._config_read = self._config_reading
        self._files.write_self_test(self_test.pack() if self_test is not None else None)

    def show(self, activity: Activity) -> None:
        """Write the daemon's activity to the status file."""
        self._activity = activity
        self._write()

    def ready(self) -> None:
        """Report that the daemon serves, for the first time."""
        self._tell(self._serving)
        _log.info("ready", message=f"ready: {self._serving}")

    def reloading(self) -> None:
        """Report that a reload begins."""
        self._begun += 1
        self._write()
        self._notifier.reloading()
        _log.info("reloading", config=self._path)

    def reloaded(self, changed: Sequence[str]) -> None:
        """Report that the new config serves, and what has changed."""
        changed = changed or ["nothing"]
        _log.info("reloaded", changed=changed, generation=self._generation)
        self._tell(self._serving)
        self._finish(ExitCode.OK, f"reloaded; changed: {', '.join(changed)}")

    def rejected(self, error: EchodError) -> None:
        """Report why the previous config stays in force, one entry per mistake. READY=1 is sent: the reload is over."""
        mistakes = error.mistakes if isinstance(error, ConfigError) else ()
        lines = [self._placed(each) for each in mistakes[:MAX_LOGGED_MISTAKES]]
        for line, mistake in zip(lines, mistakes, strict=False):
            _log.error("reload_rejected", message=f"reload rejected: {line}", file_line=mistake.line, key=mistake.path)
        if len(mistakes) > MAX_LOGGED_MISTAKES:
            lines.append(f"{len(mistakes) - MAX_LOGGED_MISTAKES:,} more mistakes; see echod check")
            _log.error("reload_rejected", message=f"reload rejected: {lines[-1]}")
        if not mistakes:
            lines.append(str(error))
            _log.error("reload_rejected", message=f"reload {REJECTED}: {lines[-1]}")
        self._tell(f"reload {REJECTED}: {lines[0]}")
        self._finish(error.exit_code, "\n".join(lines))

    def stopping(self, seconds: float) -> None:
        """Report that the drain begins, and how long it may take."""
        self._notifier.stopping("draining", seconds)
        self._files.remove()

    def stopped(self) -> None:
        """Say that it is over; what was said last stands in `systemctl status` until the next start."""
        self._notifier.status("stopped")

    def failed(self, error: EchodError) -> None:
        """Say why there is no service: between two attempts to start, `systemctl status` has no line of the journal."""
        reason = self._placed(error.mistakes[0]) if isinstance(error, ConfigError) else str(error)
        self._notifier.status(_plain(f"does not start: {reason}"))

    def catch_up(self) -> None:
        """Resend to the service manager what its queue had no room for. Call it once a second."""
        self._notifier.catch_up()

    def refresh(self, datagrams: Callable[[], int], now: float) -> None:
        """Update the status file and STATUS=, when they are due; STATUS= only if the line has changed.

        `datagrams` returns the datagrams received since the start; it is called only when STATUS= is due.
        """
        if now >= self._write_due:
            self._write()  # although nothing has changed, to show readers that the daemon is alive
        if now < self._refresh_due:
            return
        self._refresh_due = now + STATUS_SECONDS
        line = f"{self._serving}; {self._rate.per_second(datagrams(), now):,} datagrams/s"
        workers = self._activity.workers
        if missing := sum(worker.pid is None for worker in workers):
            line += f"; {missing} of {len(workers)} workers missing"
        if self._reload.code != ExitCode.OK:
            line += "; the last reload was rejected, see the journal"
        if line != self._said:
            self._said = line
            self._notifier.status(line)

    def alive(self, now: float) -> None:
        """Notify the watchdog, if there is one and it is due."""
        seconds = self._notifier.watchdog_seconds
        if seconds is not None and now >= self._watchdog_due:
            self._watchdog_due = now + seconds / 3
            self._notifier.watchdog()

    def _tell(self, line: str) -> None:
        """Send READY=1 with this status line."""
        self._said = line
        self._notifier.ready(_plain(line))

    def _placed(self, mistake: Mistake) -> str:
        return f"{self._path}:{mistake.line}:{mistake.column}: error: {mistake}"

    def _finish(self, code: int, text: str) -> None:
        """Publish the outcome of a reload for `echod reload`."""
        self._finished += 1
        self._reload = LastReload(at=time.time(), code=code, text=text)
        self._write()

    def _write(self) -> None:
        snapshot = Snapshot(
            version=__version__,
            pid=os.getpid(),
            born=self._born,
            at=time.time(),
            at_monotonic=instances.monotonic(),
            started=self._started,
            started_monotonic=self._started_monotonic,
            generation=self._generation,
            config=self._path,
            config_read=self._config_read,
            reloads_begun=self._begun,
            reloads_finished=self._finished,
            reload=self._reload,
            activity=self._activity,
        )
        self._write_due = time.monotonic() + STATUS_SECONDS
        packed = snapshot.pack()
        self._files.write(packed)
        self.tell(packed)


def _plain(line: str) -> str:
    return line.encode("ascii", "replace").decode()


def _count(listeners: Sequence[Listener], workers: int) -> str:
    """Describe what is served in one line."""
    counts = {protocol.value: sum(each.protocol is protocol for each in listeners) for protocol in Protocol}
    parts = " and ".join(f"{number} {protocol}" for protocol, number in counts.items() if number)
    return f"serving {parts} {plural(len(listeners), 'listener')} with {workers} {plural(workers, 'worker')}"


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
