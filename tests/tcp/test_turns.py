"""Streams have their turns: none takes the worker's time from the others, and all get the same."""

import socket

import pytest
from support.tcp_worker import Connect, TcpWorker, pull, push

from echod.linux.io_uring import SLOT_BYTES, SLOTS
from echod.stats.counters import TcpField
from echod.tcp.connection import READ_BYTES
from echod.tcp.connections import MAX_BYTES_PER_TURN, MIN_BATCH, QUIET_SECONDS

RECEIVED = TcpField.RECEIVED_BYTES

MOST = 2 << 20
"""Bytes: more than a turn may bring, and far less than all have to send."""


@pytest.mark.parametrize("count", [MIN_BATCH - 2, 4 * MIN_BATCH])
def test_a_turn_ends_when_it_has_brought_enough(worker: TcpWorker, connect: Connect, count: int) -> None:
    """However many send however much: the rest waits, so that a datagram has to wait no longer than that takes."""
    clients = connect(worker, count)
    for _ in range(8):
        for client in clients:
            push(client)
        before = worker.row[RECEIVED]
        assert worker.turn() == 1
        moved = worker.row[RECEIVED] - before
        assert 0 < moved < MOST
        for client in clients:
            pull(client)


def test_the_rest_comes_in_the_next_turn(worker: TcpWorker, connect: Connect) -> None:
    """Nobody has to send again to be served."""
    clients = connect(worker, 4 * MIN_BATCH)
    for client in clients:
        client.send(bytes(READ_BYTES))
    taken = [0] * len(clients)

    def all_came_back() -> bool:
        taken[:] = [before + len(pull(client)) for before, client in zip(taken, clients, strict=True)]
        return sum(taken) == worker.row[RECEIVED] == len(clients) * READ_BYTES

    worker.turn_until(all_came_back, "all that was sent")
    assert set(taken) == {READ_BYTES}


def test_who_ends_while_he_waits_for_his_turn_is_not_served(worker: TcpWorker, connect: Connect) -> None:
    """The time of some is up between two turns; the others are served on."""
    clients = connect(worker, 4 * MIN_BATCH)
    for client in clients:
        push(client)
    worker.turn()
    worker.echo.drain(worker.now, worker.now)
    worker.pass_time(0)
    assert worker.closed() == {"DRAINED": len(clients)}
    worker.echo.connections.on_readable(worker.now)
    worker.check()


@pytest.mark.parametrize("count", [MIN_BATCH - 2, 4 * MIN_BATCH])
def test_who_was_put_off_comes_first(worker: TcpWorker, connect: Connect, count: int) -> None:
    """Where all send without end each is served as often as any other: the first no more than the last."""
    clients, turns = connect(worker, count), 20 * count
    served = [0] * count
    for _ in range(turns):
        for client in clients:
            push(client)
        worker.turn()
        served = [before + bool(pull(client)) for before, client in zip(served, clients, strict=True)]
    assert min(served) > max(served) / 4, served


def test_who_waits_for_his_turn_is_not_idle(worker: TcpWorker, connect: Connect) -> None:
    """However long the others take: what he sent lies there, so it is the worker that is late."""
    clients = connect(worker, 8)
    for client in clients:
        push(client)
    worker.turn()
    brought = worker.row[RECEIVED]
    worker.echo.drain(worker.now, worker.now + 10 * QUIET_SECONDS)
    for _ in range(3):
        worker.pass_time(QUIET_SECONDS)
        assert worker.closed() == {}
    worker.turn_until(lambda: worker.row[RECEIVED] > brought + MOST, "all who waited")
    worker.pass_time(20 * QUIET_SECONDS)
    assert worker.closed() == {"DRAINED": len(clients)}


def test_who_has_no_more_does_not_keep_the_others_waiting(worker: TcpWorker, connect: Connect) -> None:
    """Of the first of those that wait nothing may be left to be read, after as much as is received together."""
    clients = connect(worker, SLOTS)
    lengths = [SLOT_BYTES, *([2 * SLOT_BYTES] * (SLOTS - 1))]
    for client, length in zip(clients, lengths, strict=True):
        client.send(bytes(length))
    worker.turn_until(lambda: worker.row[RECEIVED] == sum(lengths), "all that was sent")


def test_who_leaves_does_not_keep_the_others_waiting(connect: Connect) -> None:
    """The first of those that wait may be gone before their turn comes."""
    with TcpWorker(without_ring=True) as worker:
        (first,) = connect(worker, 1)
        worker.pass_time(299)
        *others, last = connect(worker, 18)
        length = MAX_BYTES_PER_TURN // 17 + 1
        for client in others:
            client.send(bytes(length))
        first.shutdown(socket.SHUT_WR)
        last.send(b"last")
        worker.turn()
        assert worker.row[RECEIVED] == 17 * length
        worker.pass_time(1)
        assert worker.closed() == {"IDLE": 1}
        worker.turn_until(lambda: worker.row[RECEIVED] > 17 * length, "the last one's turn")
        assert last.recv(16) == b"last"
