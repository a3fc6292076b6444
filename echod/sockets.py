"""Listening sockets, opened or adopted: the only module that binds.

Owns the socket options, which are the same for opened and adopted sockets. Never reads or writes a socket.
Invariant: every returned socket is bound, non-blocking, not inherited over exec, and set up by `set_up`.
"""

import errno
import socket
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from echod.core.errors import AddressUnavailableError, BindNotPermittedError, EchodError
from echod.core.listener import Listener, Protocol

# linux/in.h, in6.h, udp.h, asm-generic/socket.h: not all are in Python 3.11's socket module.
IP_PKTINFO: Final = 8
IP_MTU_DISCOVER: Final = 10
IPV6_MTU_DISCOVER: Final = 23
PMTUDISC_OMIT: Final = 5
"""Ignore the path MTU reported by ICMP: a forged "fragmentation needed" cannot shrink or fragment replies."""
UDP_GRO: Final = 104
SO_SNDBUFFORCE: Final = 32
SO_RCVBUFFORCE: Final = 33
SO_MEMINFO: Final = 55
SK_MEMINFO_DROPS: Final = 8

TCP_BACKLOG: Final = 1024

METRICS: Final = "metrics"
"""The name of a passed socket that is for metrics and not a listener (FileDescriptorName=)."""

# Options that a .socket unit or a parent may have set, and that add control messages which `Batch` does not expect.
_UNWANTED: Final = (
    (socket.SOL_SOCKET, 29),  # SO_TIMESTAMP
    (socket.SOL_SOCKET, 35),  # SO_TIMESTAMPNS
    (socket.SOL_SOCKET, 40),  # SO_RXQ_OVFL
)

_SERVED: Final = {
    (socket.SOCK_DGRAM, socket.IPPROTO_UDP): Protocol.UDP,
    (socket.SOCK_STREAM, socket.IPPROTO_TCP): Protocol.TCP,
}

_IN_USE: Final = "is in use by another process; `ss -lnp{protocol} 'sport = :{port}'` shows which"
_NOT_PERMITTED: Final = (
    "may not be bound by this user: grant AmbientCapabilities=CAP_NET_BIND_SERVICE in the service unit, let systemd "
    "bind it with the .socket unit, or use a port above 1023"
)
_ABSENT: Final = {
    errno.EADDRNOTAVAIL: "is no address of this host; `ip address` lists them",
    errno.ENODEV: "names an interface that this host does not have; `ip link` lists them",
}
_REASONS: Final = {
    errno.EMFILE: "needs one more file descriptor than the process may have: raise LimitNOFILE=",
}
_SWITCHED_OFF: Final = "IPv6 is switched off on this host, so take it out of the config; or "
_FORBIDDEN: Final = "RestrictAddressFamilies= of the service unit forbids it, so it belongs into the .socket unit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffers:
    """Bytes requested from the kernel for the queues of a UDP socket."""

    receive: int
    send: int


def open_socket(listener: Listener, buffers: Buffers, *, sibling: bool, bind: bool = True) -> socket.socket:
    """Make a socket for this listener and bind it, or leave that to `bind_socket`.

    A `sibling` joins the sockets that this process already has on the same port (SO_REUSEPORT). The first socket is
    bound without that option, so that it fails if any other process has the port, even an echod of the same user.

    Raises AddressUnavailableError and BindNotPermittedError, each with a solution, and nothing else.
    """
    family = _family(listener)
    kind = socket.SOCK_DGRAM if listener.protocol is Protocol.UDP else socket.SOCK_STREAM
    try:
        sock = socket.socket(family, kind)
        try:
            if family == socket.AF_INET6:
                # An IPv4 source must not reach an IPv6 socket: forged v4-mapped sources would pass every IPv6 rule.
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if kind == socket.SOCK_STREAM:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # bind despite TIME_WAIT after a restart
            if sibling:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            set_up(sock, buffers)
            if bind:
                bind_socket(sock, listener)
        except BaseException:
            sock.close()
            raise
    except OSError as error:
        raise _bind_error(listener, error) from None
    return sock


