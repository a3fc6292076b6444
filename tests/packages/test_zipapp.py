"""echod-ping.pyz is `echod ping` as one file: reproducible, small, and run by any Python from 3.11 on, alone."""

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from zipfile import ZipFile

import pytest
from support.daemon import REPOSITORY, Serve, environment
from support.system.host import obstacle
from support.system.image import RELEASES, make_root

from echod import __version__

BUILDER = REPOSITORY / "packaging/zipapp"
NAME = "echod-ping.pyz"

MOST_BYTES = 250_000

IN_ROOT = 'mount --bind "$1" "$2/mnt"; root=$2; shift 2; exec chroot "$root" python3 -I -S /mnt/echod-ping.pyz "$@"'
"""Runs the file on another Debian, in a mount namespace, so that nothing is written to its root."""


def interpreters() -> dict[str, Path]:
    """Return a Python of each version that this machine has and that may run it, by that version."""
    places = [Path.home() / ".pyenv/versions", Path("/usr/local/bin"), Path("/usr/bin")]
    found = {f"{sys.version_info.major}.{sys.version_info.minor}": Path(sys.executable)}
    for minor in range(11, 16):
        patterns = [(places[0], f"3.{minor}.*/bin/python3"), *((place, f"python3.{minor}") for place in places[1:])]
        for place, pattern in patterns:
            for path in place.glob(pattern):
                found.setdefault(f"3.{minor}", path)
    return found


INTERPRETERS = interpreters()


def build(folder: Path, source: Path = BUILDER) -> Path:
    """Run the builder; return the file that it made."""
    subprocess.run([source, folder], check=True, timeout=60)
    return folder / NAME


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it."""
    return build(tmp_path_factory.mktemp("zipapp"))


def run(command: Sequence[str | Path], *words: str) -> "subprocess.CompletedProcess[str]":
    """Run it in a folder from which nothing of echod could be imported."""
    return subprocess.run(
        [*command, *words], cwd="/", env=environment(), capture_output=True, text=True, check=False, timeout=60
    )


def assert_measures(command: Sequence[str | Path], port: int) -> None:
    """Assert that it measures over UDP and TCP, floods, and finds a path MTU, whose calls are not Python's own."""
    for target in (f"127.0.0.1:{port}", f"tcp://127.0.0.1:{port}"):
        ended = run(command, "-c", "3", "-i", "2ms", target)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert "3 packets transmitted, 3 received, 0% packet loss" in ended.stdout
    ended = run(command, "-f", "-c", "200", f"127.0.0.1:{port}")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "200 packets transmitted, 200 received" in ended.stdout
    ended = run(command, "--mtu", "--json", f"127.0.0.1:{port}")
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("version", INTERPRETERS)
def test_each_python_of_this_machine_runs_it(client: Path, serve: Serve, version: str) -> None:
    """With the standard library alone: without packages of the site, the user or the folder."""
    _, port = serve()
    assert_measures([INTERPRETERS[version], "-I", "-S", client], port)


@pytest.mark.timeout(1000)  # the first of all tests may have to make the Debian
@pytest.mark.parametrize("suite", RELEASES)
def test_the_python_of_each_debian_runs_it(client: Path, serve: Serve, suite: str) -> None:
    """A minimal Debian has all that it needs."""
    if reason := obstacle():
        pytest.skip(reason)
    root = make_root(suite).root
    _, port = serve()
    assert_measures(["unshare", "--mount", "sh", "-ec", IN_ROOT, "sh", client.parent, root], port)


def test_it_is_a_command_of_its_own_name(client: Path) -> None:
    """It starts by itself, and its help and its messages name it as what the operator has."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["env", f"PATH={path}", client]
    printed = run(command, "--help").stdout
    assert printed.startswith("usage: echod-ping [OPTION]... TARGET...\n")
    assert "\n  echod-ping --mtu HOST " in printed
    assert "echod ping" not in printed
    assert run(command, "--version").stdout == f"echod-ping {__version__}\n"
    ended = run(command)
    assert ended.returncode == 2
    assert ended.stderr.endswith("see `echod-ping --help`\n")


def reached(*modules: str) -> set[Path]:
    """Return what these modules import of echod, also late and at second hand, as paths in the repository."""
    found: set[Path] = set()
    ahead = set(modules)
    while ahead:
        name = ahead.pop()
        path = REPOSITORY / name.replace(".", "/")
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if path in found or not path.is_file():
            continue
        found.add(path)
        ahead.add(name.rpartition(".")[0])
        tree = ast.parse(path.read_text())
        # Late, cli.main imports the command that is chosen, and no other.
        for node in tree.body if name == "echod.cli.main" else ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "echod":
                ahead |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Import):
                ahead |= {alias.name for alias in node.names if alias.name.split(".")[0] == "echod"}
    return found


def test_it_holds_what_it_imports_and_nothing_else(client: Path) -> None:
    """What is missing would be an ImportError on a host without the daemon. Debian and RPM packages take the list."""
    wanted = {str(path.relative_to(REPOSITORY)) for path in reached("echod.__main__", "echod.cli.ping")}
    with ZipFile(client) as archive:
        assert set(archive.namelist()) == wanted | {"__main__.py"}
    assert run([BUILDER, "--list"]).stdout.splitlines() == sorted(wanted)


def test_it_holds_what_a_ping_needs_and_nothing_of_the_daemon(client: Path) -> None:
    """The packages of the client whole; of the command line, the ping alone."""
    with ZipFile(client) as archive:
        names = set(archive.namelist())
    for package in ("measurement", "ping", "probes"):
        whole = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "echod" / package).glob("*.py")}
        assert {name for name in names if name.startswith(f"echod/{package}/")} == whole
    assert {name for name in names if name.startswith("echod/cli/")} == {
        f"echod/cli/{name}.py" for name in ("__init__", "errors", "main", "options", "ping")
    }
    packages = {name.split("/")[1] for name in names if name.count("/") > 1}
    assert packages == {"cli", "linux", "measurement", "net", "ping", "probes", "wire"}
    assert client.stat().st_size < MOST_BYTES


def test_the_same_source_makes_the_same_file(client: Path, tmp_path: Path) -> None:
    """Built in another folder, from files with other times and modes, it is equal to the last byte."""
    copied = tmp_path / "source"
    shutil.copytree(REPOSITORY / "echod", copied / "echod", copy_function=shutil.copyfile)
    (copied / "packaging").mkdir()
    shutil.copy(BUILDER, copied / "packaging")
    for path in copied.rglob("*.py"):
        path.chmod(0o600)
        os.utime(path, (0, 0))
    again = build(tmp_path / "out", copied / "packaging/zipapp")
    assert again.read_bytes() == client.read_bytes()
    assert again.stat().st_mode & 0o777 == 0o755
