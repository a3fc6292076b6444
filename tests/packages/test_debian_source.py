"""The source of the Debian packages says what the project says."""

import re
import tomllib

import pytest
from support.daemon import REPOSITORY

import echod

DEBIAN = REPOSITORY / "packaging/debian"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]

DEBIAN_NAMES = {"pyyaml": "python3-yaml", "python-daemon": "python3-daemon"}
"""Where Debian's name of a library is not python3- before its own."""


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
