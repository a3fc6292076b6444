"""A descriptor that is none any more is a defect: the worker dies of it, is replaced, and what was queued is served."""

from collections.abc import Callable
from contextlib import ExitStack

import pytest
from support.faults.injection import Fault, needs_strace, stopped
from support.faults.service import SERVED, Service
from support.waiting import wait_until

pytestmark = needs_strace

MakeFault = Callable[..., Fault]

BATCH = 5
FATAL = ["EBADF", "ENOTSOCK"]


def assert_replaced(service: Service) -> None:
    """Assert that the worker reported why it ended, and that another serves under the same supervisor."""
    daemon = service.daemon
    exited = daemon.wait_for("worker_exited")
    assert (exited["pid"], exited["reason"]) == (service.worker, "exit code 70")
    wait_until(lambda: daemon.workers() not in ([], [service.worker]), "the worker was replaced")
    service.assert_served()
    assert daemon.process.poll() is None
    assert len(daemon.workers()) == len(daemon.log("worker_exited")) == 1


@pytest.mark.parametrize(
    ("call", "error"), [*(("recvmmsg", error) for error in FATAL), ("epoll_wait/epoll_pwait", "EBADF")]
)
def test_a_worker_that_can_receive_no_more_is_replaced_and_nothing_is_lost(
    mortal: Service, fault: MakeFault, call: str, error: str
) -> None:
    """The supervisor holds the socket: the successor answers what was queued for the worker that died."""
    with ExitStack() as stack:
        clients = mortal.clients(stack, BATCH)
        with stopped(mortal.worker):
            stack.enter_context(fault(mortal.worker, call, error, 1))
            for number, client in enumerate(clients):
                client.send(b"%d" % number)
        assert [client.recv(16) for client in clients] == [b"%d" % number for number in range(BATCH)]
        assert_replaced(mortal)
    assert mortal.gained("udp") == {"received": BATCH + SERVED, "replied": BATCH + SERVED}


@pytest.mark.parametrize("error", FATAL)
def test_a_worker_that_can_send_no_more_loses_its_batch_alone(mortal: Service, fault: MakeFault, error: str) -> None:
    """What it held is counted as interrupted; what comes after it is answered by its successor."""
    with ExitStack() as stack:
        clients = mortal.clients(stack, BATCH)
        with stopped(mortal.worker):
            stack.enter_context(fault(mortal.worker, "sendmmsg", error, 2))
            for client in clients:
                client.send(b"lost")
        assert_replaced(mortal)
    assert mortal.gained("udp") == {"received": BATCH + SERVED, "replied": SERVED, "interrupted": BATCH}


# -- the wait itself


@pytest.mark.parametrize("times", [1, 20])
def test_an_interrupted_wait_of_the_worker_costs_nothing(service: Service, fault: MakeFault, times: int) -> None:
    """EINTR is no event and no error: the wait goes on for what is left of its time."""
    with fault(service.worker, "epoll_wait/epoll_pwait", "EINTR", times) as interrupted:
        service.assert_served()
        interrupted.wait(times)
    service.assert_unharmed(2 * SERVED)


def test_an_interrupted_wait_of_the_supervisor_costs_nothing(fresh: Service, fault: MakeFault) -> None:
    """A reload whose every wait is interrupted for a while is a reload all the same."""
    daemon = fresh.daemon
    with fault(daemon.pid, "epoll_wait/epoll_pwait", "EINTR", 20) as interrupted:
        assert daemon.reload()["event"] == "reloaded"
        interrupted.wait(20)
    fresh.assert_served()
    assert daemon.process.poll() is None
    assert daemon.stop() == 0
