"""One benchmark: the servers under their work, in alternation, and what was measured so far.

Owns the order of the runs and the CPUs they are on; never judges. Invariant: in each pair and under each work every
server is measured once, the yardstick first and echod next to it.
"""

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

from .figures import Missing, Run, summed
from .floods import run_flood
from .load import Traffic, run_load, run_ping
from .process import CannotMeasure, Server, beside_ns, cpu_ns, process_tree, pss_bytes, wakeups
from .servers import AWAKE, BARE, ECHOD, LEAST, LIMITED, MEASURING, OTHERS, VECTOR, YARDSTICKS, Kind, echod
from .stage import STAGED, on_its_host, staged
from .work import (
    BARE_PING,
    CLIENTS,
    ECHOD_PING,
    FLOOD,
    FLOODS,
    KERNEL,
    LATENCY_IDLE,
    MODES,
    NEW_SOURCES,
    PACE_MICROSECONDS,
    ROUND_TRIP,
    RULES,
    SCALED,
    SCALED_LISTENERS,
    SCALED_WORKERS,
    TCP,
    UDP,
    Work,
    for_workers,
    latency_beside,
    to_listeners,
)

MEBIBYTE = 1 << 20

GROUPS = ("udp", "latency", "tcp", "rules", "modes", "veth", "lo", "floods", "scaling", "idle", "ping")
"""Each is measured by the method of its name."""

FLOODED_PER_SECOND = 500_000
"""About as many as there are, so that a run is about as long as it was asked to be."""


