"""What is lost while the accelerator is killed, and while it reloads, again and again: python -m tests.bench.disturbed.

64 clients have one datagram in flight each, as fast as they are answered; each is answered exactly, or lost.
"""

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .process import Server
from .servers import VOLATILE, build_peers
from .stage import PLAIN, accelerator, logged, staged
from .work import CLIENTS

RELOAD_SECONDS_MAX = 30.0


def main() -> int:
    """Measure, print, and return the exit code: 1 if anything was lost."""
    parser = argparse.ArgumentParser(prog="tests.bench.disturbed", description=__doc__.partition(":")[0])
    parser.add_argument("--kills", type=int, default=15, metavar="N", help="kill it so often (15)")
    parser.add_argument("--reloads", type=int, default=1000, metavar="N", help="reload it so often (1000)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="echod-bench-") as directory:
        place = Path(directory)
        (place / VOLATILE).mkdir()
        build_peers(place)
        with staged(PLAIN, directory=place, cpus={1}) as server:
            lost = _report("kill -9", arguments.kills, *_killed(server, arguments.kills))
            lost += _report("reload", arguments.reloads, *_reloaded(server, arguments.reloads))
    return 1 if lost else 0


def _report(what: str, times: int, counts: dict[str, int], seconds: float) -> int:
    rate = counts["received"] / seconds
    print(f"{times} x {what}: {counts['sent']:,} sent, {rate:,.0f} answered a second", end=", ")
    print(f"{counts['lost']} lost, {counts['late']} late, {counts['corrupt']} corrupt", flush=True)
    return counts["lost"] + counts["corrupt"]


def _killed(server: Server, times: int) -> tuple[dict[str, int], float]:
    """Kill the accelerator under load; start it again, so that the kernel answers in between."""
    with _load(server) as finish:
        for _ in range(times):
            with accelerator(server, {1}) as process:
                time.sleep(0.2)
                process.kill()
                process.wait()
            time.sleep(0.2)
        return finish()


def _reloaded(server: Server, times: int) -> tuple[dict[str, int], float]:
    """Reload it under load, each time as soon as the reload before has come to its end."""
    with accelerator(server, {1}) as process, _load(server) as finish:
        for number in range(1, 1 + times):
            process.send_signal(signal.SIGHUP)
            deadline = time.monotonic() + RELOAD_SECONDS_MAX
            while logged(server, "reloaded") < number:
                if time.monotonic() > deadline or process.poll() is not None:
                    sys.exit(f"reload {number} came to no end")
                time.sleep(0.005)
        return finish()


@contextlib.contextmanager
def _load(server: Server) -> Iterator[Callable[[], tuple[dict[str, int], float]]]:
    """Run the load from the client's side until `finish` is called, which returns its counts, and its seconds."""
    arguments = [f"{name}={value}" for name, value in CLIENTS.settings.items()]
    program = str(server.place.directory / "udp_load")
    command = [*server.place.client, "taskset", "1", program, server.to, "seconds=3600", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    started = time.monotonic()

    def finish() -> tuple[dict[str, int], float]:
        process.terminate()
        printed, _ = process.communicate(timeout=20)
        return json.loads(printed), time.monotonic() - started

    try:
        yield finish
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
