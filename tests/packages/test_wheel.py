"""Sdist and wheel hold what they must, say what is true, and install to an echod that works."""

import re
import subprocess
import sys
import tarfile
from email.message import Message
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest
from support.daemon import REPOSITORY, environment
from support.distribution import Distribution
from support.man import PAGES

from echod import __version__

NAME = "echod_daemon"
DATA = f"{NAME}-{__version__}.data/data"
INFO = f"{NAME}-{__version__}.dist-info"

MAN = {f"share/man/man{page.suffix[1:]}/{page.name}": page for page in PAGES.iterdir()}
SHARED = MAN | {
    "share/echod/echod.schema.json": REPOSITORY / "config/echod.schema.json",
    "share/bash-completion/completions/echod": REPOSITORY / "packaging/completion/echod.bash",
    "share/bash-completion/completions/echod-ping": REPOSITORY / "packaging/completion/echod-ping.bash",
    "share/zsh/site-functions/_echod": REPOSITORY / "packaging/completion/_echod",
    "share/zsh/site-functions/_echod-ping": REPOSITORY / "packaging/completion/_echod-ping",
    "share/fish/vendor_completions.d/echod.fish": REPOSITORY / "packaging/completion/echod.fish",
    "share/fish/vendor_completions.d/echod-ping.fish": REPOSITORY / "packaging/completion/echod-ping.fish",
}
"""What pip, deb and rpm put below their prefix."""


def tracked(*folders: str) -> dict[str, bytes]:
    """Return the files of the repository in these folders by name."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *folders]
    names = subprocess.run(listing, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout.split("\0")
    return {name: path.read_bytes() for name in names if (path := REPOSITORY / name).is_file()}


def metadata(distribution: Distribution) -> Message:
    """Return the metadata of the wheel; its payload is the long description."""
    with ZipFile(distribution.wheel) as wheel:
        return Parser().parsestr(wheel.read(f"{INFO}/METADATA").decode())


def test_the_wheel_holds_what_it_must_and_nothing_else(distribution: Distribution) -> None:
    """Code, units, config, catalogue, pages and completion: each file is that of the repository."""
    with ZipFile(distribution.wheel) as wheel:
        found = {name: wheel.read(name) for name in wheel.namelist()}
    wanted = tracked("echod")
    for name, content in tracked("packaging/systemd").items():
        wanted[name.replace("packaging/systemd", "echod/files/systemd")] = content
    wanted["echod/files/echod.yaml"] = (REPOSITORY / "config/echod.yaml").read_bytes()
    wanted["echod/files/echod.catalog"] = (REPOSITORY / "packaging/journal/echod.catalog").read_bytes()
    wanted |= {f"{DATA}/{name}": path.read_bytes() for name, path in SHARED.items()}
    wanted[f"{INFO}/licenses/LICENSE"] = (REPOSITORY / "LICENSE").read_bytes()
    made = {f"{INFO}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt")}
    assert found.keys() == wanted.keys() | made
    assert [name for name, content in wanted.items() if found[name] != content] == []


def test_the_sdist_holds_what_it_takes_to_build_test_and_package(distribution: Distribution) -> None:
    """Code, config, packaging, tests and documents; a distribution needs no clone."""
    with tarfile.open(distribution.sdist) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    wanted = tracked("echod", "config", "packaging", "tests", ".github", "README.md", "LICENSE", "pyproject.toml")
    assert names == wanted.keys() | {"PKG-INFO", ".gitignore"}


def test_the_same_source_makes_the_same_files(distribution: Distribution, tmp_path: Path) -> None:
    """Built again, from the repository and not from the sdist, both are equal to the last byte."""
    command = [sys.executable, "-m", "hatchling", "build", "-d", tmp_path]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, timeout=200)
    for path in (distribution.sdist, distribution.wheel):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_the_metadata_have_nothing_to_object_to(distribution: Distribution) -> None:
    """`twine check --strict` finds neither an error nor a warning."""
    command = [sys.executable, "-m", "twine", "--no-color", "check", "--strict", *distribution.wheel.parent.iterdir()]
    printed = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (printed.returncode, printed.stderr) == (0, "")
    names = {path.name for path in distribution.wheel.parent.iterdir()}
    assert len(names) == 2
    assert {Path(name).name for name in re.findall(r"Checking\s+(\S+?)\s*:\s*PASSED\n", printed.stdout)} == names


def test_the_metadata_name_the_distribution_and_what_it_needs(distribution: Distribution) -> None:
    """The distribution has its own name; URLs are those of documents that exist for all, and no others."""
    found = metadata(distribution)
    named = {name: found[name] for name in ("Name", "Version", "License-Expression", "Requires-Python")}
    assert named == {
        "Name": "echod-daemon",
        "Version": __version__,
        "License-Expression": "MIT",
        "Requires-Python": ">=3.11",
    }
    assert found.get_all("Project-URL") == ["Specification, https://www.rfc-editor.org/rfc/rfc862"]
    extras = set(found.get_all("Provides-Extra") or ())
    assert {"live", "plot"} <= extras


def test_the_long_description_renders_without_a_broken_link(distribution: Distribution, tmp_path: Path) -> None:
    """As an index renders it: every link leads to a heading or the Web, and tables and code are tables and code."""
    page = tmp_path / "page.md"
    page.write_text(str(metadata(distribution).get_payload()), encoding="utf-8")
    command = [sys.executable, "-m", "readme_renderer", page]
    html = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    headings = {f"#{name}" for name in re.findall(r'<h\d id="([^"]*)"', html)}
    targets = re.findall(r'(?:href|src)="([^"]*)"', html)
    assert [each for each in targets if each not in headings and not each.startswith("https://")] == []
    assert "](" not in html
    assert ">echod<" in html
    assert html.count("<table>") == (REPOSITORY / "README.md").read_text().count("|---|\n")
    assert "<pre" in html


def test_installed_it_tells_its_version_and_checks_its_config(prefix: Path) -> None:
    """From wheels alone, in an environment of its own, in which the client has a command too."""
    echod = prefix / "bin/echod"
    variables = environment()
    said = subprocess.run([echod, "--version"], env=variables, check=True, capture_output=True, text=True, timeout=60)
    assert said.stdout == f"echod {__version__}\n"
    command = [prefix / "bin/echod-ping", "--version"]
    said = subprocess.run(command, env=variables, check=True, capture_output=True, text=True, timeout=60)
    assert said.stdout == f"echod-ping {__version__}\n"
    (config,) = prefix.glob("lib/python*/site-packages/echod/files/echod.yaml")
    command = [echod, "check", "--config", config]
    said = subprocess.run(command, cwd=prefix, env=variables, check=True, capture_output=True, text=True, timeout=60)
    assert said.stdout.splitlines()[-1].startswith(f"{config}: ok; listeners: udp://0.0.0.0:7, ")


@pytest.mark.parametrize("name", sorted(MAN))
def test_man_finds_an_installed_page_beside_the_command(prefix: Path, name: str) -> None:
    """It looks beside each folder of PATH; the page is the one of the source."""
    variables = {**environment(), "PATH": f"{prefix / 'bin'}:/usr/bin:/bin"}
    topic, _, number = Path(name).name.rpartition(".")
    command = ["man", "-w", number, topic]
    found = subprocess.run(command, env=variables, check=True, capture_output=True, text=True, timeout=60).stdout
    assert Path(found.strip()) == prefix / name
    assert (prefix / name).read_bytes() == MAN[name].read_bytes()
    shown = subprocess.run(["man", "-l", found.strip()], check=True, capture_output=True, text=True, timeout=60).stdout
    assert topic.split("-")[0] in shown
