"""The datapath in the kernel on interfaces of every kind, and where routes lead other ways."""

import fcntl
import os
import select
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from ipaddress import ip_network
from time import monotonic
from typing import Final

import pytest
from support.bpf import ETHERNET
from support.daemon import Daemon, connect_udp
from support.loopback import ip, needs_root
from support.netns.datagrams import CLIENT, CLIENT_MAC, PORT, SERVER, SERVER_MAC, Datagram, numbered, over_ipv4, read
from support.netns.kernel import OWN, Counted, ask, attach, attached, declared, is_answered, total
from support.netns.stage import totals
from support.netns.wire import LINK, Wire
from support.system.network import entered, namespaces, set_kernel
from support.waiting import wait_until

from echod.bpf.layout import Hook, LinkKind
from echod.bpf.maps import KernelTraffic

pytestmark = [needs_root, pytest.mark.sockets_only("it attaches the programs itself")]

_TUNSETIFF: Final = 0x4004_54CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000  # linux/if_tun.h


# -- kinds of interfaces


def test_on_loopback_the_kernel_answers_too(wire: Wire, daemon: Daemon) -> None:
    """Of the host itself, by its loopback addresses; what it sends to its outer ones the sockets refuse, as ever."""
    sockets, links = Counted(daemon), {"lo": Hook(LinkKind.LOOPBACK), LINK: ETHERNET}
    with attached(wire.server, declared(), links) as datapath, entered(wire.server):
        for host in ("127.0.0.1", "::1"):
            with connect_udp(host, PORT) as sock:
                ask(sock, 21)
                sock.send(bytes(60_000))
                assert sock.recv(65_536) == bytes(60_000)
        assert total(datapath).replied == 40
        with connect_udp(SERVER, PORT) as sock:
            assert not is_answered(sock)
        assert sockets["dropped_source_is_self"] == 1


@contextmanager
def tunnel(namespace: str) -> Iterator[int]:
    """Make a tunnel device, whose frames have no link header; give the descriptor of its other end."""
    with entered(namespace):
        device = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"tun0", _IFF_TUN | _IFF_NO_PI))
    try:
        yield device
    finally:
        os.close(device)


def test_a_tunnel_without_link_headers_is_answered(wire: Wire, daemon: Daemon) -> None:
    """Its packets begin with the IP header."""
    sockets = Counted(daemon)
    with tunnel(wire.server) as device:
        wire.configure("link", "set", "tun0", "addrgenmode", "none")
        wire.configure("link", "set", "tun0", "up")
        wire.configure("address", "add", "10.8.0.1/24", "dev", "tun0")
        wire.configure("address", "add", "fd00:8::1/64", "dev", "tun0", "nodad")
        own = tuple(map(ip_network, ("10.8.0.1", "fd00:8::1")))
        declaration = declared()
        declaration = replace(declaration, rules=replace(declaration.rules, own_addresses=(*OWN, *own)))
        with attached(wire.server, declaration, {"tun0": Hook(LinkKind.BARE)}) as datapath:
            for source, to in (("10.8.0.2", "10.8.0.1"), ("fd00:8::2", "fd00:8::1")):
                for datagram in numbered(Datagram(source=source, to=to), 4):
                    os.write(device, datagram.frame()[14:])
                    reply = wait_until(lambda: _read_tunnel(device), "a reply out of the tunnel")
                    assert reply == datagram.answer
            assert replace(total(datapath), replied_bytes=0) == KernelTraffic(replied=4, passed=4)
            assert sockets["replied"] == 4


