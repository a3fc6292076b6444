"""Whatever error a receive or a send meets, it costs at most what was in hand, is counted, and harms nobody after."""

import errno
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from support.faults.injection import Fault, needs_strace, stopped
from support.faults.service import SERVED, Service

from echod.linux.sockopt import UDP_SEGMENT
from echod.stats.outcomes import SEND_ERRORS

pytestmark = needs_strace

MakeFault = Callable[..., Fault]

BATCH = 5
"""Datagrams that the worker finds together, each of another client: nothing there is joined."""

OF_TRAINS = ["EIO", "EINVAL", "EMSGSIZE"]
OTHERS = ["EACCES", "EPERM", "ENETUNREACH", "EHOSTUNREACH", "ENOBUFS", "ENODEV", "ECONNREFUSED", "EINTR", "ENOMEM"]
SEND = ["EAGAIN", *OF_TRAINS, *OTHERS]
RECEIVE = ["EAGAIN", "EINTR", "ENOMEM", "ECONNREFUSED", "ENOBUFS", "EHOSTUNREACH", "ENETDOWN", "EMSGSIZE"]


def failed(error: str, datagrams: int) -> dict[str, int]:
    """Return the counter of sends that failed so."""
    name = error.lower() if getattr(errno, error) in SEND_ERRORS else "other"
    return {f"send_failed_{name}": datagrams} if datagrams else {}


def has_answer(client: socket.socket, answer: bytes) -> bool:
    """Return whether the answer has come. (On loopback it has come as soon as it was sent.)"""
    client.setblocking(False)
    try:
        return client.recv(65_536) == answer
    except BlockingIOError:
        return False


@contextmanager
def met(service: Service, fault: MakeFault, call: str, error: str, times: int) -> Iterator[None]:
    """Have all that is sent meanwhile meet, together, a call that fails so often.

    Asserts that all who ask once the fault is over are answered, before the tracer has left.
    """
    with ExitStack() as stack:
        with stopped(service.worker):
            failing = stack.enter_context(fault(service.worker, call, error, times))
            yield
        failing.wait(times)
        service.assert_served()
        assert failing.count() == times


def answered(service: Service, fault: MakeFault, call: str, error: str, times: int) -> list[int]:
    """Have a batch meet a call that fails so often; return which of its datagrams were answered."""
    with ExitStack() as stack:
        clients = service.clients(stack, BATCH)
        with met(service, fault, call, error, times):
            for number, client in enumerate(clients):
                client.send(b"%d" % number)
        return [number for number, client in enumerate(clients) if has_answer(client, b"%d" % number)]


# -- sending


@pytest.mark.parametrize(
    ("error", "times", "lost"),
    [
        *((error, 1, 0) for error in SEND),
        ("EAGAIN", 2, BATCH),
        *((error, times, lost) for error in SEND[1:] for times, lost in ((2, 1), (BATCH + 1, BATCH))),
    ],
)
def test_a_datagram_that_cannot_be_sent_costs_itself_alone(
    service: Service, fault: MakeFault, error: str, times: int, lost: int
) -> None:
    """The first send of a batch that fails is made again; each further failure is one datagram, under its errno.

    With EAGAIN it is the rest of the batch. What comes behind is answered.
    """
    assert answered(service, fault, "sendmmsg", error, times) == list(range(lost, BATCH))
    service.assert_unharmed(BATCH + 2 * SERVED, failed(error, lost))


def send_joinable(service: Service, fault: MakeFault, error: str, *, as_train: bool) -> tuple[int, int]:
    """Have one client's 40 datagrams meet a fault, with one of another behind them; return how many each got back.

    They come as one train, or one by one and are joined by the worker. (The first attempt of a batch is made again: to
    fail, a message must do so twice.)
    """
    with ExitStack() as stack:
        many, one = service.clients(stack, 2)
        payload = [b"%02d" % number for number in range(40)]
        with met(service, fault, "sendmmsg", error, 2):
            if as_train:
                many.sendmsg([b"".join(payload)], [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("H", 2))])
            else:
                for data in payload:
                    many.send(data)
            one.send(b"one")
        return sum(has_answer(many, data) for data in payload), int(has_answer(one, b"one"))


@pytest.mark.parametrize("as_train", [False, True])
@pytest.mark.parametrize("error", OF_TRAINS)
def test_a_train_that_cannot_be_sent_is_sent_apart(
    fresh: Service, fault: MakeFault, error: str, *, as_train: bool
) -> None:
    """EIO, EINVAL and EMSGSIZE may be of the train, not of its datagrams: each of them is answered, exactly once."""
    assert send_joinable(fresh, fault, error, as_train=as_train) == (40, 1)
    fresh.assert_unharmed(41 + 2 * SERVED)


@pytest.mark.parametrize("as_train", [False, True])
@pytest.mark.parametrize("error", ["EAGAIN", *OTHERS])
def test_a_train_that_fails_is_counted_in_datagrams(
    service: Service, fault: MakeFault, error: str, *, as_train: bool
) -> None:
    """All 40 datagrams of the message are counted; who stands behind them is answered, but for EAGAIN."""
    lost = 41 if error == "EAGAIN" else 40
    assert send_joinable(service, fault, error, as_train=as_train) == (0, 41 - lost)
    service.assert_unharmed(41 + 2 * SERVED, failed(error, lost))


# -- receiving


@pytest.mark.parametrize("error", RECEIVE)
@pytest.mark.parametrize("times", [1, 20])
def test_a_receive_that_fails_costs_nothing(service: Service, fault: MakeFault, error: str, times: int) -> None:
    """What was queued is received in a later turn of the loop, and answered."""
    assert answered(service, fault, "recvmmsg", error, times) == list(range(BATCH))
    service.assert_unharmed(BATCH + 2 * SERVED)
