"""The sdist and the wheel that a release publishes, and an environment that the wheel is installed in."""

import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from support.daemon import REPOSITORY
from support.system.image import download_wheels

BUILD_SECONDS = 200.0
"""A build takes five seconds when idle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """The files that are published."""

    sdist: Path
    wheel: Path


def make_distribution(folder: Path) -> Distribution:
    """Build both in an empty folder, the wheel from what the sdist holds."""
    command = [sys.executable, "-m", "build", "--no-isolation", f"--outdir={folder}", str(REPOSITORY)]
    subprocess.run(command, check=True, capture_output=True, timeout=BUILD_SECONDS)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return Distribution(sdist=sdist, wheel=wheel)


def install(distribution: Distribution, wheels: Path, prefix: Path) -> None:
    """Make an environment and install the wheel in it, from a folder for wheels of what it needs, and no index."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    download_wheels(project["dependencies"], f"{sys.version_info.major}.{sys.version_info.minor}", wheels)
    subprocess.run([sys.executable, "-m", "venv", prefix], check=True, timeout=BUILD_SECONDS)
    pip = [str(prefix / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    folders = [f"--find-links={folder}" for folder in (wheels, distribution.wheel.parent)]
    subprocess.run([*pip, *folders, project["name"]], check=True, timeout=BUILD_SECONDS)
