"""The exporter as the supervisor has it: raised at each commit, raised again where it died, let go.

Owns that process and the channel to it. Never serves a request. Invariant: nothing that happens to an exporter, its
birth included, reaches a worker or keeps the supervisor waiting.
"""

import os
import signal
import socket
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from echod.books import Books
from echod.core.counters import CounterPage
from echod.core.listener import Protocol
from echod.core.selftest import SelfTest
from echod.core.snapshot import Rates
from echod.core.timers import STEADY_SECONDS, Agenda, backoff_seconds
from echod.core.traffic import tell_tcp, tell_udp
from echod.forking import fork
from echod.holdings import Holdings
from echod.outfit import DRAIN, SNAPSHOT, Outfit, Traffic

LEAVE_SECONDS: Final = 3.0
"""How long an exporter that was let go may take to finish its responses."""

DEAF_AFTER: Final = 10
"""An exporter that left so many snapshots in a row in its channel is stuck."""

_log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class _Process:
    """An exporter that lives."""

    pid: int
    channel: socket.socket
    born: float
    refused: int = 0
    """Messages in a row that found the channel full."""

    def tell(self, message: bytes) -> None:
        """Send, if there is room: the next one says all that this one would."""
        try:
            self.channel.send(message)
            self.refused = 0
        except BlockingIOError:
            self.refused += 1
        except OSError:
            return  # it is dying; its death will be reaped

    def kill(self) -> None:
        """End it at once."""
        os.kill(self.pid, signal.SIGKILL)


class Export:
    """At most one exporter, and those that are on their way out."""

    def __init__(
        self, agenda: Agenda, holdings: Holdings, books: Books, pages: Callable[[], Sequence[CounterPage]]
    ) -> None:
        """Take what exporters are made of; there is none before `renew`."""
        self._agenda = agenda
        self._holdings = holdings
        self._books = books
        self._pages = pages
        self._own: CounterPage | None = None
        self._self_test: SelfTest | None = None
        self._said = b""
        self._current: _Process | None = None
        self._leaving: list[_Process] = []
        self._deaths = 0

    def renew(self, page: CounterPage, self_test: SelfTest | None, now: float) -> None:
        """Raise an exporter for the generation with that page, where one is wanted, and let the one before go."""
        self._own, self._self_test, self._deaths = page, self_test, 0
        if self._current is not None:
            self._let_go(self._current, now)
        self._raise(now)

    def tell(self, snapshot: bytes) -> None:
        """Let the exporter know what the supervisor alone does; also those that are yet to be born."""
        self._said = snapshot
        if self._current is not None:
            self._current.tell(SNAPSHOT + zlib.compress(snapshot, 1))
            if self._current.refused >= DEAF_AFTER:
                _log.warning("exporter_stuck", pid=self._current.pid)
                self._current.kill()

    def drain(self) -> None:
        """Let it say that echod is stopping."""
        if self._current is not None:
            self._current.tell(DRAIN)

    def end(self) -> None:
        """End what there is of them, and return when they are gone."""
        for process in (*self._leaving, *([self._current] if self._current is not None else [])):
            process.kill()
            os.waitpid(process.pid, 0)
        self._current, self._leaving = None, []

    def reap(self, now: float) -> None:
        """Collect the exporters that have exited, and see to it that there is one again."""
        self._leaving = [process for process in self._leaving if _exit_of(process) is None]
        if self._current is None or (how := _exit_of(self._current)) is None:
            return
        lost, self._current = self._current, None
        lost.channel.close()
        self._deaths = 0 if now - lost.born >= STEADY_SECONDS else self._deaths + 1
        _log.warning("exporter_exited", pid=lost.pid, reason=how)
        self._agenda.at(now + backoff_seconds(self._deaths), self._raise)

    def _raise(self, now: float) -> None:
        """Fork an exporter, unless there is one or none is wanted."""
        doors = self._holdings.doors
        if self._current is not None or self._own is None or not doors:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sockets = self._holdings.sockets
        outfit = Outfit(
            page=self._own,
            doors=doors,
            sockets=sockets,
            self_test=self._self_test,
            traffic=partial(_count, self._books, self._holdings, tuple(self._pages())),
            snapshot=self._said,
            channel=theirs,
            supervisor=os.getpid(),
        )
        keep = [sock.fileno() for each in (doors, [theirs], *sockets.values()) for sock in each]
        try:
            pid = fork("exporter", keep, lambda: _live(outfit))
        except OSError as error:
            ours.close()
            self._deaths += 1
            _log.warning("exporter_not_started", reason=error.strerror)
            self._agenda.at(now + backoff_seconds(self._deaths), self._raise)
            return
        finally:
            theirs.close()
        ours.setblocking(False)
        self._current = _Process(pid=pid, channel=ours, born=now)
        _log.info("exporter_started", pid=pid)

    def _let_go(self, process: _Process, now: float) -> None:
        """Let an exporter finish: the end of its channel tells it."""
        process.channel.close()
        self._current = None
        self._leaving.append(process)
        self._agenda.at(now + LEAVE_SECONDS, lambda _now: process.kill() if process in self._leaving else None)


def _count(books: Books, holdings: Holdings, pages: Sequence[CounterPage]) -> Traffic:
    """Count anew, in a copy of the supervisor's books that takes no page over any more."""
    totals = books.totals(pages)
    adopted = set(holdings.adopted)
    nothing = Rates()  # Prometheus makes its own
    udp = [
        tell_udp(one, row, adopted=one in adopted, kernel_drops=holdings.kernel_drops(one), rate=nothing)
        for one, row in totals.items()
        if one.protocol is Protocol.UDP
    ]
    tcp = [
        tell_tcp(one, row, adopted=one in adopted, accepted=nothing, octets=nothing)
        for one, row in totals.items()
        if one.protocol is Protocol.TCP
    ]
    return udp, tcp


def _live(outfit: Outfit) -> None:
    """Be the exporter. What it serves with is imported here, so that no other process has it in memory."""
    from echod.exporter import live  # noqa: PLC0415 - see above

    live(outfit)


def _exit_of(process: _Process) -> str | None:
    """Collect a process that has exited; return how, or None while it lives."""
    pid, status = os.waitpid(process.pid, os.WNOHANG)
    if pid == 0:
        return None
    code = os.waitstatus_to_exitcode(status)
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
