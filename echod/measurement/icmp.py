"""The names of the errors that routers and hosts report.

Owns the parsing of `struct sock_extended_err` (linux/errqueue.h; IP_RECVERR in ip(7)) and the names. Never reads a
socket. Invariant: every error has a name, at least its type and code.
"""

import errno
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from struct import Struct
from typing import Final

ORIGIN_ICMP: Final = 2
ORIGIN_ICMP6: Final = 3
ORIGIN_STAMP: Final = 4
"""SO_EE_ORIGIN_TIMESTAMPING: not an error, but the send timestamp of a datagram."""

_EXTENDED: Final = Struct("=IBBBBII")
_AF_INET: Final = 2
_AF_INET6: Final = 10

FRAGMENTATION_NEEDED: Final = "needs fragmentation"

_ICMP: Final = {
    (3, 0): "network unreachable",
    (3, 1): "host unreachable",
    (3, 2): "protocol unreachable",
    (3, 3): "port unreachable",
    (3, 4): FRAGMENTATION_NEEDED,
    (3, 5): "source route failed",
    (3, 6): "network unknown",
    (3, 7): "host unknown",
    (3, 8): "source host isolated",
    (3, 9): "network administratively prohibited",
    (3, 10): "host administratively prohibited",
    (3, 11): "network unreachable for this TOS",
    (3, 12): "host unreachable for this TOS",
    (3, 13): "administratively prohibited",
    (3, 14): "host precedence violation",
    (3, 15): "precedence cutoff",
    (11, 0): "time to live exceeded",
    (11, 1): "fragment reassembly time exceeded",
    (12, 0): "parameter problem",
    (12, 1): "option missing",
    (12, 2): "bad length",
}
"""By type and code (RFC 792, 1122, 1812)."""

_ICMP6: Final = {
    (1, 0): "no route to host",
    (1, 1): "administratively prohibited",
    (1, 2): "beyond scope of source address",
    (1, 3): "host unreachable",
    (1, 4): "port unreachable",
    (1, 5): "source address failed policy",
    (1, 6): "route rejected",
    (2, 0): FRAGMENTATION_NEEDED,
    (3, 0): "hop limit exceeded",
    (3, 1): "fragment reassembly time exceeded",
    (4, 0): "erroneous header field",
    (4, 1): "unrecognized next header",
    (4, 2): "unrecognized option",
}
"""By type and code (RFC 4443)."""

_LOCAL: Final = {
    errno.EMSGSIZE: FRAGMENTATION_NEEDED,
    errno.ENETUNREACH: "network unreachable",
    errno.EHOSTUNREACH: "host unreachable",
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset",
    errno.ETIMEDOUT: "connection timed out",
    errno.EACCES: "not permitted by this host",
    errno.EPERM: "not permitted by this host",
    errno.ENOBUFS: "no buffer space on this host",
    errno.EADDRNOTAVAIL: "source port not available on this host",
    errno.EAGAIN: "send queue full on this host",
}

THIS_HOST: Final = ""
"""The address of errors that come from this host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkError:
    """An error by its name, the address of its sender, and, if a probe was too long, the MTU in bytes."""

    reason: str
    address: str = THIS_HOST
    mtu: int = 0


def is_stamp(data: bytes) -> bool:
    """Return whether the value of a control message, as for `read_error`, is a timestamp, not an error."""
    return int(_EXTENDED.unpack_from(data)[1]) == ORIGIN_STAMP


def read_error(data: bytes) -> NetworkError:
    """Read the value of an IP_RECVERR or IPV6_RECVERR control message."""
    number, origin, kind, code, _, info, _ = _EXTENDED.unpack_from(data)
    if origin == ORIGIN_ICMP:
        reason = _ICMP.get((kind, code), f"ICMP type {kind} code {code}")
    elif origin == ORIGIN_ICMP6:
        reason = _ICMP6.get((kind, code), f"ICMPv6 type {kind} code {code}")
    else:
        return local_error(number, info)
    mtu = info if reason == FRAGMENTATION_NEEDED else 0
    return NetworkError(reason=reason, address=_offender(data[_EXTENDED.size :]), mtu=mtu)


def local_error(number: int, mtu: int = 0) -> NetworkError:
    """Name an errno that a send returned on this host."""
    return NetworkError(
        reason=_LOCAL.get(number, errno.errorcode.get(number, f"error {number}")),
        mtu=mtu if number == errno.EMSGSIZE else 0,
    )


def _offender(data: bytes) -> str:
    """Return the address of the sender of an error: the sockaddr after it."""
    family = int.from_bytes(data[:2], "little")
    if family == _AF_INET:
        return str(IPv4Address(data[4:8]))
    if family == _AF_INET6:
        return str(IPv6Address(data[8:24]))
    return THIS_HOST
