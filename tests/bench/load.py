"""The traffic: one run of a C load generator against one server, and what it counted.

Owns the shape of a run's result; never starts a server. Invariant: every datagram or message sent is either received,
exact, or lost.
"""

import json
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from .figures import Counts
from .process import HOST, REPOSITORY, CannotMeasure, Server, on_cpus
from .work import Work

GRACE_SECONDS = 20.0
"""The load stops by itself; one that does not in this time never will."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic(Counts):
    """What the load generator counted in one run, in datagrams or messages, and timed."""

    elapsed_ns: int = 0
    p50_us: float = 0.0
    p99_us: float = 0.0
    p999_us: float = 0.0


def run_load(programs: Path, work: Work, *, server: Server, seconds: float, cpus: Collection[int]) -> list[Traffic]:
    """Send that work to a server for `seconds`, with every reply verified; return the counts of each load process."""
    settings = {**work.settings, "seconds": seconds}
    arguments = (f"{name}={value}" for name, value in settings.items())
    command = [*server.place.client, str(programs / work.program), server.to, *arguments]
    with on_cpus(cpus):
        loads = [
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(work.loads)
        ]
    try:
        printed = [load.communicate(timeout=seconds + GRACE_SECONDS) for load in loads]
    except subprocess.TimeoutExpired as late:
        raise CannotMeasure(f"the load did not come to its end under {work.name}") from late
    finally:
        for load in loads:
            load.kill()
            load.wait()
    for load, (_, error) in zip(loads, printed, strict=True):
        if load.returncode != 0:
            raise CannotMeasure(f"the load ended with an error under {work.name}: {error.strip()}")
    return [Traffic(**json.loads(output)) for output, _ in printed]


def run_ping(*words: object, port: int, count: int, cpus: Collection[int]) -> Traffic:
    """Let `echod ping` send so many probes of 64 bytes, and return what it says of them."""
    command = [sys.executable, "-m", "echod", "ping", "--json", "-q", "-s", "64", "-c", str(count), *map(str, words)]
    with on_cpus(cpus):
        ended = subprocess.run(
            [*command, f"{HOST}:{port}"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
            timeout=GRACE_SECONDS + 60,
        )
    if ended.returncode != 0:
        raise CannotMeasure(f"echod ping ended with code {ended.returncode}: {ended.stderr.strip()}")
    found = json.loads(ended.stdout)["targets"][0]
    times = found["rtt_ms"]
    return Traffic(
        sent=found["sent"],
        received=found["received"],
        lost=found["sent"] - found["received"],
        corrupt=found["corrupt"],
        elapsed_ns=round(found["seconds"] * 1e9),
        p50_us=times["median"] * 1000,
        p99_us=times["p99"] * 1000,
        p999_us=times["p99_9"] * 1000,
    )
