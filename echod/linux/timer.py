"""A descriptor that becomes ready at a time of the monotonic clock: timerfd(2), an unsafe module. The contract:

- `struct itimerspec` is two `struct timespec` of two 64-bit integers each, seconds and ns: the interval, then the time.
- The struct lives on the Python side until its call returns; the kernel keeps no pointer.
- The descriptor does not block, and is closed when the `Timer` is no longer referred to, and by exec.

The kernel's timer is precise to the clock of the hardware, and no timer slack (prctl(2)) delays it. Owns the numbers of
sys/timerfd.h.
"""

import ctypes
import os
from struct import Struct
from time import CLOCK_MONOTONIC
from typing import Final

_TFD_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC
"""TFD_NONBLOCK and TFD_CLOEXEC, which are the same numbers."""
_TFD_TIMER_ABSTIME: Final = 1

_ITIMERSPEC: Final = Struct("=qqqq")
_SECOND: Final = 1_000_000_000

# PyDLL: the calls never wait, so there is no need to release the GIL.
_libc: Final = ctypes.PyDLL(None, use_errno=True)


class Timer:
    """One timer. Its descriptor is ready to read from the time that was set, until another one is set."""

    def __init__(self) -> None:
        """Make a timer without a time. Raises OSError."""
        self._fd = -1
        self._fd = _check(_libc.timerfd_create(CLOCK_MONOTONIC, _TFD_FLAGS))

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def set(self, at: int | None) -> None:
        """Become ready at this time: ns of `time.monotonic_ns`; at once if it has passed; None: never."""
        seconds, ns = (0, 0) if at is None else divmod(max(1, at), _SECOND)  # to the kernel 0 is never
        _check(_libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, _ITIMERSPEC.pack(0, 0, seconds, ns), None))

    def __del__(self) -> None:
        """Close the descriptor, if there is one."""
        if self._fd >= 0:
            os.close(self._fd)


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
