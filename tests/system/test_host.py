"""The harness keeps its promises: what the tests of the daemon take for granted is proved here."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support.system.container import own_group
from support.system.host import ENVIRONMENT, NAME_PATTERN, BootedHost, sweep
from support.system.image import Debian
from support.system.network import NAMESPACES
from support.waiting import wait_until

# Boots a host, names its PID 1, and waits to be killed.
DOOMED = """
import sys
from pathlib import Path
from support.system.host import BootedHost
with BootedHost(Path(sys.argv[1])) as host:
    print(host.leader, flush=True)
    sys.stdin.read()
"""


def traces(run: int) -> dict[str, set[str]]:
    """Return what the hosts of a run, by its process id, have on the machine now; other runs come and go beside it."""
    mounts = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    found = {
        "mounts": mounts,
        "namespaces": {path.name for path in NAMESPACES.glob("echod-*")},
        "groups": {path.name for path in own_group().glob("echod-*")},
        "directories": {path.name for path in Path(tempfile.gettempdir()).glob("echod-*")},
        "nspawn": {path.name for path in Path("/run/systemd/nspawn").glob("*/*")},
    }
    return {kind: {name for name in names if run_of(name) == run} for kind, names in found.items()}


def run_of(name: str) -> int | None:
    """Return the process id in the name of what a host made; None for a name of something else."""
    host = NAME_PATTERN.search(name)
    return int(host[1]) if host else None


def test_the_systemd_and_the_python_are_those_of_the_release(debian: Debian, host: BootedHost) -> None:
    """Debian 12 has systemd 252 and Python 3.11, Debian 13 has 257 and 3.13, and all units are up."""
    assert host.run(["systemctl", "--version"]).stdout.split()[1] == str(debian.systemd)
    assert host.run(["python3", "--version"]).stdout.startswith(f"Python {debian.python}.")
    assert host.run(["systemctl", "is-system-running"]).stdout == "running\n"
    assert f"VERSION_CODENAME={debian.suite}" in host.read("/etc/os-release")


def test_a_host_is_clean_after_another_has_written(debian: Debian, host: BootedHost) -> None:
    """Neither a host beside it nor the cached root sees what a host writes, and both can be used at once."""
    host.write("/etc/echod.yaml", "mark\n")
    with BootedHost(debian.root) as other:
        assert other.run(["ls", "/etc/echod.yaml"], check=False).returncode != 0
        assert host.read("/etc/echod.yaml") == "mark\n"
    assert not (debian.root / "etc/echod.yaml").exists()


def test_many_reloads_of_systemd_do_not_stall_it(host: BootedHost) -> None:
    """Its PID 1 notifies nspawn at each daemon-reload; nobody reads that, and nobody waits for it."""
    for _ in range(15):
        host.run(["systemctl", "daemon-reload"], timeout=10)
    assert host.run(["systemctl", "is-system-running"]).stdout == "running\n"


def test_nothing_is_left_of_a_host(debian: Debian) -> None:
    """Mounts, namespaces, groups, directories and processes go with the host, also when its test fails."""
    before = traces(os.getpid())
    leaders = []

    def fail() -> None:
        with BootedHost(debian.root) as host:
            leaders.append(host.leader)
            assert traces(os.getpid())["groups"] > before["groups"]
            host.run(["false"])

    with pytest.raises(subprocess.CalledProcessError):
        fail()
    assert traces(os.getpid()) == before
    assert not Path("/proc", str(leaders[0])).exists()


def test_a_host_that_does_not_go_down_is_killed(debian: Debian, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit that refuses to stop for ever holds up the end of a test for STOP_TIMEOUT only, and leaves nothing."""
    before = traces(os.getpid())
    with BootedHost(debian.root) as host:
        stubborn = ["--property=TimeoutStopSec=infinity", "sh", "-c", "trap '' TERM; while :; do sleep 1; done"]
        host.run(["systemd-run", "--service-type=exec", *stubborn])
        leader = Path("/proc", str(host.leader))
        monkeypatch.setattr("support.system.container.STOP_TIMEOUT", 1.0)
    assert not leader.exists()
    assert traces(os.getpid()) == before


def test_a_host_dies_with_a_killed_run_and_the_next_sweeps(debian: Debian) -> None:
    """When the run is killed, the kernel ends the host and its mounts; the next host removes the empty names."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", DOOMED, debian.root], stdin=-1, stdout=-1, env=environment, text=True
    ) as run:
        assert run.stdout is not None
        leader = Path("/proc", run.stdout.readline().strip())
        assert leader.joinpath("comm").read_text() == "systemd\n"
        assert traces(run.pid)["groups"]
        run.send_signal(signal.SIGKILL)
    wait_until(lambda: not leader.exists(), "the host's PID 1 is gone")
    sweep()
    assert not any(traces(run.pid).values())


def test_the_environment_of_a_command_is_a_login_of_root(host: BootedHost) -> None:
    """Nothing of the environment of the machine gets in."""
    names = {line.partition("=")[0] for line in host.run(["env"]).stdout.splitlines()}
    assert names == set(ENVIRONMENT)
