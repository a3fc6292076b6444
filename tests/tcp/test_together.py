"""Connections that are served together are each served as if they were alone."""

import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import pytest
from support.loopback import reset
from support.tcp_worker import NARROW, Connect, TcpWorker, WatchedRing

from echod.linux.io_uring import SLOT_BYTES, SLOTS
from echod.stats.counters import TcpField
from echod.tcp.connection import READ_BYTES
from echod.tcp.connections import MIN_BATCH

RECEIVED, SENT = TcpField.RECEIVED_BYTES, TcpField.SENT_BYTES
SEVERAL = 2 * MIN_BATCH
LENGTHS = [1, SLOT_BYTES - 1, SLOT_BYTES, SLOT_BYTES + 1, 2 * SLOT_BYTES, READ_BYTES, READ_BYTES + 1, 300_000]


def word(number: int, length: int) -> bytes:
    """Return what one client sends: no other client's bytes are like it at any place."""
    return struct.pack("<HH", number, length % 65_521) * (length // 4) + b"%d" % (number % 10) * (length % 4)


def sizes(worker: TcpWorker) -> list[int]:
    """Return how many were served together, each time, since the last time that this was asked."""
    asked = worker.ring.asked if worker.ring is not None else []
    reported, asked[:] = asked[:], []
    return reported


def served(worker: TcpWorker, client: socket.socket) -> socket.socket:
    """Return the worker's side of a connection."""
    (sock,) = (each.sock for each in worker.reading if each.sock.getpeername() == client.getsockname())
    return sock


def exchange(worker: TcpWorker, clients: list[socket.socket], lengths: Sequence[int] = [64] * SLOTS) -> None:
    """Let all send words of these lengths at once; each gets its own and no more."""
    worker.exchange({client: word(number, lengths[number]) for number, client in enumerate(clients)})


# -- bytes


@pytest.mark.parametrize("count", [MIN_BATCH - 1, MIN_BATCH, SLOTS, SLOTS + 1])
def test_as_many_as_are_ready_are_served_in_one_turn(worker: TcpWorker, connect: Connect, count: int) -> None:
    """Each gets its own word, also when they are more than one look takes in; few are served one by one."""
    clients = connect(worker, count)
    sizes(worker)
    for number, client in enumerate(clients):
        client.send(word(number, 64))
    assert worker.turn() == 1
    assert [client.recv(128) for client in clients] == [word(number, 64) for number in range(count)]
    assert (worker.row[RECEIVED], worker.row[SENT]) == (64 * count, 64 * count)
    assert worker.turn() == 0
    if worker.ring is not None:
        assert sizes(worker) == ([] if count < MIN_BATCH else [min(count, SLOTS)])


def test_a_flood_of_connections_leaves_the_loop_to_others(
    worker: TcpWorker, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One turn looks only so often; who was not seen is served in the next."""
    monkeypatch.setattr(
        "echod.tcp.connections._POLLS", range(1)
    )  # of as many as there are, too many descriptors for a test
    clients = connect(worker, SLOTS + 1)
    for client in clients:
        client.send(b"x")
    assert worker.turn() == 1
    assert worker.row[SENT] == SLOTS
    assert worker.turn() == 1
    assert worker.row[SENT] == SLOTS + 1
    assert {client.recv(2) for client in clients} == {b"x"}


@pytest.mark.parametrize("lengths", [*([length] * SEVERAL for length in LENGTHS), 3 * LENGTHS])
def test_messages_of_any_length_come_back(worker: TcpWorker, connect: Connect, lengths: list[int]) -> None:
    """Whether or not a message fits the room that each has, its bytes come back in order, and no other's.

    Beside who sends a byte, another may send a stream.
    """
    clients = connect(worker, len(lengths))
    for _ in range(3):
        exchange(worker, clients, lengths)
        lengths = [*reversed(lengths)]
    assert worker.row[RECEIVED] == worker.row[SENT] == 3 * sum(lengths)
    assert worker.closed() == {}


def test_who_sends_streams_is_served_by_itself(connect: Connect) -> None:
    """It needs more than its room in each look, so the others are served together without it."""
    with TcpWorker() as worker:
        clients = connect(worker, SEVERAL)
        worker.exchange({clients[0]: bytes(5_000_000)})
        sizes(worker)
        exchange(worker, clients)
        assert sizes(worker) == [SEVERAL - 1]


def test_what_is_behind_urgent_data_comes_back(worker: TcpWorker, connect: Connect) -> None:
    """A receive stops before urgent data, which is not part of the stream; all that is part of it is echoed."""
    for count in (1, SEVERAL):
        clients = connect(worker, count)
        for client in clients:
            client.send(b"before")
            client.send(b"!", socket.MSG_OOB)
            client.send(b"behind")
        assert {worker.read(client, 12) for client in clients} == {b"beforebehind"}


# -- the end


def test_some_end_while_others_go_on(worker: TcpWorker, connect: Connect) -> None:
    """A half-close gives all bytes and a clean end, a reset is counted, and the others beside them are served."""
    clients = connect(worker, 3 * SEVERAL)
    half, broken, others = clients[::3], clients[1::3], clients[2::3]
    for client in clients:
        client.send(b"word")
    for client in half:
        client.shutdown(socket.SHUT_WR)
    worker.turn_until(lambda: worker.closed() == {"FINISHED": SEVERAL}, "the end of those that are done")
    assert {client.recv(16) for client in half} == {b"word"}
    assert {client.recv(16) for client in half} == {b""}
    for client in broken:
        reset(client)
    for client in others:
        client.send(b"again")
    worker.turn_until(lambda: worker.closed() == {"FINISHED": SEVERAL, "RESET": SEVERAL}, "all of them gone")
    assert {client.recv(16) for client in others} == {b"wordagain"}
    assert len(worker.echo.connections) == SEVERAL


def test_an_end_right_behind_the_bytes_is_seen(worker: TcpWorker, connect: Connect) -> None:
    """Bytes and the end that are there together are reported once: both are taken, whoever else is ready."""
    for count in (1, SEVERAL):
        clients = connect(worker, count)
        for client in clients:
            client.sendall(b"last words")
            client.shutdown(socket.SHUT_WR)
        worker.turn()
        assert len(worker.echo.connections) == 0
        assert {client.recv(64) for client in clients} == {b"last words"}
        assert {client.recv(64) for client in clients} == {b""}


def test_many_that_end_at_once_are_each_counted(worker: TcpWorker, connect: Connect) -> None:
    """Where nobody has anything to say but that it is done, all end in the same turn."""
    clients = connect(worker, SEVERAL)
    for client in clients:
        client.shutdown(socket.SHUT_WR)
    worker.turn()
    assert worker.closed() == {"FINISHED": SEVERAL}
    assert {client.recv(1) for client in clients} == {b""}


# -- what comes between the look and the receive, or between that and the send


@pytest.fixture
def ring() -> Iterator[tuple[TcpWorker, WatchedRing]]:
    """Serve with a ring that a test can hold."""
    with TcpWorker() as worker:
        assert worker.ring is not None
        worker.ring.asked.clear()
        yield worker, worker.ring


@pytest.mark.parametrize("moment", ["before_receive", "before_send"])
@pytest.mark.parametrize("end", ["half-close", "reset"])
def test_an_end_in_between_is_its_own_alone(
    ring: tuple[TcpWorker, WatchedRing], connect: Connect, moment: str, end: str
) -> None:
    """Who ends at that very moment ends as ever, and those beside him lose nothing and are counted right."""
    worker, held = ring
    clients = connect(worker, SEVERAL)
    gone, others = clients[5], clients[:5] + clients[6:]
    theirs = served(worker, gone)

    def leave() -> None:
        setattr(held, moment, lambda: None)
        if moment == "before_receive":
            theirs.recv(16)  # so that nothing is left to receive but the end
        if end == "reset":
            reset(gone)
        else:
            gone.shutdown(socket.SHUT_WR)

    setattr(held, moment, leave)
    for client in clients:
        client.send(b"word")
    worker.turn_until(lambda: len(worker.echo.connections) == SEVERAL - 1, "the end of that one")
    assert held.asked == [SEVERAL]
    assert worker.closed() == {"RESET" if end == "reset" else "FINISHED": 1}
    assert {client.recv(16) for client in others} == {b"word"}
    received = SEVERAL if moment == "before_send" else SEVERAL - 1
    sent = SEVERAL if (moment, end) == ("before_send", "half-close") else SEVERAL - 1
    assert (worker.row[RECEIVED], worker.row[SENT]) == (4 * received, 4 * sent)


def test_who_breaks_off_right_behind_his_fin_is_a_reset(ring: tuple[TcpWorker, WatchedRing], connect: Connect) -> None:
    """His FIN was received; when it is to be answered there is no connection any more."""
    worker, held = ring
    clients = connect(worker, SEVERAL)
    gone = clients[5]
    theirs = served(worker, gone)

    def leave() -> None:
        held.before_receive = held.before_send = lambda: None
        reset(gone)

    def say_no_more() -> None:
        theirs.recv(16)  # so that nothing is left to receive but the end
        gone.shutdown(socket.SHUT_WR)

    held.before_receive, held.before_send = say_no_more, leave
    for client in clients:
        client.send(b"word")
    worker.turn_until(lambda: len(worker.echo.connections) == SEVERAL - 1, "the end of that one")
    assert held.asked == [SEVERAL]
    assert worker.closed() == {"RESET": 1}


def test_who_could_not_be_received_from_is_asked_again(ring: tuple[TcpWorker, WatchedRing], connect: Connect) -> None:
    """Where the kernel has not the memory for all, the others are served in the next look."""
    worker, held = ring
    clients = connect(worker, SEVERAL)
    held.means = 3
    exchange(worker, clients)
    assert worker.row[RECEIVED] == worker.row[SENT] == 64 * SEVERAL
    assert len(held.asked) > 1


# -- peers that do not read


def test_peers_that_do_not_read_are_held_up_and_lose_nothing(
    narrow: TcpWorker, connect: Connect, stack: ExitStack
) -> None:
    """Of what they sent, what the kernel does not take is held, and nobody is read from meanwhile, but the others."""
    stuck = [narrow.connect_stuck(word(number, 3000)) for number in range(3)]
    for client, _ in stuck:
        stack.enter_context(client)
    others = connect(narrow, SEVERAL)
    assert len(narrow.writing) == 3
    exchange(narrow, others)
    assert len(narrow.writing) == 3
    for client, sent in stuck:
        assert narrow.read(client, len(sent)) == sent


def test_what_one_send_does_not_take_is_held(narrow: TcpWorker, stack: ExitStack) -> None:
    """Where the kernel takes a part of what was received together, the rest is held, in order."""
    sent = {stack.enter_context(narrow.connect(buffers=NARROW)): bytearray() for _ in range(SEVERAL)}

    def all_stuck() -> bool:
        for number, (client, mine) in enumerate(sent.items()):
            if not any(each.sock.getpeername() == client.getsockname() for each in narrow.writing):
                client.sendall(word(number, 1024))
                mine.extend(word(number, 1024))
        return len(narrow.writing) == SEVERAL

    sizes(narrow)
    narrow.turn_until(all_stuck, "bytes held for each")
    assert max(sizes(narrow)) >= MIN_BATCH
    for client, mine in sent.items():
        assert narrow.read(client, len(mine)) == mine


# -- time


def test_who_is_served_together_is_not_idle(worker: TcpWorker, connect: Connect) -> None:
    """Each that sent something in time stays; the one that did not ends."""
    clients = connect(worker, SEVERAL + 1)
    worker.pass_time(200)
    for client in clients[1:]:
        client.send(b"here")
    worker.turn()
    worker.pass_time(101)
    assert worker.closed() == {"IDLE": 1}
    assert clients[0].recv(1) == b""
    worker.pass_time(199)
    assert worker.closed() == {"IDLE": 1 + SEVERAL}


def test_who_ends_is_forgotten(worker: TcpWorker, connect: Connect) -> None:
    """Neither connections nor times are kept of those that are gone, and their descriptors may be another's."""
    for _ in range(3):
        clients = connect(worker, SEVERAL)
        exchange(worker, clients)
        for client in clients:
            client.close()
        worker.turn_until(lambda: not worker.echo.connections, "the end")
        assert not worker.connections.open
        assert not worker.connections.active_at
