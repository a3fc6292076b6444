"""One generation of workers: one config, one set of sockets, one counters page, from the first start to the last exit.

Owns its worker processes and what they share, and replaces those that exit while it serves. The supervisor decides when
it starts, serves, drains and ends. Invariant: it never changes its config, and its numbers outlive each of its workers.
"""

import mmap
import os
import secrets
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from echod.admission.ratelimit import RateLimit
from echod.admission.selftest import SelfTest
from echod.config.file import Reading
from echod.config.schema import Config
from echod.linux.poll import Poll
from echod.linux.privileges import Account
from echod.linux.process import cpu_seconds
from echod.net.listener import Listener, Protocol
from echod.net.mode import PLAIN
from echod.net.networks import Network, pack_networks
from echod.stats.counters import CounterPage, SlotField
from echod.stats.refusals import Report
from echod.stats.snapshot import WorkerState
from echod.stats.top_sources import unpack_report
from echod.supervisor.listening import Acquisition
from echod.supervisor.observer import Observer
from echod.supervisor.timers import Timers
from echod.supervisor.worker_process import STUCK_AFTER_CHECKS, WorkerExit, WorkerProcess
from echod.worker.channel import DRAIN, OWN_ADDRESSES, READY, SERVE, TOP_SOURCES, Birth, ServedSocket, open_channel

_log = structlog.get_logger()


