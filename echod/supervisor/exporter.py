"""The supervisor's side of the exporter: started at each commit, restarted after a death, stopped.

Owns that process and the channel to it. Never serves a request. Invariant: nothing that happens to an exporter,
including its start, affects a worker or blocks the supervisor.
"""

import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from time import monotonic
from typing import Final

import structlog

from echod import logs
from echod.exporter.channel import DRAIN, SNAPSHOT, ExporterInputs
from echod.linux.netlink import in_our_network
from echod.linux.process import describe_exit, fork, kill
from echod.stats.counters import CounterPage
from echod.stats.totals import Totals, read_traffic
from echod.stats.watch import PageWatch
from echod.supervisor.generation import Generation
from echod.supervisor.listening import ListeningSockets
from echod.supervisor.timers import Backoff, Timers

FINISH_SECONDS: Final = 3.0
"""How long an exporter that is stopped may take to finish its responses."""

RESEND_SECONDS: Final = 1.0
"""Delay before the message that echod is stopping is sent again to an exporter whose channel was full."""

CHANNEL_BYTES: Final = 4096
"""Requested size of the channel's buffer: room for about ten messages, so that a stuck exporter is noticed soon."""

STUCK_SECONDS: Final = 10.0
"""An exporter whose channel has been full for this long is stuck."""

_log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class _Process:
    """A living exporter."""

    pid: int
    channel: socket.socket
    born: float
    full_since: float | None = None
    """The monotonic time, in seconds, of the first of the messages in a row that found the channel full."""

    def send(self, message: bytes, *files: int) -> bool:
        """Send, with copies of these descriptors, if there is room; return False if the message must be sent again."""
        try:
            socket.send_fds(self.channel, [message], files)
        except BlockingIOError:
            self.full_since = self.full_since or monotonic()
            return False
        except OSError:
            return True  # it is dying; its death will be reaped
        self.full_since = None
        return True


class Exporters:
    """At most one current exporter, and those that are finishing."""

    def __init__(
        self, timers: Timers, listening: ListeningSockets, totals: Totals, pages: Callable[[], Sequence[CounterPage]]
    ) -> None:
        """Take what exporters need; none is started before `renew`."""
        self._timers = timers
        self._listening = listening
        self._totals = totals
        self._pages = pages
        self._generation: Generation | None = None
        self._snapshot = b""
        self._draining = False
        self._current: _Process | None = None
        self._finishing: list[_Process] = []
        self._backoff = Backoff()

    @property
    def pids(self) -> set[int]:
        """The processes that were not reaped yet."""
        return {process.pid for process in (self._current, *self._finishing) if process is not None}

    def renew(self, generation: Generation, now: float) -> None:
        """Start an exporter for this generation, if one is wanted, and let the previous one finish."""
        self._generation = generation
        self._backoff = Backoff()
        if self._current is not None:
            self._current.channel.close()  # it exits for that
            self._finishing.append(self._current)
            self._timers.at(now + FINISH_SECONDS, partial(self._end, self._current))
            self._current = None
        self._start(now)

    def send(self, snapshot: bytes) -> None:
        """Send a snapshot to the exporter, and keep it for exporters started later."""
        self._snapshot = snapshot
        if self._current is None:
            return
        with suppress(OSError), os.fdopen(os.memfd_create("snapshot"), "wb", buffering=0) as file:
            file.write(snapshot)
            self._current.send(SNAPSHOT, file.fileno())  # if there is no room, the next one replaces it
        if self._current.full_since is not None and monotonic() >= self._current.full_since + STUCK_SECONDS:
            seconds = round(monotonic() - self._current.full_since)
            message = (
                f"the exporter (process {self._current.pid}) is stuck: it has not read its messages for {seconds} "
                "seconds; it is killed and replaced"
            )
            _log.warning("exporter_stuck", message=message, pid=self._current.pid, seconds=seconds)
            self._current.full_since = None  # logged once, even if the kill takes a moment
            kill(self._current.pid)

    def drain(self, now: float) -> None:
        """Inform the exporter, and any that is started later, that echod is stopping."""
        self._draining = True
        if self._current is not None and not self._current.send(DRAIN):
            self._timers.at(now + RESEND_SECONDS, self.drain)

    def kill(self) -> None:
        """Kill all exporters, and return when they are gone. One that may not be killed exits with its channel."""
        for process in (*self._finishing, *([self._current] if self._current is not None else [])):
            process.channel.close()
            if kill(process.pid):
                os.waitpid(process.pid, 0)
        self._current, self._finishing = None, []

    def reap(self, now: float) -> None:
        """Reap the exporters that have exited, and schedule a replacement."""
        self._finishing = [process for process in self._finishing if _exit_of(process) is None]
        if self._current is None or (how := _exit_of(self._current)) is None:
            return
        lost, self._current = self._current, None
        lost.channel.close()
        _log.warning("exporter_exited", pid=lost.pid, reason=how)
        self._timers.at(now + self._backoff.after(now - lost.born), self._start)

    def _start(self, now: float) -> None:
        """Fork an exporter, unless there is one or none is wanted."""
        if self._current is not None or self._generation is None or not self._listening.http_sockets:
            return
        try:
            self._current = self._fork(self._generation, now)
        except OSError as error:
            _log.warning("exporter_not_started", reason=error.strerror)
            self._timers.at(now + self._backoff.after(0.0), self._start)
        else:
            _log.info("exporter_started", pid=self._current.pid)

    def _fork(self, generation: Generation, now: float) -> _Process:
        """Fork an exporter for this generation.

        Of all sockets it keeps only those for HTTP: the port of a listener that a reload closes must be free at once.
        Raises OSError if the host has no process or descriptor left.
        """
        http_sockets, pages = self._listening.http_sockets, tuple(self._pages())
        drops = {one: self._listening.kernel_drops(one) for one in self._totals.rows(pages)}
        adopted, options = frozenset(self._listening.adopted), dict(self._listening.options)
        reachable = in_our_network(chain.from_iterable(self._listening.sockets.values()))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, CHANNEL_BYTES)
        ours.setblocking(False)
        inputs = ExporterInputs(
            page=generation.page,
            http_sockets=http_sockets,
            reachable=reachable,
            hosts=generation.config.metrics.hosts,
            self_test=generation.self_test,
            traffic=partial(read_traffic, self._totals, list(map(PageWatch, pages)), adopted, drops, options),
            snapshot=self._snapshot,
            draining=self._draining,
            channel=theirs,
            supervisor=os.getpid(),
            account=generation.account,
        )
        keep = [*logs.descriptors(), *(sock.fileno() for sock in (theirs, *http_sockets))]
        try:
            pid = fork("exporter", keep, lambda: _run(inputs), logs.report)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        return _Process(pid=pid, channel=ours, born=now)

    def _end(self, process: _Process, _now: float) -> None:
        if process in self._finishing:
            kill(process.pid)


def _run(inputs: ExporterInputs) -> None:
    """Be the exporter. Its modules are imported here, so that no other process has them in memory."""
    from echod.exporter.exporter import run_exporter  # noqa: PLC0415 - see above

    run_exporter(inputs)


def _exit_of(process: _Process) -> str | None:
    """Reap a process if it has exited; return how it ended, or None while it lives."""
    pid, status = os.waitpid(process.pid, os.WNOHANG)
    return describe_exit(status) if pid else None
