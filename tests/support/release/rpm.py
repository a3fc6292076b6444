"""The RPM packages of this working tree, as the tests build them."""

import os
import subprocess
import sys
from pathlib import Path

from support.daemon import REPOSITORY
from support.release.times import EPOCH

from echod import __version__

MACROS = REPOSITORY / "tests/support/release/rpm.macros"


def build_packages(out: Path) -> dict[str, Path]:
    """Build the RPM packages into a folder; return each by its name."""
    command = [str(each) for each in (REPOSITORY / "packaging/rpm/build", "--macros", MACROS, out)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(command, check=True, env={**os.environ, **EPOCH, "PATH": path}, stdout=subprocess.DEVNULL)
    version = f"-{__version__}-1."
    return {path.name.replace(version, " ").removesuffix(".rpm"): path for path in out.iterdir()}
