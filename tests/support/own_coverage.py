"""Runs pytest on the test files of the pure modules, and holds each module to full coverage by its own file alone.

    python -m tests.support.own_coverage [test files] [options of pytest]

Without test files it takes those of all pure modules, which `tests/test_house.py` lists. Owns the measurement: one
process, in which what is executed is attributed to the test file that executed it. Invariant: what another test file
executes counts for nothing.
"""

import importlib
import io
import re
import sys
from collections.abc import Generator
from pathlib import Path

import coverage
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
IMPORTED = ""
"""The context of what a module executes when it is imported. It is imported before any test file is."""

COMPLETE = 100.0
"""Per cent of the lines and branches."""

ELSEWHERE = "elsewhere"
"""The context of what pytest itself, or a conftest.py, executes."""


def test_file(module: str) -> str:
    """Return the path of a module's own test file: that of `udp.trains` is tests/udp/test_trains.py."""
    package, _, name = module.rpartition(".")
    return str(Path("tests", package, f"test_{name}.py"))


def find_incomplete(measured: coverage.Coverage, modules: list[str]) -> dict[str, str]:
    """Return a report for each module that has a line or a branch that its own test file does not execute."""
    incomplete = {}
    for module in modules:
        source = REPOSITORY / "echod" / f"{module.replace('.', '/')}.py"
        report = io.StringIO()
        contexts = [f"^{IMPORTED}$", f"^{re.escape(test_file(module))}$"]
        if measured.report(include=[str(source)], contexts=contexts, file=report, show_missing=True) < COMPLETE:
            incomplete[module] = report.getvalue()
    return incomplete


class OwnCoverage:
    """The plugin of pytest that measures."""

    def __init__(self, modules: list[str]) -> None:
        """Import the modules, measured, before anything else does."""
        self.modules = modules
        self.incomplete: dict[str, str] = {}
        source = [str(REPOSITORY / "echod")]
        self._measured = coverage.Coverage(data_file=None, branch=True, source=source)
        self._measured.start()
        for module in modules:
            importlib.import_module(f"echod.{module}")

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Attribute to a test file what its import executes."""
        self._switch(collector.path if isinstance(collector, pytest.Module) else None)
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Attribute to a test file what its tests execute."""
        self._switch(item.path)
        return (yield)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Look whether each module is covered, and fail the run if one is not."""
        self._measured.stop()
        self.incomplete = find_incomplete(self._measured, self.modules)
        if self.incomplete and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Report what is not covered."""
        for module, report in self.incomplete.items():
            terminalreporter.section(f"echod.{module} is not covered by {test_file(module)} alone", sep="-")
            terminalreporter.write_line(report)
        whole = len(self.modules) - len(self.incomplete)
        terminalreporter.write_line(
            f"{whole} of {len(self.modules)} pure modules have full coverage by their own tests"
        )

    def _switch(self, path: Path | None) -> None:
        self._measured.switch_context(ELSEWHERE if path is None else str(path.relative_to(REPOSITORY)))


def own_tests() -> dict[str, str]:
    """Return the name of each pure module by its own test file."""
    sys.path.insert(0, str(REPOSITORY / "tests"))
    return {test_file(module): module for module in importlib.import_module("test_house").PURE}


def main(arguments: list[str]) -> int:
    """Run pytest; return its exit code."""
    pure = own_tests()
    named = [argument for argument in arguments if argument in pure]
    modules = sorted(pure[name] for name in named or pure)
    files = [] if named else sorted(pure)
    return pytest.main([*arguments, *files], plugins=[OwnCoverage(modules)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
