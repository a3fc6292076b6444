"""The servers that are compared: how each is built and started, and in which order they stand.

Owns their commands and configs; never measures. Invariant: a server is started from here alone, on loopback, with as
generous limits as it has; echod alone is as it is shipped.
"""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from .process import HOST, CannotMeasure, Place, Server, free_port, running

PEERS = Path(__file__).resolve().parent / "peers"

VOLATILE = "run"
"""In the directory of the benchmark, that of what is in memory, as /run is: who writes to a disk waits for it."""

RECEIVE_BUFFER = 8 << 20
"""Bytes; the default holds 256 small datagrams, less than the bursts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One server of the comparison."""

    name: str
    command: Callable[[Place], list[str]]
    protocols: tuple[str, ...] = ("udp", "tcp")
    ports: int = 1

    def start(
        self, protocol: str, *, directory: Path, cpus: Collection[int]
    ) -> contextlib.AbstractContextManager[Server]:
        """Run it on these CPUs; the context is entered once it answers."""
        place = Place(directory=directory, protocol=protocol, port=free_port(protocol, self.ports))
        command = self.command(place)
        return running(self.name, command, place, cpus=cpus)


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


def echod(  # noqa: PLR0913 - each is a part of the config
    name: str = "echod",
    *,
    module: str = "echod",
    config: str = "",
    options: str = "",
    workers: int = 1,
    ports: int = 1,
) -> Kind:
    """Return echod from this tree with what the config shall have beside listeners and workers.

    `options` are those of each listener, as in the config.
    """

    def command(place: Place) -> list[str]:
        addresses = [f"{place.protocol}://{HOST}:{place.port + offset}" for offset in range(ports)]
        listeners = ", ".join(f"{{address: {each}, {options}}}" if options else each for each in addresses)
        path = place.directory / f"{name}-{place.port}.yaml"
        # A status of its own: beside each other, and beside an echod that serves this host.
        status = f"status: {{directory: {place.directory / VOLATILE / path.stem}}}\n"
        path.write_text(f"listeners: [{listeners}]\nworkers: {workers}\n{status}{config}", encoding="utf-8")
        return [sys.executable, "-m", module, "run", "--config", str(path)]

    return Kind(name=name, command=command, ports=ports)


def _c_peer(program: str, protocol: str, *words: str) -> Kind:
    name = "-".join((program, *words))
    return Kind(
        name=name, protocols=(protocol,), command=lambda at: [str(at.directory / program), str(at.port), *words]
    )


def _event_loop(name: str, protocols: tuple[str, ...] = ("udp", "tcp")) -> Kind:
    program = str(PEERS / "event_echo.py")

    def command(place: Place) -> list[str]:
        return [sys.executable, program, name, place.protocol, str(place.port)]

    return Kind(name=name, protocols=protocols, command=command)


def _xinetd(place: Place) -> list[str]:
    """Start its own echo: no limit on instances or connections a second, no log, no look at hosts.allow."""
    path = place.directory / f"xinetd-{place.protocol}-{place.port}.conf"
    udp = place.protocol == "udp"
    lines = [
        "defaults\n{\n\tinstances = UNLIMITED\n\tper_source = UNLIMITED\n\tcps = 1000000 1\n}",
        f"service echo\n{{\n\ttype = INTERNAL UNLISTED\n\tid = echo-{place.protocol}\n\tport = {place.port}",
        f"\tsocket_type = {'dgram' if udp else 'stream'}\n\tprotocol = {place.protocol}\n\tuser = root",
        f"\tbind = {HOST}\n\tflags = NOLIBWRAP\n\twait = {'yes' if udp else 'no'}\n\tdisable = no\n}}\n",
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    program = shutil.which("xinetd") or "/usr/sbin/xinetd"
    pidfile = place.directory / f"xinetd-{place.port}.pid"
    return [program, "-dontfork", "-f", str(path), "-pidfile", str(pidfile)]


def _socat(place: Place) -> list[str]:
    """Start a process for each client, which is how socat listens, with buffers large enough for any datagram."""
    if place.protocol == "tcp":
        return ["socat", f"TCP4-LISTEN:{place.port},bind={HOST},fork,reuseaddr,backlog=4096,nodelay", "PIPE"]
    address = f"UDP4-LISTEN:{place.port},bind={HOST},fork,reuseaddr,rcvbuf={RECEIVE_BUFFER},max-children=512"
    return ["socat", "-b65536", "-T1", address, "PIPE"]


def _ncat(place: Place) -> list[str]:
    """Start a process for each client here too: ncat has no echo of its own."""
    udp = ["-u"] if place.protocol == "udp" else []
    return ["ncat", *udp, "-l", "-k", "-m", "2000", "-e", "/bin/cat", HOST, str(place.port)]


YARDSTICKS = {"udp": _c_peer("udp_loop", "udp"), "tcp": _c_peer("tcp_epoll", "tcp")}
"""Whose cost is 1: plain recvfrom and sendto; plain epoll. Both in C."""

AWAKE = _c_peer("udp_loop", "udp", "awake")
"""The first of them without sleep, for the timing of clients."""

ECHOD = echod()
"""As it is shipped: all rules, no limits."""

BARE = echod("bare", module="tests.bench.bare")
"""Without the rules."""

LIMITS = "limits: {datagrams_per_second: 10000000, burst: 1000000, total_datagrams_per_second: 100000000}\n"
"""Both, each as high as it goes: all is charged, nothing is refused."""

LIMITED = echod("limited", config=LIMITS)

MEASURING = (
    echod("udpecho_plus", options="mode: udpecho_plus"),
    echod("stamp", options="mode: stamp"),
)
"""A listener of each measuring mode."""

VECTOR = _c_peer("udp_vector", "udp")
"""The same two calls as echod's, in C."""

LEAST = {
    "udp": Kind(
        name="least",
        command=lambda at: [sys.executable, str(PEERS / "least_udp.py"), str(at.port)],
        protocols=("udp",),
    ),
    "tcp": _event_loop("epoll", ("tcp",)),
}
"""The least that Python can do, without a rule or a count: where a target is missed they show what is in reach."""

OTHERS = (
    _event_loop("asyncio"),
    _event_loop("uvloop"),
    _event_loop("twisted"),
    Kind(name="xinetd", command=_xinetd),
    Kind(name="socat", command=_socat),
    Kind(name="ncat", command=_ncat),
)
"""What a user would pick instead."""
