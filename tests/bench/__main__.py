"""Arguments in, tables out: measures echod and its peers in alternation, group by group.

Exit code 0 when all was measured that must be, 1 when `--check` was asked for and a target was missed, 2 when
something could not be measured, 130 when it was interrupted.
"""

import argparse
import dataclasses
import json
import os
import platform
import signal
import sys
import tempfile
from pathlib import Path

from .bench import GROUPS, Bench
from .chart import draw
from .figures import rows_of
from .process import CannotMeasure
from .report import tables
from .servers import VOLATILE, build_peers
from .targets import missed
from .work import FLOODS, LATENCY_IDLE, LATENCY_LOADED, MODES, PING, RULES, TCP, UDP, Work

QUICK_PAIRS, QUICK_SECONDS, QUICK_IDLE_SECONDS = 1, 0.1, 1.0

SLOW_PAIRS_MAX = {"scaling": 3, "idle": 1}
"""Groups that need fewer pairs: many points of a curve, and a long look at nothing."""


def main() -> int:
    """Measure, print, and return the exit code."""
    arguments = _parser().parse_args()
    if arguments.quick:
        arguments.pairs, arguments.seconds = QUICK_PAIRS, QUICK_SECONDS
    # Ended from outside it unwinds as with Ctrl-C: no server outlives it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="echod-bench-") as directory,
            tempfile.TemporaryDirectory(prefix="echod-bench-", dir=_memory()) as volatile,
        ):
            (Path(directory) / VOLATILE).symlink_to(volatile)
            build_peers(Path(directory))
            bench = Bench(
                directory=Path(directory),
                seconds=arguments.seconds,
                idle_seconds=QUICK_IDLE_SECONDS if arguments.quick else arguments.idle_seconds,
                others=not arguments.no_peers,
                progress=_progress,
            )
            for group in arguments.groups or GROUPS:
                for pair in range(min(arguments.pairs, SLOW_PAIRS_MAX.get(group, arguments.pairs))):
                    bench.measure(group, pair)
            _progress("")
        return _report(bench, arguments)
    except CannotMeasure as reason:
        print(reason, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _report(bench: Bench, arguments: argparse.Namespace) -> int:
    rows, missing = rows_of(bench.runs), list(bench.missing.values())
    machine = {"cpus": os.cpu_count(), "processor": _processor(), "kernel": platform.release(), "python": _python()}
    wrong = missed(rows)
    print(f"median (lowest to highest) of {arguments.pairs} pairs of {arguments.seconds:g} s a run", end="; ")
    print("CPU: of the whole process tree of the server; busy: that time over elapsed time", end="; ")
    print("machine: of server, load and ksoftirqd")
    print("{cpus} CPUs, {processor}; Linux {kernel}; Python {python}".format(**machine))
    measured = {row.work for row in rows}
    works = (*UDP, LATENCY_IDLE, LATENCY_LOADED, *TCP, *RULES, *MODES, *PING, *FLOODS)
    for work in {work.name: work for work in works}.values():
        if work.name in measured:
            most = work.ratio_max if isinstance(work, Work) else None
            print(f"{work.name}: {work.meaning}" + (f"; target {most:.2f}" if most else ""))
    print(*tables(rows, missing), sep="\n")
    print()
    print(*[f"missed: {text}" for text in wrong] or ["no target missed"], sep="\n")
    if arguments.json:
        record = {
            "machine": machine,
            "pairs": arguments.pairs,
            "seconds": arguments.seconds,
            "rows": [dataclasses.asdict(row) for row in rows],
            "not_measured": [dataclasses.asdict(one) for one in missing],
            "missed": wrong,
        }
        arguments.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if arguments.chart:
        draw(rows, arguments.chart)
    return 1 if arguments.check and wrong else 0


def _memory() -> Path | None:
    """Return a directory whose files are in memory, or None where there is none to write to."""
    shared = Path("/dev/shm")  # noqa: S108 - what is made there has a name that nobody foresees
    return shared if os.access(shared, os.W_OK) else None


def _python() -> str:
    """Return the version of this interpreter, and where it is installed: how it was built matters."""
    return f"{platform.python_version()} of {sys.base_prefix}"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tests.bench", description="What an echo costs, here and elsewhere.")
    parser.add_argument(
        "groups", nargs="*", type=_group, metavar="group", help=f"what to measure: {', '.join(GROUPS)} (all)"
    )
    parser.add_argument("--pairs", type=_at_least_one, default=5, help="alternations of all servers (5)")
    parser.add_argument("--seconds", type=_some_seconds, default=0.5, help="length of each single run (0.5)")
    parser.add_argument(
        "--idle-seconds", type=_some_seconds, default=10.0, help="length of the look at idle servers (10)"
    )
    parser.add_argument("--quick", action="store_true", help="one short pair: shows that it works, and no more")
    parser.add_argument("--no-peers", action="store_true", help="echod, the C loops and the least in Python alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--chart", type=Path, metavar="FILE.svg", help="draw them there; needs the bench extra")
    parser.add_argument("--check", action="store_true", help="exit 1 if echod misses a target")
    return parser


def _group(text: str) -> str:
    if text not in GROUPS:
        raise argparse.ArgumentTypeError(f"none of {', '.join(GROUPS)}")
    return text


def _at_least_one(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value


def _some_seconds(text: str) -> float:
    minimum, maximum = 0.05, 60.0  # shorter runs are all start and drain; longer ones tell nothing more
    if not minimum <= (value := float(text)) <= maximum:
        raise argparse.ArgumentTypeError(f"from {minimum} to {maximum}")
    return value


def _progress(text: str) -> None:
    """Show on a terminal how far it is; say nothing to a file."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
