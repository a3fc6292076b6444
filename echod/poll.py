"""Which descriptors are ready, and whom that concerns.

Owns one epoll instance and a callback for each descriptor in it. Never reads, writes or closes a descriptor.
Invariant: a descriptor is in the epoll set exactly while it has a callback.
"""

import select
from collections.abc import Callable, Iterator
from operator import itemgetter
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
    """An epoll instance with callbacks."""

    def __init__(self) -> None:
        """Make an empty one."""
        self._epoll = select.epoll()
        self._callbacks: dict[int, OnReady] = {}

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
        ready = self._epoll.poll(seconds, MAX_EVENTS)
        return filter(None, map(self._callbacks.get, map(_FD, ready)))

    def close(self) -> None:
        """Close the epoll instance; the descriptors in it stay as they are."""
        self._epoll.close()
