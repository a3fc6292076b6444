"""Servers that have a network of their own: a namespace with its loopback, and a veth to each of two clients.

Owns the namespaces and the accelerator beside an echod. Invariant: what is made here is removed, and the network of
this host is never touched. Each server has its own, so that no program of the kernel looks at the traffic of another.
"""

import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .process import HOST, REPOSITORY, CannotMeasure, Place, Server, on_cpus, running
from .servers import LIMITS, VOLATILE, YARDSTICKS

PORT = 7007
CLIENT, BYSTANDER = 0, 1
LINKS = "eth0", "eth1"
"""Interfaces of the server, to these two; each of them has an eth0."""

NETWORKS = "10.99.0.{}", "10.98.0.{}"
MAC = "02:00:00:00:99:{:02}"
SERVER_END, CLIENT_END, FLOOD_END = 1, 2, 101
"""The last octets of addresses; the last of them is the source of a flood, which has the MAC of the client."""

READY_SECONDS_MAX = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """A server for a network of its own."""

    name: str
    config: str = ""
    """Of echod, beside its listener."""
    is_echod: bool = True
    is_accelerated: bool = False


PLAIN = Staged(name="echod")

ACCELERATED = Staged(name="kernel", is_accelerated=True)
"""echod with `echod accelerate` beside it, and all rules."""

STAGED = (
    Staged(name=YARDSTICKS["udp"].name, is_echod=False),
    PLAIN,
    ACCELERATED,
    Staged(name="kernel-limited", is_accelerated=True, config=LIMITS),
)


@contextlib.contextmanager
def staged(kind: Staged, *, directory: Path, cpus: Collection[int]) -> Iterator[Server]:
    """Run a server in a network of its own, with its clients at the other ends; it is entered when all is ready."""
    name = f"{kind.name}-{secrets.token_hex(4)}"
    with _network(name):
        place = Place(directory=directory, protocol="udp", port=PORT, **_reached(name, CLIENT))
        config = directory / f"{name}.yaml"
        if kind.is_echod:
            status = directory / VOLATILE / name
            text = f"listeners: [udp://0.0.0.0:{PORT}]\nworkers: 1\nstatus: {{directory: {status}}}\n"
            config.write_text(
                f"{text}kernel: {{interfaces: [lo, {', '.join(LINKS)}]}}\n{kind.config}", encoding="utf-8"
            )
            command = [sys.executable, "-m", "echod", "run", "--config", str(config)]
        else:
            command = [str(directory / kind.name), f"0.0.0.0:{PORT}"]
        prefix = _inside(f"{name}-server")
        with running(name, [*prefix, *command], place, cpus=cpus) as process:
            started = replace(process, name=kind.name)
            if not kind.is_accelerated:
                yield started
                return
            with accelerator(started, cpus) as beside:
                yield replace(started, pids=(*started.pids, beside.pid))


def on_its_host(server: Server) -> Server:
    """Return a server as a client on its own host reaches it."""
    return replace(server, place=replace(server.place, host=HOST, client=_inside(f"{_name(server)}-server")))


def from_bystander(server: Server) -> Server:
    """Return a server as the second client reaches it, by an interface of its own."""
    return replace(server, place=replace(server.place, **_reached(_name(server), BYSTANDER)))


def _name(server: Server) -> str:
    return server.place.client[-1].rpartition("-")[0]


def _reached(name: str, client: int) -> dict[str, Any]:
    return {"host": NETWORKS[client].format(SERVER_END), "client": _inside(f"{name}-{client}")}


def _inside(namespace: str) -> tuple[str, ...]:
    return ("ip", "netns", "exec", namespace)


@contextlib.contextmanager
def _network(name: str) -> Iterator[None]:
    """Make the namespaces of a server and its clients, and the pairs between them."""
    server, *clients = names = f"{name}-server", f"{name}-{CLIENT}", f"{name}-{BYSTANDER}"
    try:
        for each in names:
            _ip("netns", "add", each)
            _ip("-n", each, "link", "set", "lo", "up")
        for client, network, link in zip(clients, NETWORKS, LINKS, strict=True):
            _ip("-n", server, "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", client)
            for each, end, own in ((server, SERVER_END, link), (client, CLIENT_END, "eth0")):
                _ip("-n", each, "link", "set", own, "address", MAC.format(end))
                _ip("-n", each, "address", "add", f"{network.format(end)}/24", "dev", own)
                _ip("-n", each, "link", "set", own, "up")
        flood = NETWORKS[CLIENT].format(FLOOD_END)
        _ip("-n", server, "neighbour", "replace", flood, "lladdr", MAC.format(CLIENT_END), "dev", LINKS[CLIENT])
        yield
    finally:
        for each in names:
            subprocess.run(["ip", "netns", "delete", each], check=False, stderr=subprocess.DEVNULL)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotMeasure(f"There can be no network of its own here (are you root?): {done.stderr.strip()}")


@contextlib.contextmanager
def accelerator(server: Server, cpus: Collection[int]) -> Iterator["subprocess.Popen[bytes]"]:
    """Run `echod accelerate` beside an echod, with its config; it is entered when it is ready."""
    config, log = _config(server), _log(server)
    command = [
        *_inside(f"{_name(server)}-server"),
        sys.executable,
        "-m",
        "echod",
        "accelerate",
        "--config",
        str(config),
    ]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "RUNTIME_DIRECTORY": str(config.with_suffix(".run"))}
    with log.open("wb") as file, on_cpus(cpus):
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
    try:
        deadline = time.monotonic() + READY_SECONDS_MAX
        while not logged(server, "ready"):
            if process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(encoding="utf-8").strip()
                raise CannotMeasure(f"echod accelerate is not ready: {said.rpartition(chr(10))[2]}")
            time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        process.wait()


def logged(server: Server, event: str) -> int:
    """Return how often the accelerator that was last started beside a server has logged an event."""
    return _log(server).read_text(encoding="utf-8").count(f'"event": "{event}"')


def _config(server: Server) -> Path:
    return server.place.directory / f"{_name(server)}.yaml"


def _log(server: Server) -> Path:
    return _config(server).with_suffix(".kernel.log")
