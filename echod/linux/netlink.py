"""The addresses of this host, from the kernel's table of local routes (rtnetlink(7)).

Owns one netlink socket, opened here or passed, its membership in the groups that tell of changes, and the last dump
read from it. Never waits, never changes a route, and takes no input from peers. A notification only says that it is
time to read: many at once cost one read, and one that was lost (ENOBUFS) counts as one that came. Invariant: what
`read` returns comes from complete dumps of both families; a dump that was truncated or interrupted by a change is
discarded, and the previous result remains.
"""

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from echod.linux.sockopt import SO_NETNS_COOKIE
from echod.net.networks import Network

MAX_OWN: Final = 16_384
"""Most networks returned. Each worker holds them all, so a host with more must not fill its memory."""

OTHER_NAMESPACE: Final = (
    "the addresses of this host are not known, so datagrams that forge them are not recognised: echod is in another "
    "network namespace than its sockets; add ListenNetlink=route to the .socket unit"
)
"""The message for the operator if `belongs_to` returns False."""

_UNKNOWN: Final = "the addresses of this host are not known, so datagrams that forge them are not recognised"
_FORBIDDEN: Final = (
    f"{_UNKNOWN}: add ListenNetlink=route to the .socket unit that has the ports or, where there is none, AF_NETLINK "
    "to RestrictAddressFamilies= of the service unit"
)

# linux/netlink.h, rtnetlink.h: none is in Python 3.11's socket module.
SOL_NETLINK: Final = 270
NETLINK_ADD_MEMBERSHIP, _NETLINK_DROP_MEMBERSHIP = 1, 2
_NETLINK_GET_STRICT_CHK: Final = 12
NLM_F_REQUEST, _NLM_F_MULTI, _NLM_F_DUMP_INTR, NLM_F_DUMP = 0x1, 0x2, 0x10, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26
_RT_TABLE_LOCAL: Final = 255
_RTN_UNSPEC, _RTN_LOCAL, _RTN_ANYCAST = 0, 2, 4
_RTA_DST: Final = 1

HEADER: Final = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ROUTE: Final = struct.Struct("=BBBBBBBBI")  # rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags
ATTRIBUTE: Final = struct.Struct("=HH")  # rtattr: length, type

_REQUESTED: Final = {socket.AF_INET: _RTN_LOCAL, socket.AF_INET6: _RTN_UNSPEC}
"""The type of routes to request, by family. In IPv6 a router has an anycast address in each subnet (RFC 4291 2.6.1),
which is also delivered to its own sockets; one dump of all types is cheaper than one for each."""

_OWN: Final = (_RTN_LOCAL, _RTN_ANYCAST)

_GROUPS: Final = (1, 5, 7, 9, 11)
"""RTNLGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR and _IPV6_ROUTE. Links too: with an interface, the kernel
removes its IPv4 routes without telling the group of routes."""

_NO_TABLE: Final = (errno.ENOENT, errno.EOPNOTSUPP, errno.EAFNOSUPPORT)
"""The kernel's errors for a family without local routes: it never had an address, or does not exist."""

BUFFER_BYTES: Final = 65_536  # the kernel fills 32 KiB at most (netlink_recvmsg)

MAX_READS: Final = 2048
"""Most reads for one dump: 500,000 routes. A read must end, whatever the socket holds."""

_MAX_DUMPS: Final = 4
"""Most dumps until a changed one is confirmed by an equal one. If IPv6 routes change during a dump of several parts,
the kernel resumes by counting and silently skips others (fib6_dump_table): seen with 300 addresses."""

_MAX_FAILURES: Final = 8
"""Consecutive reads that may fail before that is a problem: a change during a dump spoils only that one."""

_UNSTABLE: Final = "the table of local routes changes too often to be read"


