"""echod.supervisor.capacity: the number of workers, from what a host has room for."""

import pytest

from echod.supervisor.capacity import choose_workers


@pytest.mark.parametrize(
    ("cpus", "quotas", "limits", "workers"),
    [
        (4, [], [], 4),
        (1, [], [], 1),
        (128, [], [], 64),
        (16, [2.0], [], 2),
        (16, [1.5], [], 2),
        (16, [0.1, 8.0], [], 1),
        (16, [], [128], 16),
        (128, [], [136], 64),
        (128, [], [135], 63),
        (128, [], [128], 60),
        (16, [], [1000, 20], 6),
        (16, [], [3], 1),
        (16, [3.0], [12], 2),
    ],
)
def test_the_smallest_limit_decides(cpus: int, quotas: list[float], limits: list[int], workers: int) -> None:
    """CPUs, 64, the CPU quota, rounded up, and half of the processes beside the spare ones; and never less than one."""
    assert choose_workers([cpus, *quotas], limits) == workers
