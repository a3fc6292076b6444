"""The datapath in the driver of an interface, XDP: here that of a veth, which the accelerator itself refuses.

The other end has a program too, without which a veth gets nothing from XDP; and frames are made by hand, for a socket
leaves their checksums to a card that is not there.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from time import monotonic
from typing import Final

import pytest
from support.bpf import two_capabilities
from support.daemon import Daemon
from support.loopback import ip, needs_root
from support.netns.cards import MOST_AT_ONCE, Card, card
from support.netns.datagrams import (
    CLIENT_LINK,
    SERVER_LINK,
    SERVER_MAC,
    Datagram,
    numbered,
    over,
    over_ipv4,
    over_ipv6,
)
from support.netns.kernel import Counted, attach, attached, declared, total
from support.netns.wire import LINK, Wire
from support.waiting import wait_until

from echod.bpf.layout import Hook, LinkKind, XdpVerdict
from echod.bpf.maps import KernelTraffic

pytestmark = [needs_root, pytest.mark.sockets_only("it attaches the programs itself")]

NATIVE: Final = Hook(LinkKind.ETHERNET, station=bytes.fromhex(SERVER_MAC.replace(":", "")))
both_families = pytest.mark.parametrize("make", [over_ipv4, over_ipv6])


@pytest.fixture
def client(wire: Wire) -> Iterator[Card]:
    """Have a card at the client's end."""
    wire.replies()
    with card(wire.client, LINK) as client:
        yield client


def reply_to(wire: Wire, datagram: Datagram) -> Datagram:
    """Send a datagram, and return its reply."""
    wire.inject(datagram.frame())
    (reply,) = wait_until(wire.replies, "a reply")
    return reply


@both_families
@pytest.mark.parametrize("size", [0, 1, 18, 1000, 1452])
def test_the_sockets_answer_the_first_two_and_the_driver_all_others(
    wire: Wire, daemon: Daemon, client: Card, make: Callable[..., Datagram], size: int
) -> None:
    """Byte for byte alike; what the driver replies to passes no other part of the host."""
    sockets = Counted(daemon)
    with attached(wire.server, declared(), {LINK: NATIVE}) as datapath:
        for datagram in (make(payload=bytes([n]) * size) for n in range(10)):
            assert reply_to(wire, datagram) == datagram.answer
        assert total(datapath) == KernelTraffic(replied=8, replied_bytes=8 * size, passed=2)
        assert sockets["received"] == sockets["replied"] == 2
        assert datapath.count_paths(monotonic()) == 1
        assert client.received >= 10


def test_a_neighbour_by_its_link_local_address_is_answered_too(wire: Wire, daemon: Daemon, client: Card) -> None:
    """It has an address that is another's on another link."""
    with attached(wire.server, declared(), {LINK: NATIVE}) as datapath:
        for datagram in numbered(over_ipv6(source=CLIENT_LINK, to=SERVER_LINK), 10):
            assert reply_to(wire, datagram) == datagram.answer
        assert total(datapath).replied == 8


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (over("192.0.2.7"), "access"),
        (over_ipv4(source_port=53), "source_port_low"),
        (over("2001:db8::7"), "access"),
    ],
)
def test_who_is_refused_does_not_reach_the_sockets(
    wire: Wire, daemon: Daemon, client: Card, datagram: Datagram, reason: str
) -> None:
    """The driver drops it for the reason of the sockets."""
    sockets = Counted(daemon)
    with attached(wire.server, declared(), {LINK: NATIVE}) as datapath:
        for each in numbered(datagram, 50):
            wire.inject(each.frame())
        wait_until(lambda: total(datapath).dropped == {reason: 50}, "all were dropped")
        assert sockets["received"] == 0


def test_the_same_frames_for_another_station_or_in_a_vlan_are_left_alone(
    wire: Wire, daemon: Daemon, client: Card
) -> None:
    """There is a path to their sender; the driver says neither whom a frame is for, nor that it has a tag."""
    with attached(wire.server, declared(), {LINK: NATIVE}) as datapath:
        *first, last = numbered(over_ipv4(), 3)
        for datagram in first:
            assert reply_to(wire, datagram) == datagram.answer
        for datagram in numbered(over_ipv4(), 10):
            frame = datagram.frame()
            wire.inject(bytes.fromhex("020000000799") + frame[6:])
            wire.inject(frame[:12] + b"\x81\0\0\5" + frame[12:])
        assert reply_to(wire, last) == last.answer
        assert replace(total(datapath), replied_bytes=0) == KernelTraffic(replied=1, passed=2)


@both_families
def test_frames_that_no_socket_has_sent_are_answered_and_counted(
    wire: Wire, daemon: Daemon, make: Callable[..., Datagram]
) -> None:
    """Thousands, each in one place: with the driver or with the sockets, and each comes back."""
    sockets, datagram = Counted(daemon), make(payload=b"no socket")
    with (
        card(wire.client, LINK, XdpVerdict.DROP) as client,
        attached(wire.server, replace(declared(), loop_breaker=False), {LINK: NATIVE}) as datapath,
    ):
        program = client.load(datagram.frame())
        for number in (1, 1, *[MOST_AT_ONCE] * 64):
            before = client.received
            client.send(program, datagram.frame(), number)
            wait_until(lambda: client.received - before >= number, "all came back")  # noqa: B023 - at once
        expected = KernelTraffic(replied=4096, replied_bytes=4096 * 9, passed=2)
        wait_until(lambda: total(datapath) == expected, "each was counted")
        assert sockets["received"] == sockets["replied"] == 2


def test_forgotten_declared_anew_and_detached(wire: Wire, daemon: Daemon, client: Card) -> None:
    """As everywhere: the sockets answer what the driver does not, and no datagram is lost."""
    sockets = Counted(daemon)

    def ask(number: int) -> None:
        for datagram in numbered(over_ipv4(), number):
            assert reply_to(wire, datagram) == datagram.answer

    with attached(wire.server, declared(), {LINK: NATIVE}) as datapath:
        ask(10)
        datapath.forget(monotonic())
        ask(10)
        assert sockets["received"] == 3
        with two_capabilities():
            datapath.declare(declared(guard={"min_source_port": 1025}))
        ask(10)
        assert sockets["received"] == 5
        assert " xdp " in ip("-n", wire.server, "link", "show", LINK)
        ifindex = attach(wire.server, datapath, LINK)  # by the stack
        assert " xdp " not in ip("-n", wire.server, "link", "show", LINK)
        ask(10)
        assert sockets["received"] == 5
        datapath.detach(ifindex)
        ask(10)
        assert sockets["received"] == 15
        attach(wire.server, datapath, LINK, NATIVE)
        ask(10)
        assert sockets["received"] == 15
        assert total(datapath).replied + total(datapath).passed == 50
