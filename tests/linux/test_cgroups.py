"""echod in control groups that limit it: how many workers it starts, and what it reports where it gets no process."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.daemon import Daemon, ask
from support.loopback import NOBODY, needs_root
from support.ports import free_port
from support.waiting import wait_until

from echod.linux.cgroups import group_paths, parse_count, parse_quota, parse_service

EchodFactory = Callable[..., Daemon]
CPUS = len(os.sched_getaffinity(0))
ROOT = Path("/sys/fs/cgroup")

V2 = "0::/system.slice/echod.service\n"
HYBRID = "5:pids:/a/b\n4:cpu,cpuacct:/a\n1:name=systemd:/x\n0::/\n"


@pytest.fixture
def pids() -> Iterator[Path]:
    """Make a control group of this machine, of version 1 or 2, that can limit processes."""
    parent = ROOT / "pids" if (ROOT / "pids").exists() else ROOT
    group = parent / f"echod-test-{os.getpid()}"
    group.mkdir()
    if not (group / "pids.max").exists():
        group.rmdir()
        pytest.skip("control groups cannot limit processes here")
    yield group
    wait_until(lambda: not (group / "cgroup.procs").read_text(), "the group was empty")
    group.rmdir()


def inside(group: Path) -> list[str]:
    """Return the prefix that starts a command in a control group."""
    return ["sh", "-c", 'echo 0 >"$0/cgroup.procs"; exec "$@"', str(group)]


@needs_root
def test_a_generation_for_which_there_is_no_room_names_the_limit(pids: Path, echod: EchodFactory) -> None:
    """A reload to more workers than the control group allows is rejected, and what serves goes on."""
    port = free_port()
    config = {"listeners": [f"udp://127.0.0.1:{port}"], "workers": 2}
    (pids / "pids.max").write_text("8\n")
    daemon = echod(config, prefix=inside(pids))
    message = daemon.reload({**config, "workers": 10})["message"]
    assert f"its control group {pids} has 8 processes, the most that TasksMax= allows (pids.max)" in message
    assert ask(port) == b"hi"
    (pids / "pids.max").write_text("64\n")
    assert daemon.reload()["event"] == "reloaded"
    assert len(daemon.status()["activity"]["workers"]) == 10
    daemon.stop()


@needs_root
def test_auto_leaves_room_for_two_generations(pids: Path, echod: EchodFactory) -> None:
    """With ten processes there is one worker, and a reload succeeds."""
    (pids / "pids.max").write_text("10\n")
    daemon = echod({"listeners": [f"udp://127.0.0.1:{free_port()}"]}, prefix=inside(pids))
    assert daemon.log("ready")[0]["message"].endswith("with 1 worker")
    assert daemon.reload()["event"] == "reloaded"
    daemon.stop()


@needs_root
@pytest.mark.parametrize(("quota", "limits"), [("50000 100000", [CPUS, 0.5]), ("max 100000", [CPUS])])
def test_the_cpus_and_their_quota_are_limits(tmp_path: Path, quota: str, limits: list[float]) -> None:
    """The CPUs that may be used, and of version 2 the quota, if there is one. The hierarchy hides that of the host."""
    (tmp_path / "cgroup.controllers").write_text("cpu pids\n")
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    script = 'mount --bind "$0" /sys/fs/cgroup && exec "$@"'
    program = "from echod.linux.cgroups import cpu_limits; print(cpu_limits())"
    command = ["unshare", "--mount", "sh", "-c", script, str(tmp_path), sys.executable, "-c", program]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    assert printed == f"{limits}\n"


@needs_root
def test_the_limit_of_the_user_is_named_where_no_group_is_full() -> None:
    """LimitNPROC=, with its number."""
    program = (
        "import os, resource; from echod.linux.process import fork\n"
        f"os.setgid({NOBODY}); os.setuid({NOBODY}); resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))\n"
        "try: fork('x', [], lambda: None, print)\n"
        "except OSError as error: print(error.strerror)\n"
    )
    reported = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert (
        f"user id {NOBODY} may have 1 processes on this host, and the host kernel.pid_max: raise LimitNPROC="
        in reported.stdout
    )


def test_the_own_group_and_its_parents_count() -> None:
    """From the own one to the root; of version 1 those of the controller, and of version 2 all."""
    assert group_paths(V2, "cpu") == [("", "system.slice/echod.service"), ("", "system.slice"), ("", "")]
    assert group_paths(HYBRID, "pids") == [("pids", "a/b"), ("pids", "a"), ("pids", ""), ("", "")]
    assert group_paths(HYBRID, "cpu") == [("cpu", "a"), ("cpu", ""), ("", "")]
    assert group_paths("0::/../../other\n", "cpu") == [("", "")]
    assert group_paths("", "cpu") == []


@pytest.mark.parametrize(
    ("membership", "service"),
    [
        (V2, "echod.service"),
        ("0::/system.slice/system-echod.slice/echod@vrf-red.service\n", "echod@vrf-red.service"),
        ("1:name=systemd:/system.slice/echod@a.service\n0::/\n", "echod@a.service"),
        ("5:pids:/system.slice/other.service\n0::/\n", ""),
        ("0::/user.slice/user-0.slice/user@0.service/init.scope\n", ""),
        (HYBRID, ""),
        ("", ""),
    ],
)
def test_the_service_is_the_control_group_that_this_process_is_in(membership: str, service: str) -> None:
    """Of systemd's hierarchy alone; a session, a container and a group below a service are none."""
    assert parse_service(membership) == service


@needs_root
def test_the_own_service_is_read_from_the_kernel(tmp_path: Path) -> None:
    """As the file of the process reports it; without that file, there is none."""
    membership = tmp_path / "cgroup"
    membership.write_text(V2)
    program = "from echod.linux.cgroups import own_service; print(repr(own_service()))"
    for script, printed in (
        ('mount --bind "$0" /proc/$$/cgroup', "'echod.service'"),
        ("mount -t tmpfs none /proc", "''"),
    ):
        command = ["unshare", "--mount", "sh", "-c", f'{script}; exec "$@"', membership, sys.executable, "-c", program]
        assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout == f"{printed}\n"


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("150000 100000", 1.5), ("max 100000", None), ("-1 100000", None), ("", None), ("5 0", None), (" ", None)],
)
def test_a_quota_is_in_cpus(text: str, cpus: float | None) -> None:
    """The quota over its period, in the form of cpu.max."""
    assert parse_quota(text) == cpus


@pytest.mark.parametrize(("text", "count"), [("128", 128), ("max", None), ("", None)])
def test_a_number_of_processes_may_be_unlimited(text: str, count: int | None) -> None:
    """As pids.max says it."""
    assert parse_count(text) == count
