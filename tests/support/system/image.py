"""The cached roots of the real Debians that the system tests boot, and the wheels that are installed on them.

Owns CACHE/SUITE, a `debootstrap` minbase tree per suite, made once and never written again: hosts mount it as
the lower layer of an overlay. CACHE is $ECHOD_TEST_CACHE, or ~/.cache/echod-tests/roots. Nothing here boots
anything. A root under its final name is always complete.
"""

import fcntl
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

PACKAGES = ("systemd", "systemd-sysv", "dbus", "python3", "python3-venv", "iproute2", "procps")

LONG = "ECHOD_TEST_SECONDS" in os.environ
"""Whether more is tested than in ./tests/run: ./tests/long sets it."""

# Raise it whenever a root would be made differently: a root with another number is made anew.
RECIPE = "1"
STAMP = "etc/echod-test-root"

# debootstrap is killed after that many seconds: a mirror that hangs must not hang a test run.
BUILD_TIMEOUT = 900.0

# A wheel is tagged with the oldest glibc that it runs on. Debian 12 has 2.36; the oldest tag in use is 2.5.
OLDEST_GLIBC, BOOKWORM_GLIBC = 5, 36


@dataclass(frozen=True, slots=True, kw_only=True)
class Debian:
    """One stable release of Debian: what the tests expect to find on it, and where its root is."""

    suite: str
    python: str
    systemd: int

    @property
    def root(self) -> Path:
        """The directory of the cached root, made or not."""
        return cache() / self.suite


RELEASES = {
    "bookworm": Debian(suite="bookworm", python="3.11", systemd=252),
    "trixie": Debian(suite="trixie", python="3.13", systemd=257),
}


def cache() -> Path:
    """Return the directory that holds the roots."""
    given = os.environ.get("ECHOD_TEST_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "echod-tests" / "roots"


def make_root(suite: str) -> Debian:
    """Return the release called `suite` ("bookworm", "trixie") with its root made; about a minute the first time.

    Raises subprocess.CalledProcessError, with debootstrap's last words as a note, when it cannot be made.
    """
    debian = RELEASES[suite]
    make_cached(debian.root.name, STAMP, RECIPE, partial(_build, suite))
    return debian


def make_cached(name: str, stamp: str, recipe: str, build: Callable[[Path], None]) -> Path:
    """Return the directory of this name in the cache; `build` makes it if its file `stamp` does not hold `recipe`."""
    final, unfinished = cache() / name, cache() / f"{name}.partial"
    with _locked(cache() / f"{name}.lock"):
        if not (final / stamp).is_file() or (final / stamp).read_text() != recipe:
            # Left by a run that was killed. Its mounts died with its mount namespace: the tree is only files.
            _remove(unfinished)
            try:
                build(unfinished)
                (unfinished / stamp).write_text(recipe)
                _remove(final)
                unfinished.rename(final)
            finally:
                _remove(unfinished)
    return final


def mirror() -> str | None:
    """Return the URI of the Debian mirror that this machine's apt uses; None if it uses none."""
    if shutil.which("apt-get") is None:
        return None
    listing = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"],
        check=False,
        capture_output=True,
        text=True,
    )
    # The security archive and the archives of other vendors stand in the same list, under other paths.
    uris = [uri for uri in listing.stdout.split() if urlsplit(uri).path.rstrip("/").endswith("/debian")]
    return uris[0] if uris else None


def download_wheels(requirements: Iterable[str], python_version: str, directory: Path) -> None:
    """Put wheels of `requirements` and of all that they depend on, for CPython `python_version`, in `directory`.

    `requirements` are pip's: names with bounds, or paths of wheels. What has no wheel on the index is built
    from its source here, by this interpreter, and must turn out pure Python.
    """
    directory.mkdir(parents=True, exist_ok=True)
    arch = platform.machine()
    tags = [f"manylinux_2_{minor}_{arch}" for minor in range(OLDEST_GLIBC, BOOKWORM_GLIBC + 1)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:"]
    command += ["--implementation=cp", f"--python-version={python_version}"]
    command += [f"--platform={tag}" for tag in (f"manylinux2014_{arch}", *tags)]
    command += [f"--find-links={directory}", f"--dest={directory}", *requirements]
    built: set[str] = set()
    # The configuration of pip (index, proxy, certificates) is the machine's.
    while (result := subprocess.run(command, check=False, capture_output=True, text=True)).returncode != 0:
        # pip names one distribution at a time, with the bounds that it looked for.
        lacking = re.search(r"No matching distribution found for ([^\s(]+)", result.stderr)
        if lacking is None or lacking[1] in built:
            raise failure(command, result)
        built.add(lacking[1])
        _build_wheel(lacking[1], directory)


def _build_wheel(requirement: str, directory: Path) -> None:
    """Build the wheel of a requirement that the index holds only as source, and refuse a compiled one."""
    before = set(directory.glob("*.whl"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", f"--wheel-dir={directory}"]
    succeed([*command, requirement])
    for wheel in set(directory.glob("*.whl")) - before:
        if not wheel.name.endswith("-none-any.whl"):
            wheel.unlink()
            raise RuntimeError(f"{wheel.name} was compiled for this machine's Python, not for the host's")


def _build(suite: str, target: Path) -> None:
    """Bootstrap `suite` into `target`, without caches, without anything that it learnt about this machine."""
    target.mkdir(mode=0o755)
    # debootstrap mounts proc and sys in its target. In a mount namespace of their own they cannot outlive it.
    command = ["unshare", "--mount", "--fork", "--kill-child", "debootstrap", "--variant=minbase"]
    command += [f"--include={','.join(PACKAGES)}", suite, str(target)]
    if source := mirror():
        command.append(source)
    succeed(command, timeout=BUILD_TIMEOUT)
    for pattern in ("var/cache/apt/*.bin", "var/cache/apt/archives/*.deb", "var/lib/apt/lists/*", "var/log/**/*.log"):
        for path in target.glob(pattern):
            _remove(path)
    # debootstrap copies these two from the machine. A host has a name of its own, and no name server.
    (target / "etc/hostname").write_text(f"{suite}\n")
    (target / "etc/resolv.conf").write_text("")
    (target / "etc/hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {suite}\n::1 localhost\n")
    # They would fail for want of a network at some hour of some day, and show up in `systemctl --failed`.
    for timer in ("apt-daily.timer", "apt-daily-upgrade.timer"):
        (target / "etc/systemd/system" / timer).symlink_to("/dev/null")
    target.chmod(0o755)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, which stays: unlinking a lock file is a race."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove(path: Path) -> None:
    """Remove a file or a tree, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def succeed(command: list[str], timeout: float | None = None) -> None:
    """Run a command of the machine, which must succeed."""
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=timeout)
    if result.returncode != 0:
        raise failure(command, result)


def failure(command: list[str], result: subprocess.CompletedProcess[str]) -> subprocess.CalledProcessError:
    """Make the exception for a command that failed, with the end of its output where pytest shows it."""
    error = subprocess.CalledProcessError(result.returncode, command, result.stdout, result.stderr)
    error.add_note((result.stdout + result.stderr)[-2000:])
    return error
