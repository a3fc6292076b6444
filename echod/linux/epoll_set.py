"""The readiness of many descriptors, read in one call: as C ints, not as Python objects.

Owns one epoll instance, and the memory that epoll_wait(2) writes to. Never reads, writes or closes a descriptor. The
contract:

- The memory never moves and lives as long as the `EpollSet`; its address was computed here, once.
- It has room for `max_events` events, the number that each call passes to the kernel.
- A call returns at once. Afterwards the kernel does not write to the memory until the next one.
"""

import ctypes
import mmap
import os
import platform
import select
from typing import Final

_EVENT_WORDS: Final = 3 if platform.machine() in {"x86_64", "i686"} else 4
"""`struct epoll_event`: the events, and 64 bits of data, which are aligned except on x86-64 (epoll_event(3type)). A
process of 64 bits that reads i686 from uname(2) has a 32-bit personality (setarch(8)) on that architecture."""

_epoll_wait = ctypes.CDLL(None, use_errno=True).epoll_wait


class EpollSet:
    """An epoll set. Its own descriptor, in another epoll set, is ready while one of its members is."""

    def __init__(self, max_events: int) -> None:
        """Make an empty set, of which one call reports at most `max_events` ready members."""
        self.epoll = select.epoll()
        memory = mmap.mmap(-1, max_events * _EVENT_WORDS * 4)
        words = memoryview(memory).cast("i")
        self._events = words[0::_EVENT_WORDS]
        self._descriptors = words[_EVENT_WORDS - 2 :: _EVENT_WORDS]
        self._address = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
        self._fd = self.epoll.fileno()
        self._max_events = max_events

    def poll(self) -> tuple[memoryview, memoryview]:
        """Return the descriptors that are ready now, and the events of each. Both are valid until the next poll."""
        count = _epoll_wait(self._fd, self._address, self._max_events, 0)
        if count < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return self._descriptors[:count], self._events[:count]
