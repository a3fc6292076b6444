"""Whether this host's kernel can do what a valid config asks: the warnings of `echod check` beyond the file itself.

Owns the reading of /proc/sys, and the checks whether this host has an address, and whether one is broadcast. It changes
nothing, and the daemon does not depend on it: the daemon checks what it gets. Invariant: there is no warning about
what could not be determined, but for what `host_kernel` says of it.
"""

import errno
import pwd
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final, TypeAlias

from echod.cli.host_kernel import find_unfit
from echod.config.access import is_public
from echod.config.document import Document, mistake_at, read
from echod.config.document import Path as KeyPath
from echod.config.lint import listener_ranges, places
from echod.config.schema import Config
from echod.errors import Mistake
from echod.linux.privileges import AUTO
from echod.linux.sockets import find_absence
from echod.net.listener import Protocol

_Finding: TypeAlias = tuple[KeyPath, str]  # the key concerned, and the text of the warning

_EARLY: Final = "echod binds it anyway, and serves it as soon as this host has it"

_ANY_PORT: Final = 7  # the route to a host does not depend on it

_SYSCTLS: Final = Path("/proc/sys")

_LONG_QUEUE: Final = 4096
"""Bytes that may wait for a neighbour's address: little for each absent one, beside megabytes of send buffer."""


def warnings(config: Config, text: bytes) -> tuple[Mistake, ...]:
    """Return the warnings for a config on this host; `text` is what it was parsed from. Reads /proc/sys each time."""
    document = read(text)
    findings = (
        *_find_absent(config, document),
        *_find_user(config),
        *_find_ephemeral(document),
        *_find_capped(config),
        *_find_neighbour_queues(config),
        *find_unfit(config),
    )
    return tuple(mistake_at(document.places[path].key_spot, path, message) for path, message in findings)


def is_broadcast(address: IPv4Address | IPv6Address) -> bool:
    """Tell whether it is a broadcast address of this host's networks: as a source the kernel drops it (martian).

    Nothing is sent. Such a peer is refused without SO_BROADCAST (__ip4_datagram_connect), as is one that a route
    prohibits; with it, only the latter.
    """
    refused = address.version == 4 and _connect(address, broadcast=False) == errno.EACCES  # noqa: PLR2004
    return refused and _connect(address, broadcast=True) == 0


def _connect(address: IPv4Address | IPv6Address, *, broadcast: bool) -> int:
    """Give a UDP socket of IPv4 this peer; return the errno, or 0."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, broadcast)
        return sock.connect_ex((str(address), _ANY_PORT))


def _find_absent(config: Config, document: Document) -> Iterator[_Finding]:
    """Find what could not be bound here; the file may be meant for another host."""
    wanted = {path: listeners.first for path, listeners in listener_ranges(document).items()}
    wanted |= {path: endpoint.listener for path, endpoint in places(config.metrics.listen, document).items()}
    for path, listener in wanted.items():
        if reason := find_absence(listener):
            start = "echod would not start here" if find_absence(listener, early=True) else _EARLY
            yield path, f"{reason}: {start}"


def _find_ephemeral(document: Document) -> Iterator[_Finding]:
    """Find the UDP listeners on ports that clients are given as source ports (ip_local_port_range, ip(7)).

    A datagram from the port of a listener is dropped: its sender may be another echod with the same config.
    The range is this host's; those of its clients are most likely the same.
    """
    low, high = _numbers(_SYSCTLS / "net/ipv4/ip_local_port_range") or (0, -1)
    for path, listeners in listener_ranges(document).items():
        first, last = max(low, listeners.first.port), min(high, listeners.last_port)
        if listeners.first.protocol is Protocol.UDP and first <= last:
            share = 100 * (last - first + 1) / (high - low + 1)
            ports = f"port {first} is" if first == last else f"ports {first} to {last} are"
            message = (
                f"{ports} in the range from which hosts choose the source ports of clients "
                f"(net.ipv4.ip_local_port_range, {low} to {high}), and datagrams from a port of echod are refused, "
                f"because another echod may be there: {share:.2g}% of the clients' ports get no reply; write ports "
                f"below {low}"
            )
            yield path, message


def _find_user(config: Config) -> Iterator[_Finding]:
    """Find a user that this host does not have, or that is root."""
    if config.user == AUTO:
        return
    try:
        entry = pwd.getpwnam(config.user)
    except KeyError:
        yield ("user",), f"this host has no user {config.user}: echod would not start here"
        return
    if entry.pw_uid == 0:
        yield ("user",), "an attacker in a worker could write what root may write: write another user, or auto"


def _find_capped(config: Config) -> Iterator[_Finding]:
    """Find the buffers that the kernel grants only in part (socket(7)), except those of the default size."""
    default = Config().udp
    for key, wanted, usual, sysctl, directive in (
        ("receive_buffer", config.udp.receive_buffer, default.receive_buffer, "rmem_max", "ReceiveBuffer="),
        ("send_buffer", config.udp.send_buffer, default.send_buffer, "wmem_max", "SendBuffer="),
    ):
        cap = _number(_SYSCTLS / "net/core" / sysctl)
        if wanted != usual and cap is not None and wanted > cap:
            message = (
                f"the kernel caps it at {cap:,} bytes, unless echod has CAP_NET_ADMIN or the .socket unit sets "
                f"{directive}: set sysctl net.core.{sysctl}={wanted}"
            )
            yield ("udp", key), message


def _find_neighbour_queues(config: Config) -> Iterator[_Finding]:
    """Find the queues in which replies to absent hosts can occupy the send buffer, for seconds each.

    A sender that forges its source can choose absent hosts in the networks of this host (neigh/default/unres_qlen_bytes
    in ip-sysctl.rst of the kernel).
    """
    public = [index for index, entry in enumerate(config.access.allow) if is_public(entry)]
    long = [name for name, size in _neighbour_queues() if size > _LONG_QUEUE]
    if public and long:
        others = f", and {len(long) - 1} more likewise" if len(long) > 1 else ""
        message = (
            "replies to forged sources that do not exist in the networks of this host wait for address resolution and "
            f"can fill the send buffer, so that nobody gets replies: set sysctl {long[0]}={_LONG_QUEUE}{others}"
        )
        yield ("access", "allow", public[0]), message


def _neighbour_queues() -> Iterator[tuple[str, int]]:
    """Yield the name and the value, in bytes, of the sysctl of each neighbour queue, except those of loopback."""
    for family in ("ipv4", "ipv6"):
        for path in sorted(_SYSCTLS.glob(f"net/{family}/neigh/*/unres_qlen_bytes")):
            size = _number(path)
            if size is not None and path.parent.name != "lo":
                # sysctl(8) writes a dot in the name of an interface as a slash.
                yield f"net.{family}.neigh.{path.parent.name.replace('.', '/')}.unres_qlen_bytes", size


def _number(path: Path) -> int | None:
    """Read a sysctl; None if it is hidden, as in a namespace or a container."""
    return next(iter(_numbers(path)), None)


def _numbers(path: Path) -> list[int]:
    """Read a sysctl of one number or several; none if it is hidden."""
    try:
        return [int(word) for word in path.read_text(encoding="ascii").split()]
    except OSError:
        return []
