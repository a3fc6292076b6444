"""The supervisor knows the addresses of this host, is notified of each change, and logs once if it cannot read them."""

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import ip_network
from time import monotonic
from typing import Final

import pytest
from structlog.typing import EventDict
from support.limited_poll import LimitedPoll
from support.loopback import as_nobody, ip, ip_batch, namespace, needs_root, netlink, udp_server

from echod.linux.netlink import OTHER_NAMESPACE
from echod.supervisor.own_addresses import PAUSE_SECONDS, OwnAddresses
from echod.supervisor.timers import Timers

IN_VAIN_SECONDS: Final = 5.0
MANY: Final = 3000


class Host:
    """A supervisor's loop, as far as own addresses concern it: it sleeps until a notification or a pause's end."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self.poll, self.timers, self.changes, self.turns = LimitedPoll(), Timers(), 0, 0
        self.own_addresses = OwnAddresses(self.poll, self.timers, self._on_change)
        self.passed = netlink()
        self.now = 100.0
        """The present time, which passes only from one pause to the next."""

    def _on_change(self) -> None:
        self.changes += 1

    def start(self, *adopted: socket.socket) -> None:
        """Look for the first time."""
        self.own_addresses.start(self.passed, adopted, self.now)

    def rest(self) -> None:
        """Let the time pass until nothing more is due soon."""
        self.now += PAUSE_SECONDS * 1.001
        for action in self.timers.due(self.now):
            action(self.now)

    def turn(self, seconds: float) -> bool:
        """Sleep until a notification, at most so long; return whether there was one."""
        woken = False
        for on_ready in self.poll.wait(seconds):
            woken = True
            on_ready(self.now)
        self.turns += woken
        return woken

    def knows(self, *wanted: str) -> bool:
        """Return whether these are known, too."""
        return set(map(ip_network, wanted)) <= set(self.own_addresses.networks)

    def turn_until(self, condition: Callable[[], bool]) -> None:
        """Sleep, turn by turn, until a condition is true."""
        deadline = monotonic() + IN_VAIN_SECONDS
        while not condition():
            assert monotonic() < deadline, "the kernel sent no notification"
            self.rest()
            self.turn(IN_VAIN_SECONDS)

    def close(self) -> None:
        """Close what was opened."""
        self.poll.close()
        self.passed.close()


@pytest.fixture
def host() -> Iterator[Host]:
    """Make the loop in the namespace where the test is by then."""
    host = Host()
    yield host
    host.close()


def events(log: list[EventDict]) -> list[str]:
    """Return what was logged, but for what is logged at each change."""
    return [entry["event"] for entry in log if entry["event"] != "own_addresses"]


@needs_root
def test_the_kernel_wakes_the_supervisor_when_an_address_comes_or_goes(
    network: None, host: Host, log: list[EventDict]
) -> None:
    """It sleeps in its poll, is woken by the change, and knows it then; nothing else is ever due."""
    assert host.own_addresses.networks == ()
    host.start()
    before = host.own_addresses.networks
    assert host.knows("127.0.0.0/8")
    host.rest()
    assert not host.turn(0.0)
    assert host.timers.seconds_left(host.now) is None
    ip("address", "add", "192.0.2.7/32", "dev", "lo")
    assert host.turn(IN_VAIN_SECONDS)
    host.turn_until(lambda: host.knows("192.0.2.7"))
    assert set(host.own_addresses.networks) - set(before) == {ip_network("192.0.2.7/32")}
    host.rest()
    ip("address", "del", "192.0.2.7/32", "dev", "lo")
    host.turn_until(lambda: host.own_addresses.networks == before)
    assert events(log) == []
    assert [entry["count"] for entry in log] == [len(before), len(before) + 1, len(before)]
    assert host.changes == 3


@needs_root
def test_an_interface_that_is_removed_takes_its_prefixes_with_it(network: None, host: Host) -> None:
    """The kernel notifies of the interface, not of its routes. An interface that goes down keeps its addresses."""
    ip("link", "add", "other", "type", "veth", "peer", "name", "far")
    ip("link", "set", "other", "up")
    ip("route", "add", "local", "198.51.100.0/24", "dev", "other")
    host.start()
    assert host.knows("198.51.100.0/24")
    ip("link", "set", "other", "down")
    host.rest()
    assert host.turn(IN_VAIN_SECONDS)
    assert host.knows("198.51.100.0/24")
    ip("link", "delete", "other")
    host.turn_until(lambda: not host.knows("198.51.100.0/24"))


@needs_root
def test_thousands_of_changes_cost_few_reads_and_none_is_missed(network: None, host: Host) -> None:
    """More than the queue of notifications holds (ENOBUFS), while nobody reads: one read finds them all."""
    host.start()
    many = [f"10.{200 + (number >> 8)}.{number & 255}.1" for number in range(MANY)]
    ip_batch(*(f"address add {each}/32 dev lo" for each in many))
    with pytest.raises(OSError, match=os.strerror(errno.ENOBUFS)):
        host.passed.recv(65_536)
    ip_batch(*(f"address delete {each}/32 dev lo" for each in many[1:]), "address add 192.0.2.7/32 dev lo")
    host.turn_until(lambda: host.knows(many[0], "192.0.2.7"))
    assert not set(map(ip_network, many[1:])) & set(host.own_addresses.networks)
    assert host.changes + host.turns <= 8


@needs_root
def test_after_the_end_the_socket_is_silent(network: None, host: Host) -> None:
    """The service manager waits on it while echod is stopped: what it had received is gone, and it receives no more."""
    host.start()
    ip("address", "add", "192.0.2.7/32", "dev", "lo")
    host.own_addresses.close()
    ip("address", "del", "192.0.2.7/32", "dev", "lo")
    with pytest.raises(BlockingIOError):
        host.passed.recv(65_536)


@needs_root
def test_without_privileges_a_passed_socket_is_notified_too(network: None) -> None:
    """Root made it, echod's user joins the groups."""
    passed = netlink()

    def passed_is_used() -> list[object]:
        host = Host()
        host.passed = passed
        host.start()
        return [host.own_addresses._addresses is not None]

    with passed:
        assert as_nobody(passed_is_used) == [True]
        ip("address", "add", "192.0.2.7/32", "dev", "lo")
        assert passed.recv(65_536)


