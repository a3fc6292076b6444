"""echod.linux.arrival: what a socket reports and sends, switched on and off while it is in use."""

import socket

import pytest
from support.loopback import queue, udp_client, udp_server

from echod.linux.arrival import report_arrivals, set_dscp
from echod.linux.sockopt import SO_TIMESTAMPNS

KINDS = {
    socket.AF_INET: ((socket.IPPROTO_IP, socket.IP_TTL), (socket.IPPROTO_IP, socket.IP_TOS)),
    socket.AF_INET6: ((socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT), (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)),
}
each_family = pytest.mark.parametrize("host", ["127.0.0.1", "::1"])


def family(host: str) -> socket.AddressFamily:
    """Return that of an address."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def arrived(sock: socket.socket) -> list[tuple[int, int]]:
    """Receive a datagram; return level and type of its control messages that are not about its address."""
    control = sock.recvmsg(64, 256)[1]
    addresses = {(socket.IPPROTO_IP, 8), (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO)}
    return [(level, kind) for level, kind, _ in control if (level, kind) not in addresses]


@each_family
def test_arrivals_are_reported_or_not(host: str) -> None:
    """Time, TTL and TOS together, also of a datagram that was queued before."""
    with udp_server(host) as server, udp_client(host) as client:
        for report in (True, False, True):
            queue(client, server, b"x", host=host)
            report_arrivals(server, report=report)
            expected = [(socket.SOL_SOCKET, SO_TIMESTAMPNS), *KINDS[family(host)]]
            assert arrived(server) == (expected if report else [])


@each_family
def test_a_socket_sends_with_its_dscp(host: str) -> None:
    """In the upper six bits of the TOS or traffic class; zero takes it back."""
    with udp_server(host) as server, udp_client(host) as client:
        report_arrivals(client, report=True)
        found = []
        for dscp in (46, 63, 0):
            set_dscp(server, dscp)
            server.sendto(b"x", client.getsockname())
            found.append(client.recvmsg(64, 256)[1][-1][2][0])
    assert found == [0xB8, 0xFC, 0]


@each_family
def test_connections_have_the_dscp_of_their_listener(host: str) -> None:
    """Those that are accepted after it was set."""
    level, number = KINDS[family(host)][1]
    with socket.create_server((host, 0), family=family(host)) as server:
        set_dscp(server, 10)
        with socket.create_connection(server.getsockname()[:2]), server.accept()[0] as accepted:
            assert accepted.getsockopt(level, number) == 40
