"""The one permanent process: it holds the sockets, and starts, watches, replaces and drains the workers.

Owns the life of the daemon, single-threaded and synchronous, so that it can fork at any time. It answers no
datagram. Start, reload, recovery and stop are one path: acquire sockets, start workers, wait until each is ready,
commit. Invariant: nothing that serves is touched before commit, so every earlier failure leaves it unchanged.
"""

import signal
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final

import structlog

from echod import logs
from echod.config import file as configfile
from echod.config.diff import changes
from echod.config.file import Reading
from echod.config.schema import Config
from echod.errors import EchodError, StartFailedError
from echod.linux.cgroups import cpu_limits, process_limits
from echod.linux.descriptors import allow_descriptors
from echod.linux.poll import READ, Poll
from echod.linux.privileges import find_account
from echod.linux.signals import Signals
from echod.linux.sockets import Buffers
from echod.stats.counters import CounterPage
from echod.status.selftest import choose_mark
from echod.supervisor.capacity import choose_workers
from echod.supervisor.exporter import Export
from echod.supervisor.generation import Generation
from echod.supervisor.listening import Acquisition, Holdings
from echod.supervisor.observer import Observer
from echod.supervisor.own_addresses import Ownership
from echod.supervisor.reporter import Announcer, log_buffers, log_listeners
from echod.supervisor.timers import Agenda
from echod.supervisor.worker_process import WorkerExit, WorkerProcess

RAISE_SECONDS: Final = 10.0
"""Time in which every worker of a new generation must become ready."""

CHECK_SECONDS: Final = 1.0
"""Interval between checks of the heartbeats: the only wake-up of an idle supervisor."""

KILL_GRACE_SECONDS: Final = 2.0
"""Time after the drain timeout until the remaining workers are killed."""

NOT_READY: Final = "the workers did not become ready; the entries before this one may say why"

SPARE_DESCRIPTORS: Final = 256
"""For channels, logs and short-lived descriptors."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A generation that was started and is not yet committed."""

    generation: Generation
    acquisition: Acquisition


