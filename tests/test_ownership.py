"""The supervisor knows the addresses of this host, hears of each change once, and says once where it cannot."""

import socket
from collections.abc import Iterator, MutableMapping
from ipaddress import ip_network
from typing import Any

import pytest
import structlog
from loopback import ip, namespace, needs_root, udp_server

from echod.netlink import ELSEWHERE
from echod.ownership import Ownership

Entries = list[MutableMapping[str, Any]]


@pytest.fixture
def log() -> Iterator[Entries]:
    """Catch what is logged."""
    with structlog.testing.capture_logs() as entries:
        yield entries


def netlink() -> socket.socket:
    """Open a socket as the service manager passes one."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)


def events(log: Entries) -> list[str]:
    """Return what was logged, but for what is logged at each change."""
    return [entry["event"] for entry in log if entry["event"] != "own_addresses"]


@needs_root
def test_changes_are_heard_once(network: None, log: Entries) -> None:
    """The first look has what there is, a look without news says so, and an address that comes or goes is news."""
    with netlink() as passed:
        ownership = Ownership(passed, [])
        assert ownership.networks == ()
        assert ownership.look()
        assert ip_network("127.0.0.0/8") in ownership.networks
        before = ownership.networks
        assert not ownership.look()
        ip("address", "add", "192.0.2.7/32", "dev", "lo")
        assert ownership.look()
        assert set(ownership.networks) - set(before) == {ip_network("192.0.2.7/32")}
        assert not ownership.look()
        ip("address", "del", "192.0.2.7/32", "dev", "lo")
        assert ownership.look()
        assert ownership.networks == before
    assert events(log) == []
    assert [entry["count"] for entry in log] == [len(before), len(before) + 1, len(before)]


def test_a_host_that_can_be_asked_is_nothing_to_talk_about(log: Entries) -> None:
    """With sockets of this host, and a netlink socket of our own, addresses are known and no warning is said."""
    with udp_server() as server:
        ownership = Ownership(None, [server])
        assert ownership.look()
        assert ip_network("127.0.0.0/8") in ownership.networks
        assert events(log) == []
        assert ownership._addresses is not None
        assert ownership._addresses._sock is not None
        ownership._addresses._sock.close()


@needs_root
def test_sockets_of_another_network_are_told_once(log: Entries) -> None:
    """Where the listening sockets are of another namespace our addresses say nothing: a warning, and no look."""
    with namespace():
        server = udp_server()
    with server, netlink() as passed:
        ownership = Ownership(passed, [server])
        for _ in range(3):
            assert not ownership.look()
        assert ownership.networks == ()
    assert [(entry["event"], entry["log_level"], entry["message"]) for entry in log] == [
        ("own_addresses_unknown", "warning", ELSEWHERE)
    ]


def test_a_problem_is_told_when_it_comes_and_not_as_long_as_it_lasts(log: Entries) -> None:
    """A netlink socket that answers no more is one warning, however many looks; what was known stays known."""
    with netlink() as passed:
        ownership = Ownership(passed, [])
        assert ownership.look()
        known = ownership.networks
        passed.close()
        for _ in range(20):
            assert not ownership.look()
    assert ownership.networks == known
    assert events(log) == ["own_addresses_unknown"]
    (entry,) = (entry for entry in log if entry["event"] == "own_addresses_unknown")
    assert entry["log_level"] == "warning"
    assert "Bad file descriptor" in entry["message"]
