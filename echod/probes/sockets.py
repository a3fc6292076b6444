"""The sockets of probes; the only module of the probing engine that binds.

Owns every socket option. Never sends or receives. Invariant: each socket is non-blocking, receives ICMP errors, and has
receive timestamps if the kernel supports them.
"""

import errno
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from struct import Struct
from typing import Final

from echod.errors import UsageError
from echod.linux.descriptors import raise_limit
from echod.linux.sockets import Buffers, set_buffers
from echod.linux.sockopt import (
    IP_MTU_DISCOVER,
    IP_RECVERR,
    IP_RECVFRAGSIZE,
    IP_RECVTTL,
    IPV6_MTU_DISCOVER,
    IPV6_RECVERR,
    IPV6_RECVFRAGSIZE,
    SO_TIMESTAMPING,
    SO_TIMESTAMPNS,
)
from echod.net.listener import Protocol
from echod.net.networks import is_address
from echod.probes.settings import SocketSettings
from echod.probes.target import Target

_STAMPS: Final = 1 << 8 | 1 << 4 | 1 << 11
"""SOF_TIMESTAMPING_TX_SCHED, _SOFTWARE, _OPT_TSONLY (linux/net_tstamp.h): a stamp, and not the datagram with it, for
each that is handed to a device, before it waits there."""

_OTHER_DESCRIPTORS: Final = 96
"""Those that are no sockets of probes: standard streams, epoll, files, and look-ups of names."""

_MORE_DESCRIPTORS: Final = ": raise the hard limit (`ulimit -n`, as root), or write fewer TARGETs or --sources"

_AT_ONCE: Final = Struct("=ii").pack(1, 0)
"""`struct linger`: no time. The connection is reset when it is closed (socket(7))."""

_TIMESPEC: Final = Struct("=qq")

BUFFERS: Final = Buffers(receive=4 * 1024**2, send=4 * 1024**2)
"""Buffers for a window of replies while this process waits for a CPU."""

