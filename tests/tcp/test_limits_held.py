"""A TCP listener keeps its limits: of connections, of time, of descriptors; and drains when it is told to."""

import socket
from contextlib import ExitStack

import pytest
from support.loopback import no_descriptor_left, reset, tcp_client
from support.tcp_worker import NARROW, TcpWorker, without_waiting

from echod.stats.counters import TcpField

pytestmark = pytest.mark.usefixtures("together")

ACCEPTS, PAUSE = 16, 1.0
"""Connections that one turn accepts; seconds without accepting after one that failed."""


def assert_ended(client: socket.socket) -> None:
    """Assert that the server closed without a reset."""
    assert client.recv(64) == b""
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


# -- how many


def test_one_turn_accepts_only_so_many(worker: TcpWorker, stack: ExitStack) -> None:
    """A flood of connections leaves the loop after sixteen; the rest is accepted in the next turn."""
    more = 4
    for _ in range(ACCEPTS + more):
        stack.enter_context(tcp_client(worker.server))
    worker.turn()
    assert worker.row[TcpField.ACCEPTED] == ACCEPTS
    worker.turn_until(lambda: len(worker.echo.connections) == ACCEPTS + more, "the rest")


def test_every_end_gives_its_place_back(stack: ExitStack) -> None:
    """However often connections end and come, the limit is where it was."""
    with TcpWorker(limit=3) as worker:
        for _ in range(5):
            for client in [worker.connect() for _ in range(3)]:
                reset(client)
            worker.turn_until(lambda: not worker.echo.connections, "all gone")
        for _ in range(4):
            stack.enter_context(worker.connect())
        assert worker.closed() == {"RESET": 15, "OVER_LIMIT": 1}


# -- how long


def test_bytes_put_the_idle_end_off(worker: TcpWorker) -> None:
    """300 seconds after its last byte, and not before, a connection ends with FIN; each has its own clock."""
    with worker.connect() as busy, worker.connect() as quiet:
        assert worker.echo.next_deadline() == worker.now + 300
        worker.pass_time(200)
        worker.exchange({busy: b"ping"})
        assert worker.echo.next_deadline() == worker.now + 100
        worker.pass_time(99.9)
        assert worker.closed() == {}
        worker.pass_time(0.1)
        assert worker.closed() == {"IDLE": 1}
        assert_ended(quiet)
        worker.exchange({busy: b"ping"})
        # Looked at when its time would have been up without this last byte; and then it is not.
        assert worker.echo.next_deadline() == worker.now + 200
        worker.pass_time(200)
        assert worker.closed() == {"IDLE": 1}
        assert worker.echo.next_deadline() == worker.now + 100
        worker.pass_time(100)
        assert worker.closed() == {"IDLE": 2}
        assert worker.echo.next_deadline() is None


def test_who_was_held_up_and_is_served_again_ends_on_his_idle_time(stack: ExitStack) -> None:
    """The idle timeout is the shorter one here, and a look at who was held up must not put it off."""
    with TcpWorker(send_buffer=NARROW, idle=1.0, stall=30.0) as worker:
        client, sent = worker.connect_stuck()
        stack.enter_context(client)
        worker.pass_time(2.0)  # the look that finds bytes held for it
        assert worker.read(client, len(sent)) == sent
        assert (worker.writing, worker.closed()) == ([], {})
        worker.pass_time(1.0)
        assert worker.closed() == {"IDLE": 1}


def test_each_stalled_connection_has_its_own_clock(narrow: TcpWorker) -> None:
    """A peer that takes none of the bytes due to it for 30 seconds has stalled; one that takes some has not."""
    with narrow.connect_stuck()[0] as slow, narrow.connect_stuck()[0]:
        assert narrow.echo.next_deadline() == narrow.now + 30
        narrow.pass_time(20)
        sent = narrow.row[TcpField.SENT_BYTES]

        def taken() -> bool:
            with without_waiting(slow):
                slow.recv(1024)
            return narrow.row[TcpField.SENT_BYTES] > sent

        narrow.turn_until(taken, "room for more")
        narrow.pass_time(9.9)
        assert narrow.closed() == {}
        narrow.pass_time(0.1)
        assert narrow.closed() == {"STALLED": 1}
        narrow.pass_time(20)
        assert sum(narrow.closed().values()) == 2


def test_looks_at_the_time_are_few_however_many_have_their_own(stack: ExitStack) -> None:
    """Who ends a hundredth of a second after another shares a look with him: each look is at all connections."""
    with TcpWorker(idle=10.0) as worker:
        began, looks = worker.now, 0
        for _ in range(50):
            stack.enter_context(worker.connect())
            worker.now += 0.01
        while (deadline := worker.echo.next_deadline()) is not None:
            worker.pass_time(deadline - worker.now)
            looks += 1
        assert worker.closed() == {"IDLE": 50}
        assert looks <= 1 + 0.5 / 0.25
        assert worker.now <= began + 10.75


# -- descriptors


