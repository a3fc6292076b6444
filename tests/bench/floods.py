"""Floods: what is left for a bystander, who pings each millisecond by another interface, and what a frame costs.

Owns the two processes of a flood; judges nothing. Invariant: the flood is on the CPU of the load, the bystander beside
the server on its own.
"""

import json
import subprocess
from collections.abc import Collection
from dataclasses import dataclass

from .load import GRACE_SECONDS, Traffic, run_load
from .process import CannotMeasure, Server, on_cpus
from .stage import MAC, SERVER_END, from_bystander
from .work import BYSTANDER, Flood


@dataclass(frozen=True, slots=True, kw_only=True)
class Flooded:
    """What one flood left."""

    frames: int
    frames_per_second: float
    bystander: Traffic


def run_flood(flood: Flood, server: Server, *, seconds: float, cpus: Collection[int], own: Collection[int]) -> Flooded:
    """Flood a server from `cpus`, with the bystander on `own`."""
    place = server.place
    settings = (f"{name}={value}" for name, value in {**flood.settings, "seconds": seconds}.items())
    program = str(place.directory / "udp_flood")
    command = [*place.client, program, "eth0", MAC.format(SERVER_END), server.to, *settings]
    with on_cpus(cpus):
        sender = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        aside = from_bystander(server)
        [bystander] = run_load(place.directory, BYSTANDER, server=aside, seconds=seconds * 0.8, cpus=own)
        printed, error = sender.communicate(timeout=seconds + GRACE_SECONDS)
    finally:
        sender.kill()
        sender.wait()
    if sender.returncode != 0:
        raise CannotMeasure(f"the flood ended with an error: {error.strip()}")
    sent = json.loads(printed)
    return Flooded(frames=sent["sent"], frames_per_second=sent["sent"] / sent["elapsed_ns"] * 1e9, bystander=bystander)