_REASONS: Final = {
    errno.EADDRNOTAVAIL: "is not an address of this host",
    errno.EINVAL: "is link-local, without an interface: write it with %INTERFACE after it",
    errno.ENODEV: "is not an interface of this host",
    errno.EPERM: "may not be chosen by this user",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Names:
    """Socket options with a number for each address family."""

    level: int
    tos: int
    ttl: int
    receive_ttl: int
    errors: int
    discovery: int
    fragments: int


_NAMES: Final = {
    socket.AF_INET: _Names(
        level=socket.IPPROTO_IP,
        tos=socket.IP_TOS,
        ttl=socket.IP_TTL,
        receive_ttl=IP_RECVTTL,
        errors=IP_RECVERR,
        discovery=IP_MTU_DISCOVER,
        fragments=IP_RECVFRAGSIZE,
    ),
    socket.AF_INET6: _Names(
        level=socket.IPPROTO_IPV6,
        tos=socket.IPV6_TCLASS,
        ttl=socket.IPV6_UNICAST_HOPS,
        receive_ttl=socket.IPV6_RECVHOPLIMIT,
        errors=IPV6_RECVERR,
        discovery=IPV6_MTU_DISCOVER,
        fragments=IPV6_RECVFRAGSIZE,
    ),
}


def reserve_descriptors(sockets: int) -> None:
    """Raise the limit of descriptors, if possible, so that there is room for so many sockets beside all others."""
    raise_limit(sockets + _OTHER_DESCRIPTORS)


def open_probe_socket(target: Target, settings: SocketSettings, index: int = 0) -> socket.socket:
    """Open a socket for a target, on a source port of its own; it is not connected.

    `index` is the index of the port among those of the session. Raises UsageError if the source is not available.
    """
    kind = socket.SOCK_DGRAM if target.protocol is Protocol.UDP else socket.SOCK_STREAM
    try:
        sock = socket.socket(target.family, kind)
    except OSError as error:
        more = _MORE_DESCRIPTORS if error.errno == errno.EMFILE else ""
        raise UsageError(f"{target}: {error.strerror}{more}") from None
    try:
        sock.setblocking(False)
        _set_up(sock, target, settings)
        _choose_source(sock, target, settings.source, settings.source_port and settings.source_port + index)
    except BaseException:
        sock.close()
        raise
    return sock


def is_broadcast(target: Target) -> bool:
    """Return whether an address is a broadcast address, which depends on the routes of this host.

    The kernel refuses to connect a socket to one without SO_BROADCAST (socket(7)), and any socket if a route prohibits
    it.
    """
    if target.family != socket.AF_INET:
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, suppress(OSError):
        try:
            sock.connect(target.address)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.connect(target.address)
            return True
    return False


def read_stamp(value: bytes) -> int:
    """Read the value of a control message of SO_TIMESTAMPNS, or SO_TIMESTAMPING by software: ns since 1970."""
    seconds, nanoseconds = _TIMESPEC.unpack_from(value)
    return int(seconds) * 10**9 + int(nanoseconds)


def stamp_sends(sock: socket.socket) -> bool:
    """Request send timestamps in the error queue; return whether the kernel supports them."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, _STAMPS)
    except OSError:
        return False
    return True


def discover(sock: socket.socket, mode: int) -> None:
    """Set how a socket discovers the path MTU: a value of `settings.DISCOVERY`."""
    names = _NAMES[socket.AddressFamily(sock.family)]
    sock.setsockopt(names.level, names.discovery, mode)


def tell_fragments(sock: socket.socket) -> None:
    """Request the size of the greatest fragment with each datagram that arrives in fragments."""
    names = _NAMES[socket.AddressFamily(sock.family)]
    with suppress(OSError):  # kernels before 4.12 do not support it
        sock.setsockopt(names.level, names.fragments, 1)


def _set_up(sock: socket.socket, target: Target, settings: SocketSettings) -> None:
    names = _NAMES[target.family]
    sock.setsockopt(names.level, names.receive_ttl, 1)
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    if settings.tos is not None:
        sock.setsockopt(names.level, names.tos, settings.tos)
    if settings.ttl is not None:
        sock.setsockopt(names.level, names.ttl, settings.ttl)
    if settings.discovery is not None:
        sock.setsockopt(names.level, names.discovery, settings.discovery)
    sock.setsockopt(names.level, names.errors, 1)
    if target.protocol is Protocol.TCP:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    else:
        set_buffers(sock, BUFFERS)


def _choose_source(sock: socket.socket, target: Target, source: str, port: int) -> None:
    """Bind to the source address or interface, and to the port; by default to any port of any address."""
    ipv6 = target.family == socket.AF_INET6
    host, link = ("::" if ipv6 else ""), 0
    try:
        if is_address(source):
            host, _, zone = source.partition("%")
            if (":" in host) is not ipv6:
                raise UsageError(f"-I {source}: is of a different IP version than {target.ip}")
            link = socket.if_nametoindex(zone) if zone else sum(target.address[3:])  # the link of the target, or none
        elif source:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, os.fsencode(source))
        elif target.address[2:] == (0, 0) and ip_address(target.ip).is_link_local:
            way = f"write {target.ip}%INTERFACE, or -I INTERFACE"
            raise UsageError(f"{target.ip}: is link-local, without an interface: {way}")
        if port and target.protocol is Protocol.TCP:
            # A connection that was closed would keep its port for a minute, and the path could not be probed again.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        if port or is_address(source) or target.protocol is Protocol.UDP:  # the port is known from now on
            sock.bind((host, port, 0, link) if ipv6 else (host, port))
    except OSError as error:
        raise _refusal(error, target, source, port) from None


def _refusal(error: OSError, target: Target, source: str, port: int) -> UsageError:
    """Return the error of a source that is not available."""
    if port and error.errno == errno.EADDRINUSE:
        who = f"`ss -a{target.protocol.value[0]}p 'sport = {port}'` shows who has it"
        return UsageError(f"--source-port {port}: another socket of this host has this port: choose another one; {who}")
    if port and error.errno == errno.EACCES:
        return UsageError(f"--source-port {port}: may not be chosen by this user: choose one from 1024 on")
    reason = _REASONS.get(error.errno or 0, f"cannot be the source: {error.strerror or error}")
    return UsageError(f"-I {source}: {reason}")
