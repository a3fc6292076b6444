"""The Ansible role echod: it installs and starts echod, changes nothing twice, and refuses a config with a mistake."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from support.daemon import REPOSITORY
from support.system.acceleration import ACCELERATOR, await_kernel
from support.system.host import obstacle
from support.system.image import Debian, download_wheels, make_root
from support.system.installation import WHEELS, make_release
from support.system.operating import CONFIG, Host
from support.system.packages import ARCHIVE, FOLDER, Packages, apt, make_archive, offer, write_index

ROLES = "/root/packaging/ansible"
LISTENERS = "/etc/systemd/system/echod.socket.d/listeners.conf"
ANSIBLE = "/root/ansible"
PLAYBOOK = "/root/playbook.yaml"
PIP = {
    "echod_install": "pip",
    "echod_pip": "echod-daemon",
    "echod_pip_options": f"--no-index --find-links {WHEELS}",
}
"""The host has no network: pip gets wheels."""


@pytest.fixture(scope="module")
def debian() -> Debian:
    """Give the Debian whose Python has a current Ansible."""
    if reason := obstacle():
        pytest.skip(reason)
    return make_root("trixie")


@pytest.fixture(scope="module")
def wheels(debian: Debian, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gather Ansible, for pip."""
    folder = tmp_path_factory.mktemp("ansible")
    download_wheels(["ansible-core"], debian.python, folder)
    return folder


@contextmanager
def booted(debian: Debian, wheels: Path) -> Iterator[Host]:
    """Boot a host that has Ansible."""
    with Host(debian.root) as host:
        host.copy(wheels, "/root/ansible-wheels")
        host.run(["python3", "-m", "venv", ANSIBLE])
        options = ["-q", "--no-index", "--find-links=/root/ansible-wheels"]
        host.run([f"{ANSIBLE}/bin/pip", "install", *options, "ansible-core"])
        host.copy(REPOSITORY / "packaging", "/root/packaging")
        yield host


