"""The socket options that echod relies on: which, and what each has to be.

A socket that another program made, such as systemd, may have any option set. So the table names those that are on, and
also those that are off and would do harm if they were not. Owns the numbers of options that Python's socket module does
not have, as they are on x86, Arm and RISC-V (asm-generic/socket.h, linux/in.h, in6.h, udp.h, tcp.h). Invariant: no
option of the table needs a privilege to be as it is in a new socket.
"""

from dataclasses import dataclass, replace
from typing import Final

from echod.net.listener import Protocol

SOL_SOCKET: Final = 1
IPPROTO_IP: Final = 0
IPPROTO_TCP: Final = 6
IPPROTO_UDP: Final = 17
IPPROTO_IPV6: Final = 41

IP_PKTINFO: Final = 8
IP_MTU_DISCOVER: Final = 10
IP_RECVERR: Final = 11
IP_RECVTTL: Final = 12
IP_RECVTOS: Final = 13
IP_FREEBIND: Final = 15
IP_RECVFRAGSIZE: Final = 25
IPV6_MTU_DISCOVER: Final = 23
IPV6_MTU: Final = 24
IPV6_RECVERR: Final = 25
IPV6_PKTINFO: Final = 50
IPV6_RECVHOPLIMIT: Final = 51
IPV6_RECVTCLASS: Final = 66
IPV6_RECVFRAGSIZE: Final = 77
IPV6_FREEBIND: Final = 78
PMTUDISC_OMIT: Final = 5
"""Ignore the path MTU reported by ICMP: a forged "fragmentation needed" cannot shrink or fragment replies."""
UDP_SEGMENT: Final = 103
UDP_GRO: Final = 104
SO_SNDBUFFORCE: Final = 32
SO_RCVBUFFORCE: Final = 33
SO_DETACH_FILTER: Final = 27
SO_TIMESTAMPNS: Final = 35
SO_TIMESTAMPING: Final = 37
SO_MEMINFO: Final = 55
SO_NETNS_COOKIE: Final = 71
SO_BUF_LOCK: Final = 72
SK_MEMINFO_DROPS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One socket option, and what it has to be."""

    level: int
    number: int
    name: str
    value: bytes = bytes(4)
    """The first four bytes that getsockopt(2) must return, or fewer where it returns fewer."""
    written: bytes | None = None
    """What setsockopt(2) takes for it, if that is not the value."""
    directive: str = ""
    """The line of a .socket unit that sets it (systemd.socket(5)), if there is one."""
    optional: bool = False
    """Whether echod does without, on a kernel that lacks the option. One that is only off is always optional."""

    @property
    def off(self) -> bool:
        """Whether the option is to be off; a kernel that lacks it has it off."""
        return not any(self.value)


def _off(level: int, directive: str = "", /, **numbers: int) -> tuple[Option, ...]:
    """Declare options of one level that are off, all set by the same line of a .socket unit if any."""
    return tuple(Option(level=level, number=number, name=name, directive=directive) for name, number in numbers.items())


def _is(level: int, name: str, number: int, value: int, directive: str = "") -> Option:
    """Declare an option with a number as its value."""
    return Option(level=level, number=number, name=name, value=value.to_bytes(4, "little"), directive=directive)


def _empty(level: int, **numbers: int) -> tuple[Option, ...]:
    """Declare options of any length that are to have none."""
    return tuple(Option(level=level, number=number, name=name, value=b"") for name, number in numbers.items())


_SOCKET: Final = (
    *_off(SOL_SOCKET, SO_DONTROUTE=5),  # replies would reach neighbours only
    *_off(SOL_SOCKET, SO_WIFI_STATUS=41),
    # Stamps of sends fill the error queue of a connection; stamps of receives are control messages.
    # Those with 64-bit times hide the others of the kind. First: SO_TIMESTAMPING makes them look off while they are on.
    *_off(SOL_SOCKET, SO_TIMESTAMP_NEW=63, SO_TIMESTAMPNS_NEW=64),
    *_off(SOL_SOCKET, "Timestamping=", SO_TIMESTAMP=29, SO_TIMESTAMPNS=SO_TIMESTAMPNS),
    *_off(SOL_SOCKET, SO_TIMESTAMPING_NEW=65, SO_TIMESTAMPING=SO_TIMESTAMPING),
)
_SOCKET_UDP: Final = (
    *_off(SOL_SOCKET, "Broadcast=", SO_BROADCAST=6),  # a forged source would have a whole network answered
    *_off(SOL_SOCKET, SO_NO_CHECK=11),  # the kernel sends no train without checksums
    *_off(SOL_SOCKET, SO_RXQ_OVFL=40, SO_RCVMARK=75, SO_RCVPRIORITY=82),  # control messages
)
_SOCKET_TCP: Final = (
    # Accepted connections inherit these. The first would hide bytes, the second end connections with a reset.
    _is(SOL_SOCKET, "SO_RCVLOWAT", 18, 1),
    Option(level=SOL_SOCKET, number=13, name="SO_LINGER", written=bytes(8)),
    *_off(SOL_SOCKET, SO_OOBINLINE=10),
)
_IPV4: Final = (
    *_off(IPPROTO_IP, IP_RECVERR=IP_RECVERR),  # errors that one client causes would surface on another's send
    *_empty(IPPROTO_IP, IP_OPTIONS=4),  # a reply would be longer than what it answers
)
_IPV4_UDP: Final = (
    _is(IPPROTO_IP, "IP_PKTINFO", IP_PKTINFO, 1, "PassPacketInfo="),
    _is(IPPROTO_IP, "IP_MTU_DISCOVER", IP_MTU_DISCOVER, PMTUDISC_OMIT),
    *_off(IPPROTO_IP, "Transparent=", IP_TRANSPARENT=19),  # a reply could come from an address that is not ours
    *_off(IPPROTO_IP, "FreeBind=", IP_FREEBIND=IP_FREEBIND),  # likewise; it is bound already
    *_off(IPPROTO_IP, "PassSecurity=", IP_PASSSEC=18),
    *_off(IPPROTO_IP, IP_UNICAST_IF=50),  # replies would leave by that interface, wherever the peer is
    # Control messages, for which a receive has no room.
    *_off(IPPROTO_IP, IP_RECVOPTS=6, IP_RETOPTS=7, IP_RECVTTL=IP_RECVTTL, IP_RECVTOS=IP_RECVTOS),
    *_off(IPPROTO_IP, IP_RECVORIGDSTADDR=20, IP_CHECKSUM=23, IP_RECVFRAGSIZE=IP_RECVFRAGSIZE),
)
_IPV6: Final = (
    *_off(IPPROTO_IPV6, IPV6_RECVERR=IPV6_RECVERR),
    *_empty(IPPROTO_IPV6, IPV6_HOPOPTS=54, IPV6_RTHDRDSTOPTS=55, IPV6_RTHDR=57, IPV6_DSTOPTS=59),
)
_IPV6_UDP: Final = (
    _is(IPPROTO_IPV6, "IPV6_RECVPKTINFO", 49, 1, "PassPacketInfo="),
    _is(IPPROTO_IPV6, "IPV6_MTU_DISCOVER", IPV6_MTU_DISCOVER, PMTUDISC_OMIT),
    *_off(IPPROTO_IPV6, "Transparent=", IPV6_TRANSPARENT=75),
    *_off(IPPROTO_IPV6, "FreeBind=", IPV6_FREEBIND=IPV6_FREEBIND),
    *_off(IPPROTO_IPV6, IPV6_UNICAST_IF=76),
    *_off(IPPROTO_IPV6, IPV6_DONTFRAG=62),  # long replies would be refused
    *_off(IPPROTO_IPV6, IPV6_FLOWINFO_SEND=33),  # a reply would need a lease on the flow label of its peer
    *_off(IPPROTO_IPV6, IPV6_RECVHOPLIMIT=IPV6_RECVHOPLIMIT, IPV6_RECVTCLASS=IPV6_RECVTCLASS),
    *_off(IPPROTO_IPV6, IPV6_RECVHOPOPTS=53, IPV6_RECVRTHDR=56, IPV6_RECVDSTOPTS=58, IPV6_RECVPATHMTU=60),
    *_off(IPPROTO_IPV6, IPV6_RECVORIGDSTADDR=74, IPV6_RECVFRAGSIZE=IPV6_RECVFRAGSIZE, IPV6_FLOWINFO=11),
    *_off(IPPROTO_IPV6, IPV6_2292PKTINFO=2, IPV6_2292HOPOPTS=3, IPV6_2292DSTOPTS=4, IPV6_2292RTHDR=5),
    *_off(IPPROTO_IPV6, IPV6_2292HOPLIMIT=8),
)
_UDP: Final = (
    *_off(IPPROTO_UDP, UDP_CORK=1),  # replies would wait for more
    *_off(IPPROTO_UDP, UDP_ENCAP=100),  # some datagrams would be taken for those of a tunnel
    *_off(IPPROTO_UDP, UDP_NO_CHECK6_TX=101, UDP_NO_CHECK6_RX=102, UDP_SEGMENT=UDP_SEGMENT),
    replace(_is(IPPROTO_UDP, "UDP_GRO", UDP_GRO, 1), optional=True),  # before Linux 5.0 datagrams come one by one
)
_TCP: Final = (
    # Accepted sockets inherit it. An echo answers at once; Nagle's algorithm would delay the last bytes.
    _is(IPPROTO_TCP, "TCP_NODELAY", 1, 1, "NoDelay="),
    *_off(IPPROTO_TCP, TCP_CORK=3),
)


def options(protocol: Protocol, *, ipv6: bool) -> tuple[Option, ...]:
    """Return what a listening socket of this protocol and family has to have, on and off."""
    if protocol is Protocol.UDP:
        return (*_SOCKET, *_SOCKET_UDP, *(_IPV6 + _IPV6_UDP if ipv6 else _IPV4 + _IPV4_UDP), *_UDP)
    return (*_SOCKET, *_SOCKET_TCP, *(_IPV6 if ipv6 else _IPV4), *_TCP)
