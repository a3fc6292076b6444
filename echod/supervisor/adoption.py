"""Adoption of the sockets that the service manager, or another program, passed.

Trusts nothing in them: the kernel is asked what a socket is, and each option that echod relies on is set and read back.
Never opens, reads or writes a socket. Invariant: an adopted socket is as if echod had opened it, except for its
buffers, which may be larger; one that cannot be made so is closed and refused, with what to change in the .socket unit.
"""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from echod.errors import PassedSocketError
from echod.linux.sockets import Buffers, set_up
from echod.linux.sockopt import SO_DETACH_FILTER, Option
from echod.net.listener import Listener, Protocol

METRICS: Final = "metrics"
"""The name of a passed socket that is for metrics and not a listener (FileDescriptorName=)."""

_SERVED: Final = {
    (socket.SOCK_DGRAM, socket.IPPROTO_UDP): Protocol.UDP,
    (socket.SOCK_STREAM, socket.IPPROTO_TCP): Protocol.TCP,
}

_IFNAMSIZ: Final = 16


def adopt_socket(fd: int, buffers: Buffers) -> tuple[Listener | None, socket.socket]:
    """Take over a socket that the service manager passed; return it with its listener.

    The listener is None for ListenNetlink=route, through which a sandbox without a network reads the host's addresses.
    Raises PassedSocketError for any other socket, with what to change in the .socket unit.
    """
    with _opened(fd) as sock:
        listener = _identify(sock)
        _make_ours(f"passed socket {listener or fd}", sock, buffers)
        return listener, sock


def adopt_http_socket(fd: int, buffers: Buffers) -> socket.socket:
    """Take over the socket that was passed for metrics. Raises PassedSocketError if it is unsuitable."""
    with _opened(fd) as sock:
        if _protocol(sock) is not Protocol.TCP or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise PassedSocketError(
                f"passed socket {fd} is named {METRICS} but takes no TCP connections: its .socket unit may only "
                "have ListenStream= with an address and port, and Accept=no"
            )
        _make_ours(f"passed socket {fd}, named {METRICS},", sock, buffers)
        return sock


@contextmanager
def _opened(fd: int) -> Iterator[socket.socket]:
    """Open a passed descriptor, and close it again if it is refused."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        raise PassedSocketError(f"passed descriptor {fd} is no socket: {error.strerror}") from None
    try:
        yield sock
    except BaseException:
        sock.close()
        raise


def _protocol(sock: socket.socket) -> Protocol | None:
    """Return which of the protocols of a listener a socket has, if any."""
    inet = sock.family in (socket.AF_INET, socket.AF_INET6)
    return _SERVED.get((sock.type, sock.proto)) if inet else None


def _make_ours(what: str, sock: socket.socket, buffers: Buffers) -> None:
    """Make a socket as if echod had opened it. Raises PassedSocketError if the kernel does not allow that."""
    _refuse_kept(what, set_up(sock, buffers))
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
    except OSError as error:
        if error.errno != errno.ENOENT:  # it has none
            raise PassedSocketError(
                f"{what} came with a locked packet filter (SO_LOCK_FILTER), which may cut datagrams short: the program "
                "that opened it must leave the filter out"
            ) from None


def _refuse_kept(what: str, kept: tuple[Option, ...]) -> None:
    """Raise PassedSocketError if there are options that the kernel does not change, with what to do about the first."""
    for option in kept:
        if option.directive:
            need = f"take {option.directive} out of" if option.off else f"write {option.directive}yes into"
            remedy = f"{need} the .socket unit"
        elif option.off:
            remedy = "the program that opened it must leave the option out"
        else:
            remedy = f"the program that opened it must set {int.from_bytes(option.value, 'little')}"
        raise PassedSocketError(f"{what} came with {option.name}, which the kernel does not change for echod: {remedy}")


def _identify(sock: socket.socket) -> Listener | None:
    """Return the listener of a passed socket, None for a netlink route socket. Raises PassedSocketError for others."""
    if sock.family == socket.AF_NETLINK:
        if sock.proto == socket.NETLINK_ROUTE:
            return None
        raise PassedSocketError(
            f"passed socket {sock.fileno()} is netlink but not of routes: the .socket unit may have no ListenNetlink= "
            "but ListenNetlink=route"
        )
    protocol = _protocol(sock)
    if protocol is None:
        raise PassedSocketError(
            f"passed socket {sock.fileno()} is neither UDP nor TCP: the .socket unit may only have "
            "ListenDatagram= and ListenStream= with an address and port, ListenNetlink=route, but no SocketProtocol="
        )
    if protocol is Protocol.TCP and not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise PassedSocketError(f"passed socket {sock.fileno()} is a connection: the .socket unit needs Accept=no")
    host, port, *scope = sock.getsockname()
    zone = device_of(sock) or "".join(map(str, filter(None, scope[1:])))
    listener = Listener(protocol=protocol, address=ip_address(host.partition("%")[0]), port=port, zone=zone)
    _refuse_partial(listener, sock)
    return listener


def device_of(sock: socket.socket) -> str:
    """Return the interface that a socket is bound to, as one with a link-local address always is; empty if to none.

    Empty too if that interface was removed: the kernel binds to its number, and one that is made anew has another. The
    kernel names it also where PrivateNetwork= hides it.
    """
    try:
        name = sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, _IFNAMSIZ)
    except OSError:
        return ""
    return os.fsdecode(name.rstrip(b"\0"))


def _refuse_partial(listener: Listener, sock: socket.socket) -> None:
    """Raise PassedSocketError if a socket serves more than its listener, or less."""
    if not listener.port:
        raise PassedSocketError(f"passed socket {sock.fileno()} is not bound: who passes it must bind it to a port")
    address = listener.address
    both = isinstance(address, IPv6Address) and (address.is_unspecified or address.ipv4_mapped is not None)
    if both and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        raise PassedSocketError(
            f"passed socket {listener} takes IPv4 too, with forgeable sources: set BindIPv6Only=ipv6-only in the "
            ".socket unit and give IPv4 a line of its own"
        )
    if address.is_multicast or address == IPv4Address("255.255.255.255"):
        raise PassedSocketError(
            f"passed socket {listener} is bound to an address of no single host, from which no reply may come: write "
            "an address of this host into the .socket unit"
        )
    try:
        peer = sock.getpeername()
    except OSError:
        return
    raise PassedSocketError(
        f"passed socket {listener} is connected to {peer[0]}, and nobody else would have replies: who passes it must "
        "leave it unconnected"
    )
