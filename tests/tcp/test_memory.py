"""What a TCP connection may pin of the kernel's memory, whatever its peer takes and does not take."""

import re
import socket
import struct
from contextlib import ExitStack

import pytest
from support.daemon import REPOSITORY
from support.loopback import BUFFERS, as_nobody, listener, needs_root
from support.tcp_worker import PLENTY, TcpWorker

from echod.config.schema import Config
from echod.config.socket_unit import units_of
from echod.linux.sockets import LARGE_BUFFERS, Buffers, bound_connections, got_buffers, open_socket
from echod.linux.sockopt import SO_BUF_LOCK, SO_MEMINFO, SO_RCVBUFFORCE, SO_SNDBUFFORCE
from echod.net.listener import Protocol
from echod.supervisor.adoption import adopt_http_socket, adopt_socket
from echod.supervisor.listening import ListeningSockets
from echod.tcp.connection import READ_BYTES
from echod.tcp.service import LARGE_BUFFER_CONNECTIONS, SMALL_BUFFERS

RMEM_ALLOC, WMEM_QUEUED, FORWARD_ALLOC = 0, 5, 4
SNDBUF_LOCK, RCVBUF_LOCK = 1, 2

LARGEST = 2 * (LARGE_BUFFERS.receive + LARGE_BUFFERS.send)
"""The kernel doubles what is asked for, for its own bookkeeping (socket(7))."""

OVER = 4 * READ_BYTES
"""One send and one segment each way may go over it."""

WELL_READ = 32 << 20
"""Bytes after which a kernel that chooses its buffers itself has made them large."""


def pinned(sock: socket.socket) -> int:
    """Return the bytes of the kernel's memory that a connection has for itself (SO_MEMINFO)."""
    words = struct.unpack("9I", sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36))
    return words[RMEM_ALLOC] + words[WMEM_QUEUED] + words[FORWARD_ALLOC]


@pytest.mark.parametrize("well_read", [0, WELL_READ])
def test_a_peer_that_does_not_read_pins_a_bounded_amount(worker: TcpWorker, well_read: int) -> None:
    """Also one that read well before, for whom the kernel would otherwise have made the buffers large."""
    with worker.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 64 << 20)  # it never lacks anything to send
        worker.exchange({client: bytes(well_read)})
        worker.stuff(client, PLENTY)
        (connection,) = worker.writing
        assert LARGE_BUFFERS.send < pinned(connection.sock) <= LARGEST + OVER
        assert len(connection.unsent) <= READ_BYTES


def test_one_of_many_pins_little(worker: TcpWorker) -> None:
    """With 64 connections open a further one has small buffers; when some have ended, the next one has large ones."""
    with ExitStack() as stack:
        crowd = [stack.enter_context(worker.connect()) for _ in range(LARGE_BUFFER_CONNECTIONS)]
        assert {got_buffers(each.sock).send for each in worker.connections.open.values()} == {LARGE_BUFFERS.send}
        client = stack.enter_context(worker.connect())
        client.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 64 << 20)
        worker.stuff(client, PLENTY)
        (connection,) = worker.writing
        assert got_buffers(connection.sock) == SMALL_BUFFERS
        assert SMALL_BUFFERS.send < pinned(connection.sock) <= 2 * (SMALL_BUFFERS.receive + SMALL_BUFFERS.send) + OVER
        for each in crowd[:2]:
            each.close()
        worker.turn_until(lambda: len(worker.echo.connections) == LARGE_BUFFER_CONNECTIONS - 1, "two ends")
        stack.enter_context(worker.connect())
        assert got_buffers(list(worker.connections.open.values())[-1].sock) == LARGE_BUFFERS


def test_all_connections_together_stay_below_the_memory_of_the_unit() -> None:
    """The default of tcp.max_connections, each with all that it may pin, is less than MemoryHigh=1G."""
    most = Config().tcp.max_connections
    few = LARGE_BUFFER_CONNECTIONS * (LARGEST + READ_BYTES)
    many = (most - LARGE_BUFFER_CONNECTIONS) * (2 * (SMALL_BUFFERS.receive + SMALL_BUFFERS.send) + READ_BYTES)
    (line,) = re.findall(
        r"^MemoryHigh=(\d+)G$", (REPOSITORY / "packaging/systemd/echod.service").read_text(), re.MULTILINE
    )
    assert few + many < int(line) << 30


@needs_root
@pytest.mark.parametrize("http", [False, True])
def test_the_buffers_of_a_socket_unit_are_those_of_datagrams(*, http: bool) -> None:
    """ReceiveBuffer= and SendBuffer= hold for TCP as well, and connections could pin them: they are made smaller."""
    with socket.create_server(("127.0.0.1", 0)) as passed:
        for option in (SO_RCVBUFFORCE, SO_SNDBUFFORCE):
            passed.setsockopt(socket.SOL_SOCKET, option, 8 << 20)
        fd = passed.detach()
    with adopt_http_socket(fd, BUFFERS) if http else adopt_socket(fd, BUFFERS)[1] as sock:
        assert got_buffers(sock) == LARGE_BUFFERS


def test_a_reload_leaves_the_buffers_of_connections_alone() -> None:
    """What udp.receive_buffer asks for is given to UDP listeners only, when they are kept too."""
    listening, wanted = ListeningSockets(units_of("")), (listener(port=0, protocol=Protocol.TCP),)
    for _ in range(2):
        listening.commit(listening.acquire(wanted, workers=1, buffers=BUFFERS))
    (sock,) = listening.sockets[wanted[0]]
    with sock:
        assert got_buffers(sock) == LARGE_BUFFERS


@needs_root
def test_where_the_host_grants_less_the_kernel_chooses() -> None:
    """Fixed at the limit of an ordinary user's buffers a stream would be slow: they may grow from there."""
    huge = Buffers(receive=1 << 30, send=1 << 30)

    def ask() -> list[int]:
        with open_socket(listener(protocol=Protocol.TCP), BUFFERS, sibling=False) as sock:
            bound_connections(sock, huge)
            return [sock.getsockopt(socket.SOL_SOCKET, SO_BUF_LOCK), got_buffers(sock).receive, got_buffers(sock).send]

    lock, receive, send = as_nobody(ask)
    assert lock == 0
    assert receive < huge.receive
    assert send < huge.send
    with open_socket(listener(protocol=Protocol.TCP), BUFFERS, sibling=False) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, SO_BUF_LOCK) == SNDBUF_LOCK | RCVBUF_LOCK
