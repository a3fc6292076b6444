"""echod.bpf.egress: which packets that leave this host teach a path."""

import pytest
from support.bpf import (
    ANY,
    ANY6,
    LOOPBACK,
    OTHER_LOCAL,
    OTHER_LOCAL6,
    PEER6,
    REDIRECT,
    STATIONS,
    Frame,
    Kernel,
    declaration,
    needs_bpf,
    over_ipv6,
    with_checksum,
)
from support.loopback import listener

from echod.bpf.layout import NEWCOMERS_BYTES, PATH, Hook, LinkKind

pytestmark = needs_bpf

both_families = pytest.mark.parametrize("frame", [Frame(), over_ipv6()], ids=["IPv4", "IPv6"])


@both_families
def test_a_reply_teaches_its_path(frame: Frame) -> None:
    """Peer, address and port; and interface, stations and hop limit, with both ends of its life."""
    with Kernel(declaration(fresh_seconds=100.0, stale_seconds=300.0)) as kernel:
        kernel.note(frame.reply)
        ((key, value),) = kernel.datapath._maps["paths"].items()
        size = 4 if frame.version == 4 else 16
        octets = bytes(frame)[26:34] if frame.version == 4 else bytes(frame)[22:54]
        addresses = octets[:size].ljust(16, b"\0") + octets[size:].ljust(16, b"\0")
        assert key == addresses + b"\0\7" + bytes([frame.version, 0]) + bytes(4)
        renew, until, ifindex, next_hop, own, hops = PATH.unpack(value)
        assert (ifindex, next_hop + own, hops) == (LOOPBACK, STATIONS, 61)
        assert until - renew == 200 * 10**9


@both_families
def test_what_this_host_did_not_send_teaches_nothing(frame: Frame) -> None:
    """A packet that is forwarded, or that the other program sends, came in by an interface."""
    with Kernel() as kernel:
        kernel.note(frame.reply, came_in_by=LOOPBACK)
        assert kernel.paths() == 0


def fragment(frame: Frame, flags: int) -> bytes:
    """Return a reply as a fragment."""
    octets = bytes(frame.reply)
    header = octets[14:20] + flags.to_bytes(2, "big") + octets[22:34]
    return octets[:14] + with_checksum(header) + octets[34:]


NO_REPLIES = {
    "ARP": bytes(Frame().reply)[:12] + b"\x08\x06" + bytes(Frame().reply)[14:],
    "from another port": Frame(to_port=8).reply,
    "from another port over IPv6": over_ipv6(to_port=8).reply,
    "a datagram to our port": Frame(source_port=40_000, to="10.0.0.2", source=OTHER_LOCAL),
    "TCP": bytes(Frame().reply)[:23] + b"\6" + bytes(Frame().reply)[24:],
    "TCP over IPv6": bytes(over_ipv6().reply)[:20] + b"\6" + bytes(over_ipv6().reply)[21:],
    "a first fragment": fragment(Frame(), 0x2000),
    "a later fragment": fragment(Frame(), 0x0001),
    "options": bytes(Frame().reply)[:14] + b"\x46" + bytes(Frame().reply)[15:],
    "a part of a header": bytes(Frame().reply)[:41],
    "a part of a header over IPv6": bytes(over_ipv6().reply)[:61],
}


@pytest.mark.parametrize("frame", NO_REPLIES.values(), ids=NO_REPLIES)
def test_what_is_no_reply_of_ours_teaches_nothing(frame: Frame | bytes) -> None:
    """Whatever else leaves this host."""
    with Kernel() as kernel:
        kernel.note(frame)
        assert kernel.paths() == 0


@both_families
def test_a_path_is_noted_at_its_second_reply(frame: Frame) -> None:
    """What is replied to once costs no entry."""
    with Kernel() as kernel:
        kernel.note_once(frame.reply)
        assert kernel.paths() == 0
        kernel.note_once(frame.reply)
        assert kernel.paths() == 1