class Bench:
    """What is measured, where, and for how long."""

    def __init__(
        self, *, directory: Path, seconds: float, idle_seconds: float, others: bool, progress: Callable[[str], None]
    ) -> None:
        """Take a directory for programs, configs and logs, the length of a run, and whether all peers take part."""
        self._directory = directory
        self._seconds = seconds
        self._idle_seconds = idle_seconds
        self._others: tuple[Kind, ...] = (VECTOR, *LEAST.values(), *(OTHERS if others else ()))
        self._progress = progress
        # The load and the server each have a CPU of their own where there are two.
        self._cpus = sorted(os.sched_getaffinity(0))
        self._load_cpus = {self._cpus[0]}
        self._server_cpus = {self._cpus[min(1, len(self._cpus) - 1)]}
        self._group, self._pair = "", 0
        self.runs: list[Run] = []
        self.missing: dict[tuple[str, str, str], Missing] = {}

    def measure(self, group: str, pair: int) -> None:
        """Measure one pair of that group."""
        self._group, self._pair = group, pair
        getattr(self, f"_{group}")()

    def _udp(self) -> None:
        with self._started("udp", self._all_over("udp")) as servers:
            self._compare(UDP, servers)
            for server in servers:
                metrics = {"pss_mib": pss_bytes(server.main) / MEBIBYTE, "ready_seconds": server.ready_seconds}
                self._note("footprint", server.name, servers[0].name, metrics)

    def _tcp(self) -> None:
        with self._started("tcp", self._all_over("tcp")) as servers:
            self._compare(TCP, servers)

    def _latency(self) -> None:
        with self._started("udp", self._all_over("udp")) as servers:
            self._compare((LATENCY_IDLE, self._half_load(servers[0])), servers)

    def _rules(self) -> None:
        with self._started("udp", (BARE, ECHOD, LIMITED)) as servers:
            self._compare(RULES, servers)

    def _modes(self) -> None:
        """Compare what measures with the echo."""
        with self._started("udp", (ECHOD, *MEASURING)) as servers:
            self._compare(MODES, servers)

    def _scaling(self) -> None:
        yardstick = YARDSTICKS["udp"]
        with self._started("udp", (yardstick, ECHOD)) as servers:
            self._compare(SCALED, servers)
        for count in SCALED_LISTENERS:
            work = to_listeners(count)
            with self._started("udp", (yardstick, echod(ports=count))) as servers:
                self._try(replace(work, settings={**work.settings, "ports": 1}), servers[0], yardstick.name)
                self._try(work, servers[1], yardstick.name)
        for count in SCALED_WORKERS:
            if count > len(self._cpus):
                reason = f"there are {len(self._cpus)} CPUs"
                self._miss(f"workers-{count}", ECHOD.name, reason)
                continue
            with self._started("udp", (yardstick, echod(workers=count)), cpus=self._cpus) as servers:
                self._compare([for_workers(count)], servers, cpus=self._cpus)

    def _ping(self) -> None:
        """Time one datagram in flight by C and by `echod ping`, to a C loop; then let the latter flood echod."""
        cpus = self._load_cpus
        with self._started("udp", (AWAKE,)) as [loop]:
            trips = round(self._seconds * 1e6 / PACE_MICROSECONDS)
            self._progress(f"{self._group} {self._pair + 1}")
            bare = run_load(self._directory, ROUND_TRIP, server=loop, seconds=self._seconds, cpus=cpus)
            pace = f"{PACE_MICROSECONDS}us"
            ours = [run_ping("--window", 1, "-i", pace, port=loop.place.port, count=trips, cpus=cpus)]
            for client, loads in ((BARE_PING, bare), (ECHOD_PING, ours)):
                if loads[0].received:
                    self._note(ROUND_TRIP.name, client, BARE_PING, _metrics(loads, 0, 0), loads)
                else:
                    self._miss(ROUND_TRIP.name, client, "no reply at all")
        with self._started("udp", (ECHOD,)) as [daemon]:
            many = round(self._seconds * FLOODED_PER_SECOND)
            flood = run_ping("-f", port=daemon.place.port, count=many, cpus=cpus)
            rate = {"replies_per_second": flood.received / flood.elapsed_ns * 1e9}
            self._note(FLOOD.name, ECHOD_PING, ECHOD_PING, rate, [flood])

    def _veth(self) -> None:
        """Let the kernel answer what comes from another host, with all rules, and with limits."""
        self._kernel(lambda server: server, [])

    def _lo(self) -> None:
        """Let it answer what comes from the same host, and take in what never came before."""
        self._kernel(on_its_host, [NEW_SOURCES])

    def _floods(self) -> None:
        """Flood them, and look at what is left for a bystander."""
        with self._staged() as servers:
            for flood, server in product(FLOODS, servers):
                self._progress(f"{self._group} {self._pair + 1}: {flood.name} {server.name}")
                cpu, beside = sum(map(cpu_ns, server.pids)), beside_ns()
                left = run_flood(flood, server, seconds=2 * self._seconds, cpus=self._load_cpus, own=self._server_cpus)
                spent = sum(map(cpu_ns, server.pids)) - cpu + beside_ns() - beside
                metrics = {
                    "p50_us": left.bystander.p50_us,
                    "p99_us": left.bystander.p99_us,
                    "machine_us": spent / left.frames / 1000,
                    "frames_per_second": left.frames_per_second,
                }
                self._note(flood.name, server.name, servers[0].name, metrics, [left.bystander])

    @contextlib.contextmanager
    def _staged(self) -> Iterator[list[Server]]:
        """Start each in a network of its own."""
        with contextlib.ExitStack() as stack:
            servers = []
            for kind in STAGED:
                self._progress(f"{self._group} {self._pair + 1}: start {kind.name}")
                server = staged(kind, directory=self._directory, cpus=self._server_cpus)
                servers.append(stack.enter_context(server))
            yield servers

    def _kernel(self, reached: Callable[[Server], Server], more: Sequence[Work]) -> None:
        with self._staged() as started:
            servers = [reached(server) for server in started]
            self._compare((*KERNEL[self._group], *more, LATENCY_IDLE, self._half_load(servers[0])), servers)

    def _half_load(self, loop: Server) -> Work:
        """Return the timing of a ping beside half of what the C loop echoes at most."""
        [most] = run_load(self._directory, CLIENTS, server=loop, seconds=self._seconds, cpus=self._load_cpus)
        return latency_beside(most.received / most.elapsed_ns * 1e9 / 2)

    def _idle(self) -> None:
        """Let all of them run without traffic, and see who wakes up and what that costs."""
        with self._started("udp", [*self._all_over("udp"), echod("echod-64", ports=64)]) as servers:
            time.sleep(12)  # what belongs to the start is over: also that echod tells of rates, the last over 10 s
            before = [(wakeups(server.main), cpu_ns(server.main)) for server in servers]
            time.sleep(self._idle_seconds)
            for server, (woken, used) in zip(servers, before, strict=True):
                after = wakeups(server.main)
                rates = [(after[pid] - woken[pid]) / self._idle_seconds for pid in after if pid in woken]
                metrics = {
                    "wakeups_per_second": max(rates),
                    "cpu_ms_per_second": (cpu_ns(server.main) - used) / 1e6 / self._idle_seconds,
                }
                self._note("idle", server.name, YARDSTICKS["udp"].name, metrics)

    def _all_over(self, protocol: str) -> list[Kind]:
        return [YARDSTICKS[protocol], ECHOD, *(kind for kind in self._others if protocol in kind.protocols)]

    @contextlib.contextmanager
    def _started(
        self, protocol: str, kinds: Sequence[Kind], *, cpus: Collection[int] | None = None
    ) -> Iterator[list[Server]]:
        """Start all afresh, and leave out who cannot be started. Those that have no traffic sleep and cost nothing.

        Afresh in each pair, because where a process lies in memory moves its figures by some percent from start to
        start. Raises `CannotMeasure` if it is the yardstick or echod that cannot be started.
        """
        others = {kind.name for kind in self._others}
        with contextlib.ExitStack() as stack:
            started = []
            for kind in kinds:
                self._progress(f"{self._group} {self._pair + 1}: start {kind.name}")
                if (self._group, "", kind.name) in self.missing:
                    continue
                try:
                    server = kind.start(protocol, directory=self._directory, cpus=cpus or self._server_cpus)
                    started.append(stack.enter_context(server))
                except CannotMeasure as reason:
                    if kind.name not in others:
                        raise
                    self._miss("", kind.name, str(reason))
            yield started

    def _compare(
        self, works: Sequence[Work], servers: Sequence[Server], *, cpus: Collection[int] | None = None
    ) -> None:
        """Measure each server under each work; the first of them is the yardstick."""
        for work in works:
            for server in servers:
                self._try(work, server, servers[0].name, cpus=cpus)

    def _try(self, work: Work, server: Server, yardstick: str, *, cpus: Collection[int] | None = None) -> None:
        """Measure one run; what cannot be measured is a row with its reason, and is not tried again."""
        if (self._group, work.name, server.name) in self.missing:
            return
        self._progress(f"{self._group} {self._pair + 1}: {work.name} {server.name}")
        try:
            cpu, beside = sum(map(cpu_ns, server.pids)), beside_ns()
            loads = run_load(
                self._directory,
                work,
                server=server,
                seconds=self._seconds * work.length,
                cpus=cpus or self._load_cpus,
            )
            cpu, beside = sum(map(cpu_ns, server.pids)) - cpu, beside_ns() - beside
        except CannotMeasure as reason:
            self._miss(work.name, server.name, str(reason))
            return
        if not (sum(load.received for load in loads) and any(load.p50_us or load.elapsed_ns for load in loads)):
            received, corrupt = (sum(getattr(load, name) for load in loads) for name in ("received", "corrupt"))
            printed = f"{corrupt} replies, all corrupt" if corrupt else "no reply at all"
            if received:
                printed = (
                    f"{received} replies in the first instant, and none after it"  # as of those that lose the rest
                )
            gone = "" if process_tree(server.main)[1:] or Path(f"/proc/{server.main}/task").exists() else "; it ended"
            self._miss(work.name, server.name, printed + gone)
            return
        self._note(work.name, server.name, yardstick, _metrics(loads, cpu, cpu + beside), loads)

    def _note(
        self, work: str, server: str, yardstick: str, metrics: dict[str, float], loads: Sequence[Traffic] = ()
    ) -> None:
        self.runs.append(
            Run(
                group=self._group,
                pair=self._pair,
                work=work,
                server=server,
                yardstick=yardstick,
                metrics=metrics,
                **summed(loads),
            )
        )

    def _miss(self, work: str, server: str, reason: str) -> None:
        self.missing[self._group, work, server] = Missing(group=self._group, work=work, server=server, reason=reason)


def _metrics(loads: Sequence[Traffic], cpu: int, machine: int) -> dict[str, float]:
    """Return what one run tells; times of CPUs are per datagram or message that came back."""
    if loads[0].p50_us:
        return {"p50_us": loads[0].p50_us, "p99_us": loads[0].p99_us, "p999_us": loads[0].p999_us}
    received, elapsed = sum(load.received for load in loads), max(load.elapsed_ns for load in loads)
    return {
        "cpu_us": cpu / received / 1000,
        "machine_us": machine / received / 1000,
        "replies_per_second": received / elapsed * 1e9,
        "busy": cpu / elapsed,
    }
