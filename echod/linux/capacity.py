"""How many workers a host has room for: from its CPUs, and the limits of control groups.

Owns the form of the files that say so (cgroups(7), cgroup-v2.rst of the kernel) and the arithmetic. It reads no file.
Invariant: there is always at least one worker, and never more than MAX_WORKERS.
"""

from collections.abc import Iterable
from math import ceil
from typing import Final

MAX_WORKERS: Final = 64

SPARE_PROCESSES: Final = 8
"""Processes beside the workers while a reload replaces one generation by another: the supervisor, two exporters, a
self test of each, `echod reload`, and two for an operator's own commands."""


def choose_workers(*, cpus: int, quotas: Iterable[float], process_limits: Iterable[int]) -> int:
    """Return the number of workers for `workers: auto`.

    `cpus` is the number of CPUs that the process may run on; `quotas` are limits of CPU time, in CPUs, and
    `process_limits` limits of the number of processes. A part of a CPU has a worker, too, which would else lie idle.
    """
    least = min([cpus, MAX_WORKERS, *map(ceil, quotas), *((each - SPARE_PROCESSES) // 2 for each in process_limits)])
    return max(1, least)


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


def parse_quota(text: str) -> float | None:
    """Return the limit in CPUs from `QUOTA PERIOD`, as in cpu.max; None if there is none, or the text is no such."""
    words = text.split()
    if len(words) != 2 or not all(map(str.isdecimal, words)) or not int(words[1]):  # noqa: PLR2004 - a pair
        return None  # also `max PERIOD`, and -1 of version 1
    return int(words[0]) / int(words[1])


def parse_count(text: str) -> int | None:
    """Return a number of processes, as in pids.max; None if there is no limit, or the text is no number."""
    return int(text) if text.strip().isdecimal() else None
