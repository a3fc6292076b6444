"""The sockets of probes; the only module of the probing engine that binds.

Owns every socket option, the reading of the clocks, and that of the kernel's timestamps. Never sends or receives.
Invariant: each socket is non-blocking, receives ICMP errors, and has receive timestamps if the kernel supports them.
"""

import errno
import os
import socket
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from struct import Struct
from time import monotonic_ns, time_ns
from typing import Final

from echod.errors import UsageError
from echod.linux.descriptors import raise_limit
from echod.linux.sockets import Buffers, set_buffers
from echod.linux.sockopt import (
    IP_MTU_DISCOVER,
    IP_RECVERR,
    IP_RECVTOS,
    IP_RECVTTL,
    IPV6_MTU_DISCOVER,
    IPV6_RECVERR,
    SO_TIMESTAMPING,
    SO_TIMESTAMPNS,
)
from echod.measurement.events import Moment
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


_TOS: Final = (socket.IP_TOS, socket.IPV6_TCLASS)
_TTL: Final = (socket.IP_TTL, socket.IPV6_UNICAST_HOPS)
_ERRORS: Final = (IP_RECVERR, IPV6_RECVERR)
_DISCOVERY: Final = (IP_MTU_DISCOVER, IPV6_MTU_DISCOVER)
RECEIVE_TTL: Final = (IP_RECVTTL, socket.IPV6_RECVHOPLIMIT)
RECEIVE_TOS: Final = (IP_RECVTOS, socket.IPV6_RECVTCLASS)
"""By IPv4 and IPv6: options of `set_option`."""


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


def source_address(target: Target, settings: SocketSettings) -> str:
    """Return the address that probes to a target leave from; empty if there is no route to it."""
    with open_probe_socket(target, replace(settings, source_port=0)) as sock, suppress(OSError):
        sock.connect(target.address)
        return str(sock.getsockname()[0]).partition("%")[0]
    return ""


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


def read_clocks() -> Moment:
    """Return the time. The monotonic clock is read first: no event after that is before it by that clock."""
    clock = monotonic_ns()
    return Moment(wall=time_ns(), clock=clock)


def read_stamp(value: bytes) -> int:
    """Read the value of a control message of SO_TIMESTAMPNS, or SO_TIMESTAMPING by software: ns since 1970."""
    seconds, nanoseconds = _TIMESPEC.unpack_from(value)
    return int(seconds) * 10**9 + int(nanoseconds)


def read_control(control: list[tuple[int, int, bytes]]) -> tuple[int | None, int | None, int | None]:
    """Return the kernel's stamp of what was received, in ns since 1970, its time to live, and its DSCP."""
    stamp = ttl = dscp = None
    for level, kind, value in control:
        if level == socket.SOL_SOCKET:
            if kind == SO_TIMESTAMPNS:
                stamp = read_stamp(value)
        elif kind in (socket.IP_TTL, socket.IPV6_HOPLIMIT):
            ttl = int.from_bytes(value[:4], "little")
        elif kind in _TOS:
            dscp = value[0] >> 2  # IPv4 has a byte there, IPv6 an int, of which this is the lowest byte
    return stamp, ttl, dscp


def stamp_sends(sock: socket.socket) -> bool:
    """Request send timestamps in the error queue; return whether the kernel supports them."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, _STAMPS)
    except OSError:
        return False
    return True


def set_option(sock: socket.socket, numbers: tuple[int, int], value: int | None) -> None:
    """Set an option of IP by its numbers for IPv4 and IPv6; None leaves the default of the kernel."""
    if value is not None:
        ipv6 = sock.family == socket.AF_INET6
        sock.setsockopt(socket.IPPROTO_IPV6 if ipv6 else socket.IPPROTO_IP, numbers[ipv6], value)


def _set_up(sock: socket.socket, target: Target, settings: SocketSettings) -> None:
    set_option(sock, RECEIVE_TTL, 1)
    set_option(sock, RECEIVE_TOS, 1)
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    set_option(sock, _TOS, settings.tos)
    set_option(sock, _TTL, settings.ttl)
    set_option(sock, _DISCOVERY, settings.discovery)
    set_option(sock, _ERRORS, 1)
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