def test_a_host_whose_addresses_are_known_logs_no_warning(log: list[EventDict], host: Host) -> None:
    """With sockets of this host, and a netlink socket of our own, addresses are known and no warning is logged."""
    with udp_server() as server:
        host.own_addresses.start(None, [server], host.now)
        assert host.knows("127.0.0.0/8")
        assert events(log) == []
        assert host.own_addresses._addresses is not None
        assert host.own_addresses._addresses._sock is not None
        host.own_addresses._addresses._sock.close()


@needs_root
def test_sockets_of_another_network_are_logged_once(log: list[EventDict], host: Host) -> None:
    """Where the listening sockets are of another namespace the addresses here mean nothing: a warning, and no read."""
    with namespace():
        server = udp_server()
    with server:
        host.start(server)
        assert host.timers.seconds_left(host.now) is None
        assert host.own_addresses.networks == ()
        host.own_addresses.close()
    assert [(entry["event"], entry["log_level"], entry["message"]) for entry in log] == [
        ("own_addresses_unknown", "warning", OTHER_NAMESPACE)
    ]


def test_a_problem_is_logged_when_it_appears_and_not_as_long_as_it_lasts(log: list[EventDict], host: Host) -> None:
    """A netlink socket that answers no more is one warning, tried ever more rarely; what was known stays known."""
    host.start()
    known = host.own_addresses.networks
    host.rest()
    whole, addresses = host.passed.detach(), host.own_addresses._addresses
    assert addresses is not None
    with suppress(OSError):
        host.poll.unregister(whole)
    os.close(whole)
    host.own_addresses._read(addresses, host.now)
    for _ in range(20):
        left = host.timers.seconds_left(host.now)
        assert left is not None
        assert PAUSE_SECONDS < left <= 1.0
        host.now += left
        (again,) = host.timers.due(host.now)
        again(host.now)
    assert host.own_addresses.networks == known
    assert events(log) == ["own_addresses_unknown"]
    (entry,) = (entry for entry in log if entry["event"] == "own_addresses_unknown")
    assert entry["log_level"] == "warning"
    assert "Bad file descriptor" in entry["message"]


@needs_root
def test_without_an_epoll_watch_the_addresses_are_read_once_a_second(network: None, host: Host) -> None:
    """If the kernel has no epoll watch left, at first or after a pause, notifications are received once a second."""
    host.start()
    host.poll.left = 0
    host.rest()
    ip("address", "add", "192.0.2.1/32", "dev", "lo")
    assert not host.turn(0.0)
    host.now += 1.0
    host.rest()
    assert host.knows("192.0.2.1")
    ip("address", "add", "192.0.2.2/32", "dev", "lo")
    host.poll.left = 1
    host.now += 1.0
    host.rest()
    host.rest()
    ip("address", "add", "192.0.2.3/32", "dev", "lo")
    host.turn_until(lambda: host.knows("192.0.2.2", "192.0.2.3"))
    assert host.poll.left == 0