def test_without_descriptors_accepting_pauses_and_does_not_spin(worker: TcpWorker, stack: ExitStack) -> None:
    """One turn meets EMFILE, is counted once, and until the pause is over the poll reports the listener no more."""
    open_one = stack.enter_context(worker.connect())
    waiting = stack.enter_context(tcp_client(worker.server))
    with no_descriptor_left():
        worker.turn_until(lambda: worker.row[TcpField.ACCEPT_FAILED] == 1, "the pause")
        assert worker.echo.next_deadline() == worker.now + PAUSE
        for _ in range(10):
            assert worker.turn() == 0
        worker.exchange({open_one: b"ping"})
        worker.pass_time(PAUSE)
        worker.turn()
        assert worker.row[TcpField.ACCEPT_FAILED] == 2
    assert worker.turn() == 0
    worker.pass_time(PAUSE / 2)
    assert worker.turn() == 0
    worker.pass_time(PAUSE / 2)
    worker.exchange({waiting: b"ping"})
    assert (worker.row[TcpField.ACCEPTED], worker.row[TcpField.ACCEPT_FAILED]) == (2, 2)


def test_without_an_epoll_watch_the_pause_goes_on(worker: TcpWorker, stack: ExitStack) -> None:
    """Where the kernel refuses to watch the listener again, that is counted and tried again; open ones are served."""
    open_one = stack.enter_context(worker.connect())
    waiting = stack.enter_context(tcp_client(worker.server))
    with no_descriptor_left():
        worker.turn_until(lambda: worker.row[TcpField.ACCEPT_FAILED] == 1, "the pause")
    worker.poll.left = 0
    worker.pass_time(PAUSE)
    assert worker.row[TcpField.ACCEPT_FAILED] == 2
    assert worker.echo.next_deadline() == worker.now + PAUSE
    worker.exchange({open_one: b"ping"})
    open_one.close()
    worker.turn_until(lambda: worker.row[TcpField.ACCEPT_FAILED] == 3, "the end of one")
    worker.poll.left = 1
    worker.pass_time(2 * PAUSE)
    worker.exchange({waiting: b"ping"})


def test_an_ended_connection_ends_the_pause(worker: TcpWorker, stack: ExitStack) -> None:
    """Its descriptor is what the next one needs: nobody waits for the pause to pass."""
    first = stack.enter_context(worker.connect())
    waiting = stack.enter_context(tcp_client(worker.server))
    with no_descriptor_left():
        worker.turn_until(lambda: worker.row[TcpField.ACCEPT_FAILED] == 1, "the pause")
        first.shutdown(socket.SHUT_WR)
        worker.turn_until(lambda: worker.row[TcpField.ACCEPTED] == 2, "the one that waited")
    worker.exchange({waiting: b"ping"})


# -- draining


def test_draining_accepts_the_whole_backlog_and_no_more(worker: TcpWorker, stack: ExitStack) -> None:
    """All who connected before the drain are served, be they more than a turn accepts; who comes later is refused."""
    clients = [stack.enter_context(tcp_client(worker.server)) for _ in range(3 * ACCEPTS)]
    address = worker.server.getsockname()
    worker.echo.drain(worker.now, worker.now + 10)
    assert len(worker.echo.connections) == len(clients)
    for client in clients:
        worker.exchange({client: b"ping"})
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


def test_draining_ends_quiet_connections_first(worker: TcpWorker) -> None:
    """A connection on which nothing moves ends after a second; a busy one lasts to the end of the drain."""
    with worker.connect() as quiet, worker.connect() as busy:
        until = worker.now + 10
        worker.echo.drain(worker.now, until)
        assert worker.echo.next_deadline() == worker.now
        worker.pass_time(0)
        assert worker.echo.next_deadline() == worker.now + 1.0
        worker.pass_time(0.5)
        worker.exchange({busy: b"ping"})
        worker.pass_time(0.5)
        assert worker.closed() == {"DRAINED": 1}
        assert_ended(quiet)
        worker.exchange({busy: b"ping"})
        while worker.now + 0.75 < until:
            worker.pass_time(0.75)
            worker.exchange({busy: b"ping"})
        assert worker.now < worker.echo.next_deadline() <= until
        worker.pass_time(until - worker.now)
        assert worker.closed() == {"DRAINED": 2}
        assert_ended(busy)
        assert worker.echo.next_deadline() is None


def test_draining_ends_a_stuck_connection_at_the_end(narrow: TcpWorker) -> None:
    """Bytes that nobody takes hold up nothing beyond the drain's end."""
    with narrow.connect_stuck()[0]:
        narrow.echo.drain(narrow.now, narrow.now + 5)
        narrow.pass_time(4.9)
        assert len(narrow.echo.connections) == 1
        narrow.pass_time(0.1)
        assert narrow.closed() == {"DRAINED": 1}


def test_draining_amid_a_pause_is_orderly(worker: TcpWorker, stack: ExitStack) -> None:
    """A listener that is paused for want of descriptors is closed like any other, and the pause is forgotten."""
    client = stack.enter_context(worker.connect())
    stack.enter_context(tcp_client(worker.server))
    with no_descriptor_left():
        worker.turn_until(lambda: worker.row[TcpField.ACCEPT_FAILED] == 1, "the pause")
        worker.echo.drain(worker.now, worker.now + 10)
        worker.check()
    client.shutdown(socket.SHUT_WR)
    worker.turn_until(lambda: not worker.echo.connections, "the end")
    worker.pass_time(20)
    assert (worker.turn(), worker.echo.next_deadline(), worker.closed()) == (0, None, {"FINISHED": 1})


def test_a_listener_that_is_ready_when_it_drains_is_left_alone(worker: TcpWorker) -> None:
    """The listener's turn may come after the order to drain, in one turn of the loop: there is nothing to accept."""
    worker.echo.drain(worker.now, worker.now + 10)
    worker.echo.on_acceptable(worker.now)
    worker.check()
    assert len(worker.echo.connections) == 0
