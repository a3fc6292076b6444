"""The source of the Debian packages says what the project says."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
from support.daemon import REPOSITORY

import echod

DEBIAN = REPOSITORY / "packaging/debian"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]

DEBIAN_NAMES = {"pyyaml": "python3-yaml", "python-daemon": "python3-daemon"}
"""Where Debian's name of a library is not python3- before its own."""


def listed() -> set[Path]:
    """Return the modules that echod-ping.install lists, as paths in the repository."""
    text = (DEBIAN / "echod-ping.install").read_text()
    paths = [REPOSITORY / each for each in re.findall(r"^usr/lib/python3\*/dist-packages/(\S+)$", text, re.MULTILINE)]
    return {file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path])}


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


def test_the_client_has_what_it_imports_and_nothing_else() -> None:
    """What is missing would be an ImportError on a host without the daemon."""
    assert listed() - {REPOSITORY / "echod/py.typed"} == reached("echod.__main__", "echod.cli.ping")


def test_the_version_is_that_of_echod() -> None:
    """A release that forgets the changelog of the package would carry the version of the one before."""
    first = (DEBIAN / "changelog").read_text().split("\n", 1)[0]
    assert first.startswith(f"echod ({echod.__version__}) ")


@pytest.mark.parametrize("name", ["Build-Depends", "Depends"])
def test_the_libraries_are_those_of_the_project(name: str) -> None:
    """Each with the same oldest version, to build and to run."""
    control = (DEBIAN / "control").read_text()
    text = re.findall(rf"^{name}: (.*(?:\n .*)*)", control, re.MULTILINE)[0]
    found = set(re.findall(r"python3-[a-z-]+ \(>= [\d.]+\)", text)) - {"python3-hatchling (>= 1.18)"}
    needed = [re.fullmatch(r"([\w-]+)>=([\d.]+)", each) for each in PROJECT["dependencies"]]
    assert found == {f"{DEBIAN_NAMES.get(each[1], f'python3-{each[1]}')} (>= {each[2]})" for each in needed if each}
    assert all(needed)
