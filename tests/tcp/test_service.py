"""A TCP connection gets back every byte it sent, and a peer that does not read costs next to nothing."""

import socket
import struct
from contextlib import ExitStack

import pytest
from support.loopback import add_link, ip, needs_root, reset, tcp_client, wait_for_address
from support.tcp_worker import TcpWorker

from echod.stats.counters import TcpField
from echod.stats.outcomes import Close
from echod.tcp.connection import READ_BYTES, whole_segments

pytestmark = pytest.mark.usefixtures("together")

TIMESTAMPS = 12
"""Bytes of the option in each segment (RFC 7323)."""
RECEIVED, SENT = TcpField.RECEIVED_BYTES, TcpField.SENT_BYTES


def payload(length: int) -> bytes:
    """Return bytes in which a byte lost, doubled or moved shows."""
    return b"".join(i.to_bytes(4, "big") for i in range(length // 4 + 1))[:length]


# -- bytes


@pytest.mark.parametrize("length", [1, 1000, READ_BYTES - 1, READ_BYTES, READ_BYTES + 1, 5_000_000])
def test_what_is_sent_comes_back(worker: TcpWorker, length: int) -> None:
    """Every byte is echoed once and in order, whatever lengths it came in, and counted in and out."""
    with worker.connect() as client:
        worker.exchange({client: payload(length)})
        assert (worker.row[RECEIVED], worker.row[SENT]) == (length, length)
        assert worker.closed() == {}


def test_a_stream_goes_out_in_full_segments(worker: TcpWorker) -> None:
    """Receives are as many bytes as go into full segments, of the size that the kernel has come to."""
    length = 5_000_000
    with worker.connect() as client:
        (connection,) = worker.reading
        worker.exchange({client: payload(length)})
        segment = connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
        assert connection._read_bytes == whole_segments(connection.sock) == READ_BYTES // segment * segment
        sent = struct.unpack_from("I", connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232), 156)[0]
        assert length / segment <= sent < 1.5 * length / segment


@pytest.mark.parametrize(("segment", "most"), [(1448, 45 * 1448), (536, 122 * 536), (88, 744 * 88)])
def test_segments_may_be_small(segment: int, most: int) -> None:
    """As those of Ethernet are: the most of them that one receive has room for."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment + TIMESTAMPS)
        client.connect(server.getsockname())
        with server.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) == segment
            assert whole_segments(accepted) == most


def test_accepted_sockets_do_not_delay(worker: TcpWorker) -> None:
    """Nagle's algorithm is off on every connection, and none blocks."""
    with worker.connect():
        (connection,) = worker.reading
        assert connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert not connection.sock.getblocking()


# -- the end


@pytest.mark.parametrize("length", [0, 1, 3_000_000])
def test_a_half_close_is_answered_with_all_bytes_and_fin(worker: TcpWorker, length: int) -> None:
    """Who shuts down its sending side still gets everything, then a clean end: no reset."""
    with worker.connect() as client:
        if length:
            worker.exchange({client: payload(length)}, half_close=True)
        else:
            client.shutdown(socket.SHUT_WR)
        worker.turn_until(lambda: not worker.echo.connections, "the end")
        assert client.recv(1) == b""
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    assert worker.closed() == {"FINISHED": 1}


def test_a_half_close_while_bytes_are_held_loses_none(narrow: TcpWorker) -> None:
    """Who half-closes while echod holds bytes for it gets them, and what waits in the kernel, then FIN."""
    client, sent = narrow.connect_stuck(payload(READ_BYTES))
    with client:
        client.shutdown(socket.SHUT_WR)
        assert narrow.read(client) == sent
    narrow.turn_until(lambda: narrow.closed() == {"FINISHED": 1}, "the end")


def test_a_reset_by_the_peer_is_counted(worker: TcpWorker) -> None:
    """A broken connection ends as reset, and costs the others nothing."""
    with worker.connect() as other:
        reset(worker.connect())
        worker.turn_until(lambda: len(worker.echo.connections) == 1, "the end")
        assert worker.closed() == {"RESET": 1}
        worker.exchange({other: b"still here"})


def test_a_reset_while_bytes_are_held_is_counted(narrow: TcpWorker) -> None:
    """A peer that breaks the connection while bytes are due to it ends as reset."""
    client, _ = narrow.connect_stuck()
    reset(client)
    narrow.turn_until(lambda: not narrow.echo.connections, "the end")
    assert narrow.closed() == {"RESET": 1}


def test_a_reset_before_the_accept_is_counted(worker: TcpWorker) -> None:
    """A connection that broke in the backlog is accepted, ends as reset, and the next one is served."""
    reset(tcp_client(worker.server))
    with worker.connect() as client:
        worker.exchange({client: b"next"})
        worker.turn_until(lambda: len(worker.echo.connections) == 1, "the broken one's end")
        assert worker.row[TcpField.ACCEPTED] == 1 + sum(worker.closed().values())


# -- a peer that does not read


def test_a_peer_that_does_not_read_is_not_read_from(narrow: TcpWorker) -> None:
    """What it sends stays in its own window; echod holds at most one receive's worth, and then loses none of it."""
    client, sent = narrow.connect_stuck(payload(READ_BYTES))
    with client:
        (connection,) = narrow.writing
        assert 0 < len(connection.unsent) == narrow.row[RECEIVED] - narrow.row[SENT] <= READ_BYTES
        assert narrow.row[RECEIVED] < len(sent)
        assert narrow.read(client, len(sent)) == sent
        assert not narrow.writing
        narrow.exchange({client: b"as ever"})
        assert narrow.turn() == 0


# -- access


def refused(worker: TcpWorker) -> list[tuple[int, int, dict[str, int]]]:
    """Return what would be reported of refused connections: reason, how many, from whom."""
    return [(report.reason, report.refused, report.sources) for report in worker.tally.reports()]


@pytest.mark.parametrize(("host", "source", "deny"), [("127.0.0.1", "127.0.0.2", "127.0.0.2/32"), ("::1", "", "::1")])
def test_a_source_that_may_not_be_answered_is_closed_at_once(host: str, source: str, deny: str) -> None:
    """It is counted, reported, and has the end of the connection instead of an echo; no place is taken by it."""
    with TcpWorker(host, deny=deny, limit=1, limit_per_source=1) as worker:
        for _ in range(3):
            with worker.connect(source) as client:
                assert client.recv(16) == b""
        assert worker.closed() == {"ACCESS": 3}
        assert refused(worker) == [(Close.ACCESS, 3, {source or host: 3})]


def test_a_source_that_is_denied_does_not_touch_another() -> None:
    """The other connects, is echoed and takes the one place there is, before and after one that was turned away."""
    with TcpWorker(deny="127.0.0.2/32", limit=1) as worker:
        for word in (b"before", b"after"):
            with worker.connect() as client, worker.connect("127.0.0.2") as denied:
                assert denied.recv(16) == b""
                worker.exchange({client: word})
            worker.turn_until(lambda: not worker.echo.connections, "the connection ended")
        assert worker.closed() == {"ACCESS": 2, "FINISHED": 2}


@needs_root
def test_a_link_local_address_is_another_source_on_another_link(network: None) -> None:
    """So one host does not take the place of another that has the same address there."""
    add_link("fe80::7/64")
    ip("address", "add", "fe80::7/64", "nodad", "dev", "lo")
    wait_for_address("fe80::7/64", "lo")
    with TcpWorker("::", limit_per_source=1) as worker, ExitStack() as stack:
        port = worker.server.getsockname()[1]
        for number, link in enumerate(("near", "lo", "near"), 1):
            client = stack.enter_context(socket.socket(socket.AF_INET6))
            client.bind(("fe80::7", 0, 0, socket.if_nametoindex(link)))
            client.connect(("fe80::7", port, 0, socket.if_nametoindex(link)))
            worker.turn_until(lambda number=number: worker.row[TcpField.ACCEPTED] == number, "the connection accepted")
            assert worker.closed() == ({"OVER_SOURCE_LIMIT": 1} if number == 3 else {})


def test_connections_over_the_limit_are_reported() -> None:
    """One too many in all, or of its source, is closed and reported with its source; those that are served are not."""
    with TcpWorker(limit=2, limit_per_source=1) as worker:
        sources = ("127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.3")
        with ExitStack() as stack:
            clients = [stack.enter_context(worker.connect(source)) for source in sources]
            assert [clients[index].recv(16) for index in (1, 3)] == [b"", b""]
        assert refused(worker) == [
            (Close.OVER_SOURCE_LIMIT, 1, {"127.0.0.1": 1}),
            (Close.OVER_LIMIT, 1, {"127.0.0.3": 1}),
        ]
