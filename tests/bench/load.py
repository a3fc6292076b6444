"""The traffic: what is measured, and one run of the C load generator against one server.

Owns the cases and the shape of a run's result; never starts a server. Invariant: every datagram sent is
either received, exact, or lost.
"""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .servers import HOST, CannotMeasure, on_cpu

DATAGRAMS_PER_SECOND_MAX = 20_000_000
"""Bounds a run by count too; no server on one core comes near it."""

GRACE_SECONDS = 20.0
"""The load stops by itself; one that does not in this time never will."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One kind of traffic, by the load generator's name of it."""

    name: str
    meaning: str


CLIENTS = Case(name="clients", meaning="64 clients, one 64-byte datagram in flight each")
BURSTS = Case(name="bursts", meaning="4 clients, windows of 128 datagrams sent in bursts")
TRAINS = Case(name="trains", meaning="1 client with UDP_SEGMENT and UDP_GRO, 16 trains of 64 datagrams")
STRANGERS = Case(name="strangers", meaning="each datagram from a source address of its own, 256 in flight")


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What the load generator counted in one run, in datagrams."""

    sent: int
    received: int
    lost: int
    late: int
    corrupt: int
    refused: int
    elapsed_ns: int


def run_load(program: Path, *, case: Case, port: int, seconds: float, cpu: int) -> Traffic:
    """Send `case` to a server for `seconds`, with every reply verified, and return the counts."""
    limit = int(seconds * DATAGRAMS_PER_SECOND_MAX)
    with on_cpu(cpu):
        finished = subprocess.run(
            [program, HOST, str(port), case.name, str(seconds), str(limit)],
            capture_output=True,
            check=False,
            timeout=seconds + GRACE_SECONDS,
        )
    if finished.returncode != 0:
        raise CannotMeasure(f"The load generator ended with an error: {finished.stderr.decode().strip()}")
    return Traffic(**json.loads(finished.stdout))
