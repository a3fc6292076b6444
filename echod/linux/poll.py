"""Which descriptors are ready, and the callback of each.

Owns one epoll instance, a set for poll(2), a callback for each descriptor, and those for times, with a timer if there
are any. Never reads, writes or closes a descriptor. Invariant: a descriptor is waited for exactly while it has a
callback.

A descriptor in an epoll set has a waiter all the time, also while the process is awake. The kernel then attempts a
wake-up for each datagram that has left the socket, which costs a twelfth of an echo. So busy descriptors are in the
epoll set only while this process sleeps. While it is awake it uses poll(2) for them, which leaves no waiter behind.

Setting the kernel's timer may cost as much as replying to a datagram. So it is set only when this process sleeps; while
it is awake, the clock is read in each turn.
"""

import select
from collections.abc import Callable, Iterator
from itertools import chain
from math import inf
from operator import itemgetter
from time import monotonic, monotonic_ns
from typing import Final

from echod.linux.timer import Timer

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT
SHARED: Final = select.EPOLLIN | select.EPOLLEXCLUSIVE
"""For a socket that several workers wait on: one arrival wakes one of them, not all (epoll_ctl(2))."""

MAX_EVENTS: Final = 256

MOST_BUSY: Final = 16
"""Most descriptors for poll(2), which checks each of them in each call: any more stay in the epoll set."""

_FD: Final = itemgetter(0)

OnReady = Callable[[float], None]
"""Takes the monotonic time, in seconds, of the turn."""

Ready = list[tuple[int, int]]
"""Descriptors, each with its events."""


class Poll:
    """Descriptors with callbacks.

    If the last wait was shorter than `spin_seconds`, the next one polls for that long before it sleeps. A peer that
    sends again as soon as it is answered is then served at once, without the cost of a sleep and a wake-up.
    """

    def __init__(self, *, spin_seconds: float = 0.0) -> None:
        """Make an empty set."""
        self._epoll = select.epoll()
        self._epoll_fd = self._epoll.fileno()
        self._poll_set = select.poll()
        self._poll_set.register(self._epoll_fd, READ)
        self._callbacks: dict[int, OnReady] = {}
        self._busy: dict[int, int] = {}
        """Busy descriptors, all in `_poll_set`, with their events for the epoll set."""
        self._in_epoll = False
        """Whether they are in the epoll set too, since this process last slept."""
        self._spin_seconds = spin_seconds
        self._spins = False
        self._times: dict[OnReady, float] = {}
        """Callbacks with the time at which each is due."""
        self._next_at = inf
        """The first of these times."""
        self._timer: Timer | None = None
        self._timer_at = inf

    def register(self, fd: int, events: int, on_ready: OnReady, *, busy: bool = False) -> None:
        """Call `on_ready` in each turn that finds `fd` ready for one of these events, or in error.

        `busy` is for a descriptor to read from that may send datagrams as fast as they can be sent.
        """
        if busy and len(self._busy) < MOST_BUSY:
            self._remove_busy()
            self._poll_set.register(fd, READ)
            self._busy[fd] = events
        else:
            self._epoll.register(fd, events)
        self._callbacks[fd] = on_ready

    def unregister(self, fd: int) -> None:
        """Forget `fd`; call this before it is closed."""
        if fd in self._busy:
            self._remove_busy()
            self._poll_set.unregister(fd)
            del self._busy[fd]
        else:
            self._epoll.unregister(fd)
        del self._callbacks[fd]

    def call_at(self, at: float, on_due: OnReady) -> None:
        """Call `on_due` once, in the first turn at this time or later, in ns of `time.monotonic_ns`; `inf` is never.

        A callback has one time, the last that was given.
        """
        if self._timer is None:
            self._timer = Timer()
            self.register(self._timer.fileno(), READ, self._on_timer)
        self._times[on_due] = at
        self._next_at = min(self._times.values())

    def wait(self, seconds: float | None) -> Iterator[OnReady]:
        """Wait for readiness or a time, at most `seconds` (None: for ever); return the callbacks of what has come.

        A descriptor that a callback of this turn unregisters is not called any more.
        """
        ready = self._check() if self._spins else []
        if not ready:
            ready = self._wait(seconds)
        callbacks = filter(None, map(self._callbacks.get, map(_FD, ready)))
        return callbacks if self._next_at == inf else chain(callbacks, self._take_due(monotonic_ns()))

    def _take_due(self, now: int) -> list[OnReady]:
        """Forget the times that have come; return their callbacks."""
        if now < self._next_at:
            return []
        due = [on_due for on_due, at in self._times.items() if at <= now]
        for on_due in due:
            del self._times[on_due]
        self._next_at = min(self._times.values(), default=inf)
        return due

    def _set_timer(self, at: float) -> None:
        """Be woken at this time."""
        if self._timer is not None and at != self._timer_at:
            self._timer.set(None if at == inf else int(at))
            self._timer_at = at

    def _on_timer(self, _now: float) -> None:
        """Have the timer no longer ready; what is due is found by the clock."""
        self._set_timer(inf)

    def _wait(self, seconds: float | None) -> Ready:
        """Wait, at first without sleeping if the last wait was short; note whether this one was."""
        began = monotonic()
        ready: Ready = []
        if self._spins:
            spin = self._spin_seconds if seconds is None else min(self._spin_seconds, seconds)
            while not ready and monotonic() < began + spin:
                ready = self._check()
            seconds = None if seconds is None else seconds - spin
        if not ready:
            ready = self._sleep(seconds)
        self._spins = monotonic() - began < self._spin_seconds
        return ready

    def _check(self) -> Ready:
        """Return what is ready now, without sleeping."""
        if not self._busy:
            return self._epoll.poll(0, MAX_EVENTS)
        self._remove_busy()
        ready = self._poll_set.poll(0)
        if ready and ready[0][0] == self._epoll_fd:  # registered first, so returned first
            ready[:1] = self._epoll.poll(0, MAX_EVENTS)
        return ready

    def _sleep(self, seconds: float | None) -> Ready:
        """Return what is ready, after at most `seconds`.

        With epoll_wait(2): a SHARED descriptor would wake every process that waits in poll(2) for its epoll instance.
        That is still better than to wake none: it is done where the kernel has no epoll watch left.
        """
        if self._next_at != self._timer_at:
            self._set_timer(self._next_at)
        if self._busy and not self._in_epoll and not self._add_busy():
            self._poll_set.poll(None if seconds is None else 1000 * seconds)
            return self._check()
        return self._epoll.poll(seconds, MAX_EVENTS)

    def _add_busy(self) -> bool:
        """Add the busy descriptors to the epoll set, all or none; tell whether the kernel could."""
        added = []
        try:
            for fd, events in self._busy.items():
                self._epoll.register(fd, events)
                added.append(fd)
        except OSError:
            for fd in added:
                self._epoll.unregister(fd)
            return False
        self._in_epoll = True
        return True

    def _remove_busy(self) -> None:
        """Remove the busy descriptors from the epoll set: this process is awake."""
        if self._in_epoll:
            self._in_epoll = False
            for fd in self._busy:
                self._epoll.unregister(fd)

    def close(self) -> None:
        """Close the epoll instance; the descriptors in it stay as they are."""
        self._epoll.close()
