"""The tests that the Debian packages bring, debian/tests, run by the autopkgtest of the Debian that they are for.

A booted host is the testbed, and runs autopkgtest itself (autopkgtest-virt-null). That knows nothing of its testbed,
and is told that the restriction isolation-container may be ignored: the host is such a container, with systemd.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.system.host import BootedHost, obstacle
from support.system.image import RELEASES, Debian, make_root
from support.system.packages import DEBIAN, FOLDER, Packages, apt, make_archive

TREE = "/root/echod"
RESULTS = "/root/results"
EXPECTED = {"check": ["PASS", "(superficial)"], "client": ["PASS", "(superficial)"], "service": ["PASS"]}
SECONDS = 600.0


@pytest.fixture(params=list(RELEASES))
def debian(request: pytest.FixtureRequest) -> Debian:
    """Give each Debian that there are packages for."""
    if reason := obstacle():
        pytest.skip(reason)
    return make_root(request.param)


def test_each_test_of_the_packages_passes(debian: Debian, debs: Callable[[Debian], Path]) -> None:
    """On a host that had none of them: autopkgtest installs what each test asks for, and skips none."""
    packages = Packages(folder=debs(debian), archive=make_archive(debian, debs(debian), "autopkgtest", "dpkg-dev"))
    with BootedHost(debian.root) as host:
        packages.bring(host)
        host.copy(DEBIAN, f"{TREE}/debian")
        apt(host, "apt install --no-install-recommends autopkgtest")
        options = f"--ignore-restrictions=isolation-container --output-dir={RESULTS}"
        command = f"autopkgtest {options} {FOLDER}/*.deb {TREE} -- null"
        finished = host.run(["sh", "-c", command], check=False, timeout=SECONDS)
        print(finished.stdout, finished.stderr)  # noqa: T201 - for who reads a failure
        summary = [line.split() for line in host.read(f"{RESULTS}/summary").splitlines()]
        assert {name: words for name, *words in summary} == EXPECTED
        assert finished.returncode == 0
