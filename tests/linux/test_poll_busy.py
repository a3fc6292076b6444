"""A poll calls back the busy, which poll(2) waits for, and those beside them in the epoll, as one."""

import os
import select
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Timer
from time import monotonic

import pytest
from support.loopback import sleeps, udp_client, udp_server
from support.waiting import SECONDS, wait_until

from echod.linux.poll import MAX_EVENTS, MOST_BUSY, READ, SHARED, Poll


def turn(poll: Poll, seconds: float | None) -> None:
    """Call back for what is ready."""
    for on_ready in poll.wait(seconds):
        on_ready(0.0)


class Ends:
    """Connected sockets in a poll, each known by its letter.

    Small ones are in the epoll, capitals are busy, and digits are busy and shared.
    """

    def __init__(self, poll: Poll, stack: ExitStack, letters: str) -> None:
        """Connect and register them, in this order."""
        self._poll = poll
        self._stack = stack
        self._pairs: dict[str, tuple[socket.socket, ...]] = {}
        self._called: list[str] = []
        for letter in letters:
            self.more(letter)

    def register(self, letter: str) -> None:
        """Have it called back."""
        called: Callable[[float], None] = lambda _: self._called.append(letter)  # noqa: E731 - of this letter
        events = SHARED if letter.isdigit() else READ
        self._poll.register(self._pairs[letter][0].fileno(), events, called, busy=not letter.islower())

    def more(self, letter: str) -> None:
        """Connect and register another."""
        self._pairs[letter] = tuple(map(self._stack.enter_context, socket.socketpair()))
        self.register(letter)

    def fileno(self, letter: str) -> int:
        """Return the descriptor of one."""
        return self._pairs[letter][0].fileno()

    def unregister(self, letter: str) -> None:
        """Have it called back no more."""
        self._poll.unregister(self._pairs[letter][0].fileno())

    def make_ready(self, letters: str) -> None:
        """Have something to be read at each of these."""
        for letter in letters:
            self._pairs[letter][1].send(b"x")

    def called(self, seconds: float | None = 0.0) -> str:
        """Return who is called in one turn, and have nothing left to be read at them."""
        self._called.clear()
        turn(self._poll, seconds)
        for letter in self._called:
            self._pairs[letter][0].recv(1)
        return "".join(sorted(self._called))


@pytest.fixture
def ends(poll: Poll, stack: ExitStack) -> Callable[[str], Ends]:
    """Connect sockets; all are closed at the end."""
    return lambda letters: Ends(poll, stack, letters)


@pytest.mark.parametrize("letters", ["A", "Ab", "aB", "AbC", "abAB", "aAbBcC", "cbaCBA", "1", "1a", "A1", "21", "1aA2"])
@pytest.mark.parametrize("seconds", [0.0, SECONDS, None])
def test_whoever_is_ready_is_called_in_the_same_turn(
    ends: Callable[[str], Ends], letters: str, seconds: float | None
) -> None:
    """The busy and the others, each alone and all together, once."""
    some = ends(letters)
    assert some.called() == ""
    for letter in letters:
        some.make_ready(letter)
        assert some.called(seconds) == letter
        assert some.called() == ""
    some.make_ready(letters)
    assert some.called(seconds) == "".join(sorted(letters))
    assert some.called() == ""


BUSY = "ABCDEFGHIJKLMNOPQRSTUVWX"


def test_more_busy_ones_than_are_worth_it_are_called_too(poll: Poll, ends: Callable[[str], Ends]) -> None:
    """The first sixteen are asked in each wait, the others are in the epoll; where one goes, another has room."""
    some = ends(BUSY)
    assert len(BUSY) > MOST_BUSY == len(poll._busy) == 16
    some.make_ready(BUSY)
    assert some.called() == BUSY
    for letter in "BX":  # one of the sixteen, and one of the others
        some.unregister(letter)
    assert len(poll._busy) == MOST_BUSY - 1
    some.make_ready(BUSY)
    assert some.called() == BUSY.replace("B", "").replace("X", "")
    for letter in "XB":
        some.register(letter)
    assert len(poll._busy) == MOST_BUSY
    assert some.called() == "BX"
    some.make_ready(BUSY)
    assert some.called() == BUSY


def test_one_turn_calls_so_many_of_the_epoll_and_the_busy(stack: ExitStack) -> None:
    """Of more than can be reported at once the rest is called in the next turn; a busy one in each, once awake."""
    called: list[int] = []
    poll = Poll(spin_seconds=SECONDS)
    stack.callback(poll.close)
    read, write = os.pipe()
    stack.callback(os.close, read)
    os.write(write, b"x")
    os.close(write)
    poll.register(read, READ, lambda _: called.append(-1), busy=True)
    for number in range(MAX_EVENTS + 1):
        copy = os.dup(read)
        stack.callback(os.close, copy)
        poll.register(copy, READ, lambda _, number=number: called.append(number))  # type: ignore[misc]
    turn(poll, 0.0)
    assert len(called) == len(set(called)) == MAX_EVENTS
    for _ in range(2):
        called.clear()
        turn(poll, 0.0)
        assert called.count(-1) == 1
        assert len(called) == len(set(called)) == MAX_EVENTS + 1


def test_a_wait_in_which_nothing_comes_ends(ends: Callable[[str], Ends]) -> None:
    """Not before its time, also where there are busy ones, and where that is no whole number of milliseconds."""
    some = ends("aA")
    for seconds in (0.0, 0.0001, 0.0123):
        before, began = sleeps(), monotonic()
        assert some.called(seconds) == ""
        assert (sleeps() > before) == (seconds > 0)
        assert monotonic() - began >= seconds