@pytest.fixture(scope="module")
def host(debian: Debian, wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Boot a host that has Ansible, and the wheels of echod, but no echod."""
    release = make_release(debian, tmp_path_factory.mktemp("release"))
    with booted(debian, wheels) as host:
        release.bring(host)
        yield host


def play(host: Host, **variables: object) -> "subprocess.CompletedProcess[str]":
    """Apply the role on the host itself."""
    role = {"role": "echod", **PIP, **variables}
    host.write(PLAYBOOK, yaml.safe_dump([{"hosts": "all", "gather_facts": False, "roles": [role]}]))
    command = [f"{ANSIBLE}/bin/ansible-playbook", "--connection=local", "--inventory=localhost,", PLAYBOOK]
    python = ["--extra-vars", f"ansible_python_interpreter={ANSIBLE}/bin/python"]
    roles = {"ANSIBLE_ROLES_PATH": ROLES, "ANSIBLE_NOCOLOR": "1"}
    return host.run([*command, *python], check=False, environment=roles, timeout=600)


def recap(finished: "subprocess.CompletedProcess[str]") -> dict[str, int]:
    """Return the counts of the last line."""
    print(finished.stdout, finished.stderr)  # noqa: T201 - for who reads a failure
    return {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", finished.stdout.rpartition("PLAY RECAP")[2])}


def test_it_installs_and_a_second_run_changes_nothing(host: Host) -> None:
    """With the ports of echod.socket; echod serves, and the config names a schema that is there."""
    first = recap(play(host))
    assert (first["failed"], first["changed"] > 0) == (0, True)
    assert host.serves_everything()
    assert host.show("ActiveState", "echod.socket") == "active"
    assert host.show("UnitFileState") == "enabled"
    (schema,) = re.findall(r"^# yaml-language-server: \$schema=(.*)$", host.read(CONFIG), re.MULTILINE)
    assert host.read(schema) == (REPOSITORY / "config/echod.schema.json").read_text()
    before = host.supervisor()
    second = recap(play(host))
    assert (second["failed"], second["changed"]) == (0, 0)
    assert host.supervisor() == before


def assert_installs_once(host: Host, **variables: object) -> None:
    """Assert that the role installs the packages, that echod serves, and that a second run changes nothing."""
    first = recap(play(host, echod_install="package", **variables))
    assert (first["failed"], first["changed"] > 0) == (0, True)
    assert host.serves_everything()
    assert " /usr/bin/echod " in host.show("ExecStart")
    assert host.show("ActiveState", "echod.socket") == "active"
    before = host.supervisor()
    second = recap(play(host, echod_install="package", **variables))
    assert (second["failed"], second["changed"]) == (0, 0)
    assert host.supervisor() == before


def test_packages_are_installed_by_their_files_or_from_an_archive(
    debian: Debian, wheels: Path, debs: Callable[[Debian], Path], tmp_path: Path
) -> None:
    """Each way installs them on a host without echod, and changes nothing the second time."""
    archive = tmp_path / "archive"
    shutil.copytree(debs(debian), archive)
    write_index(archive)
    with booted(debian, wheels) as host:
        Packages(folder=archive, archive=make_archive(debian, archive, "python3-apt")).bring(host)
        files = [f"{FOLDER}/{path.name}" for path in sorted(archive.glob("*.deb"))]
        assert_installs_once(host, echod_package=files)
        apt(host, "apt purge echod echod-ping")
        host.run(["sh", "-c", "rm -r /etc/systemd/system/echod.*.d"])
        offer(host, ARCHIVE, FOLDER)
        assert_installs_once(host)


def test_a_changed_key_is_a_reload_and_a_changed_listener_moves_the_ports(host: Host) -> None:
    """The supervisor is the same after the one; after the other systemd holds the new ports, among them a range."""
    play(host)
    before = host.supervisor()
    assert recap(play(host, echod_config={"workers": 1}))["failed"] == 0
    assert (host.supervisor(), len(host.workers())) == (before, 1)
    stamp = {"address": "udp://[::1]:862", "mode": "stamp", "stateful": True}
    config = {"workers": 1, "listeners": ["udp://0.0.0.0:7", "tcp://127.0.0.1:7", stamp, "udp://[::1]:7000-7002"]}
    assert recap(play(host, echod_config=config))["failed"] == 0
    held = host.show("Listen", "echod.socket")
    assert re.findall(r"(\S+) \((?:Datagram|Stream)\)", held) == [
        *("0.0.0.0:7", "127.0.0.1:7", "[::1]:862", "[::1]:7000", "[::1]:7001", "[::1]:7002")
    ]
    assert recap(play(host, echod_config=config))["changed"] == 0
    assert recap(play(host))["failed"] == 0
    assert host.serves_everything()
    assert host.run(["ls", LISTENERS], check=False).returncode != 0


def test_the_accelerator_is_switched_on_and_off(host: Host) -> None:
    """At the interfaces of the config; a second run changes nothing."""
    assert recap(play(host))["failed"] == 0
    assert (host.show("ActiveState", ACCELERATOR), host.show("UnitFileState", ACCELERATOR)) == ("inactive", "disabled")
    config = {"kernel": {"interfaces": ["eth0"]}}
    assert recap(play(host, echod_accelerate=True, echod_config=config))["failed"] == 0
    await_kernel(host)
    assert recap(play(host, echod_accelerate=True, echod_config=config))["changed"] == 0
    assert recap(play(host))["failed"] == 0
    assert (host.show("ActiveState", ACCELERATOR), host.show("UnitFileState", ACCELERATOR)) == ("inactive", "disabled")
    assert host.serves_everything()


def test_a_config_with_a_mistake_is_refused_and_the_old_one_stays(host: Host) -> None:
    """The play fails with what `echod check` reports; neither the file nor the daemon has changed."""
    play(host)
    before, text = host.supervisor(), host.read(CONFIG)
    failed = play(host, echod_config={"worker": 2})
    assert recap(failed)["failed"] == 1
    assert 'did you mean \\"workers\\"' in failed.stdout + failed.stderr
    assert (host.supervisor(), host.read(CONFIG)) == (before, text)
    assert host.serves_everything()


def test_ports_may_return_to_echod(host: Host) -> None:
    """Without the socket echod binds them itself; a second run changes nothing."""
    assert recap(play(host, echod_socket=False))["failed"] == 0
    assert host.show("ActiveState", "echod.socket") == "inactive"
    assert host.serves_everything()
    assert recap(play(host, echod_socket=False))["changed"] == 0


def test_the_linter_finds_nothing(tmp_path: Path) -> None:
    """By its strictest profile, `production`."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path], check=True)
    subprocess.run([tmp_path / "bin/pip", "install", "-q", "ansible-lint"], check=True, timeout=600)
    linted = subprocess.run(
        [tmp_path / "bin/ansible-lint", "--offline", "--profile=production", "--nocolor", "echod"],
        cwd=REPOSITORY / "packaging/ansible",
        env={"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert linted.returncode == 0, linted.stdout + linted.stderr
