"""One epoll loop for all sessions: due times, readable sockets, signals.

Owns the signals and the waiting, which is exact to microseconds and needs no timers. Never sends or reads a probe: the
sessions do. Invariants: the loop blocks only in its one wait, which ends with the first event; between two waits only
the sessions that are due are called.
"""

import select
import signal
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from time import monotonic_ns
from types import FrameType
from typing import Final, Protocol

from echod.linux.prctl import PR_SET_TIMERSLACK, prctl
from echod.probes.due_times import DueTimes

_SPIN_NS: Final = 60_000
"""Ns before a probe is due from which on the loop does not sleep: the kernel takes as long to wake a process."""

_DRAIN_NS: Final = 200_000_000
"""Most ns that the loop reads at the end what was received until then: a peer may send without end."""

_MAX_WAIT: Final = 10**9
_END_SIGNALS: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
_CAUGHT: Final = _END_SIGNALS | {signal.SIGQUIT}
_SAME_SIGNAL_NS: Final = 200_000_000
"""Ns within which a second signal counts as the first: timeout(1) signals its child, and then its process group."""

OnReady = Callable[[], None]


class Scheduled(Protocol):
    """A session, as the loop calls it."""

    def run_due(self, now: int) -> int | None:
        """Do what is due at this monotonic time in ns; return when to be called again, or None if all is done."""


def _end_handler(first: Callable[[], None]) -> Callable[[int, FrameType | None], None]:
    """Return a handler of the signals that end a run: the first one ends the run, a later one ends the process.

    The run cannot end while a write blocks, because Python repeats a call that a signal interrupts (PEP 475). The
    second signal ends a process that writes to a pipe that nobody reads.
    """
    first_at = 0

    def on_signal(number: int, _frame: FrameType | None) -> None:
        nonlocal first_at
        now = monotonic_ns()
        if not first_at:
            first_at = now
            first()
        elif now - first_at > _SAME_SIGNAL_NS:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    return on_signal


def _interrupt() -> None:
    raise KeyboardInterrupt


def interrupt_at_signals() -> None:
    r"""Make the first signal that ends a run raise KeyboardInterrupt, if there is no loop; Ctrl-\ does nothing."""
    handle = _end_handler(_interrupt)
    for number in _END_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handle)
    signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _END_SIGNALS)


class Loop:
    """The loop."""

    def __init__(self) -> None:
        """Catch the signals from now on."""
        self._epoll = select.epoll()
        self._on_ready: dict[int, OnReady] = {}
        self._due: DueTimes[Scheduled] = DueTimes()
        self._received_signals: list[int] = []
        self._signals, write = socket.socketpair()
        self._signals.setblocking(False)
        write.setblocking(False)
        self._write = write
        # Under nohup(1) the end of the terminal does not end the run.
        ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()
        handle = _end_handler(lambda: None)
        for number in _END_SIGNALS - ignored:
            signal.signal(number, handle)
        signal.signal(signal.SIGQUIT, lambda *_: None)
        signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _CAUGHT)
        self.register(self._signals.fileno(), self._on_signal)
        # By default a sleep may take 50 us longer than asked, to save power.
        with suppress(OSError):  # a sandbox may forbid it
            prctl(PR_SET_TIMERSLACK, 1)

    def close(self) -> None:
        """Stop to receive signals. Their handlers stay: the second of two at once must not kill a run that ends."""
        signal.set_wakeup_fd(-1)
        self._signals.close()
        self._write.close()
        self._epoll.close()

    @property
    def interrupts(self) -> int:
        """Return a descriptor that has something to read after the signal that ended the run, or the next one."""
        return self._signals.fileno()

    def register(self, fd: int, on_ready: OnReady, events: int = select.EPOLLIN) -> None:
        """Call `on_ready` when there is something to read on `fd`, or one of these other events, or an error."""
        change = self._epoll.modify if fd in self._on_ready else self._epoll.register
        change(fd, events)
        self._on_ready[fd] = on_ready

    def unregister(self, fd: int) -> None:
        """Forget `fd`; to be called before it is closed."""
        with suppress(OSError):
            self._epoll.unregister(fd)
        self._on_ready.pop(fd, None)

    def wake(self, session: Scheduled) -> None:
        """Call a session again at once, unless it is done: it has received something."""
        if session in self._due:
            self._due.set(session, 0)

    def run(self, sessions: Iterable[Scheduled], refresh: Callable[[int], int], on_quit: Callable[[], None]) -> None:
        r"""Call each session when it is due, until all are done.

        Before each wait `refresh` is called with the monotonic time in ns; it returns when to be called again at the
        latest. Ctrl-C ends the run too; Ctrl-\ calls `on_quit`.
        """
        for session in sessions:
            self._due.set(session, 0)
        while not self._received_signals:
            now = monotonic_ns()
            for session in self._due.take_due(now):
                if (time := session.run_due(now)) is not None:
                    self._due.set(session, time)
            latest = refresh(now)
            if (due := self._due.next_time()) is None:
                break
            self._call(self._wait(min(due, latest)))
            if signal.SIGQUIT in self._received_signals:
                self._received_signals.remove(signal.SIGQUIT)
                on_quit()
        end = monotonic_ns() + _DRAIN_NS
        while monotonic_ns() < end and (ready := self._ready()):  # what was received until now was in time
            self._call(ready)

    def _ready(self) -> list[tuple[int, int]]:
        """Return the descriptors that are readable now, without that of signals."""
        signals = self._signals.fileno()
        return [each for each in self._epoll.poll(0) if each[0] != signals]

    def _call(self, ready: list[tuple[int, int]]) -> None:
        for fd, _ in ready:
            if fd in self._on_ready:
                self._on_ready[fd]()

    def _on_signal(self) -> None:
        self._received_signals += [number for number in self._signals.recv(64) if number in _CAUGHT]
        if not _END_SIGNALS.isdisjoint(self._received_signals):
            self._write.send(b"\0")  # a later wait for `interrupts` must see it too

    def _wait(self, until: int) -> list[tuple[int, int]]:
        """Wait until something is ready, or until that time."""
        remaining = min(until - monotonic_ns(), _MAX_WAIT)
        if remaining > _SPIN_NS:
            # epoll counts in milliseconds, select in microseconds; and an epoll set is itself a descriptor.
            select.select([self._epoll], [], [], (remaining - _SPIN_NS) / 1e9)
        while True:
            ready = self._epoll.poll(0)
            if ready or monotonic_ns() >= until or remaining == _MAX_WAIT:
                return ready
