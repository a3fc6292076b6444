"""How many workers `workers: auto` means: from the CPUs of a host, and the limits of control groups.

Owns the arithmetic; `linux.cgroups` reads the limits. Invariant: there is always at least one worker, and never more
than MAX_WORKERS.
"""

from collections.abc import Iterable
from math import ceil
from typing import Final

MAX_WORKERS: Final = 64

SPARE_PROCESSES: Final = 8
"""Processes beside the workers while a reload replaces one generation by another: the supervisor, two exporters, a
self test of each, `echod reload`, and two for an operator's own commands."""


def choose_workers(cpu_limits: Iterable[float], process_limits: Iterable[int]) -> int:
    """Return the number of workers within limits of CPUs and of processes.

    A fraction of a CPU counts as one worker, so that it is used.
    """
    least = min([MAX_WORKERS, *map(ceil, cpu_limits), *((each - SPARE_PROCESSES) // 2 for each in process_limits)])
    return max(1, least)