class LocalAddresses:
    """This host's own addresses, and the prefixes that `ip route add local` makes local."""

    def __init__(self, passed: socket.socket | None = None) -> None:
        """Use the netlink socket that the service manager passed, or open one. Never raises: it sets `problem`."""
        self.problem = ""
        """Why own addresses are not known, or not all of them: a sentence for the operator, or empty."""
        self.failures = 0
        """Consecutive reads that failed, until now."""
        self._too_many = ""
        self._changed = False
        self._known: tuple[Network, ...] | None = None
        self._dumps: dict[int, list[bytes]] = {}
        self._sock = passed
        try:
            if self._sock is None:
                self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            self._sock.setblocking(False)
            for group in _GROUPS:  # any user may (NL_CFG_F_NONROOT_RECV)
                self._sock.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
        except OSError as error:
            forbidden = error.errno in (errno.EAFNOSUPPORT, errno.EPERM, errno.EACCES)
            self.problem = _FORBIDDEN if forbidden else f"{_UNKNOWN}: {error.strerror}"
            self._sock = None
            return
        with suppress(OSError):  # kernels before 4.20 do not filter; `_networks` does so in any case
            self._sock.setsockopt(SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)

    def fileno(self) -> int:
        """Return the descriptor that is ready to be read when there are notifications; -1 without a socket."""
        return self._sock.fileno() if self._sock is not None else -1

    @property
    def is_due(self) -> bool:
        """Tell whether another read is due, without another notification: the last one failed, or came amid changes."""
        return self.failures > 0 or self._changed

    def receive(self) -> bool:
        """Receive the notifications that are queued; tell whether one of them is a reason to read."""
        if self._sock is not None:
            self._drain(self._sock)
        return self._changed

    def unsubscribe(self) -> None:
        """Get no more notifications, and empty the queue: a change would start a stopped echod by its passed socket."""
        if self._sock is not None:
            for group in _GROUPS:
                with suppress(OSError):
                    self._sock.setsockopt(SOL_NETLINK, _NETLINK_DROP_MEMBERSHIP, group)
            self._drain(self._sock)

    def read(self) -> tuple[Network, ...] | None:
        """Return this host's own networks, sorted, single addresses as /32 and /128; None if they are unchanged.

        Also None if they cannot be read now; `problem` is set if that persists. Call it again later while `is_due`.
        """
        if self._sock is None:
            return None
        try:
            self._drain(self._sock)
            dumps = self._stable_dumps(self._sock)
        except OSError as error:
            self.failures += 1
            if self.failures >= _MAX_FAILURES:
                self.problem = f"{_UNKNOWN}: {error.strerror}"
            return None
        self.failures = 0
        own = self._known if dumps == self._dumps else self._parse(dumps)
        self.problem = self._too_many
        if own == self._known:
            return None
        self._known = own
        return own

    def belongs_to(self, sock: socket.socket) -> bool:
        """Tell whether a socket is in the network namespace of our netlink socket. True without a netlink socket."""
        return self._sock is None or in_one_network((sock, self._sock))

    def _drain(self, sock: socket.socket) -> None:
        """Discard what is queued, and note whether something may have changed.

        That is notifications, and the rest of a read that was interrupted, here or in a process that had the socket
        before.
        """
        for _ in range(MAX_READS):
            try:
                part, _, flags, _ = sock.recvmsg(BUFFER_BYTES)
            except BlockingIOError:
                return
            except OSError:  # such as ENOBUFS: there were more notifications than the queue holds
                self._changed = True
                continue
            self._check(part, flags)

    def _check(self, part: bytes, flags: int) -> None:
        """Note whether a message tells of a change of own addresses."""
        if flags & socket.MSG_TRUNC or _is_change(part):
            self._changed = True

    def _stable_dumps(self, sock: socket.socket) -> dict[int, list[bytes]]:
        """Return the dumps of both families: unchanged, or confirmed by two equal ones in a row. Raises OSError."""
        last: dict[int, list[bytes]] = self._dumps
        for _ in range(_MAX_DUMPS):
            self._changed = False
            dumps: dict[int, list[bytes]] = {family: self._dump(sock, family) for family in _REQUESTED}
            if _joined(dumps) == _joined(last):
                return dumps
            last = dumps
        raise OSError(errno.EAGAIN, _UNSTABLE)

    def _dump(self, sock: socket.socket, family: int) -> list[bytes]:
        """Return the local routes of a family as the kernel wrote them. Raises OSError if the dump is incomplete.

        The kernel writes each part while the previous one is read, so a part is always ready until the last.
        """
        before = self._dumps.get(family, [])
        sock.send(_request(family))
        parts: list[bytes] = []
        for _ in range(MAX_READS):
            try:
                part, _, flags, (sender, groups) = sock.recvmsg(BUFFER_BYTES)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._changed = True  # notifications were lost; the kernel waits with the dump for room
                continue
            if sender != 0:  # another process than the kernel
                continue
            if groups:
                self._check(part, flags)
                continue
            if flags & socket.MSG_TRUNC:
                raise OSError(errno.EMSGSIZE, "the kernel's answer is larger than can be read")
            number = len(parts)
            # If nothing has changed, a read costs no more than a comparison of bytes.
            seen = number < len(before) and part == before[number]
            parts.append(part)
            if number == len(before) - 1 if seen else _ends(part, family):
                return parts
        raise OSError(errno.E2BIG, "the kernel's table of local routes is larger than can be read")

    def _parse(self, dumps: dict[int, list[bytes]]) -> tuple[Network, ...]:
        """Return the networks of these dumps, and remember both."""
        found = {network for family, parts in dumps.items() for part in parts for network in _networks(part, family)}
        self._dumps = dumps
        own = sorted(found, key=lambda network: (network.version, int(network.network_address), network.prefixlen))
        self._too_many = (
            f"this host has {len(own):,} local addresses and networks, of which echod knows the first {MAX_OWN:,}: "
            "datagrams that forge the others are not recognised"
            if len(own) > MAX_OWN
            else ""
        )
        return tuple(own[:MAX_OWN])


