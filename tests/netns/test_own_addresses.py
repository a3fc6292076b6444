"""echod never answers itself: sources that are addresses of this host, which nobody else has honestly."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from support.loopback import needs_root
from support.netns.datagrams import OTHER_PORT, PORT, SERVER, SERVER6, SERVER_LINK, Datagram, numbered, over
from support.netns.stage import Stage, answered, refused
from support.waiting import wait_until

pytestmark = needs_root

REASON = "dropped_source_is_self"
OWN = (over(SERVER), over(SERVER6), over(SERVER_LINK))
LATER = {
    "10.7.1.77": "address {} 10.7.1.77/24 dev eth0",
    "fd00:7::77": "address {} fd00:7::77/64 dev eth0 nodad",
    "10.9.0.7": "-4 route {} local 10.9.0.0/24 dev lo",
    "fd00:9::7": "-6 route {} local fd00:9::/64 dev lo",
}
"""Addresses, and the command that gives this host each of them, or takes it away."""

each_own = pytest.mark.parametrize("datagram", OWN, ids=lambda each: each.source)


@pytest.fixture
def lenient(stage: Stage) -> Iterator[Stage]:
    """Give an echod whose kernel lets its own addresses in from the wire; for IPv6 every kernel does."""
    with stage.wire.lenient():
        yield stage


def await_refusal(stage: Stage, datagram: Datagram) -> None:
    """Wait until echod takes the source for its own; what is answered until then goes to nobody."""

    def is_refused() -> bool:
        stage.wire.inject(datagram.frame())
        stage.ask(is_ipv6=datagram.is_ipv6)
        return any(REASON in row for row in stage.daemon.counters().values())

    wait_until(is_refused, f"{datagram.source} was refused as our own")


def await_answer(stage: Stage, datagram: Datagram) -> None:
    """Wait until echod answers the source."""

    def is_answered() -> bool:
        (once,) = numbered(datagram, 1)
        stage.wire.inject(once.frame())
        stage.ask(is_ipv6=datagram.is_ipv6)
        return once.answer in stage.wire.replies()

    wait_until(is_answered, f"{datagram.source} was answered")


def assert_answered(stage: Stage, datagram: Datagram) -> None:
    """Prove that echod answers the source."""
    datagrams = numbered(datagram, 10)
    assert stage.meet(datagrams) == answered(datagrams)


@each_own
@pytest.mark.parametrize(
    ("port", "reason"), [(PORT, "source_port_own"), (OTHER_PORT, "source_port_own"), (40_000, "source_is_self")]
)
def test_our_own_address_and_port_start_no_loop(lenient: Stage, datagram: Datagram, port: int, reason: str) -> None:
    """One such frame makes a naive echo answer itself about 100,000 times a second, for ever.

    From another port it is not answered either: no service of this host receives forged bytes from echod.
    """
    assert lenient.meet(numbered(replace(datagram, source_port=port), 10)) == refused(10, f"dropped_{reason}")


@pytest.mark.parametrize(
    ("source", "host"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.8.8.8", "127.0.0.9"),
        ("::1", "::1"),
        (SERVER, "127.0.0.1"),
        (SERVER6, "::1"),
    ],
)
def test_this_host_itself_is_answered_over_loopback(stage: Stage, source: str, host: str) -> None:
    """A client on this host that asks over loopback is honest, also from an outside address."""
    with stage.wire.listen(source, 0) as client:
        client.sendto(b"myself", (host, PORT))
        assert client.recvfrom(64)[0] == b"myself"


@pytest.mark.parametrize("datagram", OWN[:2], ids=lambda each: each.source)
def test_this_host_itself_is_not_answered_at_an_outside_address(stage: Stage, datagram: Datagram) -> None:
    """It goes over `lo`, but the kernel says of it what it says of a forged one: that it came in on eth0."""

    def refusals() -> int:
        return sum(row.get(REASON, 0) for row in stage.daemon.counters().values())

    before = refusals()
    with stage.wire.listen(datagram.source, 0) as client:
        client.sendto(b"myself", (datagram.to, PORT))
        wait_until(lambda: refusals() == before + 1, "it was refused")
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(64)


@pytest.mark.parametrize(("source", "command"), LATER.items())
def test_an_address_added_after_the_start_is_our_own(staged: Callable[..., Stage], source: str, command: str) -> None:
    """A neighbour that was answered is refused once this host has its address, and answered once it has not.

    `ip route add local PREFIX dev lo` makes each address in it one of this host (AnyIP), at any time. A reload changes
    nothing.
    """
    stage, datagram = staged(), over(source)
    stage.wire.know(source)
    assert_answered(stage, datagram)
    with stage.wire.lenient():
        stage.wire.configure(*command.format("add").split())
        await_refusal(stage, datagram)
        assert stage.meet(numbered(datagram, 10)) == refused(10, REASON)
        stage.reload()
        assert stage.meet(numbered(datagram, 10)) == refused(10, REASON)
        stage.wire.configure(*command.format("delete").split())
        await_answer(stage, datagram)
    assert_answered(stage, datagram)
