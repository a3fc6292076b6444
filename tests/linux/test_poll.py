"""A poll calls back for what is ready, and for nothing else."""

import os
import socket
from collections.abc import Iterator
from math import inf
from time import monotonic_ns

import pytest
from support.loopback import listener, sleeps, tcp_client
from support.waiting import SECONDS

from echod.linux.poll import READ, WRITE, Poll
from echod.linux.sockets import Buffers, open_socket
from echod.net.listener import Protocol


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Connect two sockets."""
    one, other = socket.socketpair()
    with one, other:
        yield one, other


Pair = tuple[socket.socket, socket.socket]

either = pytest.mark.parametrize("busy", [False, True])


def turn(poll: Poll, now: float = 0.0, seconds: float | None = 0.0) -> None:
    """Call back for what is ready."""
    for on_ready in poll.wait(seconds):
        on_ready(now)


@either
def test_a_ready_descriptor_is_called_back_with_the_time(poll: Poll, pair: Pair, *, busy: bool) -> None:
    """As long as something is to be read, each turn calls, with the time that it was given."""
    called: list[float] = []
    poll.register(pair[0].fileno(), READ, called.append, busy=busy)
    turn(poll, 1.0)
    pair[1].send(b"x")
    turn(poll, 2.0, None)
    turn(poll, 3.0)
    pair[0].recv(1)
    turn(poll, 4.0)
    assert called == [2.0, 3.0]


@either
@pytest.mark.parametrize("events", [READ, WRITE])
def test_a_broken_connection_is_always_ready(poll: Poll, events: int, *, busy: bool) -> None:
    """A reset wakes whoever waits, for reading or for writing."""
    called: list[float] = []
    server = open_socket(listener(protocol=Protocol.TCP), Buffers(receive=4096, send=4096), sibling=False)
    with server, tcp_client(server) as client, server.accept()[0] as accepted:
        client.send(b"unread")
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes((1, 0, 0, 0, 0, 0, 0, 0)))
        poll.register(client.fileno(), events, called.append, busy=busy)
        accepted.close()
        turn(poll, 1.0, SECONDS)
        assert called == [1.0]
        poll.unregister(client.fileno())


@pytest.mark.parametrize("busy", [(False, False), (False, True), (True, False), (True, True)])
def test_what_a_callback_unregisters_is_not_called_in_the_same_turn(poll: Poll, busy: tuple[bool, bool]) -> None:
    """Of two descriptors ready at once, the first to be called may close the other."""
    called: list[int] = []
    read_ends = []
    for _ in range(2):
        read, write = os.pipe()
        os.write(write, b"x")
        os.close(write)
        read_ends.append(read)

    def close_the_other(own: int, other: int) -> None:
        called.append(own)
        poll.unregister(other)
        os.close(other)

    one, two = read_ends
    poll.register(one, READ, lambda _: close_the_other(one, two), busy=busy[0])
    poll.register(two, READ, lambda _: close_the_other(two, one), busy=busy[1])
    turn(poll)
    assert called in ([one], [two])
    os.close(called[0])


@either
def test_closing_a_poll_leaves_its_descriptors_open(pair: Pair, *, busy: bool) -> None:
    """Whoever opened a descriptor closes it."""
    poll = Poll()
    poll.register(pair[0].fileno(), READ, lambda _: None, busy=busy)
    poll.close()
    pair[1].send(b"x")
    assert pair[0].recv(1) == b"x"


@either
def test_a_wait_that_follows_a_short_one_looks_without_sleeping(pair: Pair, *, busy: bool) -> None:
    """Where something was ready at once the next wait does not sleep, within its time; behind a long one it does."""
    poll = Poll(spin_seconds=0.03)
    poll.register(pair[0].fileno(), READ, lambda _: None, busy=busy)
    slept = []
    for ready in (True, False, False):
        if ready:
            pair[1].send(b"x")
        before = sleeps()
        assert len(list(poll.wait(0.03))) == int(ready)
        slept.append(sleeps() > before)
        if ready:
            pair[0].recv(1)
    assert slept == [False, False, True]
    poll.close()


# -- times

MS = 1_000_000


def turn_until_called(poll: Poll, called: list[float]) -> None:
    """Do turns until something is called that was not before."""
    before = len(called)
    deadline = monotonic_ns() + SECONDS * 1000 * MS
    while len(called) == before:
        turn(poll, 1.0, 2 * SECONDS)
        assert monotonic_ns() < deadline, "nobody was woken for it"


def test_a_time_is_called_back_when_it_has_come(poll: Poll) -> None:
    """Once, and not before; the wait ends for it. A time that has passed is called in the next turn."""
    called: list[float] = []
    at = monotonic_ns() + 30 * MS
    poll.call_at(at, called.append)
    turn(poll)
    assert called == []
    turn_until_called(poll, called)
    assert monotonic_ns() >= at
    poll.call_at(0, called.append)
    turn(poll, 2.0)
    turn(poll, 3.0)
    assert called == [1.0, 2.0]


def test_a_callback_has_one_time(poll: Poll) -> None:
    """The last that was given, be it later, earlier or never; that of another is its own."""
    called: list[float] = []
    other: list[float] = []
    poll.call_at(0, called.append)
    poll.call_at(monotonic_ns() + 3_600_000 * MS, called.append)
    poll.call_at(0, other.append)
    turn(poll, 1.0)
    assert (called, other) == ([], [1.0])
    poll.call_at(monotonic_ns() + MS, called.append)
    turn_until_called(poll, called)
    poll.call_at(0, called.append)
    poll.call_at(inf, called.append)
    turn(poll, 2.0)
    assert called == [1.0]


@either
def test_a_time_that_was_called_wakes_nobody_again(pair: Pair, *, busy: bool) -> None:
    """The next wait sleeps: for the next time, or for nothing."""
    poll = Poll(spin_seconds=0.1)  # so that the wait after one of 20 ms looks without sleeping
    called: list[float] = []
    poll.register(pair[0].fileno(), READ, called.append, busy=busy)
    for later in (20 * MS, 3_600_000 * MS):
        poll.call_at(monotonic_ns() + 20 * MS, called.append)
        turn_until_called(poll, called)
        turn(poll)
        assert list(poll.wait(0.05)) == []
        poll.call_at(monotonic_ns() + later, called.append)
    assert list(poll.wait(0.05)) == []
    poll.close()


def test_a_ready_descriptor_is_called_beside_a_time(poll: Poll, pair: Pair) -> None:
    """In the same turn, before it."""
    called: list[str] = []
    poll.register(pair[0].fileno(), READ, lambda _: called.append("descriptor"))
    poll.call_at(0, lambda _: called.append("time"))
    pair[1].send(b"x")
    turn(poll)
    assert called == ["descriptor", "time"]
