"""The RPM packages: built by packaging/rpm/build with Debian's rpm, read, and linted.

`support/release/rpm.macros` stands in for the macros of Fedora. Only a Fedora proves that the dependencies exist there,
that the metadata becomes `Requires: python3dist(...)`, and that the scripts do what they say.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.daemon import REPOSITORY, environment
from support.release.rpm import build_packages

from echod import __version__

FOLDER = REPOSITORY / "packaging/rpm"
DAEMON, CLIENT = "echod noarch", "echod-ping noarch"
PYTHON = "{}.{}".format(*sys.version_info)
SERVICES = "echod.service echod-accelerate.service"
SITE = f"usr/lib/python{PYTHON}/site-packages"


def query(package: Path, *options: str) -> list[str]:
    """Return what rpm says of a package, by lines."""
    command = ["rpm", "--query", "--package", *options, package]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def unpack(package: Path, folder: Path) -> None:
    """Unpack a package into a folder."""
    with package.open("rb") as file:
        content = subprocess.run(["rpm2cpio"], check=True, stdin=file, capture_output=True).stdout
    command = ["cpio", "--extract", "--make-directories", "--quiet", f"--directory={folder}"]
    subprocess.run(command, check=True, input=content)


def run(root: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run a script of unpacked packages with the modules of these packages and the standard library alone."""
    site = str(root / SITE)
    start = (
        f"import sys, runpy; sys.path.insert(0, {site!r}); sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-I", "-S", "-c", start, str(root / words[0]), *words[1:]]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment(), timeout=60)


def test_there_are_two_packages_and_their_source(packages: dict[str, Path]) -> None:
    """Both are for every architecture."""
    assert packages.keys() == {DAEMON, CLIENT, "echod src"}


def test_rpmlint_finds_nothing_that_is_not_explained(packages: dict[str, Path]) -> None:
    """packaging/rpm/rpmlint.toml has a reason for each line that it takes away."""
    command = ["rpmlint", "-c", FOLDER / "rpmlint.toml", *packages.values(), FOLDER / "echod.spec"]
    found = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (found.returncode, re.findall("^.*: [EW]: .*$", found.stdout, re.MULTILINE)) == (0, [])


def test_a_file_is_in_one_package_alone(packages: dict[str, Path]) -> None:
    """And none of the modules is lost: folders alone are in both. The client has what echod-ping.pyz has."""
    files = {}
    for name in (DAEMON, CLIENT):
        lines = query(packages[name], "--queryformat", "[%{FILEMODES:perms} %{FILENAMES}\\n]")
        files[name] = {line.split()[1] for line in lines if not line.startswith("d")}
    assert not files[DAEMON] & files[CLIENT]
    modules = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "echod").rglob("*.py")}
    packaged = {path.removeprefix(f"/{SITE}/") for path in files[DAEMON] | files[CLIENT] if path.endswith(".py")}
    assert packaged == modules
    listed = subprocess.run([REPOSITORY / "packaging/zipapp", "--list"], check=True, capture_output=True, text=True)
    of_client = {path.removeprefix(f"/{SITE}/") for path in files[CLIENT] if path.endswith(".py")}
    assert of_client == set(listed.stdout.splitlines())
    compiled = {path for path in files[DAEMON] | files[CLIENT] if path.endswith(".pyc")}
    assert len(compiled) == len(modules)


def test_the_client_needs_the_standard_library_alone(packages: dict[str, Path], tmp_path: Path) -> None:
    """echod-ping has all that it imports, probes, and has its completion."""
    unpack(packages[CLIENT], tmp_path)
    assert "usage: " in run(tmp_path, "usr/bin/echod-ping", "--help").stdout
    assert run(tmp_path, "usr/bin/echod-ping", "--version").stdout == f"echod-ping {__version__}\n"
    assert {path.name for path in (tmp_path / "usr/share").rglob("*echod-ping*") if path.is_file()} == {
        *("echod-ping", "_echod-ping", "echod-ping.fish", "echod-ping.1.gz")
    }
    answer = run(tmp_path, "usr/bin/echod-ping", "-c", "1", "-W", "0.1", "127.0.0.1:9")
    assert "1 packets transmitted, 0 received" in answer.stdout
    needs = [each for each in query(packages[CLIENT], "--requires") if not each.startswith("rpmlib(")]
    assert set(needs) == {"/usr/bin/python3", f"python(abi) = {PYTHON}", "python3 >= 3.11"}


