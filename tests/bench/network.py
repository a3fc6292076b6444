"""How exact the time in the network is that `echod ping --plus` reports: python -m tests.bench.network.

A responder in C sleeps before each reply, and knows from the kernel for how long it really had the request. The true
time in the network is the round trip without that; the reported one is without what the reply says, in microseconds.
Their difference is in part the responder's: what it takes to send a reply after it has stamped it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

from .process import HOST, free_port, on_cpus
from .servers import VOLATILE, build_peers

ERROR_US_MAX = 3.0


def main() -> int:
    """Measure, print, and return the exit code: 1 if the median of the client's error is above the bound."""
    parser = argparse.ArgumentParser(prog="tests.bench.network", description=__doc__.partition(":")[0])
    parser.add_argument("--probes", type=int, default=2000, metavar="N", help="to send (2000)")
    parser.add_argument("--sleep-us", type=int, default=1000, metavar="N", help="of the responder (1000)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="echod-bench-") as directory:
        place = Path(directory)
        (place / VOLATILE).mkdir()
        build_peers(place)
        events, held = _measure(place / "plus_sleeper", arguments)
    true = [each["rtt_ms"] * 1000 - held[each["sequence"]][0] / 1000 for each in events]
    errors = [each["network_ms"] * 1000 - it for each, it in zip(events, true, strict=True)]
    late = [(held[each["sequence"]][0] - held[each["sequence"]][1]) / 1000 for each in events]
    print(f"{len(errors)} probes of {arguments.probes}; network, true: {median(true):.1f} us (median)")
    _print("reported less true", errors)
    _print("of that, from the stamp of a reply until it left", late)
    rest = [each - it for each, it in zip(errors, late, strict=True)]
    _print(f"the rest, of the client and of microseconds (target {ERROR_US_MAX:.0f})", rest)
    return 1 if abs(median(rest)) > ERROR_US_MAX else 0


def _print(what: str, errors: list[float]) -> None:
    cuts = quantiles(errors, n=100)
    print(f"{what}: {median(errors):.2f} us (median), {cuts[0]:.2f} to {cuts[98]:.2f} us (1% to 99%)")


def _measure(responder: Path, arguments: argparse.Namespace) -> tuple[list[dict[str, float]], dict[int, list[int]]]:
    """Return the replies that `echod ping` reports, and for how many ns each was at the responder: really, by stamp."""
    port = free_port("udp")
    with on_cpus({1}):
        server = [responder, f"{HOST}:{port}", str(arguments.sleep_us)]
        process = subprocess.Popen(server, stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(0.2)
        words = ["--plus", "--json", "-c", str(arguments.probes), "-i", "2ms", "-W", "1", f"{HOST}:{port}"]
        with on_cpus({0}):
            found = subprocess.run(
                [sys.executable, "-m", "echod", "ping", *words], capture_output=True, text=True, check=True
            )
    finally:
        process.terminate()
    out, _ = process.communicate()
    held = {number: rest for number, *rest in (map(int, line.split()) for line in out.splitlines())}
    events = [json.loads(line) for line in found.stdout.splitlines()]
    return [each for each in events if each["event"] == "reply" and each["sequence"] in held], held


if __name__ == "__main__":
    sys.exit(main())
