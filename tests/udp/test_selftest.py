"""Self tests on real sockets: answered whatever the rules say, counted apart, and nobody else gains by their port."""

import socket

import pytest
from support.loopback import ANY, assert_nothing_more, deliver, inject, needs_root, queue, udp_client, udp_server
from support.peers import limit
from support.udp_worker import UdpWorker

from echod.admission.loops import PERIOD
from echod.admission.selftest import SECRET_BYTES, SelfTest

NOBODY = "192.0.2.0/24"

IP_RECVORIGDSTADDR = 20  # linux/in.h


@pytest.fixture
def mark() -> SelfTest:
    """Choose a port that nobody has."""
    with udp_client() as sock:
        return SelfTest(port=sock.getsockname()[1], secret=bytes(range(SECRET_BYTES)))


def prober(mark: SelfTest, host: str = "127.0.0.1") -> socket.socket:
    """Open a client on the port of self tests."""
    return udp_client(host, mark.port)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_probe_is_answered_though_nobody_is(mark: SelfTest, host: str) -> None:
    """The access list has nobody of this host in it; received, replied and self_test are all one more."""
    with udp_server(host) as server, prober(mark, host) as probe:
        served = UdpWorker(server, allow=NOBODY, self_test=mark)
        queue(probe, server, mark.secret)
        row = served.turn()
        assert probe.recv(100) == mark.secret
        assert (row["received"], row["replied"], row["self_test"]) == (1, 1, 1)


def test_a_probe_is_not_charged_and_not_remembered(mark: SelfTest) -> None:
    """The very same, thousands of times, faster than any limit: each is answered."""
    with udp_server() as server, prober(mark) as probe:
        served = UdpWorker(server, limit=limit(1), self_test=mark)
        for number in range(2 * PERIOD):
            queue(probe, server, mark.secret)
            if number % 32 == 31:
                served.turn()
                for _ in range(32):
                    assert probe.recv(100) == mark.secret
        assert served.turn() == {
            "received": 2 * PERIOD,
            "received_bytes": 2 * PERIOD * SECRET_BYTES,
            "replied": 2 * PERIOD,
            "replied_bytes": 2 * PERIOD * SECRET_BYTES,
            "self_test": 2 * PERIOD,
        }
        loop_detector = served.admission.loop_detector
        assert loop_detector is not None
        assert loop_detector._seen == {}


def test_without_the_secret_the_port_opens_nothing(mark: SelfTest) -> None:
    """Refused for what every other port is refused for, and no self test."""
    with udp_server() as server, prober(mark) as probe:
        served = UdpWorker(server, allow=NOBODY, self_test=mark)
        for payload in (b"", mark.secret[:-1], mark.secret + b"!", b"x" * SECRET_BYTES):
            queue(probe, server, payload)
        queue(probe, server, 2 * mark.secret, SECRET_BYTES)
        row = served.turn()
        assert (row["received"], row["dropped_access"]) == (6, 6)
        assert "self_test" not in row
        assert_nothing_more(probe)


def test_without_the_secret_the_port_closes_nothing(mark: SelfTest) -> None:
    """A client that has this port by chance is answered, alone, in a batch with others, and in trains."""
    with udp_server() as server, prober(mark) as client, udp_client() as other:
        served = UdpWorker(server, self_test=mark)
        for _ in range(3):
            queue(client, server, b"by chance")
            queue(other, server, b"other")
            served.turn()
            assert (client.recv(100), other.recv(100)) == (b"by chance", b"other")
        queue(client, server, b"aabbc", 2)
        row = served.turn()
        assert [client.recv(100) for _ in range(3)] == [b"aa", b"bb", b"c"]
        assert row["received"] == row["replied"] == 9
        # It was not remembered in a way that would hide a probe.
        queue(client, server, mark.secret)
        assert served.turn()["self_test"] == 1


def test_limits_and_the_loop_breaker_hold_on_that_port_too(mark: SelfTest) -> None:
    """Who has the port by chance is charged, and what goes round from it dies."""
    with udp_server() as server, prober(mark) as client:
        served = UdpWorker(server, limit=limit(3), self_test=mark)
        for _ in range(5):
            queue(client, server, b"much")
        assert served.turn()["dropped_rate"] == 2
    with udp_server() as server, prober(mark) as client:
        served = UdpWorker(server, self_test=mark)
        for _ in range(2 * PERIOD):
            queue(client, server, b"round")
            served.turn()
            client.settimeout(0)
            try:
                client.recv(100)
            except BlockingIOError:
                break
        assert served.turn()["dropped_loop"] == 1


@needs_root
def test_the_secret_from_another_host_is_no_self_test(network: None, mark: SelfTest) -> None:
    """It is answered, or not, as what comes from any other port."""
    with udp_server(ANY) as server:
        served = UdpWorker(server, allow=NOBODY, self_test=mark)
        deliver(server, inject, served.address, mark.secret, source="198.51.100.1", source_port=mark.port)
        assert served.turn()["dropped_access"] == 1


def test_a_truncated_datagram_from_that_port_is_never_answered(mark: SelfTest) -> None:
    """What the kernel could not deliver whole has no exact answer, whatever its port."""
    with udp_server() as server, prober(mark) as client:
        served = UdpWorker(server, self_test=mark)
        server.setsockopt(socket.IPPROTO_IP, IP_RECVORIGDSTADDR, 1)  # a control message more than is understood
        queue(client, server, b"whole")
        assert served.turn()["dropped_truncated"] == 1
