"""One worker process: one epoll loop over its services.

Owns the loop, the batch and buffer that its services share, and the end of its life. It is born with its config and
sockets and never gets others; it listens to its supervisor on a channel of single bytes. Signals of a terminal or a
service manager are the supervisor's business. Invariant: the heartbeat counts turns of this loop, at least one a
second, so it stops when the loop does.
"""

import ctypes
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final

from setproctitle import setproctitle

from echod.batch import Batch, Port
from echod.core.admission import Admission
from echod.core.config import Config
from echod.core.connections import ConnectionLedger
from echod.core.counters import CounterPage, SlotField
from echod.core.listener import Listener, Protocol
from echod.poll import READ, SHARED, Poll
from echod.tcp import READ_BYTES, TcpEcho, Timeouts
from echod.udp import UdpEcho

READY: Final = b"r"
"""To the supervisor: everything is set up; `SERVE` may come."""
SERVE: Final = b"s"
"""To the worker: begin to answer."""
DRAIN: Final = b"d"
"""To the worker: finish what is under way, then exit. The end of the channel says it too."""

HEARTBEAT_SECONDS: Final = 1.0

_IGNORED: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedSocket:
    """A socket that a worker serves; `shared` where other workers wait on the very same one."""

    listener: Listener
    sock: socket.socket
    shared: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Birth:
    """All that a worker is born with."""

    slot: int
    config: Config
    sockets: Sequence[ServedSocket]
    page: CounterPage
    secret: bytes
    channel: socket.socket
    supervisor: int
    """Its process id."""


class Worker:
    """The loop."""

    def __init__(self, birth: Birth) -> None:
        """Set everything up; nothing is answered yet."""
        self._birth = birth
        self._channel = birth.channel
        self._header = birth.page.header(birth.slot)
        self._poll = Poll()
        self._poll.register(self._channel.fileno(), READ, self._on_command)
        self._udp: list[tuple[UdpEcho, bool]] = []
        self._tcp: list[TcpEcho] = []
        self._serving = False
        self._draining = False
        self._next_deadline = monotonic()
        self._set_up_udp()
        self._set_up_tcp()

    def _set_up_udp(self) -> None:
        birth = self._birth
        served = [served for served in birth.sockets if served.listener.protocol is Protocol.UDP]
        admission = Admission(listener.port for listener in birth.page.listeners if listener.protocol is Protocol.UDP)
        batch = Batch()
        for each in served:
            row = birth.page.row(birth.slot, each.listener)
            self._udp.append((UdpEcho(Port(each.sock), batch, admission, row), each.shared))

    def _set_up_tcp(self) -> None:
        birth, limits = self._birth, self._birth.config.tcp
        ledger = ConnectionLedger(
            birth.page,
            birth.slot,
            limit=limits.max_connections,
            limit_per_source=limits.max_connections_per_source,
            secret=birth.secret,
        )
        buffer = memoryview(bytearray(READ_BYTES))
        for each in birth.sockets:
            if each.listener.protocol is Protocol.TCP:
                echo = TcpEcho(
                    each.sock,
                    poll=self._poll,
                    buffer=buffer,
                    ledger=ledger,
                    row=birth.page.row(birth.slot, each.listener),
                    timeouts=Timeouts(idle=limits.idle_timeout_seconds, stall=limits.stall_timeout_seconds),
                )
                self._tcp.append(echo)

    def run(self) -> None:
        """Say ready, serve when told to, until drained."""
        self._channel.send(READY)
        now = self._next_deadline
        while not self._draining or any(echo.connections for echo in self._tcp):
            ready = self._poll.wait(max(0.0, self._next_deadline - now))
            now = monotonic()
            self._header[SlotField.HEARTBEAT] += 1
            for on_ready in ready:
                on_ready(now)
            if now >= self._next_deadline:
                self._next_deadline = self._on_deadline(now)

    def _on_deadline(self, now: float) -> float:
        """Let the services do what time brings; return when to do it next.

        Every deadline that a service sets lies at least HEARTBEAT_SECONDS ahead, so none can be missed until then.
        """
        for echo in self._tcp:
            echo.on_deadline(now)
        deadlines = [echo.next_deadline() for echo in self._tcp]
        return min([now + HEARTBEAT_SECONDS, *(deadline for deadline in deadlines if deadline is not None)])

    def _on_command(self, now: float) -> None:
        command = self._channel.recv(1)
        if command == SERVE:
            self._serving = True
            for echo, shared in self._udp:
                self._poll.register(echo.port.fd, SHARED if shared else READ, echo.on_readable)
            for listener in self._tcp:
                listener.listen()
        else:
            self._poll.unregister(self._channel.fileno())
            self._drain(now)

    def _drain(self, now: float) -> None:
        """Answer what is queued, accept no more, and let the connections finish in time."""
        self._draining = True
        self._next_deadline = now
        until = now + self._birth.config.drain_timeout_seconds
        for echo, _ in self._udp if self._serving else ():
            echo.on_readable(now)
            self._poll.unregister(echo.port.fd)
            echo.port.sock.close()
        for listener in self._tcp if self._serving else ():
            listener.drain(now, until)


def live(birth: Birth) -> None:
    """Be a worker, in a process just forked: set up what is a process's own, then run."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    # Should the supervisor die without a word, so must we: a new one must find the ports free.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != birth.supervisor:
        return
    setproctitle(f"echod: worker {birth.slot + 1}")
    Worker(birth).run()