class Supervisor:
    """The daemon. `run` returns when it has stopped, after being told to."""

    def __init__(
        self,
        *,
        path: Path | None,
        passed: Mapping[int, str],
        announcer: Announcer,
        on_serving: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the config's path (None for the default), passed descriptors, and a function to call once it serves."""
        self._path = path
        self._passed = passed
        self._announcer = announcer
        self._on_serving = on_serving
        self._poll = Poll()
        self._agenda = Agenda()
        self._holdings = Holdings()
        self._signals = Signals()
        self._poll.register(self._signals.fileno(), READ, self._on_signals)
        self._current: Generation | None = None
        self._transition: Transition | None = None
        self._retiring: list[Generation] = []
        self._generations = 0
        self._observer = Observer(self._holdings, monotonic())
        self._export = Export(self._agenda, self._holdings, self._observer.books, self._pages)
        self._announcer.tell = self._export.tell
        self._ownership = Ownership(self._poll, self._agenda, self._set_own_addresses)
        self._reload_wanted = self._stopping = False

    def run(self) -> None:
        """Serve until told to stop. Raises EchodError if it cannot start."""
        with closing(self._ownership):
            self._start(monotonic())
            while not (self._stopping and self._all_gone()):
                ready = self._poll.wait(self._agenda.seconds_left(monotonic()))
                now = monotonic()
                for on_ready in ready:
                    on_ready(now)
                for action in self._agenda.due(now):
                    action(now)
                self._go_on(now)
        self._retire()
        self._export.end()
        self._observer.refusals.log_rest()
        self._observer.books.log_stopped()

    # -- start and reload: acquire sockets, start workers, wait, commit

    def _start(self, now: float) -> None:
        reading = configfile.read(self._path)
        logs.configure(level=reading.config.log.level, destination=reading.config.log.format)
        self._announcer.starting(reading)
        self._holdings.adopt(self._passed, _buffers(reading.config))
        for listener in self._holdings.adopted:
            _log.info("listener_adopted", listener=str(listener))
        self._ownership.start(self._holdings.netlink, self._holdings.adopted_sockets, now)
        self._begin(reading, now)
        self._agenda.at(now + CHECK_SECONDS, self._check)

    def _begin(self, reading: Reading, now: float) -> None:
        """Acquire sockets and start workers; commit follows when all are ready. Raises EchodError, changing nothing."""
        self._path, config = reading.path, reading.config  # once a file was in force, later reloads require it
        self._announcer.reading(reading, self._holdings.adopted)
        workers = choose_workers(cpu_limits(), process_limits()) if config.workers == "auto" else config.workers
        listeners = config.listeners if reading.path else self._holdings.first_try(config.listeners)
        allow_descriptors(len(listeners) * workers + config.tcp.max_connections + SPARE_DESCRIPTORS)
        buffers, metrics, account = _buffers(config), config.metrics.listen, find_account(config.user)
        acquisition = self._holdings.acquire(listeners, workers=workers, buffers=buffers, metrics=metrics)
        self._generations += 1
        taken = {*config.guard.refuse_source_ports, *(listener.port for listener in acquisition.sockets)}
        try:
            generation = Generation(
                self._generations,
                config,
                acquisition.sockets,
                workers=workers,
                poll=self._poll,
                observer=self._observer,
                self_test=choose_mark(taken, lowest=config.guard.min_source_port),
                account=account,
            )
        except (OSError, MemoryError) as error:
            self._holdings.abandon(acquisition)
            raise StartFailedError(f"there is no memory for the counters of {workers} workers: {error}") from None
        self._transition = transition = Transition(generation=generation, acquisition=acquisition)
        self._agenda.at(now + RAISE_SECONDS, lambda _now: self._give_up(transition))
        generation.set_own_addresses(self._ownership.networks)
        try:
            generation.start_workers(now)
        except OSError as error:
            self._give_up(transition, f"a worker could not be started: {error.strerror}")

    def _set_own_addresses(self) -> None:
        for generation in self._living():
            generation.set_own_addresses(self._ownership.networks)

    def _go_on(self, now: float) -> None:
        """Take the next step of a start or reload that is possible now."""
        if self._transition is not None and self._transition.generation.ready:
            self._commit(self._transition, now)
        if self._reload_wanted and self._transition is None and not self._stopping:
            self._reload(now)

    def _commit(self, transition: Transition, now: float) -> None:
        """Replace the old generation with the new one."""
        old = self._current
        self._transition = None
        self._holdings.commit(transition.acquisition)
        transition.generation.serve()
        self._current = new = transition.generation
        config = new.config
        if old is not None:
            self._retire_later(old, now)
            logs.configure(level=config.log.level, destination=config.log.format)
        log_listeners(transition.acquisition.plan, transition.acquisition.doors)
        log_buffers(transition.acquisition.buffers, self._holdings.smallest_buffers())
        self._announcer.serving(
            new.page.listeners, workers=len(new.workers), generation=new.number, self_test=new.self_test
        )
        self._export.renew(new.page, new.self_test, new.account, new.config.metrics.hosts, now)
        self._observe(new, now)
        if old is None:
            self._announcer.ready()
            self._on_serving()
        else:
            self._announcer.reloaded(changes(old.config, config, transition.acquisition.plan))

    def _reload(self, now: float) -> None:
        self._reload_wanted = False
        self._announcer.reloading()
        try:
            self._begin(configfile.read(self._path), now)
        except EchodError as error:
            self._announcer.rejected(error)

    def _give_up(self, transition: Transition, why: str = NOT_READY) -> None:
        """Reject a generation that did not become ready in time, or of which a worker died."""
        if self._transition is not transition:
            return
        self._drop(transition)
        if self._current is None:
            raise StartFailedError(why)
        self._announcer.rejected(StartFailedError(why))

    def _drop(self, transition: Transition) -> None:
        """Be rid of a generation that will not serve."""
        self._transition = None
        transition.generation.kill()
        self._retiring.append(transition.generation)
        self._holdings.abandon(transition.acquisition)

    # -- stop

    def _on_signals(self, now: float) -> None:
        numbers = self._signals.take()
        if signal.SIGCHLD in numbers:
            self._reap(now)
        if signal.SIGUSR1 in numbers:
            self._observer.books.log_counters(self._pages())
        if signal.SIGHUP in numbers:
            self._reload_wanted = True
        if numbers & {signal.SIGTERM, signal.SIGINT}:
            self._stop(now)

    def _stop(self, now: float) -> None:
        """Drain; on the second call, kill all workers at once."""
        generations = self._living()
        if self._stopping:
            for generation in generations:
                generation.kill()
            return
        self._stopping = True
        self._export.drain(now)
        longest = max((each.config.drain_timeout_seconds for each in generations), default=0)
        self._announcer.stopping(longest + 2 * KILL_GRACE_SECONDS)
        if self._transition is not None:  # a start or reload that is no longer needed
            self._drop(self._transition)
        if self._current is not None:
            _log.info("draining", seconds=self._current.config.drain_timeout_seconds)
            self._retire_later(self._current, now)
            self._current = None
        self._holdings.retire()

    def _retire_later(self, generation: Generation, now: float) -> None:
        """Let a generation drain; kill what is left of it after the drain timeout."""
        generation.drain()
        self._retiring.append(generation)
        limit = generation.config.drain_timeout_seconds + KILL_GRACE_SECONDS
        self._agenda.at(now + limit, lambda _now: generation.kill())

    def _retire(self) -> None:
        """Take over the numbers of generations whose last worker has exited."""
        for generation in [each for each in self._retiring if each.gone]:
            self._observer.take_over(generation.page)
            self._retiring.remove(generation)

    # -- watch

    def _living(self) -> list[Generation]:
        raised = self._transition.generation if self._transition is not None else None
        return [each for each in (raised, self._current, *self._retiring) if each is not None]

    def _all_gone(self) -> bool:
        return all(generation.gone for generation in self._living())

    def _reap(self, now: float) -> None:
        for generation in self._living():
            for worker, ended in generation.reap(now):
                self._on_worker_exit(generation, worker, ended, now)
        self._export.reap(now)
        self._retire()

    def _on_worker_exit(self, generation: Generation, worker: WorkerProcess, ended: WorkerExit, now: float) -> None:
        """Log the exit; reject the transition or schedule a replacement."""
        drained = ended.ok and generation.draining
        log = _log.info if drained or self._stopping else _log.warning
        log("worker_exited", worker=worker.number + 1, pid=ended.pid, reason=ended.reason, generation=generation.number)
        if self._transition is not None and self._transition.generation is generation:
            self._give_up(self._transition)
        elif generation is self._current:
            self._agenda.at(now + ended.delay, lambda now: self._replace(generation, worker, now))

    def _replace(self, generation: Generation, worker: WorkerProcess, now: float) -> None:
        if generation is not self._current or worker.pid is not None:
            return
        try:
            generation.start_worker(worker, now)
        except OSError as error:
            _log.warning("worker_not_started", worker=worker.number + 1, reason=error.strerror)
            self._agenda.at(now + worker.backoff.after(0.0), lambda now: self._replace(generation, worker, now))
        else:
            self._observer.restarts[worker.number] += 1

    def _check(self, now: float) -> None:
        """Check the workers, once a second, and notify the watchdog only if all of them are well."""
        self._agenda.at(now + CHECK_SECONDS, self._check)
        self._announcer.catch_up()
        self._reap(now)
        for generation in self._living():
            generation.catch_up()
            for worker in generation.find_stuck():
                then = "killed and replaced" if generation is self._current else "killed"
                message = (
                    f"{worker.name} (process {worker.pid}) is stuck: its heartbeat has not changed for "
                    f"{worker.unchanged_checks} seconds; it is {then}"
                )
                facts = {"worker": worker.number + 1, "pid": worker.pid, "seconds": worker.unchanged_checks}
                _log.error("worker_stuck", message=message, **facts, generation=generation.number)
                worker.kill()
        if all(generation.fresh for generation in self._living()):
            self._announcer.alive(now)
        self._observer.refusals.log_due(now)
        self._holdings.log_detached()
        if self._current is not None:
            self._announcer.refresh(lambda: self._observer.books.datagrams(self._pages()), now)
            self._observe(self._current, now)

    # -- reports

    def _pages(self) -> list[CounterPage]:
        return [generation.page for generation in self._living()]

    def _observe(self, current: Generation, now: float) -> None:
        """Publish what has changed since the last look."""
        pages = self._pages()
        activity = self._observer.look(current.page.listeners, pages, current.states(), now)
        if activity is not None:
            self._announcer.show(activity)
        if current.config.log.level == "debug":
            self._observer.books.log_traffic(pages, now)


def _buffers(config: Config) -> Buffers:
    return Buffers(receive=config.udp.receive_buffer, send=config.udp.send_buffer)
