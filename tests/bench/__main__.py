"""Arguments in, table out: measures echod and the C peers in alternation.

Exit code 0 when everything was measured, 1 when `--check` was asked for and a target was missed, 2 when something
could not be measured, 130 when it was interrupted.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .figures import (
    CANDIDATE,
    YARDSTICK,
    Footprint,
    Row,
    Run,
    footprint_text,
    missed_targets,
    rows_of,
    table,
)
from .load import CASES, Case, run_load
from .servers import CannotMeasure, Server, build_peers, cpu_ns, echod, peer, process_tree, pss_bytes

VECTOR_PEER = "udp_vector"


class Bench:
    """One benchmark: its places, its lengths, and what it has measured so far."""

    def __init__(self, *, directory: Path, seconds: float, with_echod: bool) -> None:
        """Take a directory for programs, configs and logs, and the length of a single run."""
        self._directory = directory
        self._seconds = seconds
        self._with_echod = with_echod
        # The load and the server each have a CPU of their own where there are two.
        cpus = sorted(os.sched_getaffinity(0))
        self._load_cpu, self._server_cpu = cpus[0], cpus[min(1, len(cpus) - 1)]
        self.runs: list[Run] = []
        self.footprints: list[Footprint] = []

    def measure_pair(self, pair: int) -> None:
        """Start every server afresh and put each kind of traffic on one after the other.

        Afresh, because where a process lies in memory moves its figures by some percent from start to start.
        """
        with self._servers() as servers:
            for case in CASES:
                self.runs += [self._measure(pair, case, server) for server in servers]
            self.footprints += [
                Footprint(
                    processes=len(process_tree(server.pid)),
                    pss_bytes=pss_bytes(server.pid),
                    ready_seconds=server.ready_seconds,
                )
                for server in servers
                if server.name == CANDIDATE
            ]

    @contextlib.contextmanager
    def _servers(self) -> Iterator[list[Server]]:
        """Start all; those that have no traffic sleep in the kernel and cost nothing."""
        with contextlib.ExitStack() as stack:
            started = [stack.enter_context(self._peer(YARDSTICK))]
            if self._with_echod:  # next to the yardstick: these two are the pair
                started.append(stack.enter_context(echod(directory=self._directory, cpu=self._server_cpu)))
            started.append(stack.enter_context(self._peer(VECTOR_PEER)))
            yield started

    def _peer(self, name: str) -> contextlib.AbstractContextManager[Server]:
        return peer(name, programs=self._directory, cpu=self._server_cpu)

    def _measure(self, pair: int, case: Case, server: Server) -> Run:
        before = cpu_ns(server.pid)
        traffic = run_load(
            self._directory / "udp_load",
            case=case,
            port=server.port,
            seconds=self._seconds,
            cpu=self._load_cpu,
        )
        after = cpu_ns(server.pid)
        if before.keys() != after.keys():
            raise CannotMeasure(f"{server.name} lost or gained a process under the case {case.name}.")
        if traffic.received == 0:
            raise CannotMeasure(f"{server.name} answered nothing under the case {case.name}.")
        used = sum(after.values()) - sum(before.values())
        return Run(pair=pair, case=case.name, server=server.name, cpu_ns=used, traffic=traffic)


def main() -> int:
    """Measure, print, and return the exit code."""
    arguments = _parser().parse_args()
    # Ended from outside it unwinds as with Ctrl-C: no server outlives it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="echod-bench-") as directory:
            build_peers(Path(directory))
            bench = Bench(
                directory=Path(directory),
                seconds=arguments.seconds,
                with_echod=not arguments.peers_only,
            )
            for pair in range(arguments.pairs):
                _progress(f"pair {pair + 1} of {arguments.pairs}")
                bench.measure_pair(pair)
            _progress("")
    except CannotMeasure as reason:
        print(reason, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    rows = rows_of(bench.runs)
    missed = missed_targets(rows, bench.footprints)
    _print_figures(rows, bench.footprints, missed, pairs=arguments.pairs, seconds=arguments.seconds)
    if arguments.json:
        record = {
            "pairs": arguments.pairs,
            "seconds": arguments.seconds,
            "rows": [dataclasses.asdict(row) for row in rows],
            "footprints": [dataclasses.asdict(one) for one in bench.footprints],
            "targets": {case.name: case.target for case in CASES},
            "missed": missed,
        }
        arguments.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return 1 if arguments.check and missed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tests.bench", description="What an echoed datagram costs.")
    parser.add_argument("--pairs", type=_at_least_one, default=5, help="alternations of all servers (5)")
    parser.add_argument("--seconds", type=_some_seconds, default=1.0, help="length of each single run (1.0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="exit 1 if echod misses a target")
    what.add_argument("--peers-only", action="store_true", help="measure the C peers alone")
    return parser


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


def _print_figures(
    rows: list[Row], footprints: list[Footprint], missed: list[str], *, pairs: int, seconds: float
) -> None:
    for case in CASES:
        print(f"{case.name}: {case.meaning}; target {case.target}")
    print(f"median (lowest-highest) of {pairs} pairs of {seconds:g} s a run; busy: CPU time of the server over time")
    print()
    print(*table(rows), sep="\n")
    if footprints:
        print()
        print(*footprint_text(footprints), sep="\n")
        print()
        print(*[f"missed: {text}" for text in missed] or ["no target missed"], sep="\n")


if __name__ == "__main__":
    sys.exit(main())
