"""What /proc tells of a process (proc(5))."""

import os
from pathlib import Path


def resident_bytes(pid: int) -> int:
    """Return the memory that a process has mapped, shared or not; none where it has ended."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS:")), 0)


def descriptors(pid: int) -> int:
    """Return how many descriptors a process has."""
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - names alone, and no more descriptors for it


def is_stopped(pid: int) -> bool:
    """Return whether a signal has stopped a process."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "T"


def cpu_ticks(pid: int) -> int:
    """Return the CPU time of a process, user and system, in hundredths of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
