"""What the tests of the release ask for: the Debians, and what was built from this working tree."""

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from support.release.containers import Containers
from support.release.containers import obstacle as no_containers
from support.release.rpm import build_packages
from support.release.times import EPOCH
from support.system.host import obstacle as no_hosts
from support.system.image import Debian, make_root
from support.system.installation import Release, make_release
from support.system.packages import build_debs

from echod import __version__


@pytest.fixture(scope="session")
def trixie() -> Debian:
    """Give Debian 13, with its root made."""
    if reason := no_hosts():
        pytest.skip(reason)
    return make_root("trixie")


@pytest.fixture(scope="session")
def source(trixie: Debian, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Gather the source and the wheels of echod and all that it needs, for the Python of Debian 13."""
    return make_release(trixie, tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="session")
def debs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Debian], Path]:
    """Build the Debian packages for a Debian, once; return the folder that has them."""
    return cache(lambda debian: build_debs(debian, tmp_path_factory.mktemp(f"debs-{debian.suite}")))


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Build the RPM packages with the macros that stand in for Fedora's; return each by its name."""
    if lacking := [tool for tool in ("cpio", "rpmbuild", "rpmlint") if shutil.which(tool) is None]:
        pytest.skip(f"not installed: {', '.join(lacking)}")
    return build_packages(tmp_path_factory.mktemp("rpm"))


@pytest.fixture(scope="session")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    """Give buildah and podman, with nothing in them yet."""
    if reason := no_containers():
        pytest.skip(reason)
    with Containers(tmp_path_factory.mktemp("containers")) as containers:
        yield containers


@pytest.fixture(scope="session")
def base(containers: Containers, trixie: Debian) -> str:
    """Make an image with a Python, as the official ones are: Debian 13, slim, without compiled files."""
    return containers.import_base(trixie.root, "base")


@pytest.fixture(scope="session")
def image_archive(containers: Containers, base: str, source: Release, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the image, put it away, and load it from the archive, as users do; return that."""
    out = tmp_path_factory.mktemp("image")
    command = (source.source / "packaging/container/build", "--base", base, "--wheels", source.wheels, out)
    built = containers.run(*command, variables=EPOCH)
    (archive,) = out.iterdir()
    assert built.stdout == f"{archive}\n"
    containers.run("podman", "rmi", "--force", f"localhost/echod:{__version__}")
    containers.run("sh", "-c", f"zcat {archive} | podman load")
    return archive
