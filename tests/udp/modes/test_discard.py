"""echod.udp.modes.discard: nothing comes back, and everything is counted."""

from collections.abc import Iterator

import pytest
from support.loopback import assert_got, assert_nothing_more, deliver, needs_root, poison, queue, udp_client, udp_server
from support.udp_worker import UdpWorker, send, send_as_train

from echod.admission.selftest import SelfTest
from echod.udp.modes.discard import Discard


@pytest.fixture(params=["127.0.0.1", "::1"])
def served(request: pytest.FixtureRequest) -> Iterator[UdpWorker]:
    """Discard over IPv4 and over IPv6."""
    with udp_server(request.param) as sock:
        yield UdpWorker(sock, mode=lambda _, row, __: Discard(row).reply)


def test_nothing_comes_back(served: UdpWorker) -> None:
    """Neither for a datagram, nor for an empty one, nor for a train; the log has nothing to say about it."""
    with udp_client(served.address[0]) as client:
        send(served, client, b"a", b"", b"ccc")
        send_as_train(served, client)
        assert served.turn() == {
            "received": 13,
            "received_bytes": 23,
            "replied": 0,
            "replied_bytes": 0,
            "dropped_discarded": 13,
        }
        assert_nothing_more(client)
    assert list(served.tally.reports()) == []


def test_alike_datagrams_are_discarded_too(served: UdpWorker) -> None:
    """Also when a batch is like the one before, and answers to it are ready."""
    with udp_client(served.address[0]) as client:
        for turn in range(1, 6):
            send(served, client, *[b"%d" % (1000 * turn + number) for number in range(8)])
            assert served.turn()["dropped_discarded"] == 8 * turn
        assert_nothing_more(client)


@needs_root
def test_what_was_refused_before_is_not_counted_again() -> None:
    """From port 0 comes nothing that is discarded."""
    with udp_server() as sock, udp_client() as client:
        served = UdpWorker(sock, mode=lambda _, row, __: Discard(row).reply)
        queue(client, sock, b"a")
        deliver(sock, poison, served.address, b"bb")
        counters = served.turn()
        assert (counters["received"], counters["dropped_discarded"], counters["dropped_source_port_zero"]) == (2, 1, 1)


def test_a_self_test_is_answered() -> None:
    """It alone, between others."""
    with udp_server() as sock, udp_client() as tester, udp_client() as client:
        mark = SelfTest(port=tester.getsockname()[1], secret=bytes(range(32)))
        served = UdpWorker(sock, self_test=mark, mode=lambda _, row, __: Discard(row).reply)
        send(served, client, b"a")
        send(served, tester, mark.secret)
        send(served, client, b"b")
        counters = served.turn()
        assert (counters["replied"], counters["self_test"], counters["dropped_discarded"]) == (1, 1, 2)
        assert_got(tester, bytes(range(32)))
        assert_nothing_more(client)