def test_who_is_unregistered_wakes_nobody(ends: Callable[[str], Ends], poll: Poll) -> None:
    """Ready or not, an unregistered descriptor ends no wait, also where there are others, and it sleeps."""
    some = ends("aA1bB2")
    assert some.called(0.001) == ""
    for letter in "aA1":
        some.unregister(letter)
    some.make_ready("aA1")
    assert poll._check() == []
    before = sleeps()
    assert some.called(0.001) == ""
    assert sleeps() > before
    some.make_ready("bB2")
    assert some.called(None) == "2Bb"


@pytest.mark.parametrize("letter", ["a", "A", "1"])
@pytest.mark.parametrize("seconds", [SECONDS, None])
def test_a_sleeping_wait_ends_for_either(ends: Callable[[str], Ends], letter: str, seconds: float | None) -> None:
    """Who is asleep, with busy ones and others, is woken by the first that is ready, whichever it is."""
    some = ends("aA1")
    stat = Path(f"/proc/{os.getpid()}/stat")
    before = sleeps()
    child = os.fork()
    if child == 0:
        try:
            wait_until(lambda: sleeps_now(stat), "the parent slept")
            some.make_ready(letter)
        finally:
            os._exit(0)
    assert some.called(seconds) == letter
    assert sleeps() > before
    os.waitpid(child, 0)


def in_epoll(poll: Poll) -> dict[int, bool]:
    """Return the descriptors in its epoll set, and whether each is there as a shared one (proc(5))."""
    found = {}
    for line in Path(f"/proc/self/fdinfo/{poll._epoll.fileno()}").read_text().splitlines():
        if line.startswith("tfd:"):
            _, fd, _, events, *_ = line.split()
            found[int(fd)] = bool(int(events, 16) & select.EPOLLEXCLUSIVE)
    return found


def test_the_busy_are_in_the_epoll_only_while_we_sleep(stack: ExitStack) -> None:
    """So nobody is to be woken who is awake, and one arrival at a shared one wakes one of those who sleep."""
    poll = Poll(spin_seconds=0.01)
    stack.callback(poll.close)
    some = Ends(poll, stack, "1A")
    asleep = {some.fileno("1"): True, some.fileno("A"): False}
    assert some.called(0.02) == ""
    assert in_epoll(poll) == asleep
    some.make_ready("1")
    assert some.called(None) == "1"  # found at once: so the next wait spins
    assert in_epoll(poll) == asleep
    some.make_ready("1A")
    assert some.called(None) == "1A"
    assert in_epoll(poll) == {}
    assert some.called(0.03) == ""  # spins, then sleeps
    assert in_epoll(poll) == asleep
    some.more("2")
    assert in_epoll(poll) == {}
    some.make_ready("2")
    assert some.called(None) == "2"
    assert in_epoll(poll) == asleep | {some.fileno("2"): True}
    some.unregister("1")
    assert in_epoll(poll) == {}


ARRIVALS = 50


def sleeps_now(stat: Path) -> bool:
    """Tell whether a process sleeps, by its stat (proc(5))."""
    return stat.read_text().rpartition(")")[2].split()[0] == "S"


def serve(sock: socket.socket, inform: int) -> None:
    """Wait for a shared socket for ever, and report each datagram that was received."""
    poll = Poll()

    def on_ready(_now: float) -> None:
        with suppress(BlockingIOError):
            sock.recv(16)
            os.write(inform, b"w")

    poll.register(sock.fileno(), SHARED, on_ready, busy=True)
    while True:
        turn(poll, None)


def test_one_arrival_at_a_shared_socket_wakes_one_of_those_who_sleep(stack: ExitStack) -> None:
    """Of three who sleep two go on sleeping, but for the few times that two were awake already."""
    server, client = stack.enter_context(udp_server()), stack.enter_context(udp_client())
    reported, inform = os.pipe()
    stack.callback(os.close, reported)
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            try:
                serve(server, inform)
            finally:
                os._exit(1)
        children.append(child)
        stack.callback(os.waitpid, child, 0)
        stack.callback(os.kill, child, signal.SIGKILL)
    os.close(inform)
    stats = [Path(f"/proc/{child}/stat") for child in children]
    wait_until(lambda: all(map(sleeps_now, stats)), "all slept")
    before, wakeups = [sleeps(child) for child in children], b""
    for number in range(1, ARRIVALS + 1):
        wait_until(lambda: all(map(sleeps_now, stats)), "all slept")
        client.sendto(b"x", server.getsockname())
        while wakeups.count(b"w") < number:
            wakeups += os.read(reported, 64)
    wait_until(lambda: all(map(sleeps_now, stats)), "all slept")
    assert wakeups.count(b"w") == ARRIVALS
    # Who wakes in the kernel, and finds that another has taken it, sleeps again without a word.
    assert sum(map(sleeps, children)) - sum(before) < 1.5 * ARRIVALS


def test_a_poll_sleeps_without_the_watches_that_the_kernel_refuses(ends: Callable[[str], Ends], poll: Poll) -> None:
    """The busy ones are then waited for by poll(2) alone, and so are the others; nothing stays behind in the epoll."""
    some = ends("aAB")
    poll._epoll.register(some.fileno("B"), 0)  # so that the kernel refuses to add it
    assert some.called(0.01) == ""
    for letters in ("A", "B", "a", "ABa"):
        some.make_ready(letters)
        assert some.called(None) == "".join(sorted(letters))
    later = Timer(0.05, some.make_ready, ["A"])
    later.start()
    assert some.called(None) == "A"  # it has slept
    later.join()
    poll._epoll.unregister(some.fileno("B"))
    some.make_ready("AB")
    assert some.called(None) == "AB"
    assert some.called(0.01) == ""
    assert poll._in_epoll
    some.unregister("A")
    some.make_ready("aB")
    assert some.called(None) == "Ba"
