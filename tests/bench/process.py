"""One server process under measurement: start it on one CPU, wait for its first reply, read what it uses, stop it.

Owns every process that answers; never sends but one probe at a time. Invariant: a started server is stopped, by its
own process id, whatever happens in between.
"""

import contextlib
import functools
import json
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

REPOSITORY = Path(__file__).resolve().parents[2]

HOST = "127.0.0.1"
"""All traffic stays on loopback."""

READY_SECONDS_MAX = 10.0
"""Far beyond the target of half a second, so that a slow start is a figure and not an error."""

STOP_SECONDS_MAX = 5.0

READY = b"ready?".ljust(44, b"\0")
"""A datagram that a listener of any mode replies to."""

PROBE_SECONDS = 0.002
"""How long it is from probe to probe: the resolution of the start-up time."""

PATIENCE_SECONDS = 0.5
"""How long a probe waits for its answer: a peer that starts a process for each datagram takes its time."""

TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class CannotMeasure(Exception):  # noqa: N818  (a sentence for the reader, in the words of the reader)
    """There is no figure to be had, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a server is to run, and what it may use there."""

    directory: Path
    protocol: str
    port: int
    host: str = HOST
    client: tuple[str, ...] = ()
    """The prefix of the command of a load that is to reach it, as where it has a network of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that has answered its first probe."""

    name: str
    place: Place
    pids: tuple[int, ...]
    """Of the process that was started, and of those beside it that serve as well."""
    ready_seconds: float
    """From just before the program was executed to the first reply."""

    @property
    def main(self) -> int:
        """Return the id of the process that was started."""
        return self.pids[0]

    @property
    def to(self) -> str:
        """Return its address and port, for a load."""
        return f"{self.place.host}:{self.place.port}"


@contextlib.contextmanager
def on_cpus(cpus: Collection[int]) -> Iterator[None]:
    """Start children on these CPUs: they inherit the affinity that this process has meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def running(name: str, command: list[str], place: Place, *, cpus: Collection[int]) -> Iterator[Server]:
    """Run a server and yield it once it answers on its port.

    Raises `CannotMeasure` if the program is not there, ends, or does not answer.
    """
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    with (place.directory / f"{name}-{place.port}.log").open("w+b") as log:
        started = time.monotonic()
        try:
            with on_cpus(cpus):
                process = subprocess.Popen(
                    command, cwd=REPOSITORY, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
        except FileNotFoundError as missing:
            raise CannotMeasure(f"{name} is not installed: {command[0]} was not found.") from missing
        try:
            _wait_for_reply(process, name=name, place=place, log=log)
            yield Server(name=name, place=place, pids=(process.pid,), ready_seconds=time.monotonic() - started)
        finally:
            _stop(process)


def _wait_for_reply(process: subprocess.Popen[bytes], *, name: str, place: Place, log: IO[bytes]) -> None:
    """Probe until the server answers; one that ends or stays silent cannot be measured."""
    deadline = time.monotonic() + READY_SECONDS_MAX
    kind = socket.SOCK_DGRAM if place.protocol == "udp" else socket.SOCK_STREAM
    while time.monotonic() < deadline and process.poll() is None:
        # Until the socket is bound the kernel answers "refused", and at once: hence the sleep.
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, kind) as probe:
            probe.settimeout(PATIENCE_SECONDS)
            probe.connect((HOST, place.port))
            probe.send(READY)
            if len(probe.recv(64)) == len(READY):  # of what measures the bytes are others
                return
        if place.client and _answers_there(place):
            return
        time.sleep(PROBE_SECONDS)
    log.seek(0)
    printed = log.read().decode(errors="replace").strip().rpartition("\n")[2]
    ended = process.poll()
    how = f"within {READY_SECONDS_MAX:.0f} s" if ended is None else f"but ended with code {ended}"
    raise CannotMeasure(f"{name} did not answer {how}. It said last: {printed or 'nothing'}")


def _answers_there(place: Place) -> bool:
    """Ask by a load, from where the clients of that place are."""
    command = [*place.client, str(place.directory / "udp_latency"), f"{place.host}:{place.port}", "seconds=0.01"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    return asked.returncode == 0 and json.loads(asked.stdout)["received"] > 0


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop one server and all that it started: politely, then by force, each by its own id."""
    children = {pid: _started(pid) for pid in process_tree(process.pid) if pid != process.pid}
    process.terminate()
    try:
        process.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid, started in children.items():  # a peer may leave those behind that it started for its clients
        with contextlib.suppress(ProcessLookupError):
            if started and _started(pid) == started:
                os.kill(pid, signal.SIGKILL)


def _started(pid: int) -> str:
    """Return when a process began: with the id it names one process for ever. Nothing if it is gone."""
    try:
        return _stat(pid)[19]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat behind the name, from the third on (proc(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def free_port(protocol: str, count: int = 1) -> int:
    """Return the first of `count` ports in a row that nobody has."""
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    for _ in range(100):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError, OverflowError):
            first = 0
            for offset in range(count):
                any_port = stack.enter_context(socket.socket(socket.AF_INET, kind))
                any_port.bind((HOST, first + offset if first else 0))
                first = first or int(any_port.getsockname()[1])
            return first
    raise CannotMeasure(f"There are no {count} free ports in a row.")


def process_tree(root: int) -> list[int]:
    """Return `root` and all its descendants that live now."""
    tree = [root]
    for pid in tree:  # grows as it is read
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                tree += map(int, (task / "children").read_text().split())
    return tree


def _scheduled_ns(task: Path) -> int:
    return int((task / "schedstat").read_text().split()[0])


def cpu_ns(root: int) -> int:
    """Return the CPU time of a process tree so far, with that of children that have ended, in nanoseconds.

    From /proc/PID/task/TID/schedstat: the fields of /proc/PID/stat count ticks of 10 ms, and serve for those alone that
    ended.
    """
    total = 0
    for pid in process_tree(root):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            total += sum(map(_scheduled_ns, Path(f"/proc/{pid}/task").iterdir()))
            total += sum(map(int, _stat(pid)[13:15])) * TICK_NS
    return total


def beside_ns() -> int:
    """Return the CPU time of all children that have ended, and of the kernel threads that run what interrupts leave.

    The first are the loads: a packet on loopback or a veth is received, and forwarded, in the time of its sender.
    """
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    threads = sum(map(_scheduled_ns, _softirq_threads()))
    return round((children.ru_utime + children.ru_stime) * 1e9) + threads


@functools.cache
def _softirq_threads() -> tuple[Path, ...]:
    names = Path("/proc").glob("[0-9]*/comm")
    return tuple(name.parent for name in names if name.read_text().startswith("ksoftirqd/"))


def wakeups(root: int) -> dict[int, int]:
    """Return how often each process of a tree has gone to sleep of itself, and so was woken."""
    found = {}
    for pid in process_tree(root):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        found[pid] = next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches:"))
    return found


def pss_bytes(root: int) -> int:
    """Return the memory of a process tree, pages shared with others counted in proportion.

    The benchmark is a Python process itself and bears a share of the interpreter's pages, as any other Python
    process of a host does: the same tree alone on a host counts about 2 MiB more.
    """
    total = 0
    for pid in process_tree(root):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total
