"""What the kernel says of a process in /proc (proc_pid_stat(5)).

Owns the form of /proc/PID/stat. It keeps nothing. Invariant: a process that is gone, or hidden, is None, not an error.
"""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

TICKS: Final = os.sysconf("SC_CLK_TCK")
"""Clock ticks per second."""
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")

_UTIME, _STIME, _STARTTIME, _VSIZE, _RSS = (14 - 3, 15 - 3, 22 - 3, 23 - 3, 24 - 3)
"""Field numbers of proc_pid_stat(5), counted from the state, which is the third."""


def _stat(pid: int) -> list[str] | None:
    """Return the fields after the name of the process, which may hold anything."""
    # UTF-8, which Python has loaded: the user that this process is may not be able to read Python's own files.
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def start_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot."""
    fields = _stat(pid)
    return int(fields[_STARTTIME]) if fields is not None else None


def resource_usage(pid: int) -> dict[str, float] | None:
    """Return the CPU time (seconds), memory (bytes), descriptors and start (seconds since 1970) of a process.

    Without the descriptors if the process has more privileges than this one.
    """
    fields = _stat(pid)
    if fields is None:
        return None
    # From the clocks, not from the boot time in /proc/stat, which ProcSubset=pid hides.
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[_STARTTIME]) / TICKS
    usage = {
        "cpu_seconds": (int(fields[_UTIME]) + int(fields[_STIME])) / TICKS,
        "resident_bytes": int(fields[_RSS]) * _PAGE_BYTES,
        "virtual_bytes": int(fields[_VSIZE]),
        "started": round(time.time() - age, 2),
    }
    with suppress(OSError):
        usage["open_descriptors"] = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    return usage
