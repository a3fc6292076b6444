"""How many CPUs and processes echod may have, by its affinity, RLIMIT_NPROC and control groups; and its service.

Owns the form of the files of control groups (cgroups(7), cgroup-v2.rst of the kernel), version 1 and 2. It changes
nothing. Invariant: a limit that cannot be read is none.
"""

import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

_MEMBERSHIP: Final = Path("/proc/self/cgroup")
_ROOT: Final = Path("/sys/fs/cgroup")


def cpu_limits() -> list[float]:
    """Return the number of CPUs that this process may run on, and the quotas of its control group and its parents."""
    return [len(os.sched_getaffinity(0))] + [quota for group in _groups("cpu") if (quota := _quota(group)) is not None]


def process_limits() -> list[int]:
    """Return the limits of the number of processes of this process's control group and its parents."""
    return [limit for group in _groups("pids") if (limit := parse_count(_read(group / "pids.max"))) is not None]


def own_service() -> str:
    """Return the name of the service of systemd that this process is in, as sd_pid_get_unit(3); empty if in none."""
    try:
        return parse_service(_MEMBERSHIP.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""


def exhausted_limit() -> str:
    """Return which limit leaves no room for another process, and what to do; for the EAGAIN of fork(2)."""
    for group in _groups("pids"):
        limit, current = parse_count(_read(group / "pids.max")), parse_count(_read(group / "pids.current"))
        if limit is not None and current is not None and current >= limit:
            return (
                f"its control group {group} has {limit:,} processes, the most that TasksMax= allows (pids.max): raise "
                "that or lower workers; a reload needs room for the old workers and the new ones"
            )
    soft = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    number = "any number of" if soft == resource.RLIM_INFINITY else f"{soft:,}"
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
    text = _read(group / "cpu.max") or f"{_read(group / 'cpu.cfs_quota_us')} {_read(group / 'cpu.cfs_period_us')}"
    return parse_quota(text)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def group_paths(membership: str, controller: str) -> list[tuple[str, str]]:
    """Return the control groups whose limits hold: the own one and its parents, from /proc/self/cgroup.

    Each has the mount of its hierarchy, empty for version 2, and its path below that, which is empty for the root.
    """
    found = []
    for line in membership.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        steps = [step for step in path.split("/") if step]
        if ".." in steps:  # outside of this process's view: of that only the root can be seen
            steps = []
        mount = controller if controllers else ""
        found += [(mount, "/".join(steps[:count])) for count in range(len(steps), -1, -1)]
    return found


def parse_service(membership: str) -> str:
    """Return the service whose control group is the own one, from /proc/self/cgroup; empty if there is none.

    Its hierarchy is that of version 2, or the one without a controller that systemd has in version 1.
    """
    for line in membership.splitlines():
        hierarchy, _, path = line.partition(":")[2].partition(":")
        name = path.rpartition("/")[2]
        if hierarchy in ("", "name=systemd") and name.endswith(".service"):
            return name
    return ""


def parse_quota(text: str) -> float | None:
    """Return the limit in CPUs from `QUOTA PERIOD`, as in cpu.max; None if there is none, or the text is no such."""
    words = text.split()
    if len(words) != 2 or not all(map(str.isdecimal, words)) or not int(words[1]):  # noqa: PLR2004 - a pair
        return None  # also `max PERIOD`, and -1 of version 1
    return int(words[0]) / int(words[1])


def parse_count(text: str) -> int | None:
    """Return a number of processes, as in pids.max; None if there is no limit, or the text is no number."""
    return int(text) if text.isdecimal() else None
