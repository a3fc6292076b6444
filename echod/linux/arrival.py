"""What a UDP socket reports of the arrival of each datagram, and the DSCP that a socket sends with.

Owns these options alone: unlike those of `sockopt` they may change while the socket serves. No privilege is needed.
"""

import socket
from typing import Final

from echod.linux import sockopt

_ARRIVAL: Final = {
    socket.AF_INET: ((sockopt.IPPROTO_IP, sockopt.IP_RECVTTL), (sockopt.IPPROTO_IP, sockopt.IP_RECVTOS)),
    socket.AF_INET6: (
        (sockopt.IPPROTO_IPV6, sockopt.IPV6_RECVHOPLIMIT),
        (sockopt.IPPROTO_IPV6, sockopt.IPV6_RECVTCLASS),
    ),
}
_DSCP: Final = {
    socket.AF_INET: (socket.IPPROTO_IP, socket.IP_TOS),
    socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_TCLASS),
}


def report_arrivals(sock: socket.socket, *, report: bool) -> None:
    """Have the kernel report time (SO_TIMESTAMPNS in socket(7)), TTL and TOS of each datagram, or not any more."""
    for level, number in ((socket.SOL_SOCKET, sockopt.SO_TIMESTAMPNS), *_ARRIVAL[socket.AddressFamily(sock.family)]):
        sock.setsockopt(level, number, int(report))


def set_dscp(sock: socket.socket, dscp: int) -> None:
    """Send with this DSCP, 0 to 63 (RFC 2474); a listening socket passes it on to its connections."""
    level, number = _DSCP[socket.AddressFamily(sock.family)]
    sock.setsockopt(level, number, dscp << 2)
