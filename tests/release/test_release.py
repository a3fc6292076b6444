"""packaging/release makes every artefact from a fresh clone of the last commit, and the same ones each time."""

import platform
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.daemon import REPOSITORY
from support.release.containers import Containers
from support.release.rpm import MACROS
from support.system.image import Debian, make_root
from support.system.packages import make_build_root

from echod import __version__

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
"""Debian's name of it."""

ARTEFACTS = {
    f"echod_daemon-{__version__}.tar.gz",
    f"echod_daemon-{__version__}-py3-none-any.whl",
    "echod-ping.pyz",
    f"echod_{__version__}_all.deb",
    f"echod-ping_{__version__}_all.deb",
    f"echod_{__version__}~deb12_{ARCHITECTURE}.deb",
    f"echod-ping_{__version__}~deb12_all.deb",
    f"echod-{__version__}-1.src.rpm",
    f"echod-{__version__}-1.noarch.rpm",
    f"echod-ping-{__version__}-1.noarch.rpm",
    f"echod-{__version__}-image.tar.gz",
}
Release = Callable[[Path, str, str], Path]

SECONDS = 1700.0
"""A release takes four minutes, if the Debians to build in are there."""

IN_CLONE = 'umask "$1"; git clone --quiet "$2" "$3"; "$3"/packaging/release --base "$4" --macros "$5" --roots "$6" "$7"'

WITHOUT_BUILDER = """mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" "$1/root"
printf '#!/bin/sh\\ncat /proc/net/dev\\nexit 1\\n' >"$1/root/usr/bin/dpkg-buildpackage"
chmod 0755 "$1/root/usr/bin/dpkg-buildpackage"
exec "$3" --root "$1/root" "$1/out"
"""
"""Builds in a Debian in which the builder of packages shows the interfaces of its network, and fails."""


@pytest.fixture(scope="module")
def roots(trixie: Debian, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the Debians to build in, where packaging/release looks for them."""
    folder = tmp_path_factory.mktemp("roots")
    for debian in (trixie, make_root("bookworm")):
        (folder / debian.suite).symlink_to(make_build_root(debian))
    return folder


@pytest.fixture(scope="module")
def release(containers: Containers, base: str, roots: Path) -> Release:
    """Return a function that makes a release in a new clone in a folder, by a user with a umask and a time zone."""

    def make(folder: Path, umask: str, zone: str) -> Path:
        words = (umask, REPOSITORY, folder / "clone", base, MACROS, roots, folder / "out")
        containers.run("sh", "-ec", IN_CLONE, "sh", *words, variables={"TZ": zone}, seconds=SECONDS)
        return folder / "out"

    return make


@pytest.fixture(scope="module")
def released(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a release; return the folder with the artefacts."""
    return release(tmp_path_factory.mktemp("release"), "022", "UTC")


def files_of(package: Path) -> set[str]:
    """Return the files that a Debian package has."""
    listing = subprocess.run(["dpkg-deb", "--contents", package], check=True, capture_output=True, text=True).stdout
    return {path for line in listing.splitlines() if not (path := line.split()[5].removeprefix(".")).endswith("/")}


def test_it_makes_each_artefact_and_a_list_of_checksums(released: Path) -> None:
    """All are there, and nothing else; sha256sum finds each as the list has it."""
    assert {path.name for path in released.iterdir()} == ARTEFACTS | {"SHA256SUMS"}
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    checked = subprocess.run(command, cwd=released, check=True, capture_output=True, text=True).stdout
    assert {line.removesuffix(": OK") for line in checked.splitlines()} == ARTEFACTS


def test_a_release_by_somebody_else_is_the_same(released: Path, release: Release, tmp_path: Path) -> None:
    """Each artefact has the same bytes, from another clone, by a user whose umask and time zone are others."""
    again = release(tmp_path, "077", "Asia/Kathmandu")
    different = [name for name in sorted(ARTEFACTS) if (again / name).read_bytes() != (released / name).read_bytes()]
    assert different == []


@pytest.mark.parametrize("kind", ["", "~deb12"])
def test_the_debian_client_has_what_echod_ping_imports_and_the_daemon_the_rest(released: Path, kind: str) -> None:
    """On both Debians, with each module once; and each package has the completion of its command."""
    (daemon,), client = released.glob(f"echod_{__version__}{kind}_*"), f"echod-ping_{__version__}{kind}_all.deb"
    found = {"echod": files_of(daemon), "echod-ping": files_of(released / client)}
    modules = {
        name: {path.partition("/dist-packages/")[2] for path in files if re.search(r"/dist-packages/echod/.*py$", path)}
        for name, files in found.items()
    }
    listed = subprocess.run([REPOSITORY / "packaging/zipapp", "--list"], check=True, capture_output=True, text=True)
    assert modules["echod-ping"] == set(listed.stdout.splitlines())
    written = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "echod").rglob("*.py")}
    assert modules["echod"] == written - modules["echod-ping"]
    for name, files in found.items():
        completion = {
            f"/usr/share/bash-completion/completions/{name}",
            f"/usr/share/fish/vendor_completions.d/{name}.fish",
            f"/usr/share/zsh/vendor-completions/_{name}",  # the zsh of Debian looks there
        }
        assert {path for path in files if re.search(r"completions|site-functions", path)} == completion


@pytest.mark.parametrize("kind", ["", "~deb12"])
def test_the_debian_daemon_brings_its_ports_to_the_firewalls(released: Path, kind: str) -> None:
    """For firewalld and ufw; what is below /etc is the operator's to edit."""
    (daemon,) = released.glob(f"echod_{__version__}{kind}_*")
    assert {"/usr/lib/firewalld/services/echod.xml", "/etc/ufw/applications.d/echod"} <= files_of(daemon)
    command = ["dpkg-deb", "--info", daemon, "conffiles"]
    conffiles = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert conffiles.split() == ["/etc/echod.yaml", "/etc/ufw/applications.d/echod"]


def test_debian_packages_are_built_without_a_network(trixie: Debian, tmp_path: Path) -> None:
    """What builds them has a loopback interface, and no other."""
    words = [tmp_path, trixie.root, REPOSITORY / "packaging/debian/build"]
    command = ["unshare", "--mount", "sh", "-ec", WITHOUT_BUILDER, "sh", *words]
    failed = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert failed.returncode == 1
    assert re.findall(r"^ *(\S+):", failed.stderr, re.MULTILINE) == ["lo"]
