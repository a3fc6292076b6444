"""The one permanent process: it holds the sockets, and starts, watches, replaces and drains the workers.

Owns the life of the daemon, single-threaded and synchronous, so that it can fork at any time. It answers no
datagram. Start, reload, recovery and stop are one path: acquire sockets, start workers, wait until each is ready,
commit. Invariant: nothing that serves is touched before commit, so every earlier failure leaves it unchanged.
"""

import signal
from collections import Counter
from collections.abc import Callable, MutableMapping
from contextlib import closing
from itertools import chain
from math import inf
from pathlib import Path
from time import monotonic, monotonic_ns
from typing import Final

import structlog

from echod import logs
from echod.config import file as configfile
from echod.config import location
from echod.config.diff import changes
from echod.config.file import Reading
from echod.config.keys import read_keys
from echod.config.schema import Config
from echod.config.socket_unit import units_of_service
from echod.errors import EchodError, StartFailedError
from echod.linux.cgroups import cpu_limits, own_service, process_limits
from echod.linux.descriptors import raise_limit
from echod.linux.poll import READ, Poll
from echod.linux.privileges import find_account
from echod.linux.process import reap_inherited
from echod.linux.signals import Signals
from echod.linux.sockets import Buffers
from echod.linux.systemd import passed_sockets
from echod.stats.counters import CounterPage
from echod.stats.totals import Totals
from echod.status.publisher import Publisher
from echod.status.selftest import choose_mark
from echod.supervisor.capacity import choose_workers
from echod.supervisor.exporter import Exporters
from echod.supervisor.generation import Generation, Transition
from echod.supervisor.listening import ListeningSockets
from echod.supervisor.observer import Observer
from echod.supervisor.own_addresses import OwnAddresses
from echod.supervisor.refusal_log import RefusalLog
from echod.supervisor.reporter import CounterLog, Reporter, log_buffers, log_listeners
from echod.supervisor.timers import Timers

START_SECONDS: Final = 10.0
"""Time in which every worker of a new generation must become ready."""

CHECK_SECONDS: Final = 1.0
"""Interval between checks of the heartbeats: the only wake-up of an idle supervisor."""

KILL_GRACE_SECONDS: Final = 2.0
"""Time after the drain timeout until the remaining workers are killed."""

SPARE_DESCRIPTORS: Final = 256
"""For channels, logs and short-lived descriptors."""

_log = structlog.get_logger()


