"""One worker process: one loop over its services.

Owns the loop, the batch and buffer that its services share, and its own shutdown. It starts with its config and sockets
and never gets others. Its supervisor controls it over a channel of short messages; signals of a terminal or a service
manager are handled by the supervisor. Invariant: the heartbeat counts turns of this loop, at least one a second, so it
stops when the loop does.
"""

import socket
from collections.abc import Callable
from contextlib import suppress
from math import inf
from random import Random
from time import monotonic
from typing import Final

from echod.admission.admission import Admission
from echod.admission.loops import PERIOD, LoopDetector
from echod.admission.ratelimit import RateLimit
from echod.admission.rules import Access, Rules, RuleSet
from echod.linux.io_uring import IoUring
from echod.linux.poll import READ, SHARED, Poll
from echod.linux.process import set_up_child
from echod.net.listener import Listener, Protocol
from echod.net.networks import unpack_networks
from echod.stats.counters import SlotField
from echod.stats.refusals import Tally
from echod.stats.top_sources import TopSources
from echod.tcp.connection import READ_BYTES
from echod.tcp.connections import IoBuffers, Timeouts
from echod.tcp.limits import ConnectionLedger
from echod.tcp.service import TcpEcho
from echod.udp.batch import Batch
from echod.udp.service import UdpEcho
from echod.udp.sock import UdpSocket
from echod.worker.channel import MAX_COMMAND_BYTES, OWN_ADDRESSES, READY, SERVE, TOP_SOURCES, Birth
from echod.worker.modes import Holding, make_connections, make_identity, make_reply
from echod.worker.rules import declare_rules

SPIN_SECONDS: Final = 20e-6
"""The cost of a sleep and a wake-up on a virtual machine; elsewhere it is lower. Spent at most once for each wait that
was shorter."""

HEARTBEAT_SECONDS: Final = 1.0
_HEARTBEAT: Final = int(SlotField.HEARTBEAT)


