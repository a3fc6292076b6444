"""echod.linux.links: an interface is known by its name, with its index and its type of hardware."""

import socket

import pytest
from support.loopback import as_nobody, ip, namespace, needs_root, no_descriptor_left

from echod.linux.links import ETHERNET, LOOPBACK, NONE, Link, find_link

pytestmark = needs_root


def test_an_interface_has_its_index_and_its_type() -> None:
    """Loopback, Ethernet, and a tunnel whose frames have no link header; no privilege is needed."""
    with namespace():
        ip("link", "add", "near", "type", "veth", "peer", "name", "far")
        ip("tuntap", "add", "tun0", "mode", "tun")
        for name, hardware in (("lo", LOOPBACK), ("near", ETHERNET), ("tun0", NONE)):
            assert find_link(name) == Link(ifindex=socket.if_nametoindex(name), hardware=hardware)
        assert as_nobody(lambda: find_link("near") is not None)


def test_an_interface_that_is_not_there_is_none() -> None:
    """That is no error: it may come."""
    with namespace():
        assert find_link("near") is None


def test_an_error_is_none_of_that() -> None:
    """What else goes wrong is raised."""
    with no_descriptor_left(), pytest.raises(OSError, match="Too many open files"):
        find_link("lo")
