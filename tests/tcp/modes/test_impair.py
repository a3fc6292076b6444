"""echod.tcp.modes.impair: every byte back, in order, but later; what is on its way is bounded."""

import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from time import monotonic_ns

import pytest
from support.loopback import reset
from support.tcp_worker import NARROW, PLENTY, TcpWorker, pull, push

from echod.net.mode import Impairment
from echod.stats.counters import TcpField
from echod.tcp.modes.impair import MOST_OCTETS, ImpairedConnection, ImpairedConnections

MS = 1_000_000
HOUR = 3600 * 1000 * MS


class Impaired(TcpWorker):
    """A TCP listener with impairment."""

    def __init__(
        self, host: str = "127.0.0.1", *, test_port: int | None = None, stall: float = 30, **values: int
    ) -> None:
        """Serve on this host."""
        made: list[ImpairedConnections] = []

        def mode(poll: object) -> Callable[..., ImpairedConnections]:
            def make(**parts: object) -> ImpairedConnections:
                made.append(ImpairedConnections(Impairment(**values), poll, **parts))  # type: ignore[arg-type]
                return made[-1]

            return make

        super().__init__(host, mode=mode, idle=60, stall=stall, test_port=test_port)
        self.path = made[0]

    def check(self) -> None:
        """Assert that every connection is open or has ended once, and that none has too much on its way."""
        assert self.row[TcpField.ACCEPTED] == len(self.echo.connections) + sum(self.row[TcpField.CLOSED :])
        for connection in self.connections.open.values():
            assert isinstance(connection, ImpairedConnection)
            assert connection.on_way + len(connection.unsent) <= MOST_OCTETS

    @property
    def octets(self) -> tuple[int, int]:
        """Return the bytes that were received and sent."""
        return self.row[TcpField.RECEIVED_BYTES], self.row[TcpField.SENT_BYTES]


Serve = Callable[..., Impaired]


@pytest.fixture(params=["127.0.0.1", "::1"])
def serve(request: pytest.FixtureRequest, stack: ExitStack) -> Serve:
    """Serve over IPv4 and over IPv6."""
    return lambda **values: stack.enter_context(Impaired(request.param, **values))


def test_bytes_come_back_later(serve: Serve) -> None:
    """In order, when they are due and not before; the FIN of the peer is answered behind the last."""
    worker = serve(delay=50 * MS)
    with worker.connect() as client:
        began = monotonic_ns()
        client.sendall(b"hello ")
        worker.turn_until(lambda: worker.octets[0] == 6, "it received")
        assert worker.octets == (6, 0)
        client.sendall(b"world")
        client.shutdown(socket.SHUT_WR)
        assert worker.read(client) == b"hello world"
        assert monotonic_ns() - began >= 50 * MS
        assert worker.octets == (11, 11)
        assert worker.closed() == {"FINISHED": 1}


def test_bytes_are_received_while_others_are_on_their_way(serve: Serve) -> None:
    """A path with a delay is full of what was sent meanwhile: a hundred messages take one delay, not a hundred."""
    worker = serve(delay=HOUR)
    with worker.connect() as client:
        for number in range(1, 101):
            client.sendall(b"message")
            worker.turn_until(lambda number=number: worker.octets[0] == 7 * number, "it received")  # type: ignore[misc]
        assert worker.octets == (700, 0)


def test_a_link_takes_its_time(serve: Serve) -> None:
    """At 800,000 bit/s 10,000 bytes take 100 ms, and come in pieces."""
    worker = serve(rate=800_000)
    with worker.connect() as client:
        began = monotonic_ns()
        client.sendall(bytes(10_000))
        pieces: list[int] = []

        def came() -> bool:
            piece = pull(client)
            pieces.extend([len(piece)] if piece else [])
            return sum(pieces) == 10_000

        worker.turn_until(came, "every byte")
        assert monotonic_ns() - began >= 100 * MS
        assert max(pieces) < 5_000


def test_no_connection_waits_for_another(serve: Serve) -> None:
    """At 800 bit/s 40,000 bytes take 400 s; the byte of another connection takes 10 ms meanwhile."""
    worker = serve(rate=800)
    with worker.connect() as slow, worker.connect() as other:
        slow.sendall(bytes(40_000))
        worker.turn_until(lambda: worker.octets[0] == 40_000, "it received")
        other.sendall(b"x")
        assert worker.read(other, 1) == b"x"
        assert len(worker.echo.connections) == 2