@pytest.mark.parametrize("others", [3, 4])
def test_a_slot_has_room_for_four_newcomers(others: int) -> None:
    """Four that take turns in one are all noted; a fifth pushes out the one that came first."""
    with Kernel() as kernel:
        kernel.note_once(Frame().reply)
        newcomers = kernel.datapath._maps["newcomers"]
        slots = newcomers.lookup(bytes(4))
        assert slots is not None
        assert any(slots)
        for number in range(1, 1 + others):
            slots = b"".join(
                number.to_bytes(2, "little") + slots[at : at + 6] for at in range(0, len(slots), NEWCOMERS_BYTES)
            )
        newcomers.update(bytes(4), slots)
        kernel.note_once(Frame().reply)
        assert kernel.paths() == (others == 3)


def test_the_newcomer_that_came_last_stands_first() -> None:
    """And the one that came first of four is out; no other slot is touched."""
    with Kernel() as kernel:
        newcomers = kernel.datapath._maps["newcomers"]
        four = b"".join(number.to_bytes(2, "little") for number in (1, 2, 3, 4))
        newcomers.update(bytes(4), four * (newcomers.value_bytes // NEWCOMERS_BYTES))
        kernel.note_once(Frame().reply)
        slots = newcomers.lookup(bytes(4))
        assert slots is not None
        each_slot = [slots[at : at + NEWCOMERS_BYTES] for at in range(0, len(slots), NEWCOMERS_BYTES)]
        assert [slot[2:] for slot in each_slot if slot != four] == [four[:6]]


def test_many_newcomers_push_nobody_out() -> None:
    """Of peers that send a single datagram, nothing but a hash is kept; one in some thousand has that of another."""
    with Kernel() as kernel:
        kernel.note(Frame().reply)
        for number in range(10_000):
            kernel.note_once(Frame(source=f"10.1.{number >> 8}.{number & 255}").reply)
        assert kernel.paths() < 20
        assert kernel.meet(Frame()).verdict == REDIRECT


OTHERS = {
    "peer": (Frame(), Frame(source="10.0.0.77")),
    "address": (Frame(), Frame(to=OTHER_LOCAL)),
    "port": (Frame(), Frame(to_port=9)),
    "peer over IPv6": (over_ipv6(), over_ipv6(source=PEER6[:-1] + "7")),
    "address over IPv6": (over_ipv6(), over_ipv6(to=OTHER_LOCAL6)),
}


@pytest.mark.parametrize(("frame", "other"), OTHERS.values(), ids=OTHERS)
def test_a_newcomer_is_known_by_its_whole_path(frame: Frame, other: Frame) -> None:
    """The reply on another path, by its peer, address or port, is none on this."""
    listeners = tuple(listener(any_address, port) for any_address in (ANY, ANY6) for port in (7, 9))
    with Kernel(declaration(listeners=listeners)) as kernel:
        kernel.note_once(frame.reply)
        kernel.note_once(other.reply)
        assert kernel.paths() == 0


@pytest.mark.parametrize("frame", [Frame(to_port=7007), over_ipv6(to_port=7007)], ids=["IPv4", "IPv6"])
def test_a_listener_on_one_address_teaches_that_of_its_own(frame: Frame) -> None:
    """Another service with the same port on another address of this host teaches nothing."""
    other = OTHER_LOCAL6 if frame.version == 6 else OTHER_LOCAL
    with Kernel() as kernel:
        kernel.note(
            Frame(to=other, to_port=7007).reply if frame.version == 4 else over_ipv6(to=other, to_port=7007).reply
        )
        assert kernel.paths() == 0
        kernel.note(frame.reply)
        assert kernel.paths() == 1


def test_a_family_without_a_listener_teaches_nothing() -> None:
    """The port of one family is not that of the other."""
    with Kernel(declaration(listeners=(listener("::", 7),))) as kernel:
        kernel.note(Frame().reply)
        assert kernel.paths() == 0
        kernel.note(over_ipv6().reply)
        assert kernel.paths() == 1


def test_the_last_reply_counts() -> None:
    """A path has one form: that of the last reply."""
    with Kernel() as kernel:
        kernel.note(Frame().reply)
        other = bytes.fromhex("02000000bb0102000000bb02")
        kernel.note(other + bytes(Frame().reply)[12:])
        outcome = kernel.meet(Frame())
        assert (outcome.verdict, outcome.frame[:12]) == (REDIRECT, other)


def test_without_a_link_header_there_are_no_stations() -> None:
    """They are zeros in the path."""
    with Kernel(hook=Hook(LinkKind.BARE)) as kernel:
        assert kernel.programs.egress > 0
