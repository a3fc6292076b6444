"""echod.linux.capacity: the number of workers, from what a host has room for."""

import pytest

from echod.linux.capacity import MAX_WORKERS, SPARE_PROCESSES, choose_workers, group_paths, parse_count, parse_quota

V2 = "0::/system.slice/echod.service\n"
HYBRID = "5:pids:/a/b\n4:cpu,cpuacct:/a\n1:name=systemd:/x\n0::/\n"


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
        (128, [], [144], 64),
        (128, [], [128], 60),
        (16, [], [1000, 20], 6),
        (16, [], [3], 1),
        (16, [3.0], [12], 2),
    ],
)
def test_the_smallest_limit_decides(cpus: int, quotas: list[float], limits: list[int], workers: int) -> None:
    """CPUs, 64, the CPU quota, rounded up, and half of the processes beside the spare ones; and never less than one."""
    assert choose_workers(cpus=cpus, quotas=quotas, process_limits=limits) == workers


def test_two_generations_of_the_most_workers_fit_their_limit() -> None:
    """The smallest limit that allows 64 workers has room for 128 and the spare processes."""
    most = 2 * MAX_WORKERS + SPARE_PROCESSES
    assert choose_workers(cpus=128, quotas=[], process_limits=[most]) == MAX_WORKERS
    assert choose_workers(cpus=128, quotas=[], process_limits=[most - 1]) < MAX_WORKERS


def test_the_own_group_and_its_parents_count() -> None:
    """From the own one to the root; of version 1 those of the controller, and of version 2 all."""
    assert group_paths(V2, "cpu") == [("", "system.slice/echod.service"), ("", "system.slice"), ("", "")]
    assert group_paths(HYBRID, "pids") == [("pids", "a/b"), ("pids", "a"), ("pids", ""), ("", "")]
    assert group_paths(HYBRID, "cpu") == [("cpu", "a"), ("cpu", ""), ("", "")]
    assert group_paths("0::/../../other\n", "cpu") == [("", "")]
    assert group_paths("", "cpu") == []


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("150000 100000", 1.5), ("max 100000", None), ("-1 100000", None), ("", None), ("5 0", None), (" ", None)],
)
def test_a_quota_is_in_cpus(text: str, cpus: float | None) -> None:
    """The quota over its period, in the form of cpu.max."""
    assert parse_quota(text) == cpus


@pytest.mark.parametrize(("text", "count"), [("128\n", 128), ("max\n", None), ("", None)])
def test_a_number_of_processes_may_be_unlimited(text: str, count: int | None) -> None:
    """As pids.max says it."""
    assert parse_count(text) == count
