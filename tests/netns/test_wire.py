"""The harness itself: what a server does that knows no rules is seen, all of it, and nothing is left behind."""

import socket
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import pytest
from support.loopback import needs_root
from support.netns.datagrams import PORT, SERVER, SERVER6, Datagram, as_train, numbered, over_ipv4, over_ipv6, read
from support.netns.wire import Wire
from support.system.network import NAMESPACES

from echod.linux.sockopt import UDP_GRO

OVER_THE_WIRE: Final = (over_ipv4(source="192.0.2.7", source_port=19), over_ipv6(source="::10.7.1.66"))
TO_EVERYBODY: Final = (over_ipv4(to="10.7.1.255"), over_ipv4(to="224.0.0.1"), over_ipv6(to="ff02::1"))
TO_ITSELF: Final = (over_ipv4(source=SERVER), over_ipv4(source="127.0.0.1"), over_ipv6(source="::"))

pytestmark = needs_root


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    """Lay a wire."""
    with Wire() as laid:
        yield laid


def echo_naively(wire: Wire, datagram: Datagram) -> None:
    """Answer one datagram as a server does that knows no rules."""
    with wire.lenient(), wire.listen("::" if datagram.is_ipv6 else "0.0.0.0", PORT) as naive:  # noqa: S104
        wire.inject(datagram.frame())
        payload, peer = naive.recvfrom(2048)
        wire.whispers()  # of one that came from ourselves
        naive.sendto(payload, peer)


@pytest.mark.parametrize(
    "datagram", [*OVER_THE_WIRE, *TO_EVERYBODY, *TO_ITSELF], ids=lambda it: f"{it.source} to {it.to}"
)
def test_a_naive_answer_is_seen_once(wire: Wire, datagram: Datagram) -> None:
    """On the wire, or on the server's loopback; to what everybody received from the server's own address."""
    assert read(datagram.frame()) == datagram
    echo_naively(wire, datagram)
    own = SERVER6 if datagram.is_ipv6 else SERVER
    answer = replace(datagram.answer, source=own)
    if datagram in TO_ITSELF:
        assert wire.replies() == []
        (whisper,) = wire.whispers()
        assert (whisper.to_port, whisper.payload) == (answer.to_port, answer.payload)
    else:
        assert wire.replies() == [answer]


@pytest.mark.parametrize("datagram", [over_ipv4(), over_ipv6()], ids=["IPv4", "IPv6"])
def test_a_train_arrives_as_a_train(wire: Wire, datagram: Datagram) -> None:
    """64 datagrams are received at once, with the length of each; and leave as 64 frames."""
    datagrams = numbered(datagram, 64)
    size = len(datagrams[0].payload)
    with wire.listen(datagram.to, PORT) as server:
        server.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        wire.inject(*as_train(datagrams))
        data, messages, _, peer = server.recvmsg(65_536, 64)
        assert data == b"".join(each.payload for each in datagrams)
        assert [(kind, struct.unpack("i", value)) for _, kind, value in messages] == [(UDP_GRO, (size,))]
        server.sendmsg([data], [(socket.IPPROTO_UDP, 103, struct.pack("H", size))], 0, peer)  # UDP_SEGMENT
    assert wire.replies() == [each.answer for each in datagrams]


def test_nothing_is_left_of_a_wire() -> None:
    """Both namespaces are gone when a test is over, also one that failed."""
    with pytest.raises(AssertionError, match="they are there"), Wire() as wire:
        assert not {wire.server, wire.client} <= namespaces(), "they are there"
    assert not {wire.server, wire.client} & namespaces()


def namespaces() -> set[str]:
    """Return the names of all network namespaces."""
    return {path.name for path in NAMESPACES.iterdir()}