def _read_tunnel(device: int) -> Datagram | None:
    """Return the next UDP datagram out of a tunnel."""
    if not select.select([device], [], [], 0)[0]:
        return None
    packet = os.read(device, 65_536)
    return read(bytes(12) + (b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\0") + packet)


@pytest.mark.parametrize(("tag", "by_the_sockets"), [(5, 0), (0, 10)])
def test_a_frame_of_a_vlan_is_not_answered_outside_of_it(
    wire: Wire, daemon: Daemon, tag: int, by_the_sockets: int
) -> None:
    """There is a path to its sender, outside. Number 0 is no VLAN but a priority: those the sockets answer."""
    with attached(wire.server, declared()) as datapath:
        wire.replies()
        for datagram in numbered(over_ipv4(), 2):
            wire.inject(datagram.frame())
            wait_until(wire.replies, "it was answered")
        sockets = Counted(daemon)
        for datagram in numbered(over_ipv4(), 10):
            frame = datagram.frame()
            wire.inject(frame[:12] + b"\x81\0" + tag.to_bytes(2, "big") + frame[12:])
        wait_until(lambda: sockets["replied"] == by_the_sockets, "those that the sockets answer were answered")
        wire.inject(over_ipv4(payload=b"outside").frame())
        wait_until(lambda: total(datapath).replied == 1, "what has no tag is answered by the kernel")
        assert sockets["replied"] == by_the_sockets


@pytest.mark.parametrize("attached_to", ["br0", LINK])
def test_a_host_on_a_bridge_is_answered_on_either_side(own: tuple[Wire, Daemon], attached_to: str) -> None:
    """Attached to the bridge, or to a port of it that has the same station: no datagram is lost or answered twice."""
    wire, daemon = own
    wire.configure("link", "add", "br0", "address", SERVER_MAC, "type", "bridge")
    wire.configure("link", "set", "br0", "up", "addrgenmode", "none")
    wire.configure("address", "delete", f"{SERVER}/24", "dev", LINK)
    wire.configure("link", "set", LINK, "master", "br0")
    wire.configure("address", "add", f"{SERVER}/24", "dev", "br0")
    wire.configure("neighbour", "replace", CLIENT, "lladdr", CLIENT_MAC, "dev", "br0")
    links = {attached_to: ETHERNET}
    with attached(wire.server, declared(), links) as datapath, wire.client_of(SERVER, PORT) as sock:
        ask(sock, 20)
        assert total(datapath).replied == 18
        assert totals(daemon)["replied"] == 2


def test_a_station_of_its_own_on_the_same_link_is_answered(own: tuple[Wire, Daemon]) -> None:
    """A macvlan: attached there the kernel answers, and attached to its parent it leaves all to the sockets."""
    wire, daemon = own
    mac = "02:00:00:00:07:99"
    wire.configure("link", "add", "mv0", "link", LINK, "address", mac, "type", "macvlan", "mode", "bridge")
    wire.configure("link", "set", "mv0", "addrgenmode", "none", "up")
    wire.configure("address", "add", "10.8.0.1/24", "dev", "mv0")
    wire.configure("neighbour", "replace", "10.8.0.2", "lladdr", CLIENT_MAC, "dev", "mv0")
    ip("-n", wire.client, "address", "add", "10.8.0.2/24", "dev", LINK)
    ip("-n", wire.client, "neighbour", "replace", "10.8.0.1", "lladdr", mac, "dev", LINK)
    for name, replied in ((LINK, 0), ("mv0", 18)):
        sockets, links = Counted(daemon), {name: ETHERNET}
        with attached(wire.server, declared(), links) as datapath, wire.client_of("10.8.0.1", PORT) as sock:
            ask(sock, 20)
            assert total(datapath).replied == replied
            assert sockets["replied"] == 20 - replied


def test_an_interface_that_comes_back_is_another_one(own: tuple[Wire, Daemon]) -> None:
    """Its attachment has ended; a new one is made by its new index."""
    wire, _ = own
    with attached(wire.server, declared()) as datapath:
        wire.configure("link", "delete", LINK)
        assert datapath.attached == {}
        wire.configure("link", "add", LINK, "type", "veth", "peer", "name", LINK, "netns", wire.client)
        ifindex = attach(wire.server, datapath, LINK)
        assert datapath.attached == {ifindex: ETHERNET}


# -- the ways of a host


def test_replies_by_another_way_than_that_of_the_datagrams_are_for_the_sockets(own: tuple[Wire, Daemon]) -> None:
    """Where routes are asymmetric, the kernel does not answer, and nothing is lost."""
    wire, daemon = own
    ip("-n", wire.server, "link", "add", "eth1", "type", "veth", "peer", "name", "eth1", "netns", wire.client)
    for name in (wire.server, wire.client):
        ip("-n", name, "link", "set", "eth1", "addrgenmode", "none", "up")
    wire.configure("address", "add", "10.9.0.1/24", "dev", "eth1")
    for name, setting in ((wire.client, "ipv4/conf/all/rp_filter"), (wire.client, "ipv4/conf/eth1/rp_filter")):
        set_kernel(name, setting, 0)
    ip("-n", wire.client, "address", "add", "10.9.0.2/24", "dev", "eth1")
    wire.configure("route", "add", f"{CLIENT}/32", "via", "10.9.0.2", "dev", "eth1")
    links = {LINK: ETHERNET, "eth1": ETHERNET}
    with attached(wire.server, declared(), links) as datapath, wire.client_of(SERVER, PORT) as sock:
        ask(sock, 50)
        assert replace(total(datapath), replied_bytes=0) == KernelTraffic(passed=50)
        assert totals(daemon)["replied"] == 50


def test_a_router_leaves_the_echo_of_hosts_behind_it_alone(own: tuple[Wire, Daemon]) -> None:
    """It neither answers in their name, nor refuses for them, nor charges; what it forwards teaches it nothing."""
    wire, daemon = own
    with namespaces("behind") as (behind,), ExitStack() as stack:
        wire.configure("link", "add", "eth1", "type", "veth", "peer", "name", "eth1", "netns", behind)
        wire.configure("address", "add", "10.9.0.1/24", "dev", "eth1")
        wire.configure("link", "set", "eth1", "up")
        ip("-n", behind, "address", "add", "10.9.0.2/24", "dev", "eth1")
        ip("-n", behind, "link", "set", "eth1", "up")
        ip("-n", behind, "route", "add", "default", "via", "10.9.0.1")
        ip("-n", wire.client, "route", "add", "10.9.0.0/24", "via", SERVER)
        set_kernel(wire.server, "ipv4/ip_forward", 1)
        echo = stack.enter_context(wire.listen("10.9.0.2", PORT, behind))
        links = {LINK: ETHERNET, "eth1": ETHERNET}
        datapath = stack.enter_context(attached(wire.server, declared(access={"allow": [CLIENT]}), links))
        for source_port in (0, 53):
            sock = stack.enter_context(wire.listen(CLIENT, source_port, wire.client))
            for number in range(5):
                sock.sendto(b"%d" % number, ("10.9.0.2", PORT))
                data, peer = echo.recvfrom(65_536)
                echo.sendto(data + b" from behind", peer)
                assert sock.recv(65_536) == b"%d from behind" % number
        found = total(datapath)
        assert (found.replied, found.dropped, datapath.count_paths(monotonic())) == (0, {}, 0)
        assert totals(daemon)["received"] == 0
