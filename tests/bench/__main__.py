"""Arguments in, tables out: measures echod and the C peers, then echod with and without its rules, in alternation.

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
    RATIO_MAX,
    RULES_CASES,
    RULES_MICROSECONDS_MAX,
    RULES_RATE_LOSS_MAX,
    YARDSTICK,
    Footprint,
    Row,
    Run,
    footprint_text,
    missed_by_rules,
    missed_targets,
    rows_of,
    table,
)
from .load import Case, run_load
from .servers import (
    BARE,
    ECHOD,
    LIMITED,
    CannotMeasure,
    Server,
    Variant,
    build_peers,
    cpu_ns,
    echod,
    peer,
    process_tree,
    pss_bytes,
)

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
        self.rules_runs: list[Run] = []
        self.footprints: list[Footprint] = []

    def measure_pair(self, pair: int) -> None:
        """Start every server afresh and put each kind of traffic on one after the other.

        Afresh, because where a process lies in memory moves its figures by some percent from start to start.
        """
        with self._servers() as servers:
            for case in RATIO_MAX:
                self.runs += [self._measure(pair, case, server) for server in servers]
            self.footprints += [
                Footprint(
                    processes=len(process_tree(server.pid)),
                    pss_bytes=pss_bytes(server.pid),
                    ready_seconds=server.ready_seconds,
                )
                for server in servers
                if server.name == ECHOD.name
            ]

    def measure_rules(self, pair: int) -> None:
        """Start echod afresh without rules, with them, and with limits too; put the traffic on one after the other."""
        with contextlib.ExitStack() as stack:
            servers = [stack.enter_context(self._echod(variant)) for variant in (BARE, ECHOD, LIMITED)]
            for case in RULES_CASES:
                self.rules_runs += [self._measure(pair, case, server) for server in servers]

    @contextlib.contextmanager
    def _servers(self) -> Iterator[list[Server]]:
        """Start all; those that have no traffic sleep in the kernel and cost nothing."""
        with contextlib.ExitStack() as stack:
            started = [stack.enter_context(self._peer(YARDSTICK))]
            if self._with_echod:  # next to the yardstick: these two are the pair
                started.append(stack.enter_context(self._echod(ECHOD)))
            started.append(stack.enter_context(self._peer(VECTOR_PEER)))
            yield started

    def _peer(self, name: str) -> contextlib.AbstractContextManager[Server]:
        return peer(name, programs=self._directory, cpu=self._server_cpu)

    def _echod(self, variant: Variant) -> contextlib.AbstractContextManager[Server]:
        return echod(variant, directory=self._directory, cpu=self._server_cpu)

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
                if not arguments.peers_only:
                    bench.measure_rules(pair)
            _progress("")
    except CannotMeasure as reason:
        print(reason, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    rows, rules = rows_of(bench.runs, YARDSTICK), rows_of(bench.rules_runs, BARE.name)
    missed = missed_targets(rows, bench.footprints) + missed_by_rules(rules)
    print(f"median (lowest to highest) of {arguments.pairs} pairs of {arguments.seconds:g} s a run", end="; ")
    print("busy: CPU time of the server over time")
    _print_figures(rows, bench.footprints)
    if not arguments.peers_only:
        _print_rules(rules)
        print()
        print(*[f"missed: {text}" for text in missed] or ["no target missed"], sep="\n")
    if arguments.json:
        record = {
            "pairs": arguments.pairs,
            "seconds": arguments.seconds,
            "rows": [dataclasses.asdict(row) for row in rows],
            "rules": [dataclasses.asdict(row) for row in rules],
            "footprints": [dataclasses.asdict(one) for one in bench.footprints],
            "targets": {case.name: target for case, target in RATIO_MAX.items()},
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


def _print_figures(rows: list[Row], footprints: list[Footprint]) -> None:
    print()
    for case, target in RATIO_MAX.items():
        print(f"{case.name}: {case.meaning}; target {target}")
    print()
    print(*table(rows, YARDSTICK), sep="\n")
    if footprints:
        print()
        print(*footprint_text(footprints), sep="\n")


def _print_rules(rows: list[Row]) -> None:
    print()
    print(
        "the rules: echod, and with limits that nothing reaches, beside the same echod that admits everyone;", end=" "
    )
    print(f"target {RULES_MICROSECONDS_MAX} us a datagram and {RULES_RATE_LOSS_MAX:.0%} of the rate")
    for case in RULES_CASES:
        print(f"{case.name}: {case.meaning}")
    print()
    print(*table(rows, BARE.name), sep="\n")


if __name__ == "__main__":
    sys.exit(main())