def test_the_daemon_needs_the_client_of_the_same_build(packages: dict[str, Path]) -> None:
    """Both have parts of one Python package."""
    version = query(packages[DAEMON], "--queryformat", "%{VERSION}-%{RELEASE}")
    assert f"echod-ping = {version[0]}" in query(packages[DAEMON], "--requires")


def test_a_config_that_was_edited_stays(packages: dict[str, Path]) -> None:
    """The default config, and what ufw reads, are config(noreplace)."""
    lines = query(packages[DAEMON], "--queryformat", "[%{FILEFLAGS:fflags} %{FILENAMES}\\n]")
    assert [line for line in lines if line.startswith("c")] == [
        *("cn /etc/echod.yaml", "cn /etc/ufw/applications.d/echod")
    ]
    assert [line for line in lines if "firewalld/services/" in line] == [" /usr/lib/firewalld/services/echod.xml"]


def test_the_units_start_the_command_of_the_package(packages: dict[str, Path], tmp_path: Path) -> None:
    """Each unit of the source is there, and no path of packaging/install is left in it."""
    unpack(packages[DAEMON], tmp_path)
    for source in (REPOSITORY / "packaging/systemd").glob("*.s*t"):
        assert (tmp_path / "usr/lib/systemd/system" / source.name).is_file()
    for unit in (tmp_path / "usr/lib/systemd/system").iterdir():
        text = unit.read_text()
        assert "/usr/local" not in text
        assert unit.suffix != ".service" or re.search("ExecStart=.* /usr/bin/echod (run|accelerate) --config ", text)
    for drop_in in ("socket-activated.conf", "unprivileged-port.conf", "clock-estimate.conf"):
        assert (tmp_path / "usr/share/echod" / drop_in).is_file()


def test_each_man_page_is_with_its_command(packages: dict[str, Path]) -> None:
    """That of the client is in echod-ping, and the others in echod."""
    pages = {
        name: {Path(path).name for path in query(packages[name], "--docfiles") if "/man/" in path}
        for name in (DAEMON, CLIENT)
    }
    assert pages[CLIENT] == {"echod-ping.1.gz"}
    assert pages[DAEMON] == {"echod.8.gz", "echod-accelerate.8.gz", "echod.yaml.5.gz", "echod-metrics.7.gz"}


@pytest.mark.parametrize(
    ("scriptlet", "wanted"),
    [
        ("POSTIN", f"install-system-units {SERVICES} echod.socket echod-metrics.socket"),
        ("PREUN", f"remove-system-units {SERVICES} echod.socket echod-metrics.socket 'echod@*.service'"),
        ("POSTUN", f"mark-restart-system-units {SERVICES} 'echod@*.service'"),
    ],
)
def test_the_scripts_leave_the_sockets_open_in_an_upgrade(
    packages: dict[str, Path], scriptlet: str, wanted: str
) -> None:
    """Presets at the installation, an end at the removal; an upgrade restarts the services alone."""
    script = "\n".join(query(packages[DAEMON], "--queryformat", f"%{{{scriptlet}}}"))
    assert re.findall(r"systemd-update-helper (.*?) \|\|", script) == [wanted]
    assert subprocess.run(["sh", "-n", "-c", script], check=True).returncode == 0


def test_two_builds_give_the_same_packages(packages: dict[str, Path], tmp_path: Path) -> None:
    """The same source makes the same bytes."""
    for name, path in build_packages(tmp_path).items():
        assert path.read_bytes() == packages[name].read_bytes(), name
