"""The servers under load: build, start and stop them, and read what they use.

Owns every process that answers; never sends but one probe at a time. Invariant: a started server is stopped, by its
own process id, whatever happens in between.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

REPOSITORY = Path(__file__).resolve().parents[2]
PEERS = Path(__file__).resolve().parent / "peers"

HOST = "127.0.0.1"
"""All traffic stays on loopback."""

READY_SECONDS_MAX = 15.0
"""Far beyond the target of one second, so that a slow start is a figure and not an error."""

STOP_SECONDS_MAX = 10.0

PROBE_SECONDS = 0.002
"""How long one probe waits for its answer: the resolution of the start-up time."""


class CannotMeasure(Exception):  # noqa: N818  (a sentence for the reader, in the words of the reader)
    """There is no figure to be had, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way to run echod: which module is the program, and what the config has beside listener and worker."""

    name: str
    module: str = "echod"
    config: str = ""


ECHOD = Variant(name="echod")
"""As it is shipped: all rules, no limits."""

BARE = Variant(name="bare", module="tests.bench.bare")
"""Without the rules."""

LIMITED = Variant(
    name="limited",
    config="limits: {datagrams_per_second: 10000000, burst: 1000000, total_datagrams_per_second: 100000000}\n",
)
"""With both limits, each as high as it goes: all is charged, nothing is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that has answered its first probe."""

    name: str
    port: int
    pid: int
    ready_seconds: float
    """From just before the program was executed to the first reply."""


def build_peers(into: Path) -> None:
    """Compile every C peer into the directory `into`, under its own name.

    Raises `CannotMeasure` if this host has no compiler, or no kernel that tells what is read further down: without
    its list of children a server would seem to consist of its supervisor alone.
    """
    for name in ("children", "schedstat"):
        if not Path(f"/proc/thread-self/{name}").exists():
            raise CannotMeasure(f"The benchmark reads /proc/PID/task/TID/{name}, which this kernel does not have.")
    if shutil.which("gcc") is None:
        raise CannotMeasure("The benchmark compares with C programs and needs gcc to build them: there is none here.")
    for source in sorted(PEERS.glob("*.c")):
        command = ["gcc", "-O2", "-std=gnu11", "-Wall", "-o", str(into / source.stem), str(source)]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        if built.returncode != 0:
            raise CannotMeasure(f"gcc could not build {source.name}:\n{built.stderr}")


@contextlib.contextmanager
def on_cpu(cpu: int) -> Iterator[None]:
    """Start children on one CPU: they inherit the affinity that this process has meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def peer(name: str, *, programs: Path, cpu: int) -> Iterator[Server]:
    """Run one of the C loops and yield it once it answers."""
    port = _free_port()
    with _running(name, [str(programs / name), str(port)], port=port, cpu=cpu, directory=programs) as server:
        yield server


@contextlib.contextmanager
def echod(variant: Variant, *, directory: Path, cpu: int) -> Iterator[Server]:
    """Run echod from this tree, or a variant of it, with one worker and yield it once it answers."""
    port = _free_port()
    config = directory / f"{variant.name}-{port}.yaml"
    config.write_text(f"listeners: [udp://{HOST}:{port}]\nworkers: 1\n{variant.config}", encoding="utf-8")
    command = [sys.executable, "-m", variant.module, "run", "--config", str(config)]
    with _running(variant.name, command, port=port, cpu=cpu, directory=directory) as server:
        yield server


@contextlib.contextmanager
def _running(name: str, command: list[str], *, port: int, cpu: int, directory: Path) -> Iterator[Server]:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    with (directory / f"{name}-{port}.log").open("w+b") as log:
        started = time.monotonic()
        with on_cpu(cpu):
            process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            _wait_for_reply(process, name=name, port=port, log=log)
            ready = time.monotonic() - started
            yield Server(name=name, port=port, pid=process.pid, ready_seconds=ready)
        finally:
            _stop(process)


def _wait_for_reply(process: subprocess.Popen[bytes], *, name: str, port: int, log: IO[bytes]) -> None:
    """Probe until the server answers; one that ends or stays silent cannot be measured."""
    deadline = time.monotonic() + READY_SECONDS_MAX
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((HOST, port))
        probe.settimeout(PROBE_SECONDS)
        while time.monotonic() < deadline and process.poll() is None:
            # Until the socket is bound the kernel answers "refused", and at once: hence the sleep.
            with contextlib.suppress(TimeoutError, ConnectionRefusedError):
                probe.send(b"ready?")
                probe.recv(64)
                return
            time.sleep(PROBE_SECONDS)
    log.seek(0)
    said = log.read().decode(errors="replace")
    ended = process.poll()
    how = f"within {READY_SECONDS_MAX:.0f} s" if ended is None else f"but ended with code {ended}"
    raise CannotMeasure(f"{name} did not answer {how}. It said:\n{said}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop one server and its workers: politely, then by force, each by its own id."""
    workers = [pid for pid in process_tree(process.pid) if pid != process.pid]
    process.terminate()
    try:
        process.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_port:
        any_port.bind((HOST, 0))
        port: int = any_port.getsockname()[1]
        return port


def process_tree(root: int) -> list[int]:
    """Return `root` and all its descendants that live now."""
    tree = [root]
    for pid in tree:  # grows as it is read
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                tree += map(int, (task / "children").read_text().split())
    return tree


def cpu_ns(root: int) -> dict[int, int]:
    """Return the time on CPU of each process of a tree, in nanoseconds.

    From /proc/PID/task/TID/schedstat: the fields of /proc/PID/stat count ticks of 10 ms.
    """
    return {
        pid: sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())
        for pid in process_tree(root)
    }


def pss_bytes(root: int) -> int:
    """Return the memory of a process tree, pages shared with others counted in proportion.

    The benchmark is a Python process itself and bears a share of the interpreter's pages, as any other Python
    process of a host does: the same tree alone on a host counts about 2 MiB more.
    """
    total = 0
    for pid in process_tree(root):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total
