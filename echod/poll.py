"""Which descriptors are ready, and whom that concerns.

Owns one epoll instance, a set for poll(2), and a callback for each descriptor. Never reads, writes or closes a
descriptor. Invariant: a descriptor is waited for exactly while it has a callback.

Who is in an epoll set waits all the time, also while he works: the kernel then tries to wake him for each datagram that
has left the socket, which costs a twelfth of all that an echo does. So the busy are in the epoll while this process
sleeps; while it is awake it asks poll(2) for them, which waits for nobody.
"""

import select
from collections.abc import Callable, Iterator
from operator import itemgetter
from time import monotonic
from typing import Final

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT
SHARED: Final = select.EPOLLIN | select.EPOLLEXCLUSIVE
"""For a socket that several workers wait on: one arrival wakes one of them, not all (epoll_ctl(2))."""

MAX_EVENTS: Final = 256

MOST_BUSY: Final = 16
"""Descriptors for poll(2), which looks at each of them in each call: more are better off in the epoll for good."""

_FD: Final = itemgetter(0)

OnReady = Callable[[float], None]
"""Takes the monotonic time, in seconds, of the turn."""

Ready = list[tuple[int, int]]
"""Descriptors, each with its events."""


class Poll:
    """Descriptors with callbacks.

    With `spin_seconds` a wait that follows one that was shorter than these looks for so long before it sleeps: what
    asks again as soon as it is answered is then heard at once, and nobody pays for a sleep that hardly began.
    """

    def __init__(self, *, spin_seconds: float = 0.0) -> None:
        """Make an empty one."""
        self._epoll = select.epoll()
        self._epoll_fd = self._epoll.fileno()
        self._awake = select.poll()
        self._awake.register(self._epoll_fd, READ)
        self._callbacks: dict[int, OnReady] = {}
        self._busy: dict[int, int] = {}
        """Descriptors in `_awake`, with the events for the epoll, ..."""
        self._lent = False
        """... and whether they are there now, because this process slept."""
        self._spin_seconds = spin_seconds
        self._spins = False

    def register(self, fd: int, events: int, on_ready: OnReady, *, busy: bool = False) -> None:
        """Call `on_ready` in each turn that finds `fd` ready for one of these events, or broken.

        `busy` is one, to be read from, that may send datagrams as fast as they can be sent.
        """
        if busy and len(self._busy) < MOST_BUSY:
            self._take_back()
            self._awake.register(fd, READ)
            self._busy[fd] = events
        else:
            self._epoll.register(fd, events)
        self._callbacks[fd] = on_ready

    def modify(self, fd: int, events: int) -> None:
        """Wait for other events on `fd`, which is none of the busy."""
        self._epoll.modify(fd, events)

    def unregister(self, fd: int) -> None:
        """Forget `fd`; to be called before it is closed."""
        if fd in self._busy:
            self._take_back()
            self._awake.unregister(fd)
            del self._busy[fd]
        else:
            self._epoll.unregister(fd)
        del self._callbacks[fd]

    def wait(self, seconds: float | None) -> Iterator[OnReady]:
        """Wait for readiness, at most so long (None: for ever); return the callbacks of what is ready.

        What a callback of this turn unregisters is not called after it.
        """
        ready = self._look() if self._spins else []
        if not ready:
            ready = self._wait(seconds)
        return filter(None, map(self._callbacks.get, map(_FD, ready)))

    def _wait(self, seconds: float | None) -> Ready:
        """Wait, at first without sleeping where the last wait was short; see whether this one was."""
        began = monotonic()
        ready: Ready = []
        if self._spins:
            spin = self._spin_seconds if seconds is None else min(self._spin_seconds, seconds)
            while not ready and monotonic() < began + spin:
                ready = self._look()
            seconds = None if seconds is None else seconds - spin
        if not ready:
            ready = self._sleep(seconds)
        self._spins = monotonic() - began < self._spin_seconds
        return ready

    def _look(self) -> Ready:
        """Return what is ready now, without being woken for it."""
        if not self._busy:
            return self._epoll.poll(0, MAX_EVENTS)
        self._take_back()
        ready = self._awake.poll(0)
        if ready and ready[0][0] == self._epoll_fd:  # it comes first
            ready[:1] = self._epoll.poll(0, MAX_EVENTS)
        return ready

    def _sleep(self, seconds: float | None) -> Ready:
        """Return what is ready, at the latest after so many seconds.

        By epoll_wait(2): of those who wait in poll(2) for an epoll with a SHARED one each is woken.
        """
        if self._busy and not self._lent:
            self._lent = True
            for fd, events in self._busy.items():
                self._epoll.register(fd, events)
        return self._epoll.poll(seconds, MAX_EVENTS)

    def _take_back(self) -> None:
        """Be woken for none of the busy: this process is awake."""
        if self._lent:
            self._lent = False
            for fd in self._busy:
                self._epoll.unregister(fd)

    def close(self) -> None:
        """Close the epoll instance; the descriptors in it stay as they are."""
        self._epoll.close()
