"""What tells that a datagram might now take another way, or none: notifications of rtnetlink(7), nftables and IPsec.

Owns one netlink socket for each, and what is known of neighbours. It reads no route and changes nothing. A
notification only says of what kind the change was; one that was lost (ENOBUFS) counts as one that came. Invariant: a
change of a kind that can be watched here is among what the next `receive` returns.

The kernel reports a neighbour each time that it was confirmed. That changes no way: only another station for an address
does, or none. So the table is read once, and again after a loss.
"""

import errno
import socket
import struct
from contextlib import suppress
from enum import Enum
from typing import Final

from echod.linux.netlink import (
    BUFFER_BYTES,
    HEADER,
    MAX_READS,
    NETLINK_ADD_MEMBERSHIP,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    SOL_NETLINK,
    attributes,
    messages,
)


class Cause(Enum):
    """Kinds of changes."""

    ADDRESS = "address"
    FIREWALL = "firewall"
    IPSEC = "ipsec"
    LINK = "link"
    LOST = "lost"
    """There were more notifications than a socket holds."""
    NEIGHBOUR = "neighbour"
    ROUTE = "route"
    RULE = "rule"


_BY_TYPE: Final = {
    **dict.fromkeys((16, 17), Cause.LINK),
    **dict.fromkeys((20, 21), Cause.ADDRESS),
    **dict.fromkeys((24, 25, 104, 105), Cause.ROUTE),
    **dict.fromkeys((32, 33), Cause.RULE),
}
"""RTM_NEWLINK, _NEWADDR, _NEWROUTE, _NEWNEXTHOP, _NEWRULE, and those that remove (linux/rtnetlink.h)."""
_NEW_NEIGHBOUR, _GONE_NEIGHBOUR, _GET_NEIGHBOUR = 28, 29, 30

_ROUTING_GROUPS: Final = (1, 3, 5, 7, 8, 9, 11, 19, 32)
"""RTNLGRP_LINK, _NEIGH, _IPV4_IFADDR, _IPV4_ROUTE, _IPV4_RULE, _IPV6_IFADDR, _IPV6_ROUTE, _IPV6_RULE, _NEXTHOP."""
_OTHERS: Final = {Cause.FIREWALL: (12, 7), Cause.IPSEC: (6, 4)}
"""NETLINK_NETFILTER with NFNLGRP_NFTABLES, NETLINK_XFRM with XFRMNLGRP_POLICY: a kernel may have neither."""

_NEIGHBOUR: Final = struct.Struct("=BxxxiHBB")  # ndmsg: family, interface, state, flags, type
_NDA_DST, _NDA_LLADDR = 1, 2
_NO_STATION: Final = 0x01 | 0x20  # NUD_INCOMPLETE, NUD_FAILED


class NetworkChanges:
    """The sockets of one process."""

    def __init__(self) -> None:
        """Watch from now on. OSError: not even routes can be watched."""
        self._neighbours: dict[tuple[int, bytes], bytes] = {}
        self._routing = _subscribed(socket.NETLINK_ROUTE, _ROUTING_GROUPS)
        self._others: dict[Cause, socket.socket] = {}
        for cause, (protocol, group) in _OTHERS.items():
            with suppress(OSError):
                self._others[cause] = _subscribed(protocol, (group,))
        self._ask_for_neighbours()

    def close(self) -> None:
        """Close the sockets."""
        for sock in (self._routing, *self._others.values()):
            sock.close()

    @property
    def descriptors(self) -> list[int]:
        """Return what is ready to be read when there are notifications."""
        return [sock.fileno() for sock in (self._routing, *self._others.values())]

    def receive(self) -> set[Cause]:
        """Return what has changed since the last call."""
        found: set[Cause] = set()
        for part in _parts(self._routing):
            found |= self._causes(part) if part is not None else {Cause.LOST}
        for cause, sock in self._others.items():
            for part in _parts(sock):
                found.add(cause if part is not None else Cause.LOST)
        if Cause.LOST in found:
            self._neighbours.clear()
            self._ask_for_neighbours()
        return found

    def _causes(self, part: bytes) -> set[Cause]:
        found = set()
        for kind, _, _, body in messages(part):
            if kind in _BY_TYPE:
                found.add(_BY_TYPE[kind])
            elif kind in (_NEW_NEIGHBOUR, _GONE_NEIGHBOUR) and self._has_moved(kind, body):
                found.add(Cause.NEIGHBOUR)
        return found

    def _has_moved(self, kind: int, body: bytes) -> bool:
        """Note the station of a neighbour; tell whether it was another one."""
        if len(body) < _NEIGHBOUR.size:
            return False
        family, ifindex, state, _, _ = _NEIGHBOUR.unpack_from(body)
        known = attributes(body, _NEIGHBOUR.size)
        if family not in (socket.AF_INET, socket.AF_INET6) or _NDA_DST not in known:
            return False
        key = (ifindex, known[_NDA_DST])
        before = self._neighbours.pop(key, None)
        station = None if kind == _GONE_NEIGHBOUR or state & _NO_STATION else known.get(_NDA_LLADDR)
        if station is not None:
            self._neighbours[key] = station
        return before is not None and station != before

    def _ask_for_neighbours(self) -> None:
        """Have the whole table sent, among the notifications. A request that is refused leaves it to them alone."""
        body = _NEIGHBOUR.pack(0, 0, 0, 0, 0)
        header = HEADER.pack(HEADER.size + len(body), _GET_NEIGHBOUR, NLM_F_REQUEST | NLM_F_DUMP, 0, 0)
        with suppress(OSError):
            self._routing.send(header + body)


def _subscribed(protocol: int, groups: tuple[int, ...]) -> socket.socket:
    """Return a socket that gets the notifications of these groups."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    try:
        sock.setblocking(False)
        sock.connect((0, 0))  # the kernel sends nothing to a socket that has no number yet
        for group in groups:
            sock.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
    except OSError:
        sock.close()
        raise
    return sock


def _parts(sock: socket.socket) -> list[bytes | None]:
    """Return what is queued; None where something was lost."""
    found: list[bytes | None] = []
    for _ in range(MAX_READS):
        try:
            part, _, flags, _ = sock.recvmsg(BUFFER_BYTES)
        except BlockingIOError:
            break
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            found.append(None)
            continue
        found.append(None if flags & socket.MSG_TRUNC else part)
    return found
