"""Which descriptors are ready, and whom that concerns.

Owns one epoll instance and a callback for each descriptor in it. Never reads, writes or closes a descriptor.
Invariant: a descriptor is in the epoll set exactly while it has a callback.
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

_FD: Final = itemgetter(0)

OnReady = Callable[[float], None]
"""Takes the monotonic time, in seconds, of the turn."""


class Poll:
    """An epoll instance with callbacks.

    With `spin_seconds` a wait that follows one that was shorter than these looks for so long before it sleeps: what
    asks again as soon as it is answered is then heard at once, and nobody pays for a sleep that hardly began.
    """

    def __init__(self, *, spin_seconds: float = 0.0) -> None:
        """Make an empty one."""
        self._epoll = select.epoll()
        self._callbacks: dict[int, OnReady] = {}
        self._spin_seconds = spin_seconds
        self._spins = False

    def register(self, fd: int, events: int, on_ready: OnReady) -> None:
        """Call `on_ready` in each turn that finds `fd` ready for one of these events, or broken."""
        self._epoll.register(fd, events)
        self._callbacks[fd] = on_ready

    def modify(self, fd: int, events: int) -> None:
        """Wait for other events on `fd`."""
        self._epoll.modify(fd, events)

    def unregister(self, fd: int) -> None:
        """Forget `fd`; to be called before it is closed."""
        self._epoll.unregister(fd)
        del self._callbacks[fd]

    def wait(self, seconds: float | None) -> Iterator[OnReady]:
        """Wait for readiness, at most so long (None: for ever); return the callbacks of what is ready.

        What a callback of this turn unregisters is not called after it.
        """
        began = monotonic()
        ready = []
        if self._spins:
            spin = self._spin_seconds if seconds is None else min(self._spin_seconds, seconds)
            ready = self._spin(began + spin)
            seconds = None if seconds is None else seconds - spin
        if not ready:
            ready = self._epoll.poll(seconds, MAX_EVENTS)
        self._spins = monotonic() - began < self._spin_seconds
        return filter(None, map(self._callbacks.get, map(_FD, ready)))

    def _spin(self, until: float) -> list[tuple[int, int]]:
        """Look again and again, without sleeping, until something is ready or the time has come."""
        while True:
            ready = self._epoll.poll(0, MAX_EVENTS)
            if ready or monotonic() >= until:
                return ready

    def close(self) -> None:
        """Close the epoll instance; the descriptors in it stay as they are."""
        self._epoll.close()