def open_probe(listener: Listener, port: int) -> socket.socket:
    """Make a socket to probe this listener, bound to the listener's own address and to a port, 0 for any.

    If the address has left this host, the bind fails and nothing is sent to another host. Raises OSError.
    """
    tcp = listener.protocol is Protocol.TCP
    sock = socket.socket(_family(listener), socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if tcp:
            # Allow connections from one port to several listeners. Not for UDP: others could then bind the port too.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(_bind_address(replace(listener, port=port, address=reachable(listener))))
    except BaseException:
        sock.close()
        raise
    return sock


def target(listener: Listener) -> tuple[str, int] | tuple[str, int, int, int]:
    """Return the address to probe a listener at, in the form of sendto(2). Raises OSError without its interface."""
    return _bind_address(replace(listener, address=reachable(listener)))


def reachable(listener: Listener) -> IPv4Address | IPv6Address:
    """Return the address itself, or loopback for all addresses of the family."""
    if not listener.address.is_unspecified:
        return listener.address
    return IPv4Address("127.0.0.1") if isinstance(listener.address, IPv4Address) else IPv6Address("::1")


def bind_socket(sock: socket.socket, listener: Listener) -> None:
    """Bind a socket, and listen if it is TCP. Raises as `open_socket` does."""
    try:
        sock.bind(_bind_address(listener))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # only now may siblings come
        if listener.protocol is Protocol.TCP:
            sock.listen(TCP_BACKLOG)
    except OSError as error:
        raise _bind_error(listener, error) from None


def adopt_socket(fd: int, buffers: Buffers) -> tuple[Listener | None, socket.socket]:
    """Take over a socket that the service manager passed; return it with its listener.

    The listener is None for ListenNetlink=route, through which a sandbox without a network reads the host's addresses.
    Raises EchodError for any other socket, with what to change in the .socket unit.
    """
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        raise EchodError(f"passed descriptor {fd} is no socket: {error.strerror}") from None
    try:
        listener = _identify(sock)
        set_up(sock, buffers)
    except BaseException:
        sock.close()
        raise
    return listener, sock


def adopt_door(fd: int) -> socket.socket:
    """Take over the socket that the service manager passed for metrics. Raises EchodError if it is unsuitable."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        raise EchodError(f"passed descriptor {fd} is no socket: {error.strerror}") from None
    stream = sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM
    if not stream or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.close()
        raise EchodError(
            f"passed socket {fd} is named {METRICS} but takes no TCP connections: its .socket unit may only have "
            "ListenStream= with an address and port, and Accept=no"
        )
    sock.setblocking(False)
    sock.set_inheritable(False)
    return sock


def set_up(sock: socket.socket, buffers: Buffers) -> None:
    """Set every option that echod relies on; idempotent."""
    sock.setblocking(False)
    sock.set_inheritable(False)
    if sock.family == socket.AF_NETLINK:
        return  # its other options do no harm
    if sock.type == socket.SOCK_STREAM:
        # Accepted sockets inherit it. An echo answers at once; Nagle's algorithm would delay the last bytes.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_OMIT)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_OMIT)
    for level, option in _UNWANTED:
        sock.setsockopt(level, option, 0)
    with suppress(OSError):  # kernels before 5.0 have no UDP_GRO; datagrams then come one by one
        sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    set_buffers(sock, buffers)


def grant(buffers: Buffers) -> Buffers:
    """Return the buffers that this process gets if it requests these: all with CAP_NET_ADMIN, else up to the sysctls.

    Raises AddressUnavailableError if no further socket can be opened.
    """
    try:
        # The limits are the same for all families; /proc/sys, which has them, may be hidden.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as scratch:
            set_buffers(scratch, buffers, shrink=True)
            return got_buffers(scratch)
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, f"cannot be had: {error.strerror}")
        raise AddressUnavailableError(f"a socket of this config {reason}") from None


def set_buffers(sock: socket.socket, buffers: Buffers, *, shrink: bool = False) -> None:
    """Request buffers that are available according to `grant`. It cannot fail.

    Without CAP_NET_ADMIN, a buffer is made smaller only with `shrink`: an inherited one, set by ReceiveBuffer= of the
    .socket unit, may be larger than this process could request.
    """
    for size, force, plain in (
        (buffers.receive, SO_RCVBUFFORCE, socket.SO_RCVBUF),
        (buffers.send, SO_SNDBUFFORCE, socket.SO_SNDBUF),
    ):
        try:
            sock.setsockopt(socket.SOL_SOCKET, force, size)
        except PermissionError:
            if shrink or sock.getsockopt(socket.SOL_SOCKET, plain) <= 2 * size:
                sock.setsockopt(socket.SOL_SOCKET, plain, size)


def got_buffers(sock: socket.socket) -> Buffers:
    """Return what the kernel granted. It doubles the requested size, for its own bookkeeping (socket(7))."""
    receive = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
    return Buffers(receive=receive, send=sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2)


def kernel_drops(sock: socket.socket) -> int:
    """Return how many datagrams the kernel dropped at this socket, most because its queue was full (SO_MEMINFO)."""
    info = sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 4 * (SK_MEMINFO_DROPS + 1))
    return int.from_bytes(info[4 * SK_MEMINFO_DROPS :], "little")


def find_absence(listener: Listener) -> str:
    """Return why this host does not have the listener's address, whoever has its port; empty if it does."""
    try:
        with socket.socket(_family(listener), socket.SOCK_DGRAM) as scratch:
            scratch.bind(_bind_address(replace(listener, port=0)))
    except OSError as error:
        return _absence(listener, error)
    return ""


def _absence(listener: Listener, error: OSError) -> str:
    """Return the reason if an error means that this host does not have the listener's address; else empty."""
    if error.errno == errno.EAFNOSUPPORT:
        off = _SWITCHED_OFF if isinstance(listener.address, IPv6Address) else ""
        return f"may not be opened: {off}{_FORBIDDEN}"
    return _ABSENT.get(error.errno or 0, "")


def _family(listener: Listener) -> socket.AddressFamily:
    return socket.AF_INET if isinstance(listener.address, IPv4Address) else socket.AF_INET6


def _bind_address(listener: Listener) -> tuple[str, int] | tuple[str, int, int, int]:
    """Return the listener in the form of bind(2). Raises OSError if there is no interface of that name."""
    if isinstance(listener.address, IPv4Address):
        return str(listener.address), listener.port
    if listener.zone.isdigit():  # the interface was hidden when the listener was named: see `_zone`
        return str(listener.address), listener.port, 0, int(listener.zone)
    try:
        scope = socket.if_nametoindex(listener.zone) if listener.zone else 0
    except OSError as error:  # Python 3.11 raises it without an errno
        raise OSError(errno.ENODEV, str(error)) from None
    return str(listener.address), listener.port, 0, scope


def _bind_error(listener: Listener, error: OSError) -> EchodError:
    """Return the error for this listener, with a solution."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return BindNotPermittedError(f"{listener} {_NOT_PERMITTED}")
    if error.errno == errno.EADDRINUSE:
        reason = _IN_USE.format(protocol=listener.protocol.value[0], port=listener.port)
        return AddressUnavailableError(f"{listener} {reason}")
    reason = _absence(listener, error) or _REASONS.get(error.errno or 0, f"cannot be bound: {error.strerror}")
    return AddressUnavailableError(f"{listener} {reason}")


def _zone(index: int) -> str:
    """Return the name of an interface, or its number if PrivateNetwork= hides the host's interfaces."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return str(index)


def _identify(sock: socket.socket) -> Listener | None:
    """Return the listener of a passed socket, None for a netlink route socket. Raises EchodError for any other."""
    if sock.family == socket.AF_NETLINK:
        if sock.proto == socket.NETLINK_ROUTE:
            return None
        raise EchodError(
            f"passed socket {sock.fileno()} is netlink but not of routes: the .socket unit may have no ListenNetlink= "
            "but ListenNetlink=route"
        )
    protocol = _SERVED.get((sock.type, sock.proto))
    if protocol is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        raise EchodError(
            f"passed socket {sock.fileno()} is neither UDP nor TCP: the .socket unit may only have "
            "ListenDatagram= and ListenStream= with an address and port, ListenNetlink=route, but no SocketProtocol="
        )
    if protocol is Protocol.TCP and not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise EchodError(f"passed socket {sock.fileno()} is a connection: the .socket unit needs Accept=no")
    host, port, *rest = sock.getsockname()
    address = ip_address(host.partition("%")[0])
    zone = _zone(rest[1]) if rest and rest[1] else ""
    listener = Listener(protocol=protocol, address=address, port=port, zone=zone)
    both = isinstance(address, IPv6Address) and (address.is_unspecified or address.ipv4_mapped is not None)
    if both and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        raise EchodError(
            f"passed socket {listener} takes IPv4 too, with forgeable sources: set BindIPv6Only=ipv6-only in the "
            ".socket unit and give IPv4 a line of its own"
        )
    return listener
