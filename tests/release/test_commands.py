"""The tests of this folder run by their own command, and by no other."""

import subprocess
import sys

from support.daemon import REPOSITORY


def collected(*arguments: str) -> set[str]:
    """Return the files whose tests pytest finds."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *arguments]
    listing = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    return {line.partition("::")[0] for line in listing.splitlines() if "::" in line}


def test_the_test_command_leaves_this_folder_out() -> None:
    """Pytest finds no test of tests/release without its name, and finds them with it."""
    assert not {each for each in collected() if each.startswith("tests/release/")}
    assert "tests/release/test_commands.py" in collected("tests/release")