def stuff(worker: Impaired, client: socket.socket) -> int:
    """Send until nothing more is read; return the bytes that were."""
    quiet = 0
    while quiet < 20:
        quiet = 0 if push(client) or worker.turn(0.001) else quiet + 1
    return worker.octets[0]


def test_what_is_on_its_way_is_bounded(serve: Serve) -> None:
    """A connection that has 1 MiB on its way is not read from; what each receive costs beside is counted, too."""
    worker = serve(delay=HOUR)
    with worker.connect() as client:
        assert 1_000_000 < stuff(worker, client) <= 1 << 20


def test_a_slow_link_holds_less(serve: Serve) -> None:
    """At 8,000 bit/s no more than 64 KiB is read: more would be minutes behind."""
    worker = serve(rate=8_000)
    with worker.connect() as client:
        assert 40_000 < stuff(worker, client) <= 65_536


def test_all_connections_together_are_bounded(serve: Serve, stack: ExitStack) -> None:
    """By 64 MiB: of seventy that send all they can, none is read from beyond that. Where one ends, others are read."""
    worker = serve(delay=HOUR)
    clients = [stack.enter_context(worker.connect()) for _ in range(70)]
    for client in clients:
        push(client)
    worker.turn_until(lambda: not worker.turn(0.05), "nothing more read")
    for client in clients:
        stuff(worker, client)
    received = worker.octets[0]
    assert 63 << 20 < received <= 64 << 20
    for client in clients[:10]:
        reset(client)
    worker.turn_until(lambda: worker.closed() == {"RESET": 10}, "the resets")
    for client in clients[10:]:
        stuff(worker, client)
    assert received < worker.octets[0] <= received + (10 << 20)


def test_a_full_connection_that_breaks_ends_at_once(serve: Serve) -> None:
    """Its bytes would be on their way for more than a minute. A connection that ended takes no room."""
    worker = serve(rate=8_000)
    with worker.connect() as other:
        for number in range(1, 4):
            client = worker.connect()
            stuff(worker, client)
            reset(client)
            worker.turn_until(lambda number=number: worker.closed() == {"RESET": number}, "the reset")  # type: ignore[misc]
        assert len(worker.echo.connections) == 1
        other.sendall(b"x")
        assert worker.read(other, 1) == b"x"


def test_many_that_broke_leave_nothing_behind(serve: Serve) -> None:
    """Of what is on its way for an hour little more is remembered than there are connections."""
    worker = serve(delay=HOUR)
    for number in range(1, 201):
        client = worker.connect()
        client.sendall(b"x")
        worker.turn_until(lambda number=number: worker.octets[0] == number, "it received")  # type: ignore[misc]
        reset(client)
        worker.turn_until(lambda number=number: worker.closed() == {"RESET": number}, "the reset")  # type: ignore[misc]
    assert len(worker.path._next) < 100


def test_a_peer_that_closed_without_reading_is_noticed(serve: Serve) -> None:
    """Its kernel answers the first byte that comes with a reset, also behind its FIN: the rest is not waited for."""
    worker = serve(rate=8_000)
    with worker.connect() as client:
        client.sendall(bytes(60_000))
        worker.turn_until(lambda: worker.octets[0] > 20_000, "it received")
    worker.turn_until(lambda: worker.closed() == {"RESET": 1}, "the reset")
    assert worker.octets[1] < 60_000


def test_half_a_close_of_a_full_connection_gets_every_byte(serve: Serve) -> None:
    """The FIN is behind what is not read yet."""
    worker = serve(rate=8_000_000)
    payload = bytes(range(256)) * 1000
    with worker.connect() as client:
        client.sendall(payload)
        client.shutdown(socket.SHUT_WR)
        assert worker.read(client) == payload
        worker.turn_until(lambda: worker.closed() == {"FINISHED": 1}, "the end")


def test_a_full_connection_is_read_again(serve: Serve) -> None:
    """As soon as there is room. A stream of 4 MiB comes back, in order."""
    worker = serve(delay=5 * MS)
    payload = memoryview(bytes(range(256)) * (1 << 14))
    with worker.connect() as client:
        sent, got = 0, bytearray()

        def moved() -> bool:
            nonlocal sent
            sent += push(client, payload[sent:])
            got.extend(pull(client))
            return len(got) == len(payload)

        worker.turn_until(moved, "every byte back")
        assert got == payload


