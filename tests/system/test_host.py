"""The harness keeps its promises: what the tests of the daemon take for granted is proved here."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support.system.container import own_group
from support.system.host import ENVIRONMENT, NAME_PATTERN, Host, sweep
from support.system.image import Debian, download_wheels
from support.system.network import NAMESPACES
from support.waiting import wait_until

# Answers by inetd's way: systemd accepts, and /bin/cat is the echo. It needs nothing that a minbase lacks.
ECHO_SOCKET = "[Socket]\nListenStream=0.0.0.0:7\nListenStream=[::]:7\nBindIPv6Only=ipv6-only\nAccept=yes\n"
ECHO_SERVICE = "[Service]\nExecStart=/bin/cat\nStandardInput=socket\n"

# Boots a host, names its PID 1, and waits to be killed.
DOOMED = """
import sys
from pathlib import Path
from support.system.host import Host
with Host(Path(sys.argv[1])) as host:
    print(host.leader, flush=True)
    sys.stdin.read()
"""


def traces() -> dict[str, set[str]]:
    """Return what there is on the machine of all that a host makes, without what other test runs have there now."""
    mounts = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    found = {
        "mounts": mounts,
        "namespaces": {path.name for path in NAMESPACES.glob("echod-*")},
        "groups": {path.name for path in own_group().glob("echod-*")},
        "directories": {path.name for path in Path(tempfile.gettempdir()).glob("echod-*")},
        "nspawn": {path.name for path in Path("/run/systemd/nspawn").glob("*/*")},
    }
    return {kind: {name for name in names if is_ours(name)} for kind, names in found.items()}


def is_ours(name: str) -> bool:
    """Tell whether a name is of a host of this run, or of one that was killed."""
    host = NAME_PATTERN.search(name)
    return host is not None and (int(host[1]) == os.getpid() or not Path("/proc", host[1]).exists())


def echoed(host: Host, address: str) -> bytes:
    """Return what the host's TCP port 7 answers to "hello" from a client."""
    with host.client(), socket.create_connection((address, 7), timeout=5) as connection:
        connection.sendall(b"hello")
        connection.shutdown(socket.SHUT_WR)
        return connection.recv(64)


def test_the_systemd_and_the_python_are_those_of_the_release(debian: Debian, host: Host) -> None:
    """Debian 12 has systemd 252 and Python 3.11, Debian 13 has 257 and 3.13, and all units are up."""
    assert host.run(["systemctl", "--version"]).stdout.split()[1] == str(debian.systemd)
    assert host.run(["python3", "--version"]).stdout.startswith(f"Python {debian.python}.")
    assert host.run(["systemctl", "is-system-running"]).stdout == "running\n"
    assert f"VERSION_CODENAME={debian.suite}" in host.read("/etc/os-release")


def test_a_host_is_clean_after_another_has_written(debian: Debian, host: Host) -> None:
    """Neither a host beside it nor the cached root sees what a host writes, and both can be used at once."""
    host.write("/etc/echod.yaml", "mark\n")
    with Host(debian.root) as other:
        assert other.run(["ls", "/etc/echod.yaml"], check=False).returncode != 0
        assert host.read("/etc/echod.yaml") == "mark\n"
    assert not (debian.root / "etc/echod.yaml").exists()


@pytest.mark.parametrize("address", [Host.address, Host.address6])
def test_a_client_reaches_the_host_from_outside(host: Host, address: str) -> None:
    """A connection from the client's namespace is answered over IPv4 and IPv6."""
    host.write("/etc/systemd/system/echo.socket", ECHO_SOCKET)
    host.write("/etc/systemd/system/echo@.service", ECHO_SERVICE)
    host.run(["systemctl", "start", "echo.socket"])
    assert echoed(host, address) == b"hello"


def test_a_process_can_be_started_on_the_client_side(host: Host) -> None:
    """The namespace has a name for ip-netns(8), and the client's addresses are its own."""
    listing = subprocess.run(
        ["ip", "netns", "exec", host.client_netns, "ip", "address"], check=True, capture_output=True, text=True
    ).stdout
    assert host.client_address in listing
    assert host.client_address6 in listing
    assert "tentative" not in listing


def test_the_journal_is_read_as_entries(host: Host) -> None:
    """What a unit writes is in the journal under its name as soon as the unit has ended."""
    host.run(["systemd-run", "--wait", "--unit=speaker", "echo", "grüße"])
    (entry,) = host.journal("--unit=speaker", "--identifier=echo")
    assert entry["MESSAGE"] == "grüße"
    assert entry["_SYSTEMD_UNIT"] == "speaker.service"


def test_a_failure_shows_its_output(host: Host) -> None:
    """A command that fails raises with its status, and its complaint is in the notes that pytest prints."""
    with pytest.raises(subprocess.CalledProcessError) as failure:
        host.run(["sh", "-c", "echo woe >&2; exit 7"])
    assert failure.value.returncode == 7
    assert failure.value.__notes__ == ["woe\n"]


