"""echod as Debian packages: built from the working tree in the Debian that they are for, and an archive of the rest.

Owns CACHE/SUITE-build, the Debian that builds (packaging/debian/root), and CACHE/SUITE-archive, the packages that
those of echod depend on: hosts have no network, and find them in a folder, by apt.
"""

import hashlib
import shutil
import subprocess
import tomllib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from support.system.host import BootedHost
from support.system.image import STAMP, Debian, download_wheels, make_cached, succeed
from support.system.installation import REPOSITORY

DEBIAN = REPOSITORY / "packaging/debian"
ARCHIVE = "/srv/archive"
FOLDER = "/root/packages"  # where the operator has the packages of echod

# Asks apt of a clean Debian, over the network, for all that the packages in $2 depend on, into $3.
DOWNLOAD = """set -e
mount -t tmpfs tmpfs "$3"
mkdir "$3/upper" "$3/work" "$3/root"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$3/upper,workdir=$3/work" "$3/root"
cp -L /etc/resolv.conf "$3/root/etc/resolv.conf"
cp "$2"/*.deb "$3/root/tmp"
chroot "$3/root" sh -ec 'apt-get -qq update
    apt-get -qq -y -o APT::Sandbox::User=root install --download-only --no-install-recommends /tmp/*.deb'
find "$3/root/var/cache/apt/archives" -name '*.deb' -exec cp -t "$4" {} +
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packages:
    """What an operator has, and what the archive of Debian has for that: two folders of this machine."""

    folder: Path
    archive: Path

    def bring(self, host: BootedHost) -> None:
        """Copy both to the host, whose apt then knows the archive and no other."""
        host.copy(self.archive, ARCHIVE)
        host.copy(self.folder, FOLDER)
        host.write("/etc/apt/sources.list", f"deb [trusted=yes] file:{ARCHIVE} ./\n")
        host.run(["apt-get", "-qq", "update"])


def make_packages(debian: Debian, directory: Path) -> Packages:
    """Build the packages of the working tree for a Debian, and gather what they depend on."""
    debs = directory / "debs"
    kind = ["native"]
    if debian.suite == "bookworm":
        project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
        needed = project["project"]["dependencies"] + project["build-system"]["requires"]
        download_wheels(needed, debian.python, directory / "wheels")
        kind = ["bundled", "--wheels", str(directory / "wheels")]
    succeed([str(DEBIAN / "build"), str(debs), *kind, "--root", str(make_build_root(debian))])
    needs = "".join(field(path, "Depends") for path in sorted(debs.glob("*.deb")))
    archive = make_cached(f"{debian.suite}-archive", ".needs", needs, partial(_gather, debian, debs))
    return Packages(folder=debs, archive=archive)


def make_build_root(debian: Debian) -> Path:
    """Return the root of the Debian that builds for this one: a copy of its root, with what a build needs."""
    control = DEBIAN / ("bundled/control" if debian.suite == "bookworm" else "control")
    needed = control.read_text().split("\n\n", 1)[0]
    recipe = hashlib.sha256(((DEBIAN / "root").read_text() + needed).encode()).hexdigest()

    def build(target: Path) -> None:
        succeed(["cp", "--archive", str(debian.root), str(target)])
        shutil.copy("/etc/resolv.conf", target / "etc")
        succeed([str(DEBIAN / "root"), debian.suite, str(target)])

    return make_cached(f"{debian.suite}-build", STAMP, recipe, build)


def make_newer(packages: Packages, directory: Path) -> Packages:
    """Make the packages of the next version: the same files."""
    directory.mkdir()
    for package in packages.folder.glob("*.deb"):
        version, tree = field(package, "Version"), directory / "tree"
        succeed(["dpkg-deb", "-R", str(package), str(tree)])
        control = tree / "DEBIAN/control"
        control.write_text(control.read_text().replace(version, f"{version}+1"))
        succeed(["dpkg-deb", "--root-owner-group", "-b", str(tree), str(directory / f"{package.stem}+1.deb")])
        succeed(["rm", "-r", str(tree)])
    return Packages(folder=directory, archive=packages.archive)


def field(package: Path, name: str) -> str:
    """Return a field of a package."""
    return subprocess.run(
        ["dpkg-deb", "-f", str(package), name], check=True, capture_output=True, text=True
    ).stdout.strip()


def _gather(debian: Debian, packages: Path, target: Path) -> None:
    """Download what the packages depend on, with an index for apt."""
    target.mkdir(mode=0o755)
    scratch = target / "scratch"
    scratch.mkdir()
    command = ["unshare", "--mount", "sh", "-c", DOWNLOAD, "sh"]
    succeed([*command, str(debian.root), str(packages), str(scratch), str(target)])
    scratch.rmdir()
    index = ""
    for path in sorted(target.glob("*.deb")):
        index += subprocess.run(["dpkg-deb", "-f", str(path)], check=True, capture_output=True, text=True).stdout
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        index += f"Filename: ./{path.name}\nSize: {path.stat().st_size}\nSHA256: {digest}\n\n"
    (target / "Packages").write_text(index)
