"""What this host lets echod have: CPUs and processes, and which limit is reached where a process cannot be had.

Owns the reading of control groups (version 1 and 2) and of RLIMIT_NPROC; `capacity` does the arithmetic. It
changes nothing. Invariant: a limit that cannot be read is none.
"""

import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from echod.linux.capacity import choose_workers, group_paths, parse_count, parse_quota

_MEMBERSHIP: Final = Path("/proc/self/cgroup")
_ROOT: Final = Path("/sys/fs/cgroup")


def auto_workers() -> int:
    """Return how many workers `workers: auto` means here and now."""
    return choose_workers(
        cpus=len(os.sched_getaffinity(0)),
        quotas=[quota for group in _groups("cpu") if (quota := _quota(group)) is not None],
        process_limits=[most for group in _groups("pids") if (most := _count(group / "pids.max")) is not None],
    )


def full() -> str:
    """Return which limit leaves no room for another process, and what to do; for the EAGAIN of fork(2)."""
    for group in _groups("pids"):
        most, now = _count(group / "pids.max"), _count(group / "pids.current")
        if most is not None and now is not None and now >= most:
            return (
                f"its control group {group} has {most:,} processes, the most that TasksMax= allows (pids.max): raise "
                "that or lower workers; a reload needs room for the old workers and the new ones"
            )
    limit = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    number = "any number of" if limit == resource.RLIM_INFINITY else f"{limit:,}"
    return (
        f"user id {os.getuid()} may have {number} processes on this host, and the host kernel.pid_max: raise "
        "LimitNPROC= (RLIMIT_NPROC) or that, or lower workers"
    )


def _groups(controller: str) -> Iterator[Path]:
    """Yield the directories of this process's control groups, the own one first."""
    with suppress(OSError):
        unified = _ROOT if (_ROOT / "cgroup.controllers").exists() else _ROOT / "unified"
        for mount, path in group_paths(_MEMBERSHIP.read_text(encoding="utf-8", errors="replace"), controller):
            yield (_ROOT / mount if mount else unified) / path


def _quota(group: Path) -> float | None:
    """Return the limit of CPU time of a control group, in CPUs."""
    text = _read(group / "cpu.max") or f"{_read(group / 'cpu.cfs_quota_us')} {_read(group / 'cpu.cfs_period_us')}"
    return parse_quota(text)


def _count(path: Path) -> int | None:
    return parse_count(_read(path))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