def test_a_peer_that_does_not_read_stalls(serve: Serve) -> None:
    """What is due to it is bounded too, and the timeout ends it."""
    worker = serve(delay=MS)
    client, _ = worker.connect_stuck(PLENTY[: 1 << 20])
    with client:
        worker.pass_time(29)
        assert worker.closed() == {}
        worker.pass_time(2)
        assert worker.closed() == {"STALLED": 1}


def test_what_comes_behind_unsent_bytes_is_nothing_that_the_peer_took(serve: Serve) -> None:
    """A stall is not longer for it."""
    worker = serve(delay=MS)
    client, _ = worker.connect_stuck(PLENTY[: 1 << 20])
    with client:
        [connection] = worker.connections.open.values()
        assert isinstance(connection, ImpairedConnection)
        worker.turn_until(lambda: not connection.on_way, "all at the end of their way")
        worker.pass_time(29)
        worker.path.carry(connection, b"more")
        worker.turn_until(lambda: not connection.on_way, "more at the end of its way")
        worker.pass_time(2)
        assert worker.closed() == {"STALLED": 1}


def test_a_peer_that_takes_nothing_stalls_while_bytes_are_on_their_way(serve: Serve) -> None:
    """Although the kernel has room for what comes: a stall of 1 s is noticed while nothing is unsent."""
    worker = serve(rate=800_000, stall=1)
    with worker.connect(buffers=NARROW) as client:

        def stalled() -> bool:
            with suppress(ConnectionError):  # it is broken in the end
                push(client)
            return bool(worker.closed())

        worker.turn_until(stalled, "the stall")
        assert worker.closed() == {"STALLED": 1}


def test_what_is_on_its_way_is_not_idle(serve: Serve) -> None:
    """A delay may be longer than the timeout."""
    worker = serve(delay=HOUR)
    with worker.connect() as client, worker.connect():
        client.sendall(b"x")
        worker.turn_until(lambda: worker.octets == (1, 0), "it received")
        worker.pass_time(61)
        assert worker.closed() == {"IDLE": 1}
        assert len(worker.echo.connections) == 1


def test_a_drain_waits_for_what_is_on_its_way(serve: Serve) -> None:
    """Until its end; then it is sent at once."""
    worker = serve(delay=HOUR)
    with worker.connect() as client:
        client.sendall(b"better early than never")
        worker.turn_until(lambda: worker.octets[0] == 23, "it received")
        worker.echo.drain(worker.now, worker.now + 10)
        worker.pass_time(5)
        assert worker.closed() == {}
        worker.pass_time(6)
        assert worker.closed() == {"DRAINED": 1}
        assert client.recv(100) == b"better early than never"
        assert client.recv(100) == b""


def test_a_half_closed_connection_drains_with_its_last_byte(serve: Serve) -> None:
    """FIN was behind it."""
    worker = serve(delay=HOUR)
    with worker.connect() as client:
        client.sendall(b"last")
        client.shutdown(socket.SHUT_WR)
        worker.turn_until(lambda: worker.octets[0] == 4, "it received")
        worker.turn()
        worker.echo.drain(worker.now, worker.now + 10)
        worker.pass_time(11)
        assert client.recv(100) == b"last"
        assert client.recv(100) == b""
        assert worker.closed() == {"FINISHED": 1}


def test_a_broken_connection_takes_nothing_with_it(serve: Serve) -> None:
    """What was on its way to it is forgotten when it is due, and a new one with its descriptor gets none of that."""
    worker = serve(delay=100 * MS)
    with worker.connect() as other:
        client = worker.connect()
        client.sendall(b"x" * 1000)
        worker.turn_until(lambda: worker.octets[0] == 1000, "it received")
        reset(client)
        worker.turn_until(lambda: worker.closed() == {"RESET": 1}, "the reset")
        with worker.connect() as new:
            other.sendall(b"mine")
            assert worker.read(other, 4) == b"mine"
            new.sendall(b"new")
            assert worker.read(new, 3) == b"new"
        assert worker.octets == (1007, 7)


def test_a_self_test_is_echoed_at_once() -> None:
    """Whatever the delay."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with Impaired(test_port=port, delay=HOUR) as worker:
        accepted = worker.row[TcpField.ACCEPTED]
        with socket.create_connection(worker.server.getsockname(), 15, source_address=("127.0.0.1", port)) as client:
            worker.turn_until(lambda: worker.row[TcpField.ACCEPTED] > accepted, "it accepted")
            client.sendall(b"probe")
            assert worker.read(client, 5) == b"probe"
