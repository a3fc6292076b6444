"""Self tests over TCP: admitted whatever the access lists say, told apart however they end, and open to nobody else."""

import socket

import pytest
from support.loopback import reset_on_close, tcp_client
from support.ports import free_port
from support.tcp_worker import TcpWorker

from echod.stats.counters import TcpField

pytestmark = pytest.mark.usefixtures("together")

EVERYBODY = {"127.0.0.1": "0.0.0.0/0", "::1": "::/0"}


def probe(worker: TcpWorker, host: str, port: int) -> socket.socket:
    """Connect from an address and port; the port is free again at once."""
    sock = tcp_client(worker.server, host, port)
    reset_on_close(sock)
    return sock


@pytest.mark.parametrize("host", EVERYBODY)
@pytest.mark.parametrize("orderly", [True, False])
def test_a_probe_is_admitted_and_ends_as_a_self_test(host: str, *, orderly: bool) -> None:
    """Though everybody is refused; whether it half-closes or breaks off."""
    port = free_port()
    with TcpWorker(host, deny=EVERYBODY[host], test_port=port) as worker:
        with probe(worker, host, port) as client:
            client.sendall(b"?")
            worker.turn_until(lambda: worker.row[TcpField.SENT_BYTES] == 1, "the echo")
            assert client.recv(10) == b"?"
            if orderly:
                client.shutdown(socket.SHUT_WR)
                worker.turn_until(lambda: worker.closed() != {}, "the end")
        worker.turn_until(lambda: worker.closed() == {"SELF_TEST": 1}, "the end as a self test")
        assert worker.row[TcpField.ACCEPTED] == 1


@pytest.mark.parametrize(("host", "own_port"), [("127.0.0.2", True), ("127.0.0.1", False)])
def test_another_address_or_port_is_no_probe(host: str, *, own_port: bool) -> None:
    """Only both together, the address that it asks and the port of self tests, come past the lists."""
    port = free_port()
    source = port if own_port else 0
    with TcpWorker(deny=EVERYBODY["127.0.0.1"], test_port=port) as worker, probe(worker, host, source) as client:
        worker.turn_until(lambda: worker.closed() == {"ACCESS": 1}, "it refused")
        assert client.recv(10) == b""


def test_a_client_that_has_the_port_by_chance_ends_as_others_do() -> None:
    """From another address it is answered where the lists let it in, and is no self test."""
    port = free_port()
    with TcpWorker(test_port=port) as worker, probe(worker, "127.0.0.2", port) as client:
        client.sendall(b"hello")
        client.shutdown(socket.SHUT_WR)
        worker.turn_until(lambda: worker.closed() == {"FINISHED": 1}, "its end")
        assert client.recv(10) == b"hello"


def test_a_probe_is_refused_where_there_is_no_room() -> None:
    """It asks whether a client would be served: then not, and the reason counts."""
    port = free_port()
    with TcpWorker(limit=1, test_port=port) as worker, worker.connect(), probe(worker, "127.0.0.1", port) as client:
        worker.turn_until(lambda: worker.closed() == {"OVER_LIMIT": 1}, "it refused")
        assert client.recv(10) == b""
