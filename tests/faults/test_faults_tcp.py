"""Whatever error accepting meets, the connection that waited is served in the end, and UDP all the while."""

import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from itertools import product

import pytest
from support.faults.injection import Fault, needs_strace, stopped
from support.faults.service import SERVED, Service
from support.waiting import SECONDS

pytestmark = needs_strace

MakeFault = Callable[..., Fault]

CONNECTION_ERRORS = ["ECONNABORTED", "EPROTO", "ENETDOWN", "EINTR", "EAGAIN"]
OF_THE_HOST = ["EPERM", "EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"]

MORE_THAN_A_TURN = 20
"""One turn of the loop accepts at most sixteen times."""


def connect(service: Service, stack: ExitStack, count: int = 3) -> list[socket.socket]:
    """Make so many connections, and write a word into each."""
    target = ("127.0.0.1", service.port)
    socks = [stack.enter_context(socket.create_connection(target, SECONDS)) for _ in range(count)]
    for number, sock in enumerate(socks):
        sock.sendall(b"%d" % number)
    return socks


def assert_echoed_to_the_end(socks: list[socket.socket]) -> None:
    """Assert that each connection gets its word back, and then a clean end."""
    for number, sock in enumerate(socks):
        assert sock.recv(16) == b"%d" % number
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(16) == b""


@pytest.mark.parametrize(
    ("error", "times"), [*product(CONNECTION_ERRORS, (1, MORE_THAN_A_TURN)), *product(OF_THE_HOST, (1, 2))]
)
def test_an_accept_that_fails_loses_no_connection_and_udp_goes_on(
    service: Service, fault: MakeFault, error: str, times: int
) -> None:
    """Behind a connection that broke in the backlog, the next one is accepted at once; nothing is counted as failed.

    Without the means to accept, each failure is one pause and one count; those who waited are served after it.
    """
    with ExitStack() as stack:
        failing = stack.enter_context(fault(service.worker, "accept4", error, times))
        socks = connect(service, stack)
        failing.wait(1 if error in OF_THE_HOST else times)
        service.assert_served()
        assert_echoed_to_the_end(socks)
        assert failing.count() == times
    pauses = {"accept_failed": times} if error in OF_THE_HOST else {}
    service.wait_for_gain("tcp", accepted=3, closed_finished=3, **pauses)
    service.assert_unharmed(2 * SERVED)


@pytest.mark.parametrize("error", ["ENOMEM", "ENOSPC"])
def test_a_connection_that_cannot_be_waited_on_costs_itself_alone(fresh: Service, fault: MakeFault, error: str) -> None:
    """Where the kernel has no memory or no watch left (epoll_ctl(2)), that connection ends and the others go on."""
    with ExitStack() as stack:
        (there,) = connect(fresh, stack, 1)
        assert there.recv(16) == b"0"
        failing = stack.enter_context(fault(fresh.worker, "epoll_ctl", error, 1))
        (refused,) = connect(fresh, stack, 1)
        failing.wait(1)
        with suppress(ConnectionResetError):
            assert refused.recv(16) == b""
        there.sendall(b"0")
        assert_echoed_to_the_end([there])
    fresh.assert_unharmed(SERVED)
    gained = fresh.gained("tcp")
    assert gained["accepted"] == sum(number for name, number in gained.items() if name.startswith("closed_"))


# -- many at once

MANY = 40


@pytest.mark.parametrize("error", ["ENOMEM", "EAGAIN", "EBUSY", "EPERM"])
@pytest.mark.parametrize("times", [1, 2, 1000])
def test_connections_that_cannot_be_served_together_are_served_alone(
    service: Service, fault: MakeFault, error: str, times: int
) -> None:
    """Whatever io_uring_enter(2) says, and however often, each gets its bytes back, once."""
    with ExitStack() as stack:
        socks = connect(service, stack, MANY)
        for number, sock in enumerate(socks):
            assert sock.recv(16) == b"%d" % number
        with stopped(service.worker):
            failing = stack.enter_context(fault(service.worker, "io_uring_enter", error, times))
            for sock in socks:
                sock.sendall(b"word")
        for sock in socks:
            assert sock.recv(16) == b"word"
        for sock in socks:
            sock.sendall(b"again")
            assert sock.recv(16) == b"again"
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(16) == b""
        assert failing.count() >= 1
    service.wait_for_gain("tcp", accepted=MANY, closed_finished=MANY)
    service.assert_unharmed(SERVED)
