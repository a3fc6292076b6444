"""A connection counts until its peer has taken what is due to it, though the kernel has it already."""

import socket
from contextlib import ExitStack

import pytest
from support.loopback import reset
from support.tcp_worker import NARROW, TcpWorker, push

pytestmark = pytest.mark.usefixtures("together")

DUE = 200_000
"""Bytes: more than a narrow client takes unread, and less than the kernel takes at once."""


def finish(worker: TcpWorker, stack: ExitStack) -> socket.socket:
    """Connect a client that sends DUE bytes and FIN and reads nothing; return it when the kernel has them back."""
    client = stack.enter_context(worker.connect(buffers=NARROW))
    left = DUE

    def sent() -> bool:
        nonlocal left
        left -= push(client, bytes(left))
        return not left

    worker.turn_until(sent, "all sent")
    client.shutdown(socket.SHUT_WR)
    opened = worker.connections.open
    worker.turn_until(lambda: any(each.finished for each in opened.values()) or bool(worker.closed()), "a FIN")
    return client


def test_who_takes_nothing_is_still_connected(stack: ExitStack) -> None:
    """So that nobody can fill the kernel's memory with more connections than he may have."""
    with TcpWorker(limit_per_source=1) as worker:
        client = finish(worker, stack)
        assert (len(worker.echo.connections), worker.closed()) == (1, {})
        stack.enter_context(worker.connect())
        assert worker.closed() == {"OVER_SOURCE_LIMIT": 1}
        assert len(worker.read(client)) == DUE
        worker.turn_until(lambda: not worker.echo.connections, "the end")
        assert worker.closed() == {"OVER_SOURCE_LIMIT": 1, "FINISHED": 1}
        stack.enter_context(worker.connect())
        assert len(worker.echo.connections) == 1


def test_who_breaks_off_before_he_has_taken_all_has_not_finished(stack: ExitStack) -> None:
    """What was due to him is lost, so it is a reset."""
    with TcpWorker() as worker:
        client = finish(worker, stack)
        reset(client)
        worker.turn_until(lambda: not worker.echo.connections, "the end")
        assert worker.closed() == {"RESET": 1}


def test_who_never_takes_it_has_stalled(stack: ExitStack) -> None:
    """The kernel gives up after the stall timeout, by its own clock."""
    with TcpWorker(stall=0.5) as worker:
        finish(worker, stack)
        worker.turn_until(lambda: not worker.echo.connections, "the end")
        assert worker.closed() == {"STALLED": 1}


@pytest.mark.parametrize(("drain", "ends"), [(10.0, 1.0), (0.5, 0.5), (0.0, 0.0)])
def test_a_drain_leaves_the_rest_to_the_kernel(stack: ExitStack, drain: float, ends: float) -> None:
    """It ends after a second without traffic, or when its own time is over; the kernel still sends what is due."""
    with TcpWorker() as worker:
        client = finish(worker, stack)
        worker.echo.drain(worker.now, worker.now + drain)
        if ends:
            worker.pass_time(ends / 2)
            assert worker.closed() == {}
        worker.pass_time(ends / 2)
        assert worker.closed() == {"FINISHED": 1}
        assert len(worker.read(client)) == DUE


def test_who_is_idle_after_his_fin_leaves_his_place(stack: ExitStack) -> None:
    """He may take his time, as long as he takes something; but not longer with a place than any other."""
    with TcpWorker(idle=60.0) as worker:
        client = finish(worker, stack)
        worker.pass_time(59.0)
        assert worker.closed() == {}
        worker.pass_time(1.0)
        assert worker.closed() == {"FINISHED": 1}
        assert len(worker.read(client)) == DUE
