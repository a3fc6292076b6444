"""Listening sockets: the only module that binds.

Sets the options, which are the same for opened and adopted sockets (`adoption`). Never reads or writes a socket.
Invariant: every opened socket is non-blocking, not inherited over exec, and set up by `set_up`.
"""

import errno
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from echod.errors import AddressUnavailableError, EchodError, FamilyUnavailableError, NotPermittedError
from echod.linux import sockopt
from echod.linux.sockopt import Option, options
from echod.net.listener import Listener, Protocol

TCP_BACKLOG: Final = 1024

_IN_USE: Final = "is in use by another process; `ss -lnp{protocol} 'sport = :{port}'` shows which"
_NOT_PERMITTED: Final = (
    "may not be bound by this user: grant AmbientCapabilities=CAP_NET_BIND_SERVICE in the service unit, let systemd "
    "bind it with the .socket unit, or use a port above 1023"
)
_NEEDS_RAW: Final = "may not be bound to its interface by this user: before Linux 5.7 that takes CAP_NET_RAW"
_ABSENT: Final = {
    errno.EADDRNOTAVAIL: "is no address of this host; `ip address` lists them",
    errno.ENODEV: "names an interface that this host does not have; `ip link` lists them",
}
_REASONS: Final = {errno.EMFILE: "needs one more file descriptor than the process may have: raise LimitNOFILE="}
_UNKNOWN_OPTION: Final = (errno.ENOPROTOOPT, errno.EOPNOTSUPP)

_SWITCHED_OFF: Final = "IPv6 is switched off on this host, so take it out of the config; or "
_FORBIDDEN: Final = "RestrictAddressFamilies= of the service unit forbids it, so it belongs into the .socket unit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffers:
    """Bytes requested from the kernel for the queues of a UDP socket."""

    receive: int
    send: int


LARGE_BUFFERS: Final = Buffers(receive=1024 * 1024, send=512 * 1024)
"""Bytes that the kernel may keep for a TCP connection, each way; it takes up to twice as much memory for them.

Left to itself it keeps up to net.ipv4.tcp_wmem, 4 MiB, and tcp_rmem, 6 MiB or more, for a peer that sends and does not
read. Messages of 1 MiB cost the same with these sizes; with half of either they cost 2% to 6% more."""


