"""echod.udp.modes.reveal: the reply tells what was seen, and nothing that was not."""

import socket
import time
from collections.abc import Iterator
from dataclasses import asdict

import pytest
from support.loopback import (
    add_link,
    assert_got,
    assert_nothing_more,
    deliver,
    ip,
    needs_root,
    send_by_link,
    udp_client,
    udp_server,
)
from support.udp_worker import UdpWorker, send, send_as_train

from echod.admission.selftest import SelfTest
from echod.linux.arrival import report_arrivals
from echod.udp.modes.reveal import Reveal
from echod.wire.reveal import Seen, decode

DAY = 86_400 * 10**9


def serve(sock: socket.socket, self_test: SelfTest | None = None) -> UdpWorker:
    """Serve in this mode."""
    report_arrivals(sock, report=True)
    return UdpWorker(
        sock, self_test=self_test, mode=lambda served, row, tally: Reveal(served, row, tally).reply, allow="0.0.0.0/0"
    )


@pytest.fixture(params=["127.0.0.1", "::1"])
def served(request: pytest.FixtureRequest) -> Iterator[UdpWorker]:
    """Serve over IPv4 and over IPv6."""
    with udp_server(request.param) as sock:
        yield serve(sock)


def seen(payload: bytes) -> Seen:
    """Read a reply; the time of the receive, which is about now, is given as zero."""
    found = decode(payload)
    assert found is not None, payload
    assert abs(found.received_ns - time.time_ns()) < DAY
    return Seen(**{**asdict(found), "received_ns": 0})


def test_the_reply_has_what_the_server_saw(served: UdpWorker) -> None:
    """Addresses, ports, TTL, DSCP, ECN, length, interface; DSCP 46 with ECN 1 is the TOS 0xb9."""
    host, port = served.address
    ipv6 = ":" in host
    with udp_client(host) as client:
        level = socket.IPPROTO_IPV6 if ipv6 else socket.IPPROTO_IP
        client.setsockopt(level, socket.IPV6_TCLASS if ipv6 else socket.IP_TOS, 0xB9)
        client.setsockopt(level, socket.IPV6_UNICAST_HOPS if ipv6 else socket.IP_TTL, 37)
        send(served, client, b"x" * 300)
        assert served.turn()["replied"] == 1
        reply = client.recv(65_536)
        assert len(reply) == 300
        assert seen(reply) == Seen(
            peer=host,
            peer_port=client.getsockname()[1],
            local=host,
            local_port=port,
            ttl=37,
            dscp=46,
            ecn=1,
            length=300,
            interface="lo",
            received_ns=0,
            train=1,
        )


def test_the_local_address_is_the_one_that_was_asked() -> None:
    """Of a socket that is bound to all."""
    with udp_server("0.0.0.0") as sock, udp_client() as client:  # noqa: S104 - a server
        served = serve(sock)
        deliver(sock, client.sendto, bytes(300), ("127.0.0.77", served.address[1]))
        served.turn()
        assert seen(client.recv(65_536)).local == "127.0.0.77"


def test_a_request_that_is_too_short_gets_its_own_bytes(served: UdpWorker) -> None:
    """Also an empty one, beside one that is long enough."""
    with udp_client(served.address[0]) as client:
        send(served, client, b"", b"x" * 100, b"y" * 300, b"z")
        served.turn()
        replies = [client.recv(65_536) for _ in range(4)]
        assert [*replies[:2], replies[3]] == [b"", b"x" * 100, b"z"]
        assert seen(replies[2]).length == 300


def test_each_datagram_of_a_train_has_the_object(served: UdpWorker) -> None:
    """With its own length; a last one that is too short for it comes back as it was."""
    with udp_client(served.address[0]) as client:
        send_as_train(served, client, b"x" * 1300, 400)
        send_as_train(served, client, b"y" * 1100, 400)
        assert served.turn()["replied"] == 7
        replies = [client.recv(65_536) for _ in range(7)]
        assert [len(reply) for reply in replies] == [400, 400, 400, 100, 400, 400, 300]
        assert replies[3] == b"x" * 100
        assert [(seen(replies[n]).length, seen(replies[n]).train) for n in (0, 1, 2)] == [(400, 4)] * 3
        assert [(seen(replies[n]).length, seen(replies[n]).train) for n in (4, 5, 6)] == [(400, 3), (400, 3), (300, 3)]


def test_a_batch_of_alike_datagrams_is_told_one_by_one(served: UdpWorker) -> None:
    """Two peers that send the same are told their own ports."""
    with udp_client(served.address[0]) as one, udp_client(served.address[0]) as other:
        for _ in range(4):
            for client in (one, other):
                send(served, client, bytes(300))
            served.turn()
            for client in (one, other):
                assert seen(client.recv(65_536)).peer_port == client.getsockname()[1]


def test_a_self_test_comes_back_as_it_was() -> None:
    """So does nothing else that is as long."""
    with udp_server() as sock, udp_client() as tester:
        mark = SelfTest(port=tester.getsockname()[1], secret=bytes(range(32)) * 12)
        served = serve(sock, mark)
        send(served, tester, mark.secret)
        assert served.turn()["self_test"] == 1
        assert_got(tester, bytes(range(32)) * 12)


@needs_root
@pytest.mark.parametrize(
    ("source", "replied"),
    [
        ("10.1.2.3", 1),
        ("172.16.0.1", 1),
        ("172.31.255.254", 1),
        ("192.168.255.254", 1),
        ("172.32.0.1", 0),
        ("11.0.0.1", 0),
        ("192.167.255.255", 0),
        ("100.64.0.1", 0),
        ("169.254.1.1", 0),
    ],
)
def test_only_loopback_and_private_sources_are_told(network: None, source: str, replied: int) -> None:
    """Whatever `access` allows; others are refused for their address, and are in the report of refusals."""
    add_link("10.0.0.1/8")
    with udp_server("0.0.0.0") as sock:  # noqa: S104 - a server
        served = serve(sock)
        deliver(sock, send_by_link, ("10.0.0.1", served.address[1]), bytes(300), source)
        counters = served.turn()
        assert counters["received"] == 1
        assert counters.get("dropped_access", 0) == 1 - replied
        assert len(list(served.tally.reports())) == 1 - replied


@needs_root
@pytest.mark.parametrize(("source", "replied"), [("fd00::7", 1), ("2001:db8::7", 0), ("fe80::7", 0)])
def test_only_unique_local_sources_are_told(network: None, source: str, replied: int) -> None:
    """In IPv6 fc00::/7 is private (RFC 4193)."""
    ip("address", "add", f"{source}/128", "dev", "lo")
    with udp_server("::") as sock, socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
        served = serve(sock)
        client.bind((source, 0, 0, 1 if source.startswith("fe80") else 0))
        deliver(sock, client.sendto, bytes(300), (source, served.address[1], 0, 1 if source.startswith("fe80") else 0))
        counters = served.turn()
        assert (counters["replied"], counters.get("dropped_access", 0)) == (replied, 1 - replied)


def test_before_the_socket_reports_arrivals_little_is_known(served: UdpWorker) -> None:
    """What was queued before says no TTL, TOS and time; the rest is told."""
    report_arrivals(served.sock, report=False)
    with udp_client(served.address[0]) as client:
        for _ in range(3):
            send(served, client, bytes(300))
            served.turn()
            found = decode(client.recv(65_536))
            assert found is not None
            assert (found.ttl, found.dscp, found.ecn, found.received_ns, found.interface) == (255, 0, 0, 0, "lo")
        assert_nothing_more(client)