class Supervisor:
    """The daemon. `run` returns when a signal has stopped it."""

    def __init__(
        self,
        *,
        path: Path | None,
        environment: MutableMapping[str, str],
        on_serving: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the config's path (None for the default), the environment, and a function to call once it serves.

        The variables that pass sockets are removed from the environment.
        """
        self._path = path
        self._began = monotonic_ns()
        self._passed = passed_sockets(environment)
        self._on_serving = on_serving
        self._poll = Poll()
        self._timers = Timers()
        units = units_of_service(own_service())
        self._listening = ListeningSockets(units)
        self._signals = Signals()
        self._poll.register(self._signals.fileno(), READ, self._on_signals)
        self._current: Generation | None = None
        self._transition: Transition | None = None
        self._retiring: list[Generation] = []
        self._generations = 0
        self._restarts: Counter[int] = Counter()
        self._totals = Totals()
        self._counter_log = CounterLog(self._totals, self._listening.kernel_drops)
        self._refusal_log = RefusalLog()
        self._observer = Observer(self._listening, self._totals, self._refusal_log, self._restarts, monotonic())
        self._exporters = Exporters(self._timers, self._listening, self._totals, self._pages)
        shown_path = location.shown(path or location.DEFAULT_PATH)
        self._publisher = Publisher(shown_path, self._exporters.send)
        self._reporter = Reporter(shown_path, units, environment, self._publisher)
        self._own_addresses = OwnAddresses(self._poll, self._timers, self._on_own_addresses)
        self._reload_wanted = self._stopping = False

    def run(self) -> None:
        """Serve until stopped by a signal. Raises EchodError if it cannot start."""
        try:
            with closing(self._own_addresses):
                self._serve()
        except EchodError as error:
            self._reporter.failed(error)
            raise
        self._retire()
        self._exporters.kill()
        self._refusal_log.log_due(inf)
        self._counter_log.log_stopped()
        self._reporter.stopped()

    def _serve(self) -> None:
        self._start(monotonic())
        while not (self._stopping and all(generation.gone for generation in self._living())):
            ready = self._poll.wait(self._timers.seconds_left(monotonic()))
            now = monotonic()
            for on_ready in ready:
                on_ready(now)
            for action in self._timers.due(now):
                action(now)
            self._advance(now)

    # -- start and reload: acquire sockets, start workers, wait, commit

    def _start(self, now: float) -> None:
        reading = configfile.read(self._path)
        logs.configure(level=reading.config.log.level, destination=reading.config.log.format)
        self._reporter.starting(reading)
        self._listening.adopt(self._passed, _buffers(reading.config))
        adopted = chain.from_iterable(self._listening.sockets.values())
        self._own_addresses.start(self._listening.netlink, adopted, now)
        self._begin(reading, now)
        self._timers.at(now + CHECK_SECONDS, self._check)

    def _begin(self, reading: Reading, now: float) -> None:
        """Acquire sockets and start workers; commit follows when all are ready. Raises EchodError, changing nothing."""
        self._path, config = reading.path, reading.config  # once a file was in force, later reloads require it
        self._reporter.reading(reading, self._listening.adopted)
        workers = choose_workers(cpu_limits(), process_limits()) if config.workers == "auto" else config.workers
        keys, wanted = read_keys(config.listeners), tuple(config.listeners)
        listeners = wanted if reading.path else self._listening.bindable(wanted)
        descriptors = len(listeners) * workers + config.tcp.max_connections + SPARE_DESCRIPTORS
        self._reporter.descriptors(descriptors, limit=raise_limit(descriptors))  # the workers inherit the limit
        buffers, metrics, account = _buffers(config), config.metrics.listen, find_account(config.user)
        acquisition = self._listening.acquire(listeners, workers=workers, buffers=buffers, metrics=metrics)
        self._generations += 1
        taken = {*config.guard.refuse_source_ports, *(listener.port for listener in acquisition.sockets)}
        try:
            generation = Generation(
                self._generations,
                config,
                acquisition.sockets,
                workers=workers,
                poll=self._poll,
                timers=self._timers,
                observer=self._observer,
                restarts=self._restarts,
                self_test=choose_mark(taken, lowest=config.guard.min_source_port),
                account=account,
                keys=keys,
                began=self._began,
            )
        except (OSError, MemoryError) as error:
            self._listening.abandon(acquisition)
            raise StartFailedError(f"there is no memory for the counters of {workers} workers: {error}") from None
        self._transition = transition = Transition(generation=generation, acquisition=acquisition, reading=reading)
        self._timers.at(now + START_SECONDS, lambda _now: self._give_up(transition))
        generation.set_own_addresses(self._own_addresses.networks)
        try:
            generation.start_workers(now)
        except OSError as error:
            self._give_up(transition, f"a worker could not be started: {error.strerror}")

    def _on_own_addresses(self) -> None:
        for generation in self._living():
            generation.set_own_addresses(self._own_addresses.networks)

    def _advance(self, now: float) -> None:
        """Take the next possible step of a start or reload."""
        if self._transition is not None and self._transition.generation.ready:
            self._commit(self._transition, now)
        if self._reload_wanted and self._transition is None and not self._stopping:
            self._reload(now)

    def _commit(self, transition: Transition, now: float) -> None:
        """Replace the old generation with the new one."""
        old = self._current
        self._transition = None
        self._listening.commit(transition.acquisition, transition.reading.config.listeners)
        transition.generation.serve()
        self._reporter.entitle(transition.reading)
        self._current = new = transition.generation
        if old is not None:
            self._retire_later(old, now)
            logs.configure(level=new.config.log.level, destination=new.config.log.format)
        log_listeners(transition.acquisition.plan, transition.acquisition.http_sockets)
        log_buffers(_buffers(new.config), self._listening.smallest_buffers())
        self._reporter.serving(new.page.listeners, len(new.workers), new.number, new.self_test, transition.reading.at)
        self._exporters.renew(new, now)
        self._observe(new, now)
        if old is None:
            self._reporter.ready()
            self._on_serving()
        else:
            new_keys = {each for each, key in new.keys.items() if old.keys.get(each, key) != key}
            changed = changes(old.config, new.config, transition.acquisition.plan, new_keys)
            self._reporter.reloaded(changed, new.number)

    def _reload(self, now: float) -> None:
        self._reload_wanted = False
        self._reporter.reloading()
        try:
            self._begin(configfile.read(self._path), now)
        except EchodError as error:
            self._reporter.rejected(error)

    def _give_up(self, transition: Transition, why: str = "") -> None:
        """Reject a generation that did not become ready in time, or of which a worker died."""
        if self._transition is not transition:
            return
        self._drop(transition)
        error = StartFailedError(why or "the workers did not become ready; the entries before this one may say why")
        if self._current is None:
            raise error
        self._reporter.rejected(error)

    def _drop(self, transition: Transition) -> None:
        """Kill a generation that will not serve, and close its sockets."""
        self._transition = None
        transition.generation.kill()
        self._retiring.append(transition.generation)
        self._listening.abandon(transition.acquisition)

    # -- stop

    def _on_signals(self, now: float) -> None:
        numbers = self._signals.take()
        if signal.SIGCHLD in numbers:
            self._reap(now)
        if signal.SIGUSR1 in numbers:
            self._counter_log.log_all(self._pages())
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
        self._exporters.drain(now)
        longest = max((each.config.drain_timeout_seconds for each in generations), default=0)
        self._reporter.stopping(longest + 2 * KILL_GRACE_SECONDS)
        if self._transition is not None:  # a start or reload that is no longer needed
            self._drop(self._transition)
        if self._current is not None:
            _log.info("draining", seconds=self._current.config.drain_timeout_seconds)
            self._retire_later(self._current, now)
            self._current = None
        self._listening.close_unpassed()

    def _retire_later(self, generation: Generation, now: float) -> None:
        """Let a generation drain; kill what is left of it after the drain timeout."""
        generation.drain()
        self._retiring.append(generation)
        limit = generation.config.drain_timeout_seconds + KILL_GRACE_SECONDS
        self._timers.at(now + limit, lambda _now: generation.kill())

    def _retire(self) -> None:
        """Take over the numbers of generations whose last worker has exited."""
        for generation in [each for each in self._retiring if each.gone]:
            self._observer.take_over(generation.page)
            self._retiring.remove(generation)

    # -- watch

    def _living(self) -> list[Generation]:
        raised = self._transition.generation if self._transition is not None else None
        return [each for each in (raised, self._current, *self._retiring) if each is not None]

    def _reap(self, now: float) -> None:
        for generation in self._living():
            exited = generation.reap(now, stopping=self._stopping)
            if exited and self._transition is not None and self._transition.generation is generation:
                self._give_up(self._transition)
        self._exporters.reap(now)
        reap_inherited(self._exporters.pids.union(*(generation.pids for generation in self._living())))
        self._retire()

    def _check(self, now: float) -> None:
        """Check the workers, once a second, and notify the watchdog only if all of them are well."""
        self._timers.at(now + CHECK_SECONDS, self._check)
        self._reporter.catch_up()
        self._reap(now)
        for generation in self._living():
            generation.catch_up()
            generation.kill_stuck()
        if all(generation.fresh for generation in self._living()):
            self._reporter.alive(now)
        self._refusal_log.log_due(now)
        self._listening.log_detached()
        if self._current is not None:
            pids = [worker.pid for worker in self._current.workers]
            self._reporter.refresh(lambda: self._totals.datagrams(self._pages()), pids, now)
            self._publisher.refresh(now)
            self._observe(self._current, now)

    # -- reports

    def _pages(self) -> list[CounterPage]:
        return [generation.page for generation in self._living()]

    def _observe(self, current: Generation, now: float) -> None:
        """Publish what has changed since the last look."""
        pages = self._pages()
        activity = self._observer.look(current.page.listeners, pages, current.states(), now)
        if activity is not None:
            self._publisher.show(activity)
        if current.config.log.level == "debug":
            self._counter_log.log_due(pages, now)


def _buffers(config: Config) -> Buffers:
    return Buffers(receive=config.udp.receive_buffer, send=config.udp.send_buffer)
