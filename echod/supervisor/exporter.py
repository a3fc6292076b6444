"""The supervisor's side of the exporter: started at each commit, restarted after a death, stopped.

Owns that process and the channel to it. Never serves a request. Invariant: nothing that happens to an exporter,
including its start, affects a worker or blocks the supervisor.
"""

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from time import monotonic
from typing import Final

import structlog

from echod.admission.selftest import SelfTest
from echod.exporter.channel import DRAIN, SNAPSHOT, Outfit, Traffic
from echod.linux.netlink import in_our_network
from echod.linux.privileges import Account
from echod.linux.process import fork, how_it_ended, kill
from echod.net.listener import Listener, Protocol
from echod.stats.counters import CounterPage
from echod.stats.snapshot import Rates
from echod.stats.traffic import tell_tcp, tell_udp
from echod.stats.watch import PageWatch
from echod.supervisor.listening import Holdings
from echod.supervisor.timers import Agenda, Backoff
from echod.supervisor.totals import Books

LEAVE_SECONDS: Final = 3.0
"""How long an exporter that is stopped may take to finish its responses."""

AGAIN_SECONDS: Final = 1.0
"""Delay before the message that echod is stopping is sent again to an exporter whose channel was full."""

CHANNEL_BYTES: Final = 4096
"""Requested size of the channel's buffer: room for about ten messages, so that a stuck exporter is noticed soon."""

DEAF_SECONDS: Final = 10.0
"""An exporter whose channel has been full for this long is stuck."""

_log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class _Process:
    """A living exporter."""

    pid: int
    channel: socket.socket
    born: float
    deaf_since: float | None = None
    """The monotonic time, in seconds, of the first of the messages in a row that found the channel full."""

    def tell(self, message: bytes, *files: int) -> bool:
        """Send, with copies of these descriptors, if there is room; return False if it must be sent again."""
        try:
            socket.send_fds(self.channel, [message], files)
        except BlockingIOError:
            self.deaf_since = self.deaf_since or monotonic()
            return False
        except OSError:
            return True  # it is dying; its death will be reaped
        self.deaf_since = None
        return True

    def kill(self) -> None:
        """End it at once."""
        kill(self.pid)


