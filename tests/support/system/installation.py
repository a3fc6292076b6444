"""echod on a host, put there by packaging/install as an operator would: from its source tree and a folder of wheels.

Owns what goes into that installation, and a layer of files that makes a host with echod boot as fast as one without.
Nothing here looks into echod: what a host runs is the wheel of this repository's working tree.
"""

import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from support.system.host import BootedHost
from support.system.image import Debian, download_wheels
from support.waiting import wait_until

REPOSITORY = Path(__file__).parents[3]

SOURCE = "/root/echod"  # where the operator has unpacked the release
WHEELS = "/root/wheels"
INDEX_PORT = 8080
INDEX = f"http://127.0.0.1:{INDEX_PORT}/"

# Where an installation writes.
WRITTEN = (
    *("opt/echod", "usr/local/bin", "usr/local/share", "usr/local/lib/systemd", "var/lib/systemd/catalog"),
    *("etc/systemd/system", "etc/echod.yaml"),
)


class Mode(StrEnum):
    """Who has the ports: echod itself, or the socket unit."""

    BOUND = "bound"
    ACTIVATED = "activated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What an operator brings to a host to install: two folders of this machine."""

    source: Path
    wheels: Path

    def bring(self, host: BootedHost) -> None:
        """Copy both to the host."""
        host.copy(self.source, SOURCE)
        host.copy(self.wheels, WHEELS)


def make_release(debian: Debian, directory: Path) -> Release:
    """Copy the working tree, without what git ignores, and gather the wheels of echod and its dependencies."""
    release = Release(source=directory / "source", wheels=directory / "wheels")
    listing = ["git", "-C", str(REPOSITORY), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, check=True, capture_output=True, text=True).stdout.rstrip("\0").split("\0")
    for name in names:
        if (REPOSITORY / name).is_file():
            (release.source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, release.source / name)
    pyproject = tomllib.loads((release.source / "pyproject.toml").read_text())
    needed = pyproject["project"]["dependencies"] + pyproject["build-system"]["requires"]
    download_wheels(needed, debian.python, release.wheels)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", f"--wheel-dir={release.wheels}"]
    subprocess.run([*pip, str(release.source)], check=True)
    return release


def install_command(mode: Mode) -> list[str]:
    """Return the one command by which an operator installs or upgrades, from the folder of the source."""
    command = ["env", f"--chdir={SOURCE}", "packaging/install", "--wheels", WHEELS]
    return [*command, *(["--socket"] if mode is Mode.ACTIVATED else [])]


def serve_index(host: BootedHost) -> None:
    """Have pip on this host find the wheels as behind a mirror: on an index that /etc/pip.conf names.

    The index is the layout of PEP 503, one folder for each project, served over HTTP from the host itself.
    """
    script = (
        f"cd {WHEELS} && for wheel in *.whl; do "
        'folder=/root/index/$(echo "${wheel%%-*}" | tr _A-Z -a-z); mkdir -p "$folder"; ln "$wheel" "$folder"; '
        "done"
    )
    host.run(["sh", "-c", script])
    server = ["python3", "-m", "http.server", "--bind=127.0.0.1", "--directory=/root/index", str(INDEX_PORT)]
    host.run(["systemd-run", "--quiet", "--unit=index", *server])
    wait_until(lambda: fetch(host, INDEX), "the index was served")
    host.write("/etc/pip.conf", f"[global]\nindex-url = {INDEX}\n")


def fetch(host: BootedHost, url: str) -> str:
    """Return the page at a URL, requested on the host; nothing where none is served."""
    script = f"import urllib.request; print(urllib.request.urlopen('{url}', timeout=15).read().decode())"
    return host.run(["python3", "-c", script], check=False).stdout


def make_layer(debian: Debian, release: Release, mode: Mode, directory: Path) -> Path:
    """Install on a host of its own, and return a root for hosts that have echod installed and enabled.

    It is an overlay's two lower layers as mount(8) writes them: the files that the installation wrote, over the
    Debian's.
    """
    layer = directory / "layer"
    layer.mkdir()
    with BootedHost(debian.root) as host:
        release.bring(host)
        host.run(install_command(mode))
        parents = sorted({str(parent) for name in WRITTEN for parent in Path(name).parents if parent.name})
        archive = ["tar", "-c", "-C", "/", "--no-recursion", *parents, "--recursion", *WRITTEN]
        with host.start(archive, stdout=subprocess.PIPE) as packing:
            subprocess.run(["tar", "-x", "-p", "-C", str(layer)], check=True, stdin=packing.stdout)
        assert packing.returncode == 0
    return Path(f"{layer}:{debian.root}")
