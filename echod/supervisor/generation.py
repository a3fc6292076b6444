"""One generation of workers: one config, one set of sockets, one counters page, from birth to the last exit.

Owns the worker processes: forks them, learns that they are ready, detects dead and stuck ones, replaces, drains and
kills them. The supervisor decides when. Invariant: a generation never changes its config, its numbers outlive each of
its workers, and no message of a worker can do more harm than end that worker.
"""

import mmap
import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from echod.admission.ratelimit import RateLimit
from echod.admission.selftest import SelfTest
from echod.config.schema import Config
from echod.linux.mmsg_layout import MEMORY_BYTES
from echod.linux.poll import READ, Poll
from echod.linux.privileges import Account
from echod.linux.process import cpu_seconds, fork, how_it_ended, kill
from echod.net.listener import Listener, Protocol
from echod.net.networks import Network, pack_networks
from echod.stats.counters import CounterPage, SlotField
from echod.stats.refusals import Report
from echod.stats.snapshot import WorkerState
from echod.stats.top_sources import unpack_report
from echod.supervisor.observer import Observer
from echod.supervisor.timers import STEADY_SECONDS
from echod.udp.unfinished import read_unfinished
from echod.worker.worker import DRAIN, OWN, READY, SERVE, TOP_SOURCES, Birth, ServedSocket, live, open_channel

STUCK_AFTER_CHECKS: Final = 5
"""A worker whose heartbeat did not change in so many consecutive checks, a second apart, is stuck."""

_MOST_OF_A_REPORT: Final = 1 << 16

