"""The RPM packages of this working tree, as the tests build them."""

import os
import subprocess
import sys
from pathlib import Path

from support.daemon import REPOSITORY
from support.release.times import EPOCH

from echod import __version__


def build_packages(out: Path) -> dict[str, Path]:
    """Build the RPM packages into a folder; return each by its name."""
    macros = out.with_name(f"{out.name}.macros")
    stand_in = REPOSITORY / "tests/support/release/rpm.macros"
    version = "{}.{}".format(*sys.version_info)
    macros.write_text(f"%test_python {sys.executable}\n%test_version {version}\n{stand_in.read_text()}")
    command = [str(each) for each in (REPOSITORY / "packaging/rpm/build", "--macros", macros, out)]
    subprocess.run(command, check=True, env={**os.environ, **EPOCH}, stdout=subprocess.DEVNULL)
    version = f"-{__version__}-1."
    return {path.name.replace(version, " ").removesuffix(".rpm"): path for path in out.iterdir()}
