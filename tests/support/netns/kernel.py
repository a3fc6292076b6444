"""The datapath in the kernel of the server's side of a wire, as its config declares it.

Owns the way from a config to a declaration, the attachment, and clients that ask. Invariant: it is attached with
exactly the two capabilities in effect, and gone with the `with` statement.
"""

import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_network
from typing import Any, Final

import yaml
from support.bpf import ETHERNET, two_capabilities
from support.daemon import Daemon, end_processes
from support.netns.datagrams import SERVER, SERVER6, SERVER_LINK
from support.netns.stage import config, totals
from support.netns.wire import LINK
from support.system.network import entered

from echod.accelerator.declaration import declare
from echod.bpf.datapath import Datapath
from echod.bpf.layout import Hook
from echod.bpf.maps import Declaration, KernelTraffic
from echod.config.parse import parse_config

OWN: Final = tuple(map(ip_network, (SERVER, SERVER6, SERVER_LINK)))


def declared(*, fresh_seconds: float = 20.0, stale_seconds: float = 40.0, **sections: Any) -> Declaration:  # noqa: ANN401
    """Return what a config with these sections declares, on the server of a wire."""
    parsed, mistakes = parse_config(yaml.safe_dump(config(**sections)).encode())
    assert not mistakes
    return replace(declare(parsed).on_host(OWN), fresh_seconds=fresh_seconds, stale_seconds=stale_seconds)


@contextmanager
def attached(namespace: str, declaration: Declaration, interfaces: dict[str, Hook] | None = None) -> Iterator[Datapath]:
    """Attach the datapath to interfaces of a namespace, by default to its end of the wire."""
    with two_capabilities():
        datapath = Datapath(declaration)
    with datapath:
        for name, hook in (interfaces or {LINK: ETHERNET}).items():
            attach(namespace, datapath, name, hook)
        yield datapath


@contextmanager
def attached_by_another(namespace: str, declaration: Declaration) -> Iterator[int]:
    """Do the same in another process, which does nothing else; give its process id, and end it."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with attached(namespace, declaration):
                os.write(write_end, b"attached")
                signal.pause()
        finally:
            os._exit(1)
    os.close(write_end)
    try:
        with os.fdopen(read_end, "rb", buffering=0) as pipe:
            assert pipe.read(8) == b"attached"
        yield child
    finally:
        end_processes([child])
        os.waitpid(child, 0)


def attach(namespace: str, datapath: Datapath, name: str, hook: Hook = ETHERNET) -> int:
    """Attach the datapath to an interface of a namespace; return its index."""
    with entered(namespace), two_capabilities():
        ifindex = socket.if_nametoindex(name)
        datapath.attach(ifindex, hook)
    return ifindex


def total(datapath: Datapath) -> KernelTraffic:
    """Return what became of the datagrams of all accounts."""
    summed = KernelTraffic()
    for each in datapath.traffic().values():
        names = {*summed.dropped, *each.dropped}
        summed = replace(
            summed,
            replied=summed.replied + each.replied,
            replied_bytes=summed.replied_bytes + each.replied_bytes,
            passed=summed.passed + each.passed,
            slipped=summed.slipped + each.slipped,
            dropped={name: summed.dropped.get(name, 0) + each.dropped.get(name, 0) for name in names},
        )
    return summed


class Counted:
    """What the sockets of a daemon have counted since then."""

    def __init__(self, daemon: Daemon) -> None:
        """Begin."""
        self._daemon, self._before = daemon, totals(daemon)

    def __getitem__(self, name: str) -> int:
        """Return a counter."""
        return totals(self._daemon)[name] - self._before[name]


def ask(sock: socket.socket, number: int) -> None:
    """Ask so often, and have each answer."""
    for each in range(number):
        payload = b"question %02d" % each
        sock.send(payload)
        assert sock.recv(65_536) == payload


def is_answered(sock: socket.socket, payload: bytes = b"are you there?") -> bool:
    """Tell whether an answer comes; one that does not come within a tenth of a second is taken for none."""
    sock.send(payload)
    return bool(select.select([sock], [], [], 0.1)[0]) and sock.recv(65_536) == payload
