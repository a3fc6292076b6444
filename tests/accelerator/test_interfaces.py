"""echod.accelerator.interfaces: what is attached where, and the one sentence for what cannot be.

No network card is at hand: where one is needed, a pair of virtual interfaces is said to be one.
"""

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import pytest
import structlog
from support.bpf import declaration, needs_bpf, two_capabilities
from support.loopback import ip, namespace
from support.netns.cards import strip_vlan_tags

from echod.accelerator.interfaces import Interfaces
from echod.bpf.datapath import Datapath
from echod.bpf.layout import Driver, Hook, LinkKind
from echod.linux import bpf, links
from echod.linux.links import Link

pytestmark = needs_bpf

STATION, OTHER_STATION = bytes.fromhex("020000000701"), bytes.fromhex("020000000702")
_TUNSETIFF: Final = 0x4004_54CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000  # linux/if_tun.h


@pytest.fixture
def interfaces() -> Iterator[Interfaces]:
    """Be in a network of our own with a pair of interfaces that are up, and take no tags off."""
    with namespace(), two_capabilities(), Datapath(declaration()) as datapath:
        ip("link", "add", "near", "address", STATION.hex(":"), "type", "veth", "peer", "name", "far")
        for name in ("near", "far"):
            ip("link", "set", name, "addrgenmode", "none", "up")
            strip_vlan_tags(name, wanted=False)
        yield Interfaces(datapath)


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Say that each Ethernet interface is a network card."""
    find_link = links.find_link

    def find(name: str) -> Link | None:
        link = find_link(name)
        return replace(link, is_device=link.hardware == links.ETHERNET) if link else None

    monkeypatch.setattr(links, "find_link", find)


def attached(interfaces: Interfaces) -> dict[str, Hook]:
    """Return by which hook each is attached."""
    hooks = interfaces._datapath.attached
    return {name: hooks[interfaces.found[name]] for name in interfaces.serving}


def go_over(interfaces: Interfaces, *names: str, driver: Driver = Driver.XDP, now: float = 0.0) -> list[str]:
    """Go over to these; return what the log warns of."""
    interfaces.configure(names, driver)
    return warnings(interfaces.attach, now)


def warnings(change: Any, now: float) -> list[str]:  # noqa: ANN401 - a method
    """Have it do something; return what the log warns of."""
    with structlog.testing.capture_logs() as entries:
        change(now)
    return [each["message"] for each in entries if each["log_level"] == "warning"]


@contextmanager
def tunnel() -> Iterator[None]:
    """Make a tunnel device."""
    device = os.open("/dev/net/tun", os.O_RDWR)
    try:
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"tun0", _IFF_TUN | _IFF_NO_PI))
        yield
    finally:
        os.close(device)


def sentence(name: str, obstacle: str) -> str:
    """Return what the log has of an interface."""
    return f"kernel.interfaces: {name} {obstacle}: the sockets alone reply there"


def test_by_the_stack_every_kind_is_attached(interfaces: Interfaces) -> None:
    """That is the driver tcx; one that is not there is waited for."""
    with tunnel():
        warned = go_over(interfaces, "near", "lo", "tun0", "later", driver=Driver.TCX)
        assert attached(interfaces) == {
            "near": Hook(LinkKind.ETHERNET),
            "lo": Hook(LinkKind.LOOPBACK),
            "tun0": Hook(LinkKind.BARE),
        }
    assert warned == [sentence("later", "is not there yet")]
    assert warnings(interfaces.attach, 1.0) == [sentence("tun0", "is not there yet")]


def test_in_the_driver_what_is_no_network_card_is_refused(interfaces: Interfaces) -> None:
    """Whatever software has made; each is said once."""
    ip("link", "add", "br0", "type", "bridge")
    names = ("near", "lo", "br0", "tun0")
    with tunnel():
        warned = go_over(interfaces, *names)
        assert warned == [sentence(name, "is no network card, which kernel.driver: xdp needs") for name in names]
        assert warnings(interfaces.attach, 1.0) == []
    assert attached(interfaces) == {}


@pytest.mark.usefixtures("cards")
def test_a_card_gets_the_program_in_its_driver(interfaces: Interfaces) -> None:
    """Where its own station is compared, and so anew if it changes; and loses it with the config."""
    assert go_over(interfaces, "near", "lo") == [
        sentence("lo", "is no network card, which kernel.driver: xdp needs"),
    ]
    assert attached(interfaces) == {"near": Hook(LinkKind.ETHERNET, STATION)}
    assert " xdp " in ip("link", "show", "near")
    ip("link", "set", "near", "address", OTHER_STATION.hex(":"))
    interfaces.attach(1.0)
    assert attached(interfaces) == {"near": Hook(LinkKind.ETHERNET, OTHER_STATION)}
    assert go_over(interfaces, "near", driver=Driver.TCX) == []
    assert attached(interfaces) == {"near": Hook(LinkKind.ETHERNET)}
    assert " xdp " not in ip("link", "show", "near")


@pytest.mark.usefixtures("cards")
def test_a_card_that_takes_tags_off_is_refused_while_it_does(interfaces: Interfaces) -> None:
    """Before, or when it begins to."""
    expected = sentence(
        "near",
        "takes the tags of VLANs off, so that kernel.driver: xdp could not tell what is of a VLAN; run ethtool -K near "
        "rxvlan off, and reload",
    )
    strip_vlan_tags("near", wanted=True)
    assert go_over(interfaces, "near") == [expected]
    strip_vlan_tags("near", wanted=False)
    assert warnings(interfaces.attach, 1.0) == []
    assert interfaces.serving == ["near"]
    strip_vlan_tags("near", wanted=True)
    assert warnings(interfaces.attach, 2.0) == [expected]
    assert attached(interfaces) == {}


@pytest.mark.usefixtures("cards")
def test_a_driver_that_refuses_is_not_asked_again_before_the_next_config(interfaces: Interfaces) -> None:
    """It has no XDP, or a program of somebody else, or the card is in a state that it does not take one in."""
    ip("link", "add", "br0", "type", "bridge")
    ip("link", "add", "many", "numtxqueues", "2", "type", "veth", "peer", "name", "others", "numtxqueues", "2")
    for name in ("many", "others"):
        strip_vlan_tags(name, wanted=False)
    program = bpf.load_program(struct.pack("<BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0), bpf.XDP)
    link = bpf.create_link(program, links.find_link("near").ifindex, bpf.XDP)  # type: ignore[union-attr]
    assert go_over(interfaces, "near", "br0", "many") == [
        sentence("near", "has an XDP program already; detach that, and reload"),
        sentence("br0", "has a driver without XDP, which kernel.driver: xdp needs"),
        sentence(
            "many",
            "has a driver that refuses XDP programs in its present state (No space left on device): see "
            "echod-accelerate(8)",
        ),
    ]
    for descriptor in (link, program):
        os.close(descriptor)
    assert warnings(interfaces.attach, 1.0) == []
    assert attached(interfaces) == {}
    assert len(go_over(interfaces, "near", "br0", now=2.0)) == 0
    assert interfaces.serving == ["near"]


@pytest.mark.usefixtures("cards")
def test_a_card_that_has_lost_its_link_is_detached(interfaces: Interfaces) -> None:
    """After ten seconds, and it is not tried again before the next config; one with a link stays."""
    assert go_over(interfaces, "near", now=100.0) == []
    ip("link", "set", "far", "down")
    assert warnings(interfaces.check, 109.9) == []
    assert interfaces.serving == ["near"]
    lost = sentence("near", "had no link 10 seconds after its driver got the program of kernel.driver: xdp")
    assert warnings(interfaces.check, 110.0) == [lost]
    assert interfaces.serving == []
    ip("link", "set", "far", "up")
    assert warnings(interfaces.attach, 111.0) == warnings(interfaces.check, 200.0) == []
    assert interfaces.serving == []
    assert go_over(interfaces, "near", now=200.0) == []
    assert warnings(interfaces.check, 210.0) == []
    ip("link", "set", "far", "down")
    assert warnings(interfaces.check, 300.0) == []
    assert interfaces.serving == ["near"]


@pytest.mark.usefixtures("cards")
def test_a_card_that_had_no_link_before_is_not_probed(interfaces: Interfaces) -> None:
    """Nobody has taken it away."""
    ip("link", "set", "far", "down")
    go_over(interfaces, "near", now=0.0)
    assert warnings(interfaces.check, 10.0) == []
    assert interfaces.serving == ["near"]