_log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class Slot:
    """A place for one worker process at a time."""

    number: int
    pid: int | None = None
    channel: socket.socket | None = None
    ready: bool = False
    born: float = 0.0
    deaths: int = 0
    """Consecutive early deaths."""
    heartbeat: int = 0
    still: int = 0
    """Consecutive checks that found the heartbeat unchanged."""
    due: dict[bytes, bytes] = field(default_factory=dict)
    """Commands that could not be sent to the worker yet, in order, each with its packed argument."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """A worker that exited, and whether it did so in order, at the end of a drain."""

    slot: Slot
    pid: int
    how: str
    orderly: bool


class Generation:
    """Workers of one config."""

    def __init__(  # noqa: PLR0913 - what the supervisor decides, and where it hears of it
        self,
        number: int,
        config: Config,
        sockets: Mapping[Listener, Sequence[socket.socket]],
        *,
        workers: int,
        poll: Poll,
        observer: Observer,
        self_test: SelfTest | None,
        account: Account | None,
    ) -> None:
        """Make what the workers share, but start none. Their reports go to the observer."""
        self.number = number
        self.config = config
        self._sockets = sockets
        self._poll = poll
        self._own: Sequence[Network] = ()
        self._observer = observer
        self.self_test = self_test
        self.account = account
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
        self._vectors = tuple(mmap.mmap(-1, MEMORY_BYTES) for _ in range(workers))
        for vector in self._vectors:
            vector.madvise(mmap.MADV_DONTFORK)  # a worker has its own, and no other
        self.slots = tuple(Slot(number=number) for number in range(workers))

    # -- state

    @property
    def ready(self) -> bool:
        """Whether every worker has reported ready."""
        return all(slot.ready for slot in self.slots)

    @property
    def gone(self) -> bool:
        """Whether no worker process is left."""
        return all(slot.pid is None for slot in self.slots)

    @property
    def fresh(self) -> bool:
        """Whether no heartbeat stood still between the last two checks, and, while it serves, a worker is alive.

        (Others may have died and not been replaced yet.)
        """
        served = any(slot.ready for slot in self.slots) or not self._serving or self._draining
        return served and all(slot.still <= 1 for slot in self.slots)

    def states(self) -> tuple[WorkerState, ...]:
        """Return the state of each worker. Call it after `find_stuck`."""
        return tuple(
            WorkerState(
                worker=slot.number + 1,
                pid=slot.pid,
                cpu_seconds=cpu_seconds(slot.pid),
                heartbeat_age_seconds=slot.still if slot.still > 1 else 0,
                restarts=self._observer.restarts[slot.number],
                connections=self.page.header(slot.number)[SlotField.CONNECTIONS],
            )
            for slot in self.slots
        )

    # -- start

    def raise_workers(self, now: float) -> None:
        """Fork a worker for each slot."""
        for slot in self.slots:
            self.raise_worker(slot, now)

    def raise_worker(self, slot: Slot, now: float) -> None:
        """Fork a worker for this slot, with what it needs and nothing else.

        Raises OSError if the host has no process or descriptor left.
        """
        ours, theirs = open_channel()
        birth = Birth(
            slot=slot.number,
            config=self.config,
            sockets=self._share(slot.number),
            page=self.page,
            vector=self._vectors[slot.number],
            rates=self._rates,
            own=self._own,
            secret=self._secret,
            self_test=self.self_test,
            channel=theirs,
            supervisor=os.getpid(),
            account=self.account,
        )
        keep = [theirs.fileno(), *(each.sock.fileno() for each in birth.sockets)]
        try:
            self._listen_to(slot, ours)
            birth.vector.madvise(mmap.MADV_DOFORK)
            pid = fork(f"worker {slot.number + 1}", keep, lambda: live(birth))
        except OSError:
            self._hang_up(slot)
            raise
        finally:
            theirs.close()
            birth.vector.madvise(mmap.MADV_DONTFORK)
        slot.pid, slot.ready, slot.born, slot.still = pid, False, now, 0
        _log.info("worker_started", worker=slot.number + 1, pid=pid, generation=self.number)

    def _listen_to(self, slot: Slot, channel: socket.socket) -> None:
        """Take the channel to a worker about to be forked. Raises OSError if the host has no epoll watch left."""
        channel.setblocking(False)
        try:
            self._poll.register(channel.fileno(), READ, lambda _now: self._on_message(slot))
        except OSError:
            channel.close()
            raise
        slot.channel, slot.due = channel, {}

    def _share(self, number: int) -> tuple[ServedSocket, ...]:
        """Return the sockets that the worker of this slot serves.

        Sockets are distributed over the workers; if there are fewer sockets than workers, several workers share one.
        """
        workers = len(self.slots)
        share = []
        for listener, sockets in self._sockets.items():
            few = len(sockets) < workers
            dealt = [sockets[number % len(sockets)]] if few else sockets[number::workers]
            share += [ServedSocket(listener=listener, sock=sock, shared=few) for sock in dealt]
        return tuple(share)

    def _on_message(self, slot: Slot) -> None:
        """Read a message of a worker, whose end closes its channel. A worker that sends nonsense is killed."""
        if slot.channel is None:
            return
        try:
            message = slot.channel.recv(_MOST_OF_A_REPORT, socket.MSG_DONTWAIT)
        except OSError:
            message = b""
        if not message:
            self._hang_up(slot)
            return
        try:
            self._hear(slot, message)
        except (ValueError, IndexError):
            _log.error("worker_protocol_error", worker=slot.number + 1, pid=slot.pid, generation=self.number)
            self.kill(slot)  # first: it would take the end of its channel for the end of its service
            self._hang_up(slot)

    def _hear(self, slot: Slot, message: bytes) -> None:
        """Act on a message. Raises ValueError or IndexError if it is invalid."""
        if message == READY:
            slot.ready = True
            if self._serving:
                self._tell(slot, SERVE)
        elif message.startswith(TOP_SOURCES):
            self._observer.heard(unpack_report(message[len(TOP_SOURCES) :]))
        else:
            report = Report.unpack(message)
            self._observer.refused(self.page.listeners[report.listener], report)

    def _hang_up(self, slot: Slot) -> None:
        if slot.channel is not None:
            self._poll.unregister(slot.channel.fileno())
            slot.channel.close()
            slot.channel = None

    # -- life

    def serve(self) -> None:
        """Let the workers answer."""
        self._serving = True
        for slot in self.slots:
            self._tell(slot, SERVE)

    def set_own_addresses(self, own: Sequence[Network]) -> None:
        """Send this host's own addresses to the workers, and keep them for workers started later."""
        self._own = own
        packed = pack_networks(own)
        for slot in self.slots:
            self._tell(slot, OWN, packed)

    def catch_up(self) -> None:
        """Send commands for which a channel had no room; kill who counts what cannot be. Call it once a second."""
        for slot in self.slots:
            self._tell_due(slot)
        for number in self.page.distrusted:
            self.kill(self.slots[number])

    def find_stuck(self) -> list[Slot]:
        """Check every heartbeat; return the slots whose worker is stuck. Call it once a second."""
        for slot in self.slots:
            heartbeat = self.page.header(slot.number)[SlotField.HEARTBEAT]
            still = heartbeat == slot.heartbeat and slot.pid is not None
            slot.heartbeat, slot.still = heartbeat, slot.still + 1 if still else 0
        return [slot for slot in self.slots if slot.still >= STUCK_AFTER_CHECKS]

    def drain(self) -> None:
        """Let the workers finish what is under way and exit."""
        self._draining = True
        for slot in self.slots:
            self._tell(slot, DRAIN)

    def kill(self, *slots: Slot) -> None:
        """Kill these workers, or all, at once. (A stopped process reacts to no signal but SIGKILL.)"""
        for slot in slots or self.slots:
            if slot.pid is not None:
                kill(slot.pid)

    def _tell(self, slot: Slot, command: bytes, packed: bytes = b"") -> None:
        """Send a command after those that are due; it replaces a due one of the same kind."""
        slot.due.pop(command, None)
        slot.due[command] = packed
        self._tell_due(slot)

    @staticmethod
    def _tell_due(slot: Slot) -> None:
        """Send the commands that are due, while there is room."""
        while slot.channel is not None and slot.due:
            command = next(iter(slot.due))
            try:
                slot.channel.send(command + slot.due[command])
            except BlockingIOError:
                return
            except OSError:
                pass  # it is dying; its death will be reaped
            del slot.due[command]

    # -- death

    def reap(self, now: float) -> list[Death]:
        """Reap the workers that have exited, and settle their counters."""
        deaths = []
        for slot in self.slots:
            if slot.pid is None:
                continue
            pid, status = os.waitpid(slot.pid, os.WNOHANG)
            if pid == 0:
                continue
            deaths.append(Death(slot=slot, pid=pid, how=how_it_ended(status), orderly=status == 0 and self._draining))
            slot.pid = None  # first: the PID may be reused from now on
            while slot.channel is not None:  # its last messages may still be unread; the end of the channel follows
                self._on_message(slot)
            slot.ready = False
            slot.deaths = 0 if now - slot.born >= STEADY_SECONDS else slot.deaths + 1
            self._settle(slot, pid)
        return deaths

    def _settle(self, slot: Slot, pid: int) -> None:
        """Balance the counters of a worker that has died."""
        self._observer.watch(self.page).check(slot.number)
        if slot.number in self.page.distrusted:
            _log.error("worker_miscounted", worker=slot.number + 1, pid=pid, generation=self.number)
        self.page.settle(slot.number, read_unfinished(self._vectors[slot.number]))
