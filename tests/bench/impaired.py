"""What impairment does to time: python -m tests.bench.impaired.

The quantiles of a delay of 20 ms with a jitter of 5 ms, as a client sees them, beside those of the distribution. Then
what a listener has left of a worker that also gets 10,000 datagrams a second at another one, which is impaired, in
alternation with the same traffic to one that is not.
"""

import argparse
import contextlib
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from .load import run_load
from .process import HOST, Place, Server, free_port, on_cpus, running
from .servers import PEERS, VOLATILE, build_peers
from .work import CLIENTS, LATENCY_IDLE, TRAINS, Work

PER_SECOND = 10_000
"""Datagrams to the listener beside."""

QUANTILES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
QUANTILE_MS_MAX = 0.2
LEAST_MS, MOST_MS = 15.0, 25.0
"""The distribution: uniform between them."""

IMPAIR = "impair: {loss: 2%, delay: 20 ms, jitter: 5 ms, duplicate: 1%, reorder: 1%, corrupt: 0.1%, seed: 7}"
DELAY = "impair: {delay: 20 ms, jitter: 5 ms, seed: 7}"

TIMED_PER_SECOND = 5_000
_SO_TIMESTAMPNS, _TIMESPEC = 35, struct.Struct("qq")

WORKS = (CLIENTS, TRAINS, LATENCY_IDLE)


def main() -> int:
    """Measure, print, and return the exit code: 1 if a quantile is off by more than the bound."""
    parser = argparse.ArgumentParser(prog="tests.bench.impaired", description=__doc__.partition(":")[0])
    parser.add_argument("--pairs", type=int, default=5, metavar="N", help="alternations (5)")
    parser.add_argument("--seconds", type=float, default=0.5, metavar="N", help="length of each single run (0.5)")
    parser.add_argument("--datagrams", type=int, default=50_000, metavar="N", help="that are timed (50000)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="echod-bench-") as directory:
        place = Path(directory)
        (place / VOLATILE).mkdir()
        build_peers(place)
        off = _quantiles(place, arguments.datagrams)
        _beside(place, arguments.pairs, arguments.seconds)
    return 1 if off > QUANTILE_MS_MAX else 0


@contextlib.contextmanager
def _echod(place: Path, options: str) -> Iterator[tuple[Server, int]]:
    """Run an echod of one worker with a plain listener, and one beside it with these options, whose port is yielded."""
    port = free_port("udp", 2)
    config = place / f"impaired-{port}.yaml"
    beside = f"{{address: 'udp://{HOST}:{port + 1}'{options and ', '}{options}}}"
    config.write_text(
        f"listeners: ['udp://{HOST}:{port}', {beside}]\nworkers: 1\n"
        f"status: {{directory: {place / VOLATILE / config.stem}}}\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "echod", "run", "--config", str(config)]
    with running("echod", command, Place(directory=place, protocol="udp", port=port), cpus={1}) as server:
        yield server, port + 1


def _quantiles(place: Path, count: int) -> float:
    """Time so many datagrams; print the quantiles, and return by how many ms the worst of them is off."""
    with _echod(place, "") as (_, port), on_cpus({0}):
        base = median(_time(port, 2_000))
    with _echod(place, DELAY) as (_, port), on_cpus({0}):
        times = sorted(_time(port, count))
    print(f"delay of {len(times)} datagrams at {TIMED_PER_SECOND}/s, less {base:.3f} ms, the median without it", end="")
    worst = 0.0
    for share in QUANTILES:
        found, meant = times[int(share * len(times))] - base, LEAST_MS + share * (MOST_MS - LEAST_MS)
        worst = max(worst, abs(found - meant))
        print(f"; p{100 * share:g} {found:.3f} ms ({found - meant:+.3f})", end="")
    print(f"; largest difference {worst:.3f} ms, allowed {QUANTILE_MS_MAX} ms", flush=True)
    return worst


def _time(port: int, count: int) -> list[float]:
    """Send datagrams at a pace; return the round trips in ms, until the kernel received each reply."""
    times: list[float] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        sock.connect((HOST, port))
        sock.setblocking(False)
        began, sent, last = time.monotonic(), 0, time.monotonic()
        while sent < count or (len(times) < sent and time.monotonic() < last + 1):
            while sent < min(count, (time.monotonic() - began) * TIMED_PER_SECOND):
                sock.send(struct.pack("q", time.time_ns()))
                sent, last = sent + 1, time.monotonic()
            with contextlib.suppress(BlockingIOError):
                data, messages, _, _ = sock.recvmsg(64, 64)
                seconds, ns = _TIMESPEC.unpack(messages[0][2])
                times.append((seconds * 10**9 + ns - struct.unpack("q", data)[0]) / 1e6)
    return times


def _beside(place: Path, pairs: int, seconds: float) -> None:
    """Print what a plain listener has beside nothing, beside a plain one, and beside an impaired one."""
    found: dict[tuple[str, str], list[float]] = {}
    kinds = {"nothing": ("", 0), "echo": ("", PER_SECOND), "impair": (IMPAIR, PER_SECOND)}
    for _ in range(pairs):
        for kind, (options, rate) in kinds.items():
            with _echod(place, options) as (server, port):
                for work in WORKS:
                    with _traffic(port, rate):
                        found.setdefault((work.name, kind), []).append(_run(place, work, server, seconds))
    for work in WORKS:
        plain = found[work.name, "echo"]
        for kind in kinds:
            figures = found[work.name, kind]
            ratios = [mine / theirs for mine, theirs in zip(figures, plain, strict=True)]
            spread = f"{median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
            print(f"{work.name} beside {kind}: {median(figures):,.1f}; beside that beside echo {spread}")


def _run(place: Path, work: Work, server: Server, seconds: float) -> float:
    """Return replies a second, or the median of a round trip in us."""
    [load] = run_load(place, work, server=server, seconds=seconds, cpus={0})
    return load.p50_us or load.received / load.elapsed_ns * 1e9


@contextlib.contextmanager
def _traffic(port: int, rate: int) -> Iterator[None]:
    """Send so many datagrams a second to this port meanwhile."""
    if not rate:
        yield
        return
    command = [sys.executable, str(PEERS / "steady.py"), str(port), str(rate)]
    with on_cpus({0}):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        yield
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
