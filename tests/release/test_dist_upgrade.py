"""A host with the packages for Debian 12 becomes Debian 13: as echod(8) says, with the packages for that."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.man import literals, section
from support.system.host import obstacle
from support.system.image import Debian, make_root
from support.system.load import loaded
from support.system.operating import CONFIG, Host
from support.system.packages import ARCHIVE, FOLDER, INSTALL, apt, gather, offer, traces

from echod import __version__

NEW = f"{FOLDER}/trixie"
SECONDS = 900.0

# Asks apt of Debian 12 with the packages for it (in /given/bookworm) for all that it takes to become Debian 13.
DOWNLOAD = """export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq -y -o APT::Sandbox::User=root install --no-install-recommends /given/bookworm/*.deb
apt-get -qq clean
sed -i s/bookworm/trixie/ /etc/apt/sources.list
apt-get -qq update
apt-get -qq -y -o APT::Sandbox::User=root full-upgrade --download-only /given/trixie/*.deb
"""


@pytest.fixture(scope="module")
def bookworm() -> Debian:
    """Give Debian 12, with its root made."""
    if reason := obstacle():
        pytest.skip(reason)
    return make_root("bookworm")


@pytest.fixture(scope="module")
def archive(
    bookworm: Debian, trixie: Debian, debs: Callable[[Debian], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Gather what Debian 13 has for a host with Debian 12 and echod."""
    both = tmp_path_factory.mktemp("both")
    for debian in (bookworm, trixie):
        shutil.copytree(debs(debian), both / debian.suite)
    return gather("bookworm-to-trixie", bookworm.root, DOWNLOAD, both)


def installed(host: Host, name: str) -> str:
    """Return status, version and architecture of a package."""
    return host.run(["dpkg-query", "--show", "--showformat=${Status} ${Version} ${Architecture}", name]).stdout


def test_debian_12_with_echod_becomes_debian_13(
    bookworm: Debian, trixie: Debian, debs: Callable[[Debian], Path], archive: Path
) -> None:
    """Nothing is lost meanwhile; the config stays, native packages replace the bundled ones, a purge leaves nothing."""
    blocks = literals(section("echod.8", "Debian packages"))
    install, to_socket, (upgrade,) = (re.findall("^# (.*)$", block, re.MULTILINE) for block in blocks)
    assert install == [INSTALL]
    with Host(bookworm.root) as host:
        before = traces(host)
        host.copy(debs(bookworm), FOLDER)
        apt(host, INSTALL)
        # The load goes on while dpkg has every CPU: a restart may take longer than the buffer of the unit lasts.
        host.drop_in("[Socket]\nReceiveBuffer=64M\n", unit="echod.socket")
        for command in to_socket:
            host.run(["sh", "-c", command])
        host.write(CONFIG, host.read(CONFIG).replace("level: info", "level: debug"))
        host.systemctl("reload")
        edited = host.read(CONFIG)
        assert installed(host, "echod").startswith(f"install ok installed {__version__}~deb12 ")
        assert host.run(["ls", "/usr/lib/echod"]).stdout
        assert host.serves_everything()

        host.copy(archive, ARCHIVE)
        host.copy(debs(trixie), NEW)
        offer(host, ARCHIVE)
        assert "\nRemv echod " in apt(host, "apt full-upgrade --simulate")
        with loaded(host, 5, kept=0.1):
            apt(host, upgrade, folder=NEW, timeout=SECONDS)
        for name in ("echod", "echod-ping"):
            assert installed(host, name) == f"install ok installed {__version__} all"
        assert host.read("/etc/debian_version").startswith("13.")
        for boot in (False, True):
            if boot:
                host.reboot()
                host.await_answer()
            assert host.serves_everything()
            assert ", 0% packet loss" in host.run(["echod", "ping", "-q", "-c", "3", "-i", "2ms", "127.0.0.1"]).stdout
            assert host.run(["echod", "status", "--check"]).stdout.endswith("all 4 listeners replied\n")
            assert host.show("ActiveState", "echod.socket") == "active"
            assert host.run(["readlink", f"/proc/{host.supervisor()}/exe"]).stdout == "/usr/bin/python3.13\n"
        assert host.run(["ls", "/usr/lib/echod"], check=False).returncode != 0
        assert host.read(CONFIG) == edited

        host.run(["sh", "-c", "rm -r /etc/systemd/system/echod.*.d"])
        apt(host, "apt purge echod echod-ping")
        assert traces(host) == before