class Export:
    """At most one current exporter, and those that are finishing."""

    def __init__(
        self, agenda: Agenda, holdings: Holdings, books: Books, pages: Callable[[], Sequence[CounterPage]]
    ) -> None:
        """Take what exporters need; none is started before `renew`."""
        self._agenda = agenda
        self._holdings = holdings
        self._books = books
        self._pages = pages
        self._own: CounterPage | None = None
        self._self_test: SelfTest | None = None
        self._account: Account | None = None
        self._hosts: Sequence[str] = ()
        self._said = b""
        self._draining = False
        self._current: _Process | None = None
        self._leaving: list[_Process] = []
        self._backoff = Backoff()

    def renew(
        self, page: CounterPage, self_test: SelfTest | None, account: Account | None, hosts: Sequence[str], now: float
    ) -> None:
        """Start an exporter for the generation with this page, if one is wanted, and stop the previous one."""
        self._own, self._self_test, self._account, self._hosts = page, self_test, account, hosts
        self._backoff = Backoff()
        if self._current is not None:
            self._let_go(self._current, now)
        self._raise(now)

    def tell(self, snapshot: bytes) -> None:
        """Send a snapshot to the exporter, and keep it for exporters started later."""
        self._said = snapshot
        if self._current is None:
            return
        with suppress(OSError), os.fdopen(os.memfd_create("snapshot"), "wb", buffering=0) as file:
            file.write(snapshot)
            self._current.tell(SNAPSHOT, file.fileno())  # a lost one is made up for by the next
        if self._current.deaf_since is not None and monotonic() >= self._current.deaf_since + DEAF_SECONDS:
            seconds = round(monotonic() - self._current.deaf_since)
            message = (
                f"the exporter (process {self._current.pid}) is stuck: it has not read its messages for {seconds} "
                "seconds; it is killed and replaced"
            )
            _log.warning("exporter_stuck", message=message, pid=self._current.pid, seconds=seconds)
            self._current.deaf_since = None  # said once, also where the kill takes a moment
            self._current.kill()

    def drain(self, now: float) -> None:
        """Tell the exporter, and any started later, that echod is stopping."""
        self._draining = True
        if self._current is not None and not self._current.tell(DRAIN):
            self._agenda.at(now + AGAIN_SECONDS, self.drain)

    def end(self) -> None:
        """Kill all exporters, and return when they are gone. One that may not be killed ends with its channel."""
        for process in (*self._leaving, *([self._current] if self._current is not None else [])):
            process.channel.close()
            if kill(process.pid):
                os.waitpid(process.pid, 0)
        self._current, self._leaving = None, []

    def reap(self, now: float) -> None:
        """Reap the exporters that have exited, and schedule a replacement."""
        self._leaving = [process for process in self._leaving if _exit_of(process) is None]
        if self._current is None or (how := _exit_of(self._current)) is None:
            return
        lost, self._current = self._current, None
        lost.channel.close()
        _log.warning("exporter_exited", pid=lost.pid, reason=how)
        self._agenda.at(now + self._backoff.after(now - lost.born), self._raise)

    def _raise(self, now: float) -> None:
        """Fork an exporter, unless there is one or none is wanted."""
        if self._current is not None or self._own is None or not self._holdings.doors:
            return
        try:
            self._current = self._fork(self._own, now)
        except OSError as error:
            _log.warning("exporter_not_started", reason=error.strerror)
            self._agenda.at(now + self._backoff.after(0.0), self._raise)
        else:
            _log.info("exporter_started", pid=self._current.pid)

    def _fork(self, page: CounterPage, now: float) -> _Process:
        """Fork an exporter for the generation with this page.

        It keeps only the doors of all sockets: a port whose listener a reload closes must be free at once. Raises
        OSError if the host has no process or descriptor left.
        """
        doors, pages = self._holdings.doors, tuple(self._pages())
        drops = {one: self._holdings.kernel_drops(one) for one in self._books.totals(pages)}
        reachable = in_our_network(chain.from_iterable(self._holdings.sockets.values()))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, CHANNEL_BYTES)
        ours.setblocking(False)
        outfit = Outfit(
            page=page,
            http_sockets=doors,
            reachable=reachable,
            hosts=self._hosts,
            self_test=self._self_test,
            traffic=partial(_count, self._books, list(map(PageWatch, pages)), frozenset(self._holdings.adopted), drops),
            snapshot=self._said,
            draining=self._draining,
            channel=theirs,
            supervisor=os.getpid(),
            account=self._account,
        )
        try:
            pid = fork("exporter", [sock.fileno() for sock in (theirs, *doors)], lambda: _live(outfit))
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        return _Process(pid=pid, channel=ours, born=now)

    def _let_go(self, process: _Process, now: float) -> None:
        """Let an exporter finish: it exits when its channel is closed."""
        process.channel.close()
        self._current = None
        self._leaving.append(process)
        self._agenda.at(now + LEAVE_SECONDS, lambda _now: process.kill() if process in self._leaving else None)


def _count(
    books: Books, watches: Sequence[PageWatch], adopted: frozenset[Listener], drops: Mapping[Listener, int]
) -> Traffic:
    """Read the counters again, with a copy of the supervisor's books that takes no further page over."""
    for watch in watches:
        watch.changed()  # for its look alone: what a broken worker writes is no count
    totals = books.totals([watch.page for watch in watches])
    nothing = Rates()  # Prometheus computes its own
    udp = [
        tell_udp(one, row, adopted=one in adopted, kernel_drops=drops[one], rate=nothing)
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
    """Be the exporter. Its modules are imported here, so that no other process has them in memory."""
    from echod.exporter.exporter import live  # noqa: PLC0415 - see above

    live(outfit)


def _exit_of(process: _Process) -> str | None:
    """Reap a process if it has exited; return how it ended, or None while it lives."""
    pid, status = os.waitpid(process.pid, os.WNOHANG)
    return how_it_ended(status) if pid else None
