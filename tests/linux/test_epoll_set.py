"""Those that are ready are looked at together, as an epoll has them."""

import select
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from support.loopback import sleeps

from echod.linux.epoll_set import EpollSet

MOST = 8
MANY = 300
"""So that some descriptors have numbers of more than one byte."""

MakePairs = Callable[[int], list[tuple[socket.socket, socket.socket]]]


@pytest.fixture
def epoll_set() -> Iterator[EpollSet]:
    """Look at eight at once."""
    made = EpollSet(MOST)
    with made.epoll:
        yield made


@pytest.fixture
def pairs(stack: ExitStack) -> MakePairs:
    """Make connected pairs: ours, and theirs. They are closed at the end."""

    def make(count: int) -> list[tuple[socket.socket, socket.socket]]:
        made = [socket.socketpair() for _ in range(count)]
        for pair in made:
            for sock in pair:
                stack.enter_context(sock)
        return made

    return make


def look(epoll_set: EpollSet) -> list[tuple[int, int]]:
    """Return the ready ones, each with its events."""
    descriptors, events = epoll_set.poll()
    return sorted(zip(descriptors.tolist(), events.tolist(), strict=True))


def test_those_that_are_ready_come_with_their_events(epoll_set: EpollSet, pairs: MakePairs) -> None:
    """Only they, and of what they were registered for only what has come; what is broken is reported unasked."""
    wanted = [select.EPOLLIN, select.EPOLLRDNORM, select.EPOLLOUT, select.EPOLLIN | select.EPOLLOUT, select.EPOLLIN]
    made = pairs(len(wanted))
    assert look(epoll_set) == []
    for (ours, theirs), events in zip(made, wanted, strict=True):
        epoll_set.epoll.register(ours.fileno(), events)
        theirs.send(b"x")
    made[4][0].recv(1)
    expected = {made[index][0].fileno(): wanted[index] for index in range(4)}
    assert look(epoll_set) == sorted(expected.items())
    made[4][1].close()
    assert look(epoll_set) == sorted({**expected, made[4][0].fileno(): select.EPOLLIN | select.EPOLLHUP}.items())


def test_a_look_never_waits(epoll_set: EpollSet, pairs: MakePairs) -> None:
    """Where nobody is ready the views are empty, at once, whatever the look before found."""
    ((ours, theirs),) = pairs(1)
    epoll_set.epoll.register(ours.fileno(), select.EPOLLIN)
    theirs.send(b"x")
    assert look(epoll_set) == [(ours.fileno(), select.EPOLLIN)]
    ours.recv(1)
    before = sleeps()
    descriptors, events = epoll_set.poll()
    assert sleeps() == before
    assert (descriptors.tolist(), events.tolist()) == ([], [])


def test_many_come_in_turn(epoll_set: EpollSet, pairs: MakePairs) -> None:
    """No look has more than it may, and within as many looks as it takes everybody has come."""
    made = pairs(MANY)
    for ours, theirs in made:
        epoll_set.epoll.register(ours.fileno(), select.EPOLLIN)
        theirs.send(b"x")
    seen: set[int] = set()
    for _ in range(MANY // MOST + 1):
        ready = look(epoll_set)
        assert 0 < len(ready) <= MOST
        seen.update(fd for fd, _ in ready)
    assert seen == {ours.fileno() for ours, _ in made}
    assert max(seen) > 255


def test_a_look_that_fails_is_an_error() -> None:
    """EBADF, where the epoll is gone, is not taken for nobody being ready."""
    epoll_set = EpollSet(MOST)
    epoll_set.epoll.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        epoll_set.poll()


def test_a_process_that_is_told_of_another_machine_looks_the_same() -> None:
    """uname(2) says i686 to a process with that personality, and the kernel writes its events as ever."""
    code = """if True:
        import os, select
        from echod.linux.epoll_set import EpollSet
        (_, ready), epoll_set = os.pipe(), EpollSet(1)
        epoll_set.epoll.register(ready, select.EPOLLOUT)
        assert epoll_set.poll()[0].tolist() == [ready]
    """
    setarch = shutil.which("setarch")
    if setarch is None:
        pytest.skip("no setarch(8)")
    subprocess.run([setarch, "linux32", sys.executable, "-c", code], check=True)
