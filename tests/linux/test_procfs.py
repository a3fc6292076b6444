"""echod.linux.procfs: what the kernel says of a process; one that is gone is no error."""

import os
import subprocess
import time

from echod.linux.procfs import TICKS, resource_usage, start_ticks


def test_a_process_is_looked_at_by_its_id() -> None:
    """This process: its CPU time, memory, descriptors and start."""
    before, begun = sum(os.times()[:2]), time.time()
    me = resource_usage(os.getpid())
    assert me is not None
    assert before - 0.1 <= me["cpu_seconds"] <= sum(os.times()[:2]) + 0.1
    assert 0 < me["resident_bytes"] < me["virtual_bytes"]
    assert me["started"] < begun
    free = os.open(os.devnull, os.O_RDONLY)
    more = resource_usage(os.getpid())
    os.close(free)
    assert more is not None
    assert more["open_descriptors"] == me["open_descriptors"] + 1
    assert more["started"] == me["started"]
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    assert abs(boot + (start_ticks(os.getpid()) or 0) / TICKS - me["started"]) < 1


def test_a_name_with_parentheses_and_spaces_is_no_trap() -> None:
    """The second field of /proc/PID/stat may hold anything (proc_pid_stat(5))."""
    name = ") 0 (x"
    script = f"import ctypes; ctypes.CDLL(None).prctl(15, {name.encode()!r}, 0, 0, 0); print(flush=True); input()"
    with subprocess.Popen(["python3", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = resource_usage(process.pid)
        process.communicate(b"\n")
    assert found is not None
    assert found["virtual_bytes"] > 1 << 20
    assert abs(found["started"] - time.time()) < 60


def test_a_process_that_is_gone_is_none() -> None:
    """A worker may die between the snapshot that names it and the look."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert resource_usage(process.pid) is None
    assert start_ticks(process.pid) is None
