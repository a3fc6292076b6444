"""echod.linux.links: what an interface is, by its name."""

import socket
from pathlib import Path

import pytest
from support.loopback import as_nobody, ip, namespace, needs_root, no_descriptor_left
from support.netns.cards import strip_vlan_tags

from echod.linux.links import ETHERNET, LOOPBACK, NONE, Link, find_link, has_tcx, strips_vlan_tags

pytestmark = needs_root

STATION = bytes.fromhex("020000000701")


def test_an_interface_is_described() -> None:
    """Loopback, Ethernet, and a tunnel whose frames have no link header; no privilege is needed."""
    with namespace():
        ip("link", "add", "near", "address", STATION.hex(":"), "type", "veth", "peer", "name", "far")
        ip("tuntap", "add", "tun0", "mode", "tun")
        for name, hardware, station in (("lo", LOOPBACK, bytes(6)), ("near", ETHERNET, STATION), ("tun0", NONE, b"")):
            ifindex = socket.if_nametoindex(name)
            expected = Link(
                ifindex=ifindex, hardware=hardware, station=station, is_device=False, has_carrier=name == "lo"
            )
            assert find_link(name) == expected
        assert as_nobody(lambda: find_link("near") is not None)


def test_an_interface_has_a_carrier_while_the_other_end_is_up() -> None:
    """A card has one while its cable is in another that is on."""
    with namespace():
        ip("link", "add", "near", "up", "type", "veth", "peer", "name", "far")
        for state, expected in (("down", False), ("up", True), ("down", False)):
            ip("link", "set", "far", state)
            link = find_link("near")
            assert link is not None
            assert link.has_carrier is expected


def test_an_interface_of_a_device_is_told_from_one_of_software() -> None:
    """As sysfs tells it, which shows the interfaces of this host by their devices (sysfs(5))."""
    for path in Path("/sys/class/net").iterdir():
        link = find_link(path.name)
        assert link is not None
        assert link.is_device is (path / "device").exists()


def test_an_interface_that_is_not_there_is_none() -> None:
    """That is no error: it may come."""
    with namespace():
        assert find_link("near") is None


def test_an_error_is_none_of_that() -> None:
    """What else goes wrong is raised: no descriptor, or a name that no interface can have."""
    with no_descriptor_left(), pytest.raises(OSError, match="Too many open files"):
        find_link("lo")
    with pytest.raises(OSError, match="out of range"):
        find_link("a-name-of-16-char")


def test_an_interface_that_takes_tags_off_is_recognised() -> None:
    """Also by a process without privilege, and only while it does."""
    with namespace():
        ip("link", "add", "near", "type", "veth", "peer", "name", "far")
        for wanted in (True, False, True):
            strip_vlan_tags("near", wanted=wanted)
            assert strips_vlan_tags("near") is wanted
            assert as_nobody(lambda: strips_vlan_tags("near")) is wanted
        with pytest.raises(OSError, match="No such device"):
            strips_vlan_tags("other")


@pytest.mark.parametrize(
    ("release", "has"),
    [
        ("6.5.13-amd64", False),
        ("5.14.0-427.el9.x86_64", False),
        ("6.6.0", True),
        ("6.12.43+deb13-amd64", True),
        ("10.0-rc1", True),
        ("unknown", True),
    ],
)
def test_a_kernel_has_tcx_by_its_number(release: str, *, has: bool) -> None:
    """From 6.6 on; one that cannot be read may have it."""
    assert has_tcx(release) is has
