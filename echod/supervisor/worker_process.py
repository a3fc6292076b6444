"""One slot for a worker process: its start, its messages, its exit.

Owns the process id, the channel and its queue, the batch memory, and the last heartbeat. It decides nothing: the
generation does. Invariants: a worker can map the batch memory of no other; no message of a worker can do more harm than
end that worker.
"""

import mmap
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from echod import logs
from echod.linux.mmsg_layout import MEMORY_BYTES
from echod.linux.poll import READ, Poll
from echod.linux.process import describe_exit, fork, kill
from echod.linux.send_queue import SendQueue
from echod.stats.counters import Unfinished
from echod.supervisor.timers import Backoff
from echod.udp.unfinished import read_unfinished
from echod.worker.channel import MAX_REPORT_BYTES, Birth
from echod.worker.worker import run_worker

STUCK_AFTER_CHECKS: Final = 5
"""A worker whose heartbeat did not change in so many consecutive checks, a second apart, is stuck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerExit:
    """A worker process that has exited."""

    pid: int
    reason: str
    ok: bool
    """Whether its exit code was 0."""
    delay: float
    """Seconds to wait before another one is started in its slot."""


class WorkerProcess:
    """A slot, which holds at most one worker process at a time."""

    def __init__(self, number: int, poll: Poll, on_message: Callable[["WorkerProcess", bytes], bool]) -> None:
        """Start nothing yet. `on_message` returns whether a message is valid; a worker that sends another is killed.

        Raises OSError if there is no memory for the batch.
        """
        self.number = number
        self.name = f"worker {number + 1}"
        self.pid: int | None = None
        self.ready = False
        self.backoff = Backoff()
        self.vector = mmap.mmap(-1, MEMORY_BYTES)
        self.vector.madvise(mmap.MADV_DONTFORK)
        self.unchanged_checks = 0
        """Consecutive checks that found the heartbeat unchanged."""
        self.queue: SendQueue | None = None
        """Commands to the worker; None if there is no channel to one."""
        self._poll = poll
        self._on_message = on_message
        self._channel: socket.socket | None = None
        self._started = 0.0
        self._heartbeat = 0

    # -- start

    def start(self, birth: Birth, channel: socket.socket, now: float) -> None:
        """Fork a worker, with what it needs and nothing else; `channel` is this end of `birth.channel`.

        Raises OSError if the host has no process, descriptor or epoll watch left. It closes both ends then.
        """
        keep = [*logs.descriptors(), birth.channel.fileno(), *(each.sock.fileno() for each in birth.sockets)]
        try:
            self._open_channel(channel)
            self.vector.madvise(mmap.MADV_DOFORK)
            pid = fork(self.name, keep, lambda: run_worker(birth), logs.report)
        except OSError:
            self._close_channel()
            raise
        finally:
            birth.channel.close()
            self.vector.madvise(mmap.MADV_DONTFORK)
        self.pid, self.ready, self._started, self.unchanged_checks = pid, False, now, 0

    def _open_channel(self, channel: socket.socket) -> None:
        channel.setblocking(False)
        try:
            self._poll.register(channel.fileno(), READ, lambda _now: self._on_readable())
        except OSError:
            channel.close()
            raise
        self._channel, self.queue = channel, SendQueue(channel.send)

    def _close_channel(self) -> None:
        if self._channel is not None:
            self._poll.unregister(self._channel.fileno())
            self._channel.close()
            self._channel = self.queue = None

    # -- messages

    def send(self, command: bytes, packed: bytes = b"") -> None:
        """Send a command with its packed argument, at once or when the channel has room."""
        if self.queue is not None:
            self.queue.put(command, command + packed)

    def flush(self) -> None:
        """Send the commands for which the channel had no room. Call it once a second."""
        if self.queue is not None:
            self.queue.flush()

    def _on_readable(self) -> None:
        """Read a message, or the end of the channel."""
        if self._channel is None:
            return
        try:
            message = self._channel.recv(MAX_REPORT_BYTES)
        except OSError:
            message = b""
        if not message:
            self._close_channel()
        elif not self._on_message(self, message):
            self.kill()  # first: the worker takes the end of its channel for the end of its service
            self._close_channel()

    # -- watch

    def check(self, heartbeat: int) -> None:
        """Compare the heartbeat with that of the last check. Call it once a second."""
        unchanged = heartbeat == self._heartbeat and self.pid is not None
        self._heartbeat, self.unchanged_checks = heartbeat, self.unchanged_checks + 1 if unchanged else 0

    def kill(self) -> None:
        """Kill the process at once. (A stopped process reacts to no signal but SIGKILL.)"""
        if self.pid is not None:
            kill(self.pid)

    def reap(self, now: float) -> WorkerExit | None:
        """Reap the process if it has exited, after its last messages."""
        if self.pid is None:
            return None
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0:
            return None
        self.pid = None  # first: the PID may be reused from now on
        while self._channel is not None:  # its last messages may still be unread; the end of the channel follows
            self._on_readable()
        self.ready = False
        delay = self.backoff.after(now - self._started)
        return WorkerExit(pid=pid, reason=describe_exit(status), ok=status == 0, delay=delay)

    def unfinished(self) -> Unfinished:
        """Return what a worker that has exited had received and not counted."""
        return read_unfinished(self.vector)
