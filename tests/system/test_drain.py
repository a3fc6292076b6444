"""A stop and a restart end busy TCP connections cleanly: nothing that was sent is lost, and the drain is kept."""

import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from threading import Event, Thread

from support.system.operating import UNIT, Host
from support.waiting import SECONDS, wait_until

CONNECTIONS = 100
DRAIN_SECONDS = 60  # of those that finish before: on a busy machine they may need some of it
DEFAULT_SECONDS = 10

BLOCK = bytes(range(256)) * 16
MORE = 50 * len(BLOCK)  # what each connection gets after the stop has begun


class Talker:
    """One connection whose client always has something to say until it is told to come to an end."""

    def __init__(self, address: str) -> None:
        """Connect."""
        self.sock = socket.create_connection((address, 7), timeout=5)
        self.sock.setblocking(False)
        self.sent = self.received = 0
        self.exact = True
        self.end = ""
        self.finishing = False

    def talk(self) -> None:
        """Take what has come; send a block if the last one is back, or finish."""
        try:
            while chunk := self.sock.recv(65_536):
                at = self.received % len(BLOCK)
                self.exact = self.exact and (BLOCK * 18)[at : at + len(chunk)] == chunk
                self.received += len(chunk)
            self.end = "clean"
        except BlockingIOError:
            if self.received == self.sent and not self.finishing:
                self.sent += self.sock.send(BLOCK)
        except OSError as error:
            self.end = str(error)

    def finish(self) -> None:
        """Say once that nothing more will be sent."""
        if not (self.finishing or self.end):
            self.finishing = True
            self.sock.shutdown(socket.SHUT_WR)


def conversation(talkers: list[Talker], over: Event) -> None:
    """Let all talk until they have ended, and say goodbye when it is over."""
    with selectors.DefaultSelector() as selector:
        for talker in talkers:
            talker.talk()
            selector.register(talker.sock, selectors.EVENT_READ, talker)
        while selector.get_map():
            for key, _ in selector.select(0.05):
                key.data.talk()
                if key.data.end:
                    selector.unregister(key.data.sock)
            for talker in talkers if over.is_set() else ():
                talker.finish()


@contextmanager
def busy(host: Host, drain_seconds: int = DRAIN_SECONDS) -> Iterator[tuple[list[Talker], Event]]:
    """Keep 100 connections from outside busy; setting the event lets the clients finish."""
    limit = f"{{max_connections_per_source: {2 * CONNECTIONS}}}"
    host.configure(f"tcp: {limit}\ndrain_timeout_seconds: {drain_seconds}\n", "restart")
    with host.client():
        addresses = cycle((host.address, host.address6))
        talkers = [Talker(next(addresses)) for _ in range(CONNECTIONS)]
    over = Event()
    thread = Thread(target=conversation, args=(talkers, over), daemon=True)
    thread.start()
    wait_until(lambda: all(talker.received for talker in talkers), "every connection has its first echo")
    try:
        yield talkers, over
        thread.join(SECONDS)
        assert not thread.is_alive()
    finally:
        for talker in talkers:
            talker.sock.close()


def test_a_stop_lets_busy_connections_finish(installed: Host) -> None:
    """100 clients that go on after the stop began get every byte and a clean end; then the unit ends."""
    with busy(installed) as (talkers, over):
        installed.systemctl("stop", UNIT, "--no-block")
        begin = time.monotonic()
        wait_until(lambda: installed.show("ActiveState") == "deactivating", "the drain")
        goals = [talker.received + MORE for talker in talkers]
        goes_on = lambda: all(talker.received >= goal for talker, goal in zip(talkers, goals, strict=True))  # noqa: E731
        wait_until(goes_on, "each connection is served on", seconds=DRAIN_SECONDS / 2)
        over.set()
        wait_until(lambda: installed.show("ActiveState") == "inactive", "the end of the drain", seconds=DRAIN_SECONDS)
        took = time.monotonic() - begin
    assert took < DRAIN_SECONDS
    assert {talker.end for talker in talkers} == {"clean"}
    assert all(talker.exact and talker.received == talker.sent for talker in talkers)
    assert installed.show("Result") == "success"


def test_a_restart_lets_busy_connections_finish(activated: Host) -> None:
    """In a restart the old connections end cleanly, and new ones wait in the socket unit's backlog until then."""
    with busy(activated) as (talkers, over):
        before = activated.supervisor()
        activated.systemctl("restart", UNIT, "--no-block")
        wait_until(lambda: activated.show("ActiveState") == "deactivating", "the drain")
        with activated.client(), socket.create_connection((activated.address, 7), timeout=SECONDS) as patient:
            patient.sendall(b"patient")
            over.set()
            assert patient.recv(64) == b"patient"
    assert {talker.end for talker in talkers} == {"clean"}
    assert all(talker.exact and talker.received == talker.sent for talker in talkers)
    assert activated.supervisor() != before


def test_a_long_drain_outlasts_the_stop_timeout_of_the_unit(bound: Host) -> None:
    """A drain longer than TimeoutStopSec asks for the time it needs: the unit ends by itself, and is not killed."""
    bound.drop_in("[Service]\nTimeoutStopSec=1\n")
    bound.configure(f"drain_timeout_seconds: {DRAIN_SECONDS}\n", "restart")
    with bound.client(), socket.create_connection((bound.address, 7), timeout=SECONDS) as client:
        bound.systemctl("stop", UNIT, "--no-block")
        begin = time.monotonic()

        def served_for_so_long() -> bool:
            client.sendall(b"still there?")
            assert client.recv(64) == b"still there?"
            return time.monotonic() - begin > 3

        wait_until(served_for_so_long, "three times TimeoutStopSec")
        client.shutdown(socket.SHUT_WR)
        assert client.recv(64) == b""
    wait_until(lambda: bound.show("ActiveState") in {"inactive", "failed"}, "the end")
    assert (bound.show("Result"), bound.show("ExecMainStatus")) == ("success", "0")


def test_clients_that_never_finish_are_ended_at_the_drain_timeout(bound: Host) -> None:
    """With a drain of 1 s a reload and a stop do not take the default of 10, however busy the connections are."""
    with busy(bound, 1) as (talkers, _over):
        bound.systemctl("reload")
        ended = lambda: all(talker.end for talker in talkers)  # noqa: E731
        wait_until(ended, "the old workers have ended their connections", seconds=DEFAULT_SECONDS)
    assert bound.serves_everything()
    with busy(bound, 1) as (talkers, _over):
        begin = time.monotonic()
        bound.systemctl("stop")
        assert time.monotonic() - begin < DEFAULT_SECONDS
    assert all(talker.end and talker.exact for talker in talkers)
    assert bound.show("Result") == "success"
