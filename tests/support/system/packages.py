"""echod as Debian packages: built from the working tree in the Debian that they are for, and archives of the rest.

Owns CACHE/SUITE-build, the Debian that builds (packaging/debian/root), and CACHE/SUITE-packages..., what hosts get of
Debian: they have no network, and find it in a folder, by apt.
"""

import hashlib
import shutil
import subprocess
import tomllib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from support.system.chroot import run_in
from support.system.host import RUN_TIMEOUT, BootedHost
from support.system.image import STAMP, Debian, download_wheels, make_cached, succeed
from support.system.installation import REPOSITORY

DEBIAN = REPOSITORY / "packaging/debian"
ARCHIVE = "/srv/archive"
FOLDER = "/root/packages"  # where the operator has the packages of echod
INSTALL = "apt install ./echod_*.deb ./echod-ping_*.deb"
"""As the README prints it, and echod(8)."""

PLACES = ["/etc", "/usr", "/var/lib", "/opt", "/run/systemd"]
APT = "apt-get -q -y -o Dpkg::Use-Pty=0 "

# Asks apt of a clean Debian for all that the packages of echod depend on, and for packages by name.
DOWNLOAD = """export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq -y -o APT::Sandbox::User=root install --download-only --no-install-recommends /given/*.deb {names}
"""
KEEP = """
mkdir /given/archive
find /var/cache/apt/archives -name '*.deb' -exec cp -t /given/archive {} +
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
        offer(host, ARCHIVE)


def make_packages(debian: Debian, directory: Path) -> Packages:
    """Build the packages of the working tree for a Debian, and gather what they depend on."""
    folder = build_debs(debian, directory)
    return Packages(folder=folder, archive=make_archive(debian, folder))


def build_debs(debian: Debian, directory: Path) -> Path:
    """Build the packages of the working tree for a Debian; return the folder that has them."""
    debs = directory / "debs"
    kind = ["native"]
    if debian.suite == "bookworm":
        project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
        needed = project["project"]["dependencies"] + project["build-system"]["requires"]
        download_wheels(needed, debian.python, directory / "wheels")
        kind = ["bundled", "--wheels", str(directory / "wheels")]
    succeed([str(DEBIAN / "build"), str(debs), *kind, "--root", str(make_build_root(debian))])
    return debs


def make_archive(debian: Debian, folder: Path, *names: str) -> Path:
    """Gather what the packages in a folder depend on, and these packages of Debian."""
    script = DOWNLOAD.format(names=" ".join(names))
    return gather("-".join((debian.suite, "packages", *names)), debian.root, script, folder)


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


def gather(name: str, root: Path, script: str, folder: Path) -> Path:
    """Return an archive in the cache, with what apt downloads in a Debian by a script, which has `folder` at /given.

    It is made anew when the script is another, or the packages in the folder depend on others.
    """
    needs = "".join(field(path, "Depends") for path in sorted(folder.rglob("*.deb")))
    return make_cached(name, ".needs", script + needs, partial(_gather, root, script, folder))


def _gather(root: Path, script: str, folder: Path, target: Path) -> None:
    """Download into a folder, with an index for apt."""
    target.mkdir(mode=0o755)
    given = target / "given"
    shutil.copytree(folder, given)
    run_in(root, script + KEEP, given)
    for path in (given / "archive").iterdir():
        path.rename(target / path.name)
    shutil.rmtree(given)
    write_index(target)


def write_index(folder: Path) -> None:
    """Make a folder with packages an archive for apt."""
    index = ""
    for path in sorted(folder.glob("*.deb")):
        index += subprocess.run(["dpkg-deb", "-f", str(path)], check=True, capture_output=True, text=True).stdout
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        index += f"Filename: ./{path.name}\nSize: {path.stat().st_size}\nSHA256: {digest}\n\n"
    (folder / "Packages").write_text(index)


def offer(host: BootedHost, *archives: str) -> None:
    """Have apt on a host know these folders, and no other archive."""
    host.write("/etc/apt/sources.list", "".join(f"deb [trusted=yes] file:{each} ./\n" for each in archives))
    host.run(["apt-get", "-qq", "update"])


def apt(host: BootedHost, command: str, *, folder: str = FOLDER, timeout: float = RUN_TIMEOUT) -> str:
    """Run a command of apt in a folder with packages, as an operator who says yes; return what it printed."""
    script = f"cd {folder} && {command.replace('apt ', APT, 1)}"
    result = host.run(["sh", "-c", script], environment={"DEBIAN_FRONTEND": "noninteractive"}, timeout=timeout)
    return result.stdout + result.stderr


def traces(host: BootedHost) -> list[str]:
    """Return the names of all files on the host that have to do with echod."""
    listing = host.run(["find", *PLACES, "-name", "*echod*"], check=False).stdout
    return sorted(name for name in listing.splitlines() if "/journal/" not in name)
