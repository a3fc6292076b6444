"""The readiness of many descriptors, read in one call: as C ints, not as Python objects.

Owns one epoll instance, and the memory that epoll_wait(2) writes to. Never reads, writes or closes a descriptor.
"""

import ctypes
import mmap
import os
import platform
import select
from typing import Final

_EVENT_WORDS: Final = 3 if platform.machine() in {"x86_64", "i686"} else 4
"""`struct epoll_event`: the events, and 64 bits of data, which are aligned except on x86-64 (epoll_event(3type)). A
process of 64 bits that is told i686 has a 32-bit personality (setarch(8)) on that architecture."""

_epoll_wait = ctypes.CDLL(None, use_errno=True).epoll_wait


class Crowd:
    """An epoll set. Its own descriptor, in another epoll set, is ready while one of its members is."""

    def __init__(self, most: int) -> None:
        """Make an empty set, of which one call reports at most `most` ready members."""
        self.epoll = select.epoll()
        memory = mmap.mmap(-1, most * _EVENT_WORDS * 4)
        words = memoryview(memory).cast("i")
        self._events = words[0::_EVENT_WORDS]
        self._descriptors = words[_EVENT_WORDS - 2 :: _EVENT_WORDS]
        self._where = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
        self._fd = self.epoll.fileno()
        self._most = most

    def look(self) -> tuple[memoryview, memoryview]:
        """Return the descriptors that are ready now, and the events of each. Both are valid until the next look."""
        count = _epoll_wait(self._fd, self._where, self._most, 0)
        if count < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return self._descriptors[:count], self._events[:count]
