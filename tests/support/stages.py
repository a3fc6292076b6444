"""Runs all tests: a few processes of pytest side by side, and one line at the end that sums them up.

    python -m tests.support.stages

Owns the division into stages, which leaves no test out and runs none twice, but for a few with an accelerator beside
the daemon. (Those of tests/release and tests/kernels have commands of their own: pyproject.toml keeps pytest from these
folders, unless they are named.) Most tests wait for a host, a
process or a deadline, so that others run meanwhile. Invariant: the exit code is 0 only if every stage ended with 0.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Final

from .own_coverage import own_tests

REPOSITORY: Final = Path(__file__).resolve().parents[2]

SYSTEM: Final = "tests/system"
NETWORKS: Final = ("tests/ping", "tests/netns", "tests/faults", "tests/fuzz")

PYTEST: Final = ("-m", "pytest")
OWN_COVERAGE: Final = ("-m", "tests.support.own_coverage")

TEST_SECONDS: Final = 300
"""How long a test may take: much longer than any does, so that only one that hangs is ended."""

WITH_ACCELERATOR: Final = "networks, with an accelerator beside each daemon"
ACCELERATED: Final = (
    "tests/daemon/test_udp.py",
    "tests/netns/test_loops.py",
    "tests/netns/test_sources.py",
    "tests/netns/test_wire.py",
)
"""The choice of what runs with and without an accelerator; ./tests/long runs all of the two folders."""

OPTIONS: Final = (f"--timeout={TEST_SECONDS}", "--durations=10", "--color=no")

SKIP_FAILS: Final = "ECHOD_TEST_SKIP_FAILS"
"""Set, it makes a failure of each test that is skipped (tests/conftest.py): root has all that a test needs."""

COUNTED: Final = ("passed", "failed", "errors", "skipped")


def make_stages() -> dict[str, list[str]]:
    """Return the command of each stage by its name, the longest first."""
    pure = [f"--ignore={path}" for path in own_tests()]
    elsewhere = [f"--ignore={path}" for path in (SYSTEM, *NETWORKS)]
    stages = {
        "hosts with Debian 12": [*PYTEST, SYSTEM, "-k", "bookworm"],
        "hosts with Debian 13": [*PYTEST, SYSTEM, "-k", "not bookworm"],
        "networks, faults and ping": [*PYTEST, *NETWORKS, *pure],
        "everything else": [*PYTEST, *elsewhere, *pure],
        "pure modules, each covered by its own tests": [*OWN_COVERAGE],
    }
    if os.geteuid() == 0:  # as the programs of the kernel need
        stages[WITH_ACCELERATOR] = [*PYTEST, *ACCELERATED]
    return stages


class Stage:
    """One process of pytest; what it prints goes into a file until it has ended."""

    def __init__(self, name: str, arguments: list[str], folder: Path) -> None:
        """Start it, with a folder of its own for its files: pytest closes the one that all of a user share."""
        self.name = name
        self._output: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by `report`
        self.process = subprocess.Popen(
            [sys.executable, *arguments, f"--basetemp={folder}", *OPTIONS],
            cwd=REPOSITORY,
            env=os.environ
            | ({SKIP_FAILS: "1"} if os.geteuid() == 0 else {})
            | ({"ECHOD_TEST_ACCELERATED": "1"} if name == WITH_ACCELERATOR else {}),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )

    def end(self) -> None:
        """End it, if it has not ended: it removes what its tests made, as at Ctrl-C."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait()

    def report(self) -> Counter[str]:
        """Print what an ended stage has printed; return its counts, which pytest's last line has."""
        with self._output as file:
            file.seek(0)
            text = file.read()
        describe(f"\n== {self.name}\n{text}")
        return count(text)


def describe(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def count(output: str) -> Counter[str]:
    """Return how many tests passed, failed and so on, of the last line of pytest."""
    last = output.rstrip().rpartition("\n")[2]
    counts = {name: int(number) for number, name in re.findall(r"(\d+) ([a-z]+)", last)}
    counts["errors"] = counts.get("errors", 0) + counts.pop("error", 0)
    return Counter(counts)


def run(stages: dict[str, list[str]]) -> int:
    """Run stages side by side; report each when it has ended. Return the exit code."""
    begin = time.monotonic()
    counts, failed = Counter[str](), []
    with tempfile.TemporaryDirectory(prefix="tests-", ignore_cleanup_errors=True) as folder, ExitStack() as stack:
        running = []
        for number, (name, arguments) in enumerate(stages.items()):
            running.append(Stage(name, arguments, Path(folder, str(number))))
            stack.callback(running[-1].end)
        while running:
            for stage in [each for each in running if each.process.poll() is not None]:
                running.remove(stage)
                counts += stage.report()
                if stage.process.returncode != 0:
                    failed.append(f"{stage.name} (exit code {stage.process.returncode})")
            time.sleep(0.2)
    for name in failed:
        describe(f"FAILED {name}")
    figures = ", ".join(f"{counts[name]} {name}" for name in COUNTED)
    describe(f"== {figures} in {time.monotonic() - begin:.0f}s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(run(make_stages()))
