"""firewalld and ufw of Debian take the definitions of echod where its packages put them."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import REPOSITORY
from support.system.host import obstacle
from support.system.image import failure, make_root

FOLDER = REPOSITORY / "packaging/firewall"
INSTALL = "apt-get update -qq && apt-get install -y -qq --no-install-recommends firewalld ufw"


def run(root: Path, *command: str) -> str:
    """Run a command in a root, which must succeed; return what it printed."""
    finished = subprocess.run(
        ["chroot", root, *command],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    if finished.returncode != 0:
        raise failure(list(command), finished)
    return finished.stdout


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make a Debian with both firewalls, and the definitions where a package puts them. Nothing runs in it."""
    if reason := obstacle():
        pytest.skip(reason)
    made = tmp_path_factory.mktemp("firewall") / "root"
    subprocess.run(["cp", "-a", "--reflink=auto", make_root("bookworm").root, made], check=True)
    for name in ("etc/resolv.conf", "etc/hosts"):  # the machine's: only apt needs a network
        shutil.copy(Path("/", name), made / name)
    run(made, "sh", "-c", INSTALL)
    for name, place in (("xml", "usr/lib/firewalld/services/echod.xml"), ("ufw", "etc/ufw/applications.d/echod")):
        assert not (made / place).exists(), "the firewall's own package has it"
        shutil.copy(FOLDER / f"echod.{name}", made / place)
    yield made
    shutil.rmtree(made, ignore_errors=True)


def test_firewalld_takes_the_service(root: Path) -> None:
    """The configuration as a whole is valid, and the service has its ports."""
    run(root, "firewall-offline-cmd", "--check-config")
    assert re.search(r"^ +ports: 7/udp 7/tcp$", run(root, "firewall-offline-cmd", "--info-service=echod"), re.MULTILINE)


def test_ufw_takes_the_profile(root: Path) -> None:
    """By its name, with its ports."""
    assert "\nPorts:\n  7/udp\n  7/tcp\n" in run(root, "ufw", "app", "info", "echod")