class Generation:
    """Workers of one config."""

    def __init__(  # noqa: PLR0913 - what the supervisor decides, and where their reports go
        self,
        number: int,
        config: Config,
        sockets: Mapping[Listener, Sequence[socket.socket]],
        *,
        workers: int,
        poll: Poll,
        timers: Timers,
        observer: Observer,
        restarts: Counter[int],
        self_test: SelfTest | None,
        account: Account | None,
        keys: Mapping[Listener, bytes],
        began: int,
    ) -> None:
        """Make what the workers share, but start none. Their reports go to the observer.

        `restarts` counts the workers that were replaced, by slot, over all generations. `keys` are those of
        `hmac_key`; `began` is when the daemon started, in monotonic ns.
        """
        self.number = number
        self.config = config
        self._sockets = sockets
        self._own_addresses: Sequence[Network] = ()
        self._timers = timers
        self._observer = observer
        self._restarts = restarts
        self.self_test = self_test
        self.account = account
        self.keys = keys
        self._began = began
        self._secret = secrets.token_bytes(16)
        self._serving = False
        self._draining = False
        # Two more than the limit: a connection is entered before it is found to be above the limit.
        has_tcp = any(listener.protocol is Protocol.TCP for listener in sockets)
        places = config.tcp.max_connections + 2 if has_tcp else 0
        size = CounterPage.size(slots=workers, listeners=len(sockets), places=places)
        self.page = CounterPage(memoryview(mmap.mmap(-1, size)), slots=workers, listeners=tuple(sockets), places=places)
        limits = config.limits
        limited = limits.datagrams_per_second is not None or limits.total_datagrams_per_second is not None
        self._rates = memoryview(mmap.mmap(-1, RateLimit.size(limits.sources))) if limited else None
        self.workers = tuple(WorkerProcess(number, poll, self._on_message) for number in range(workers))

    # -- state

    @property
    def pids(self) -> set[int]:
        """The workers that were not reaped yet."""
        return {worker.pid for worker in self.workers if worker.pid is not None}

    @property
    def ready(self) -> bool:
        """Whether every worker has reported ready."""
        return all(worker.ready for worker in self.workers)

    @property
    def gone(self) -> bool:
        """Whether no worker process is left."""
        return all(worker.pid is None for worker in self.workers)

    @property
    def fresh(self) -> bool:
        """Whether every heartbeat changed between the last two checks, and, while it serves, a worker is alive.

        (Others may have died and not been replaced yet.)
        """
        served = any(worker.ready for worker in self.workers) or not self._serving or self._draining
        return served and all(worker.unchanged_checks <= 1 for worker in self.workers)

    @property
    def _replaces(self) -> bool:
        """Whether a worker that exits is replaced."""
        return self._serving and not self._draining

    def states(self) -> tuple[WorkerState, ...]:
        """Return the state of each worker. Call it after `kill_stuck`."""
        return tuple(
            WorkerState(
                worker=worker.number + 1,
                pid=worker.pid,
                cpu_seconds=cpu_seconds(worker.pid),
                heartbeat_age_seconds=worker.unchanged_checks if worker.unchanged_checks > 1 else 0,
                restarts=self._restarts[worker.number],
                connections=self.page.header(worker.number)[SlotField.CONNECTIONS],
            )
            for worker in self.workers
        )

    # -- start

    def start_workers(self, now: float) -> None:
        """Start a worker in each slot. Raises OSError as `start_worker` does."""
        for worker in self.workers:
            self.start_worker(worker, now)

    def start_worker(self, worker: WorkerProcess, now: float) -> None:
        """Start a worker in this slot. Raises OSError if the host has no process, descriptor or epoll watch left."""
        ours, theirs = open_channel()
        birth = Birth(
            slot=worker.number,
            config=self.config,
            sockets=self._share(worker.number),
            page=self.page,
            vector=worker.vector,
            rates=self._rates,
            own_addresses=self._own_addresses,
            secret=self._secret,
            began=self._began,
            self_test=self.self_test,
            channel=theirs,
            supervisor=os.getpid(),
            account=self.account,
        )
        worker.start(birth, ours, now)
        _log.info("worker_started", worker=worker.number + 1, pid=worker.pid, generation=self.number)

    def _share(self, number: int) -> tuple[ServedSocket, ...]:
        """Return the sockets that the worker of this slot serves.

        Sockets are distributed over the workers; if there are fewer sockets than workers, several workers share one,
        unless the listener counts for each peer.
        """
        workers = len(self.workers)
        share = []
        for listener, sockets in self._sockets.items():
            options, key = self.config.listeners.get(listener, PLAIN), self.keys.get(listener, b"")
            few = len(sockets) < workers and not options.has_sessions
            dealt = [sockets[number % len(sockets)]] if few else sockets[number::workers]
            share += [
                ServedSocket(listener=listener, sock=sock, shared=few, options=options, key=key) for sock in dealt
            ]
        return tuple(share)

    def _on_message(self, worker: WorkerProcess, message: bytes) -> bool:
        """Act on a message of a worker; return whether it is valid."""
        try:
            if message == READY:
                worker.ready = True
                if self._serving:
                    worker.send(SERVE)
            elif message.startswith(TOP_SOURCES):
                self._observer.add_top_sources(unpack_report(message[len(TOP_SOURCES) :]))
            else:
                report = Report.unpack(message)
                self._observer.add_refusals(self.page.listeners[report.listener], report)
        except (ValueError, IndexError):
            _log.error("worker_protocol_error", worker=worker.number + 1, pid=worker.pid, generation=self.number)
            return False
        return True

    # -- life

    def serve(self) -> None:
        """Let the workers answer."""
        self._serving = True
        for worker in self.workers:
            worker.send(SERVE)

    def set_own_addresses(self, own: Sequence[Network]) -> None:
        """Send this host's own addresses to the workers, and keep them for workers started later."""
        self._own_addresses = own
        packed = pack_networks(own)
        for worker in self.workers:
            worker.send(OWN_ADDRESSES, packed)

    def catch_up(self) -> None:
        """Send commands for which a channel had no room; kill workers that miscount. Call it once a second."""
        for worker in self.workers:
            worker.flush()
        for number in self.page.distrusted:
            self.workers[number].kill()

    def kill_stuck(self) -> None:
        """Check every heartbeat, and kill the workers that are stuck. Call it once a second."""
        for worker in self.workers:
            worker.check(self.page.header(worker.number)[SlotField.HEARTBEAT])
            if worker.unchanged_checks >= STUCK_AFTER_CHECKS:
                message = (
                    f"{worker.name} (process {worker.pid}) is stuck: its heartbeat has not changed for "
                    f"{worker.unchanged_checks} seconds; it is {'killed and replaced' if self._replaces else 'killed'}"
                )
                facts = {"worker": worker.number + 1, "pid": worker.pid, "seconds": worker.unchanged_checks}
                _log.error("worker_stuck", message=message, **facts, generation=self.number)
                worker.kill()

    def drain(self) -> None:
        """Let the workers finish what is under way and exit."""
        self._draining = True
        for worker in self.workers:
            worker.send(DRAIN)

    def kill(self) -> None:
        """Kill all workers at once."""
        for worker in self.workers:
            worker.kill()

    # -- exit

    def reap(self, now: float, *, stopping: bool) -> list[WorkerExit]:
        """Reap the workers that have exited, settle their counters, and have them replaced.

        While the daemon is stopping, an exit is no reason for a warning.
        """
        exits = []
        for worker in self.workers:
            ended = worker.reap(now)
            if ended is None:
                continue
            exits.append(ended)
            self._observer.watch(self.page).check(worker.number)
            if worker.number in self.page.distrusted:
                _log.error("worker_miscounted", worker=worker.number + 1, pid=ended.pid, generation=self.number)
            self.page.settle(worker.number, worker.unfinished())
            log = _log.info if stopping or (ended.ok and self._draining) else _log.warning
            log("worker_exited", worker=worker.number + 1, pid=ended.pid, reason=ended.reason, generation=self.number)
            if self._replaces:
                self._timers.at(now + ended.delay, partial(self._replace, worker))
            elif self._draining:
                worker.vector.close()  # now, and not when this generation is collected
        return exits

    def _replace(self, worker: WorkerProcess, now: float) -> None:
        if worker.pid is not None or not self._replaces:
            return
        try:
            self.start_worker(worker, now)
        except OSError as error:
            _log.warning("worker_not_started", worker=worker.number + 1, reason=error.strerror)
            self._timers.at(now + worker.backoff.after(0.0), partial(self._replace, worker))
        else:
            self._restarts[worker.number] += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A generation that was started and is not yet committed."""

    generation: Generation
    acquisition: Acquisition
    reading: Reading
    """Its config, and where that is from."""
