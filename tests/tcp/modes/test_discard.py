"""echod.tcp.modes.discard: every byte is read and counted, and none comes back."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from support.loopback import reset
from support.tcp_worker import PLENTY, TcpWorker, push

from echod.stats.counters import TcpField
from echod.tcp.modes.discard import discarding


class Discarding(TcpWorker):
    """A TCP listener that discards."""

    def check(self) -> None:
        """Assert that every connection is open or has ended once."""
        assert self.row[TcpField.ACCEPTED] == len(self.echo.connections) + sum(self.row[TcpField.CLOSED :])

    @property
    def octets(self) -> tuple[int, int]:
        """Return the bytes that were received and sent."""
        return self.row[TcpField.RECEIVED_BYTES], self.row[TcpField.SENT_BYTES]


@pytest.fixture(params=["127.0.0.1", "::1"])
def worker(request: pytest.FixtureRequest) -> Iterator[Discarding]:
    """Discard over IPv4 and over IPv6."""
    with Discarding(request.param, mode=lambda _: discarding, idle=60) as served:
        yield served


def test_nothing_comes_back(worker: Discarding) -> None:
    """The peer's FIN is answered with one, at once; all bytes were counted."""
    with worker.connect() as client:
        client.sendall(b"into the void")
        client.shutdown(socket.SHUT_WR)
        assert worker.read(client) == b""
        assert worker.octets == (13, 0)
        assert worker.closed() == {"FINISHED": 1}


def test_a_stream_is_read_as_fast_as_it_comes(worker: Discarding) -> None:
    """More than any buffer holds; whoever does not read is no obstacle."""
    with worker.connect() as client:
        sent = 0

        def all_sent() -> bool:
            nonlocal sent
            sent += push(client, memoryview(PLENTY)[sent % len(PLENTY) :])
            return sent >= 2 * len(PLENTY)

        worker.turn_until(all_sent, "32 MiB sent")
        worker.turn_until(lambda: worker.octets[0] == sent, "all of it read")
        assert worker.octets == (sent, 0)
        assert push(client, b"more") == 4


def test_many_at_once_are_discarded(worker: Discarding, stack: ExitStack) -> None:
    """As many as an echo serves in one batch, whose io_uring would send."""
    clients = [stack.enter_context(worker.connect()) for _ in range(20)]
    for client in clients:
        client.sendall(b"x" * 100)
    worker.turn_until(lambda: worker.octets[0] == 2000, "all read")
    for client in clients:
        client.shutdown(socket.SHUT_WR)
        assert worker.read(client) == b""
    assert worker.octets == (2000, 0)
    assert worker.closed() == {"FINISHED": 20}


def test_the_idle_timeout_holds(worker: Discarding) -> None:
    """Who sends is not idle; who has sent nothing for 60 seconds is."""
    with worker.connect() as client:
        worker.pass_time(59)
        client.sendall(b"x")
        worker.turn_until(lambda: worker.octets == (1, 0), "it read")
        worker.pass_time(59)
        assert worker.closed() == {}
        worker.pass_time(2)
        assert worker.closed() == {"IDLE": 1}
        assert client.recv(100) == b""


def test_a_drain_ends_the_connections(worker: Discarding) -> None:
    """One that is quiet for a second has nothing under way."""
    with worker.connect() as client:
        worker.echo.drain(worker.now, worker.now + 10)
        worker.pass_time(1.1)
        assert worker.closed() == {"DRAINED": 1}
        assert client.recv(100) == b""


def test_a_broken_connection_is_counted_as_such(worker: Discarding) -> None:
    """A reset while bytes are read."""
    client = worker.connect()
    client.sendall(b"x")
    reset(client)
    worker.turn_until(lambda: worker.closed() == {"RESET": 1}, "the reset")


def test_a_self_test_is_echoed() -> None:
    """From the port of self tests, and the very address that it asks."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with Discarding(mode=lambda _: discarding, test_port=port) as worker:
        accepted = worker.row[TcpField.ACCEPTED]
        client = socket.create_connection(worker.server.getsockname(), 15, source_address=("127.0.0.1", port))
        with client:
            worker.turn_until(lambda: worker.row[TcpField.ACCEPTED] > accepted, "it accepted")
            client.sendall(b"probe")
            assert worker.read(client, 5) == b"probe"
            client.shutdown(socket.SHUT_WR)
            assert worker.read(client) == b""
        assert worker.closed() == {"SELF_TEST": 1}