def _request(family: int) -> bytes:
    """Return the request. Its sequence number is always the same, so that equal answers have equal bytes."""
    route = _ROUTE.pack(family, 0, 0, 0, _RT_TABLE_LOCAL, 0, 0, _REQUESTED[socket.AddressFamily(family)], 0)
    length = HEADER.size + len(route)
    return HEADER.pack(length, _RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP, family, 0) + route


def _joined(dumps: dict[int, list[bytes]]) -> list[bytes]:
    """Return the dumps without regard to how the kernel split them: the first parts are smaller than later ones."""
    return [b"".join(parts) for parts in dumps.values()]


def messages(part: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield type, flags, sequence number and body of each message."""
    at = 0
    while at + HEADER.size <= len(part):
        length, kind, flags, sequence, _ = HEADER.unpack_from(part, at)
        if length < HEADER.size:
            return
        yield kind, flags, sequence, part[at + HEADER.size : at + length]
        at += aligned(length)


def attributes(body: bytes, at: int) -> dict[int, bytes]:
    """Return the attributes of a message by their types (rtnetlink(7))."""
    found = {}
    while at + ATTRIBUTE.size <= len(body):
        length, kind = ATTRIBUTE.unpack_from(body, at)
        found[kind] = body[at + ATTRIBUTE.size : at + length]
        at += max(aligned(length), ATTRIBUTE.size)
    return found


def _is_change(part: bytes) -> bool:
    """Tell whether notifications may mean that own addresses have changed: all do, but those of other routes."""
    return any(
        kind not in (_RTM_NEWROUTE, _RTM_DELROUTE) or (len(body) >= _ROUTE.size and _ROUTE.unpack_from(body)[7] in _OWN)
        for kind, _, _, body in messages(part)
    )


def _ends(part: bytes, family: int) -> bool:
    """Tell whether this part of a dump is the last. Raises OSError if the dump failed or is inconsistent."""
    for kind, flags, sequence, body in messages(part):
        if sequence != family:
            continue
        if flags & _NLM_F_DUMP_INTR:
            raise OSError(errno.EINTR, _UNSTABLE)
        if kind in (NLMSG_ERROR, NLMSG_DONE):
            code = -int.from_bytes(body[:4], sys.byteorder, signed=True)
            if code > 0 and code not in _NO_TABLE:
                raise OSError(code, os.strerror(code))
            return True
    return False


def _networks(part: bytes, family: int) -> Iterator[Network]:
    """Yield the networks that are this host's own."""
    for kind, flags, sequence, body in messages(part):
        if kind != _RTM_NEWROUTE or sequence != family or not flags & _NLM_F_MULTI or len(body) < _ROUTE.size:
            continue
        of, length, _, _, table, _, _, route_type, _ = _ROUTE.unpack_from(body)
        # Without IPv6 the kernel answers a request for it with the routes of IPv4.
        if of != family or table != _RT_TABLE_LOCAL or route_type not in _OWN:
            continue
        make, size = (IPv4Network, 4) if family == socket.AF_INET else (IPv6Network, 16)
        yield make((_destination(body, size), length), strict=False)


def _destination(body: bytes, size: int) -> bytes:
    """Return the address of a route's destination; a default route has none."""
    found = attributes(body, _ROUTE.size).get(_RTA_DST, b"")
    return found if len(found) == size else bytes(size)


def aligned(length: int) -> int:
    """Round up to four bytes (NLMSG_ALIGN, RTA_ALIGN)."""
    return (length + 3) & ~3


def in_one_network(sockets: Iterable[socket.socket]) -> bool:
    """Tell whether all are in one network namespace. True if that is unknown: kernels before 5.14 do not report it."""
    try:
        return len({sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8) for sock in sockets}) <= 1
    except OSError:
        return True


def in_our_network(sockets: Iterable[socket.socket]) -> bool:
    """Tell whether all are in the network namespace of this process, as far as the kernel can tell.

    Only then can their listeners be tested from here. Raises OSError if there is no descriptor left.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
        return in_one_network((own, *sockets))  # if unknown, the test itself will report that it has no route
