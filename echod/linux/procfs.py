"""The resources that a process uses, from /proc (proc_pid_stat(5)).

Owns the reading of /proc/PID. It keeps nothing. Invariant: a process that is gone, or hidden, is None, not an error.
"""

import os
import time
from pathlib import Path
from typing import Final

from echod.exporter.metrics import Process

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")

_UTIME, _STIME, _STARTTIME, _VSIZE, _RSS = (14 - 3, 15 - 3, 22 - 3, 23 - 3, 24 - 3)
"""Field numbers of proc_pid_stat(5), counted from the state, which is the third."""


def look(pid: int, name: str) -> Process | None:
    """Read a process, to be reported under this name."""
    place = Path("/proc", str(pid))
    # UTF-8, which Python has loaded: the user that this process is may not be able to read Python's own files.
    try:
        fields = (place / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    try:
        descriptors = sum(1 for _ in (place / "fd").iterdir())
    except OSError:
        descriptors = None  # the process has more privileges than this one
    # From the clocks, not from the boot time in /proc/stat, which ProcSubset=pid hides.
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[_STARTTIME]) / _TICKS
    return Process(
        name=name,
        cpu_seconds=(int(fields[_UTIME]) + int(fields[_STIME])) / _TICKS,
        resident_bytes=int(fields[_RSS]) * _PAGE_BYTES,
        virtual_bytes=int(fields[_VSIZE]),
        open_descriptors=descriptors,
        started=round(time.time() - age, 2),
    )