def open_socket(listener: Listener, buffers: Buffers, *, sibling: bool, bind: bool = True) -> socket.socket:
    """Make a socket for this listener and bind it, or leave that to `bind_socket`.

    A `sibling` joins the sockets that this process already has on the same port (SO_REUSEPORT). The first socket is
    bound without that option, so that it fails if any other process has the port, even an echod of the same user.

    Raises AddressUnavailableError and NotPermittedError, each with a solution, and nothing else.
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
            _require_none(listener, set_up(sock, buffers))
            if bind:
                bind_socket(sock, listener)
        except BaseException:
            sock.close()
            raise
    except OSError as error:
        raise _bind_error(listener, error) from None
    return sock


def open_probe(listener: Listener, port: int, beside: Sequence[socket.socket] = ()) -> socket.socket:
    """Make a socket to probe this listener, bound to its own address and interface and to a port, 0 for any.

    `beside` are UDP probes on the same address and port, of other interfaces or none. If the address has left this
    host, the bind fails and nothing is sent to another host. Raises OSError.
    """
    tcp = listener.protocol is Protocol.TCP
    sock = socket.socket(_family(listener), socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if tcp:
            # Allow connections from one port to several listeners. Not for UDP: others could then bind the port too.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _bind_to_device(sock, listener)
        sharing = (*beside, sock) if beside else ()
        try:
            for each in sharing:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(bind_address(replace(listener, port=port)))
        finally:
            # The kernel delivers to the one whose interface fits best, and now nobody else may join.
            for each in sharing:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
    except BaseException:
        sock.close()
        raise
    return sock


def bind_socket(sock: socket.socket, listener: Listener) -> None:
    """Bind a socket, and listen if it is TCP. Raises as `open_socket` does."""
    try:
        _bind(sock, listener)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # only now may siblings come
        if listener.protocol is Protocol.TCP:
            sock.listen(TCP_BACKLOG)
    except OSError as error:
        raise _bind_error(listener, error) from None


def _bind(sock: socket.socket, listener: Listener, *, early: bool = True) -> None:
    """Bind a socket, if `early` also to an address that this host does not have yet: it serves once it has it.

    Raises OSError.
    """
    where, early = bind_address(listener), early and not listener.address.is_unspecified
    _bind_to_device(sock, listener)
    if early:
        _set_freebind(sock, 1)
    sock.bind(where)
    if early:
        _set_freebind(sock, 0)  # it would let replies leave from addresses that are not this host's


def _bind_to_device(sock: socket.socket, listener: Listener) -> None:
    """Bind a socket to the interface or VRF of the listener, if it has one. Raises OSError."""
    if listener.zone and not listener.link_local:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, os.fsencode(listener.zone) + b"\0")


def _set_freebind(sock: socket.socket, value: int) -> None:
    """Switch IP_FREEBIND (ip(7)); it needs no privilege. Kernels before 4.15 have none for IPv6."""
    with suppress(OSError):
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, sockopt.IPV6_FREEBIND, value)
        else:
            sock.setsockopt(socket.IPPROTO_IP, sockopt.IP_FREEBIND, value)


def set_up(sock: socket.socket, buffers: Buffers) -> tuple[Option, ...]:
    """Set every option that echod relies on, and read it back; idempotent.

    Return the options that the kernel leaves as they are, although they have to be different.
    """
    sock.setblocking(False)
    sock.set_inheritable(False)
    if sock.family == socket.AF_NETLINK:
        return ()  # its other options do no harm
    protocol = Protocol.TCP if sock.type == socket.SOCK_STREAM else Protocol.UDP
    kept = tuple(
        each for each in options(protocol, ipv6=sock.family == socket.AF_INET6) if not ensure_option(sock, each)
    )
    if protocol is Protocol.UDP:
        set_buffers(sock, buffers)
    else:
        bound_connections(sock)
    return kept


def _require_none(listener: Listener, kept: tuple[Option, ...]) -> None:
    """Raise AddressUnavailableError if there are options that could not be set."""
    if kept:
        names = ", ".join(option.name for option in kept)
        raise AddressUnavailableError(f"{listener} cannot be served: this kernel does not set {names}")


def ensure_option(sock: socket.socket, option: Option) -> bool:
    """Make a socket option what it has to be; tell whether it is."""
    level, number = option.level, option.number
    try:
        # Only what is not so is set: some may not be set at all without a privilege, even to what they are.
        if sock.getsockopt(level, number, 4) != option.value:
            sock.setsockopt(level, number, option.value if option.written is None else option.written)
        return sock.getsockopt(level, number, 4) == option.value
    except OSError as error:
        return error.errno in _UNKNOWN_OPTION and (option.off or option.optional)


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
        (buffers.receive, sockopt.SO_RCVBUFFORCE, socket.SO_RCVBUF),
        (buffers.send, sockopt.SO_SNDBUFFORCE, socket.SO_SNDBUF),
    ):
        try:
            sock.setsockopt(socket.SOL_SOCKET, force, size)
        except PermissionError:
            if shrink or sock.getsockopt(socket.SOL_SOCKET, plain) <= 2 * size:
                sock.setsockopt(socket.SOL_SOCKET, plain, size)


def bound_connections(sock: socket.socket, buffers: Buffers = LARGE_BUFFERS) -> None:
    """Bound what each connection of a listening TCP socket may pin of the kernel's memory. Connections inherit it.

    Without CAP_NET_ADMIN, where net.core.rmem_max or wmem_max allows less, the kernel chooses the sizes, up to
    net.ipv4.tcp_rmem and tcp_wmem, as a stream needs them: fixed at that limit they would make streams slow.
    """
    set_buffers(sock, buffers, shrink=True)
    got = got_buffers(sock)
    if got.receive < buffers.receive or got.send < buffers.send:
        with suppress(OSError):  # kernels before 5.14 have no SO_BUF_LOCK
            sock.setsockopt(socket.SOL_SOCKET, sockopt.SO_BUF_LOCK, 0)


def got_buffers(sock: socket.socket) -> Buffers:
    """Return what the kernel granted. It doubles the requested size, for its own bookkeeping (socket(7))."""
    receive = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
    return Buffers(receive=receive, send=sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2)


def kernel_drops(sock: socket.socket) -> int:
    """Return how many datagrams the kernel dropped at this socket, most because its queue was full (SO_MEMINFO).

    Modulo 2**32: see `unwrapped`.
    """
    info = sock.getsockopt(socket.SOL_SOCKET, sockopt.SO_MEMINFO, 4 * (sockopt.SK_MEMINFO_DROPS + 1))
    return int.from_bytes(info[4 * sockopt.SK_MEMINFO_DROPS :], "little")


def find_absence(listener: Listener, *, early: bool = False) -> str:
    """Return why this host does not have the listener's address, whoever has its port; empty if it does.

    With `early`, why it cannot be bound even before this host has it.
    """
    try:
        with socket.socket(_family(listener), socket.SOCK_DGRAM) as scratch:
            _bind(scratch, replace(listener, port=0), early=early)
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


def bind_address(listener: Listener) -> tuple[str, int] | tuple[str, int, int, int]:
    """Return the listener in the form of bind(2). Raises OSError if there is no interface of that name."""
    if isinstance(listener.address, IPv4Address):
        return str(listener.address), listener.port
    if not listener.link_local:
        return str(listener.address), listener.port, 0, 0
    if listener.zone.isdigit():  # the interface was gone when the listener was named: see `adoption`
        return str(listener.address), listener.port, 0, int(listener.zone)
    try:
        scope = socket.if_nametoindex(listener.zone)
    except OSError as error:  # Python 3.11 raises it without an errno
        raise OSError(errno.ENODEV, str(error)) from None
    return str(listener.address), listener.port, 0, scope


def _bind_error(listener: Listener, error: OSError) -> EchodError:
    """Return the error for this listener, with a solution."""
    if error.errno == errno.EPERM and listener.zone and not listener.link_local:
        return NotPermittedError(f"{listener} {_NEEDS_RAW}")
    if error.errno in (errno.EACCES, errno.EPERM):
        return NotPermittedError(f"{listener} {_NOT_PERMITTED}")
    if error.errno == errno.EADDRINUSE:
        reason = _IN_USE.format(protocol=listener.protocol.value[0], port=listener.port)
        return AddressUnavailableError(f"{listener} {reason}")
    if error.errno == errno.EAFNOSUPPORT:
        return FamilyUnavailableError(f"{listener} {_absence(listener, error)}")
    reason = _absence(listener, error) or _REASONS.get(error.errno or 0, f"cannot be bound: {error.strerror}")
    return AddressUnavailableError(f"{listener} {reason}")