def test_a_command_that_hangs_is_killed_at_its_timeout(host: Host) -> None:
    """A timeout does not leave the command behind on the host."""
    with pytest.raises(subprocess.TimeoutExpired):
        host.run(["sleep", "1234"], timeout=0.5)
    wait_until(lambda: host.run(["pgrep", "-x", "sleep"], check=False).returncode == 1, "sleep is gone", seconds=5)


def test_a_directory_is_copied_with_its_modes(host: Host, tmp_path: Path) -> None:
    """A copy keeps names and modes, belongs to root, and its parents are made."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "program").write_text("#!/bin/sh\necho works\n")
    (tmp_path / "tree" / "program").chmod(0o755)
    os.chown(tmp_path / "tree" / "program", 1234, 1234)
    host.copy(tmp_path / "tree", "/opt/deep/tree")
    assert host.run(["/opt/deep/tree/program"]).stdout == "works\n"
    assert host.run(["stat", "-c", "%U", "/opt/deep/tree/program"]).stdout == "root\n"


def test_a_reboot_keeps_files_and_enabled_units(host: Host) -> None:
    """After a reboot the disk is as it was, the boot is another, and an enabled socket is reachable."""
    host.write("/etc/systemd/system/echo.socket", f"{ECHO_SOCKET}[Install]\nWantedBy=sockets.target\n")
    host.write("/etc/systemd/system/echo@.service", ECHO_SERVICE)
    host.run(["systemctl", "enable", "echo.socket"])
    host.write("/run/volatile", "")
    before = host.read("/proc/sys/kernel/random/boot_id")
    host.reboot()
    assert host.read("/proc/sys/kernel/random/boot_id") != before
    assert host.run(["ls", "/run/volatile"], check=False).returncode != 0
    assert echoed(host, host.address6) == b"hello"
    assert {entry["_BOOT_ID"] for entry in host.journal()} > {before.strip().replace("-", "")}


def test_many_reloads_of_systemd_do_not_stall_it(host: Host) -> None:
    """Its PID 1 notifies nspawn at each daemon-reload; nobody reads that, and nobody waits for it."""
    for _ in range(15):
        host.run(["systemctl", "daemon-reload"], timeout=10)
    assert host.run(["systemctl", "is-system-running"]).stdout == "running\n"


def test_nothing_is_left_of_a_host(debian: Debian) -> None:
    """Mounts, namespaces, groups, directories and processes go with the host, also when its test fails."""
    before = traces()
    leaders = []

    def fail() -> None:
        with Host(debian.root) as host:
            leaders.append(host.leader)
            assert traces()["groups"] > before["groups"]
            host.run(["false"])

    with pytest.raises(subprocess.CalledProcessError):
        fail()
    assert traces() == before
    assert not Path("/proc", str(leaders[0])).exists()


def test_a_host_that_does_not_go_down_is_killed(debian: Debian, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit that refuses to stop for ever holds up the end of a test for STOP_TIMEOUT only, and leaves nothing."""
    before = traces()
    with Host(debian.root) as host:
        stubborn = ["--property=TimeoutStopSec=infinity", "sh", "-c", "trap '' TERM; while :; do sleep 1; done"]
        host.run(["systemd-run", "--service-type=exec", *stubborn])
        leader = Path("/proc", str(host.leader))
        monkeypatch.setattr("support.system.container.STOP_TIMEOUT", 1.0)
    assert not leader.exists()
    assert traces() == before


def test_a_host_dies_with_a_killed_run_and_the_next_sweeps(debian: Debian) -> None:
    """When the run is killed, the kernel ends the host and its mounts; the next host removes the empty names."""
    before = traces()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", DOOMED, debian.root], stdin=-1, stdout=-1, env=environment, text=True
    ) as run:
        assert run.stdout is not None
        leader = Path("/proc", run.stdout.readline().strip())
        assert leader.joinpath("comm").read_text() == "systemd\n"
        run.send_signal(signal.SIGKILL)
    wait_until(lambda: not leader.exists(), "the host's PID 1 is gone", seconds=10)
    sweep()
    assert traces() == before


def test_the_environment_of_a_command_is_a_login_of_root(host: Host) -> None:
    """Nothing of the environment of the machine gets in."""
    names = {line.partition("=")[0] for line in host.run(["env"]).stdout.splitlines()}
    assert names == set(ENVIRONMENT)


def test_wheels_from_outside_are_installed_in_a_virtualenv(debian: Debian, host: Host, tmp_path: Path) -> None:
    """A host has no index: compiled wheels, and one built from source here, install from a directory."""
    wheels = download_wheels(["pydantic>=2", "sdnotify"], debian.python, tmp_path / "wheels")
    assert any(wheel.name.startswith("sdnotify-") for wheel in wheels)
    host.copy(tmp_path / "wheels", "/opt/wheels")
    host.run(["python3", "-m", "venv", "/opt/venv"])
    pip = ["/opt/venv/bin/pip", "install", "--no-index", "--find-links=/opt/wheels"]
    host.run([*pip, "pydantic", "sdnotify"], timeout=120)
    host.run(["/opt/venv/bin/python", "-c", "import pydantic_core, sdnotify"])