class Worker:
    """The loop."""

    def __init__(self, birth: Birth) -> None:
        """Set everything up, but answer nothing yet."""
        self._birth = birth
        self._channel = birth.channel
        self._header = birth.page.header(birth.slot)
        self._poll = Poll(spin_seconds=SPIN_SECONDS)
        self._poll.register(self._channel.fileno(), READ, self._on_command)
        self._udp: list[tuple[UdpEcho, bool]] = []
        self._holding: dict[int, Holding] = {}
        """What holds datagrams for later, by the descriptor of its socket."""
        self._tcp: list[TcpEcho] = []
        self._tallies: list[Tally] = []
        self._top_sources = TopSources(Random().random)  # noqa: S311 - it protects no secret
        self._test_port = birth.self_test.port if birth.self_test is not None else None
        self._declared = declare_rules(birth.config, birth.page.listeners, birth.own_addresses, self._test_port)
        self._admission = _set_up_admission(birth, self._declared)
        self._serving = False
        self._draining = False
        self._drain_until = inf
        self._next_deadline = monotonic()
        self._set_up_udp()
        self._set_up_tcp()

    def _tally(self, listener: Listener) -> Tally:
        """Make the tally of refusals at one socket of a listener."""
        tally = Tally(self._birth.page.listeners.index(listener))
        self._tallies.append(tally)
        return tally

    def _set_up_udp(self) -> None:
        birth = self._birth
        batch = Batch(birth.vector)
        for each in birth.sockets:
            if each.listener.protocol is Protocol.UDP:
                row = birth.page.row(birth.slot, each.listener)
                tally = self._tally(each.listener)
                sock = UdpSocket(each.sock, birth.page.listeners.index(each.listener), each.options)
                reply = make_reply(birth, each, sock, row, tally, poll=self._poll, holding=self._holding)
                echo = UdpEcho(
                    sock,
                    batch,
                    self._admission,
                    row,
                    tally=tally,
                    top_sources=self._top_sources,
                    reply=reply,
                    identity=make_identity(each),
                )
                self._udp.append((echo, each.shared))

    def _set_up_tcp(self) -> None:
        birth, limits = self._birth, self._birth.config.tcp
        ledger = ConnectionLedger(
            birth.page,
            birth.slot,
            limit=limits.max_connections,
            limit_per_source=limits.max_connections_per_source,
            secret=birth.secret,
        )
        timeouts = Timeouts(idle=limits.idle_timeout_seconds, stall=limits.stall_timeout_seconds)
        served = [each for each in birth.sockets if each.listener.protocol is Protocol.TCP]
        access = Access(self._declared)
        io_uring = None
        if served:
            with suppress(OSError):  # where this host does not offer it, connections are served one by one
                io_uring = IoUring()
        io = IoBuffers(buffer=memoryview(bytearray(READ_BYTES)), io_uring=io_uring)
        for each in served:
            self._tcp.append(
                TcpEcho(
                    each.sock,
                    poll=self._poll,
                    io=io,
                    access=access,
                    ledger=ledger,
                    row=birth.page.row(birth.slot, each.listener),
                    tally=self._tally(each.listener),
                    timeouts=timeouts,
                    test_port=self._test_port,
                    connections=make_connections(each.options, self._poll),
                )
            )

    def run(self) -> None:
        """Send READY, serve at the command SERVE, return when drained."""
        self._channel.send(READY)
        header, wait, now = self._header, self._poll.wait, self._next_deadline
        while not self._draining or self._has_unfinished():
            ready = wait(max(0.0, self._next_deadline - now))
            now = monotonic()
            header[_HEARTBEAT] += 1
            for on_ready in ready:
                on_ready(now)
            if now >= self._next_deadline:
                self._next_deadline = self._on_deadline(now)

    def _has_unfinished(self) -> bool:
        """Tell whether a connection is open, or a datagram held."""
        return any(echo.connections for echo in self._tcp) or any(self._holding.values())

    def _on_deadline(self, now: float) -> float:
        """Let the services handle their deadlines, and send the reports; return the time of the next call.

        Every deadline that a service sets lies at least HEARTBEAT_SECONDS ahead, so none can be missed until then.
        """
        for echo in self._tcp:
            echo.on_deadline(now)
        for holding in self._holding.values() if now >= self._drain_until else ():
            holding.flush()
        reports = [report.pack() for tally in self._tallies for report in tally.reports()]
        top_sources = self._top_sources.report()
        for report in reports if top_sources is None else [*reports, TOP_SOURCES + top_sources]:
            with suppress(OSError):  # the supervisor is slow or gone; the counters are complete without it
                self._channel.send(report, socket.MSG_DONTWAIT)
        deadlines = [echo.next_deadline() for echo in self._tcp]
        until = self._drain_until if now < self._drain_until else inf
        return min([now + HEARTBEAT_SECONDS, until, *(deadline for deadline in deadlines if deadline is not None)])

    def _on_command(self, now: float) -> None:
        try:
            command = self._channel.recv(MAX_COMMAND_BYTES)
        except ConnectionResetError:
            command = b""  # the supervisor's end closed with a report unread
        if command.startswith(OWN_ADDRESSES):
            self._admission.set_own_addresses(unpack_networks(command[len(OWN_ADDRESSES) :]))
        elif command == SERVE:
            self._serving = True
            for echo, shared in self._udp:
                self._poll.register(echo.sock.fd, SHARED if shared else READ, echo.on_readable, busy=True)
            for listener in self._tcp:
                listener.listen(now)
        else:
            self._poll.unregister(self._channel.fileno())
            self._drain(now)

    def _drain(self, now: float) -> None:
        """Answer queued datagrams, stop accepting, and let the connections, and what is held, finish in time."""
        self._draining = True
        self._next_deadline = now
        until = self._drain_until = now + self._birth.config.drain_timeout_seconds
        for echo, _ in self._udp if self._serving else ():
            echo.drain(now)
            self._poll.unregister(echo.sock.fd)
            if echo.sock.fd in self._holding:
                self._holding[echo.sock.fd].drain()
            else:
                echo.sock.sock.close()
        for listener in self._tcp if self._serving else ():
            listener.drain(now, until)


def _set_up_admission(birth: Birth, declared: RuleSet) -> Admission:
    """Return the admission; the table of its limit is in the memory that all workers of a generation share."""
    limits, limit = birth.config.limits, None
    if birth.rates is not None:
        limit = RateLimit(
            birth.rates,
            sources=limits.sources,
            per_source=limits.datagrams_per_second,
            burst=limits.burst,
            total=limits.total_datagrams_per_second,
            slip=_slip(limits.slip) if limits.slip else None,
            dry_run=limits.dry_run,
        )
    detector = LoopDetector(sources=limits.sources, gap=_gap()) if birth.config.guard.loop_breaker else None
    rules = Rules(declared)
    return Admission(rules, sources=limits.sources, limit=limit, loop_detector=detector, self_test=birth.self_test)


def _slip(one_in: int) -> Callable[[], bool]:
    """Return a function that is true once in so many calls, at random, so that no forger can predict it."""
    random, chance = Random().random, 1 / one_in  # noqa: S311 - no secret; made here, so that workers have different ones
    return lambda: random() < chance


def _gap() -> Callable[[], int]:
    """Return a function that returns the distance to the next sample in datagrams: random, 1 to 2 * PERIOD - 1."""
    random, most = Random(), 2 * PERIOD - 1  # noqa: S311 - no secret either
    return lambda: 1 + int(random.random() * most)


def run_worker(birth: Birth) -> None:
    """Set up a newly forked process as a worker, and run it."""
    if set_up_child(birth.supervisor, f"echod: worker {birth.slot + 1}", birth.account):
        Worker(birth).run()
