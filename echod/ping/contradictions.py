"""Options of `echod ping` that exclude each other, and what to write instead: no option is ignored silently.

Owns the sentences. Invariant: whatever options are given, either each of them has its effect, or one is refused.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from echod.errors import UsageError
from echod.net.listener import MAX_PORT

STDOUT: Final = Path("-")
"""Of --csv."""

_PAIRS: Final = (
    ("rate", "interval", "--rate and -i both set the interval: write one of them"),
    ("json", "histogram", "--json prints no histogram: leave --histogram out"),
    ("flood", "sources", "-f uses one source port: leave --sources out"),
    ("flood", "csv", "-f has no event for each reply: leave --csv out"),
    ("flood", "plot", "-f has no event for each reply: leave --plot out"),
    ("flood", "interval", "-f sends as fast as replies arrive: leave -i out, or write --rate"),
    ("mtu", "count", "--mtu sends as many probes as it needs: leave -c out"),
    ("mtu", "deadline", "--mtu ends by itself: leave -w out"),
    ("mtu", "interval", "--mtu sets its own rate: leave -i out"),
    ("mtu", "rate", "--mtu sets its own rate: leave --rate out"),
    ("mtu", "window", "--mtu sets its own rate: leave --window out"),
    ("mtu", "flood", "--mtu sets its own rate: leave -f out"),
    ("mtu", "sizes", "--mtu sets its own sizes: leave -s out"),
    ("mtu", "discovery", "--mtu sets its own discovery mode: leave -M out"),
    ("mtu", "sources", "--mtu uses one source port: leave --sources out"),
    ("mtu", "csv", "--mtu has no event for each reply: leave --csv out"),
    ("mtu", "plot", "--mtu has no event for each reply: leave --plot out"),
    ("mtu", "stamps", "--mtu prints no line for each reply: leave -D out"),
    ("mtu", "histogram", "--mtu measures no latency: leave --histogram out"),
)

_OPTIONS: Final = {
    "count": "-c",
    "interval": "-i",
    "rate": "--rate",
    "window": "--window",
    "flood": "-f",
    "deadline": "-w",
    "sizes": "-s",
    "pattern": "-p",
    "stamps": "-D",
    "csv": "--csv",
    "histogram": "--histogram",
    "plot": "--plot",
}
"""What a probe of --reveal has no use for."""

_MODES: Final = {
    "mtu": "--mtu",
    "compare": "--compare",
    "plus": "--plus",
    "stamp": "--stamp",
    "mode": "--mode",
    "reveal": "--reveal",
}


def _pairs() -> Iterator[tuple[str, str, str]]:
    """Yield two options that exclude each other, by the names of their values, and the sentence."""
    yield from _PAIRS
    for name in ("plus", "stamp", "mode"):
        yield "flood", name, f"-f sends probes of a plain echo: leave {_MODES[name]} out"
    for name, word in _OPTIONS.items():
        yield "reveal", name, f"--reveal sends one probe from each source port: leave {word} out"
    names = list(_MODES)
    for at, one in enumerate(names):
        for other in names[at + 1 :]:
            yield one, other, f"{_MODES[one]} and {_MODES[other]} are two modes: write one of them"


def refuse(found: argparse.Namespace) -> None:
    """Refuse options that exclude each other, and values that leave nothing to do. Raises UsageError."""
    for one, other, sentence in _pairs():
        given = getattr(found, other)
        if getattr(found, one) and given is not None and given is not False and (other != "sources" or given > 1):
            raise UsageError(f"ping: {sentence}")
    for name in ("key", "ssid"):
        if getattr(found, name) and not found.stamp:
            raise UsageError(f"ping: --{name} is of a STAMP session: write --stamp too")
    _refuse_output(found)
    _refuse_bounds(found)


def _refuse_output(found: argparse.Namespace) -> None:
    if found.json and found.csv == STDOUT:
        raise UsageError("ping: --json and --csv - both write to stdout: write --csv FILE")
    if found.plot and found.plot.suffix not in (".svg", ".png"):
        raise UsageError(f"ping: --plot {found.plot}: write a name that ends in .svg or .png")


def _refuse_bounds(found: argparse.Namespace) -> None:
    if found.source_port and len(found.targets) > 1:
        raise UsageError("ping: --source-port is for one TARGET: leave the others out")
    if found.source_port + found.sources - 1 > MAX_PORT:
        given = f"--source-port {found.source_port} --sources {found.sources}"
        raise UsageError(f"ping: {given}: the last port is {MAX_PORT}: write less")
    if found.timeout == 0:
        raise UsageError("ping: -W 0 leaves no time for a reply: write a longer time")
    if found.deadline == 0:
        raise UsageError("ping: -w 0 ends before the first probe: write a longer time")
