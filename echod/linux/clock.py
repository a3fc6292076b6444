"""adjtimex(2): what the kernel says of its wall clock; and the clocks read together. An unsafe module. The contract:

- Nothing is ever set: `modes` is zero, which needs no capability.
- `struct timex` is 208 bytes on 64-bit Linux, and lives on the Python side until the call returns; the kernel keeps no
  pointer. The layout is that of linux/timex.h: each `int` before a `long` is padded to eight bytes.

Owns the numbers of linux/timex.h.
"""

import ctypes
from dataclasses import dataclass
from struct import Struct
from time import monotonic_ns, time_ns
from typing import Final

_TIMEX_BYTES: Final = 208
_TIMEX: Final = Struct("=24xqqi")
"""Behind modes, offset and freq: maxerror, esterror (both in microseconds), status."""

_STA_UNSYNC: Final = 0x40

TOGETHER_NS: Final = 5_000
"""A reading of two clocks that takes longer was interrupted: undisturbed it takes less than 1 microsecond."""

READINGS: Final = 3

_libc: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The state of the wall clock: whether something keeps it to UTC, and how far it may be off, in ns."""

    synchronized: bool
    error: int


UNKNOWN: Final = Clock(synchronized=False, error=16_000_000_000)
"""Nothing is known: the kernel itself says 16 s of a clock that nobody sets (NTP_PHASE_LIMIT)."""


def read_clock() -> Clock:
    """Return the state of the wall clock; UNKNOWN if a sandbox forbids the question."""
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)
    if _libc.adjtimex(timex) < 0:
        return UNKNOWN
    most, _, status = _TIMEX.unpack_from(timex.raw)
    return Clock(synchronized=not status & _STA_UNSYNC, error=max(0, most) * 1000)


def read_together() -> tuple[int, int]:
    """Return the time of one moment by the monotonic and by the wall clock, in ns.

    They differ from one moment by half of TOGETHER_NS at most, unless each of READINGS is interrupted.
    """
    for _ in range(READINGS):
        before, wall, after = monotonic_ns(), time_ns(), monotonic_ns()
        if after - before <= TOGETHER_NS:
            break
    return (before + after) // 2, wall
