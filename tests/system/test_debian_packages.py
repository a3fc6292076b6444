"""The Debian packages: installed, upgraded and removed, as an operator does it."""

import re
from pathlib import Path

import pytest
from support.daemon import REPOSITORY
from support.man import literals, section
from support.system.acceleration import ACCELERATOR, await_kernel, process, state
from support.system.image import Debian
from support.system.installation import SOURCE, Mode, Release, install_command
from support.system.load import loaded
from support.system.operating import CONFIG, Host
from support.system.packages import FOLDER, INSTALL, Packages, apt, make_newer, make_packages, traces

FIRST = [INSTALL, "systemctl start echod", "echod ping -c 3 127.0.0.1", "journalctl -u echod"]
"""The first commands of the README's section on installation."""


@pytest.fixture(scope="session")
def packages(debian: Debian, tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """Build the packages, once for each Debian."""
    return make_packages(debian, tmp_path_factory.mktemp(f"packages-{debian.suite}"))


def manual() -> list[list[str]]:
    """Return the commands of each block in what echod(8) says about the packages."""
    return [re.findall("^# (.*)$", block, re.MULTILINE) for block in literals(section("echod.8", "Debian packages"))]


def test_apt_installs_upgrades_and_removes(host: Host, packages: Packages, tmp_path: Path) -> None:
    """A taken port fails no installation; an upgrade with the socket unit loses nothing; nothing is left by a purge.

    The accelerator is off until it is enabled; then an upgrade restarts it, or leaves it stopped.
    """
    host.run(["systemd-run", "--quiet", "--unit=taken", "python3", "-c",
              "import socket; s = socket.create_server(('0.0.0.0', 7)); s.accept()"])  # fmt: skip
    shown = REPOSITORY.joinpath("README.md").read_text().partition("### Install\n")[2].split("```")[1]
    assert re.findall("^# (.*)$", shown, re.MULTILINE) == FIRST
    before = traces(host)
    packages.bring(host)
    apt(host, INSTALL)
    assert_compiled(host)
    assert host.show("UnitFileState") == "enabled"
    host.systemctl("stop", "taken")
    host.await_answer()
    for command in FIRST[1:]:
        assert host.run(["sh", "-c", command]).returncode == 0
    assert host.serves_everything()
    for command in (["echod", "ping"], ["echod-ping"]):
        assert ", 0% packet loss" in host.run([*command, "-q", "-c", "3", "-i", "2ms", "127.0.0.1"]).stdout
    explained = host.run(["journalctl", "-u", "echod", "-x", "--no-pager"]).stdout
    assert "Documentation: man:echod(8)" in explained
    assert "INSTALLATION" in host.run(["zcat", "/usr/share/man/man8/echod.8.gz"]).stdout

    edited = host.read(CONFIG).replace("level: info", "level: debug").replace("interfaces: []", "interfaces: [eth0]")
    host.configure(edited)
    install, to_socket, _ = manual()
    assert install == [INSTALL]
    # At this rate the 8 MiB of the unit hold two seconds: dpkg, beside tests on every CPU, may take longer to restart.
    host.drop_in("[Socket]\nReceiveBuffer=64M\n", unit="echod.socket")
    for command in to_socket:
        host.run(["sh", "-c", command])
    assert host.serves_everything()
    assert (host.show("UnitFileState", ACCELERATOR), state(host)) == ("disabled", "inactive")
    host.systemctl("enable", "--quiet", "--now", ACCELERATOR)
    await_kernel(host)
    supervisor, accelerator = host.supervisor(), process(host)
    newer = make_newer(packages, tmp_path / "newer")
    host.copy(newer.folder, f"{FOLDER}/newer")
    with loaded(host, 5, kept=0.5):
        apt(host, INSTALL.replace("./", "./newer/"))
    assert host.supervisor() not in {supervisor, 0}
    assert process(host) not in {accelerator, 0}
    await_kernel(host)
    assert host.read(CONFIG) == edited

    assert_upgrade_leaves(host)
    apt(host, "apt remove echod echod-ping")
    assert not host.answers()
    assert host.read(CONFIG) == edited
    for unit in ("echod.service", "echod.socket", "echod@red.service"):
        assert host.show("ActiveState", unit) == "inactive"
    host.run(["sh", "-c", "rm -r /etc/systemd/system/echod.*.d"])
    apt(host, "apt purge echod echod-ping")
    assert traces(host) == before


def assert_compiled(host: Host) -> None:
    """Assert that no start has to compile a module, those of bundled libraries included."""
    find = ["find", "/usr/lib/python3/dist-packages/echod", "/usr/lib/echod", "-name"]
    sources, compiled = (host.run([*find, each], check=False).stdout.splitlines() for each in ("*.py", "*.pyc"))
    assert len(sources) == len(compiled) > 100


def assert_upgrade_leaves(host: Host) -> None:
    """Assert that stopped stays stopped, and that an instance with a mistake in its config runs on, as apt says."""
    reinstall = INSTALL.replace("install", "install --reinstall").replace("./", "./newer/")
    host.systemctl("stop", ACCELERATOR)
    apt(host, reinstall)
    assert (state(host), host.show("UnitFileState", ACCELERATOR)) == ("inactive", "enabled")
    assert host.serves_everything()
    host.write("/etc/echod/red.yaml", "listeners: ['udp://0.0.0.0:7107']\n")
    host.systemctl("enable", "echod@red")
    host.systemctl("start", "echod@red")
    before = host.show("MainPID", "echod@red")
    host.write("/etc/echod/red.yaml", "listener: ['udp://0.0.0.0:7107']\n")
    host.systemctl("stop", "echod.socket", "echod.service")
    said = apt(host, reinstall)
    assert "/etc/echod/red.yaml:1:1: error: listener: unknown key; did you mean" in said
    assert "echod@red.service is not restarted, and runs on" in said
    assert host.show("MainPID", "echod@red") == before != "0"
    assert host.ask(port=7107) == b"hello"
    assert host.show("ActiveState") == "inactive"
    host.run(["rm", "-r", "/etc/echod"])


def test_packages_and_the_installer_take_turns(host: Host, packages: Packages, release: Release) -> None:
    """From packaging/install to the packages and back, with the same config, as echod(8) says; never both at once."""
    packages.bring(host)
    release.bring(host)
    host.run(install_command(Mode.ACTIVATED))
    host.write(CONFIG, host.read(CONFIG).replace("level: info", "level: debug"))
    host.systemctl("reload")
    edited = host.read(CONFIG)
    host.run([f"{SOURCE}/packaging/uninstall"])
    apt(host, INSTALL.replace("install", "install -o Dpkg::Options::=--force-confold"))
    assert host.read(CONFIG) == edited
    assert host.serves_everything()
    assert " /usr/bin/echod " in host.show("ExecStart")
    refused = host.run(install_command(Mode.ACTIVATED), check=False)
    assert refused.returncode == 1
    assert refused.stderr == (
        "packaging/install: a package of the distribution has brought echod (/usr/lib/systemd/system/echod.service): "
        "upgrade or remove that package\n"
    )
    apt(host, "apt remove echod echod-ping")
    host.run(install_command(Mode.ACTIVATED))
    assert host.read(CONFIG) == edited
    assert host.serves_everything()
    assert " /usr/local/bin/echod " in host.show("ExecStart")
