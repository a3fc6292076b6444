"""Network namespaces, and the wire between a host and its clients: two of them that a veth pair joins.

Owns the addresses of both ends. The namespaces outlive a boot, so the host's end stands, with its
addresses, before its systemd starts, and stays over a reboot. Every wire has the same addresses, since no two
wires meet.
"""

import ctypes
import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.loopback import ip

NAMESPACES = Path("/run/netns")  # where ip-netns(8) keeps the names

# Private networks (RFC 1918 and RFC 4193): a config that says nothing of access answers those.
HOST_ADDRESS, CLIENT_ADDRESS = "10.77.0.1", "10.77.0.2"
HOST_ADDRESS6, CLIENT_ADDRESS6 = "fd00:77::1", "fd00:77::2"

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_libc = ctypes.CDLL(None, use_errno=True)  # os.setns came with Python 3.12


@contextmanager
def namespaces(*parts: str, name: str = "") -> Iterator[list[str]]:
    """Make a network namespace for each part of a name, which nobody has, with loopback up; remove them at the end."""
    name = name or f"echod-{secrets.token_hex(4)}"
    names = [f"{name}-{part}" for part in parts]
    try:
        for each in names:
            ip("netns", "add", each)
            ip("-n", each, "link", "set", "lo", "up")
        yield names
    finally:
        for each in names:
            remove_namespace(each)


@contextmanager
def wire(name: str) -> Iterator[list[str]]:
    """Make the namespaces of a host and its client, and the pair, addressed and up, usable at once.

    Each end of the wire is called eth0 in its namespace.
    """
    with namespaces("h", "c", name=name) as (host, client):
        for each in (host, client):
            # Link-local addresses too are to be usable at once, not after a second of duplicate detection.
            set_kernel(each, "ipv6/conf/default/accept_dad", 0)
        ip("-n", host, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", client)
        for each, address, address6 in (
            (host, HOST_ADDRESS, HOST_ADDRESS6),
            (client, CLIENT_ADDRESS, CLIENT_ADDRESS6),
        ):
            ip("-n", each, "address", "add", f"{address}/24", "dev", "eth0")
            ip("-n", each, "address", "add", f"{address6}/64", "dev", "eth0", "nodad")
            ip("-n", each, "link", "set", "eth0", "up")
        yield [host, client]


def set_kernel(name: str, setting: str, value: int) -> None:
    """Write a setting of a namespace, named by its path below /proc/sys/net."""
    with entered(name):
        Path("/proc/sys/net", setting).write_text(f"{value}")


def remove_namespace(name: str) -> None:
    """Remove a network namespace's name, if it has one."""
    if (NAMESPACES / name).exists():
        # Not checked: another run may sweep the same leftover at the same moment.
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@contextmanager
def entered(name: str) -> Iterator[None]:
    """Move the calling thread into the network namespace `name`, and back.

    Sockets belong for ever to the namespace that they are made in; processes and threads started inside inherit it.
    """
    with Path("/proc/thread-self/ns/net").open("rb") as home, (NAMESPACES / name).open("rb") as there:
        _setns(there.fileno())
        try:
            yield
        finally:
            _setns(home.fileno())


def _setns(descriptor: int) -> None:
    """Put the calling thread in the network namespace behind `descriptor`; setns(2)."""
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"setns: {os.strerror(error)}")
