"""echod.bpf.checks: which frames are plain datagrams to one of our ports; all others go on as they are."""

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from support.bpf import (
    ETHERNET,
    LOCAL,
    NEXT,
    OTHER_LOCAL,
    REDIRECT,
    XDP,
    Frame,
    Kernel,
    declaration,
    needs_bpf,
    over_ipv6,
    with_checksum,
    xdp_context,
)

from echod.bpf.asm import Assembler
from echod.bpf.checks import count_train, leave_other_stations, pass_odd_frames
from echod.bpf.layout import IPV4, Hook, LinkKind
from echod.bpf.maps import KernelTraffic
from echod.bpf.options import Build, Options, Tables
from echod.linux.bpf import run_program

pytestmark = needs_bpf

SELF_TEST_PORT = 20_000

IP, UDP4, UDP6 = 14, 34, 54
"""Where the IP header begins, and the UDP header over each family."""


@contextmanager
def with_paths(hook: Hook) -> Iterator[Kernel]:
    """Give programs that have a path to the peers of the tests, so that a plain datagram is replied to."""
    with Kernel(declaration(self_test_port=SELF_TEST_PORT), hook) as kernel:
        for frame in (Frame(), over_ipv6()):
            kernel.note(frame.reply)
        yield kernel


@pytest.fixture(scope="module", params=[ETHERNET, XDP], ids=["tcx", "xdp"])
def kernel(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    """Give those of either driver."""
    with with_paths(request.param) as kernel:
        yield kernel


@pytest.fixture(scope="module")
def tcx() -> Iterator[Kernel]:
    """Give those that see trains."""
    with with_paths(ETHERNET) as kernel:
        yield kernel


def changed(frame: Frame, at: int, data: bytes, *, right: bool = True) -> bytes:
    """Return a frame with other bytes at a place; of an IPv4 header the checksum is right again, unless it must not."""
    octets = bytearray(bytes(frame))
    octets[at : at + len(data)] = data
    if frame.version == 4 and right:
        size = 4 * (octets[IP] & 0xF)
        octets[IP : IP + size] = with_checksum(bytes(octets[IP : IP + size]))
    return bytes(octets)


def with_options(frame: Frame) -> bytes:
    """Return a frame whose IPv4 header has an option that does nothing."""
    octets = bytes(frame)
    header = bytes([0x46]) + octets[15:16] + struct.pack("!H", len(octets) - IP + 4) + octets[18:UDP4]
    return octets[:IP] + with_checksum(header + b"\1\1\1\0") + octets[UDP4:]


def with_extension(frame: Frame) -> bytes:
    """Return a frame with a hop-by-hop header between the IPv6 and the UDP header (RFC 8200, 4.3)."""
    octets = bytes(frame)
    length = struct.pack("!H", len(octets) - UDP6 + 8)
    return octets[:18] + length + b"\0" + octets[21:UDP6] + b"\x11\0\1\4\0\0\0\0" + octets[UDP6:]


NOT_OURS = {
    "ARP": changed(Frame(), 12, b"\x08\x06", right=False),
    "a VLAN tag in the frame": bytes(Frame())[:12] + b"\x81\0\0\5" + bytes(Frame())[12:],
    "a priority tag in the frame": bytes(Frame())[:12] + b"\x81\0\x60\0" + bytes(Frame())[12:],
    "SNAP": bytes(Frame())[:12] + b"\0\x33\xaa\xaa\3\0\0\0" + bytes(Frame())[12:],
    "TCP": changed(Frame(), IP + 9, b"\6"),
    "TCP over IPv6": changed(over_ipv6(), IP + 6, b"\6"),
    "a hop-by-hop header": with_extension(over_ipv6()),
    "a fragment header": changed(over_ipv6(), IP + 6, b"\x2c"),
    "another port": bytes(Frame(to_port=8)),
    "another port over IPv6": bytes(over_ipv6(to_port=8)),
    "a port that has our port in its other byte": bytes(Frame(to_port=0x0700)),
    "another station": bytes(Frame(stations=bytes.fromhex("020000000099020000000001"))),
    "all stations": bytes(Frame(stations=bytes.fromhex("ffffffffffff020000000001"))),
    "a group of stations": bytes(Frame(stations=bytes.fromhex("01005e000001020000000001"))),
    "a frame that ends with its IP header": bytes(Frame())[:UDP4],
    "a frame that ends in its UDP header": bytes(Frame())[: UDP4 + 7],
    "a frame that ends in its UDP header, over IPv6": bytes(over_ipv6())[: UDP6 + 7],
}


@pytest.mark.parametrize("frame", NOT_OURS.values(), ids=NOT_OURS)
def test_what_is_not_ours_goes_on_uncounted(kernel: Kernel, frame: bytes) -> None:
    """Other traffic, to whomever, is as if the program were not there."""
    outcome = kernel.meet(frame)
    assert (outcome.verdict, outcome.frame, outcome.counted) == (NEXT, frame, {})


ODD = {
    "a source station that is a group": bytes(Frame(stations=bytes(6) + bytes.fromhex("01005e000001"))),
    "IP options": changed(Frame(), IP, b"\x46", right=False),
    "version 5": changed(Frame(), IP, b"\x55"),
    "a first fragment": bytes(Frame(flags=0x2000)),
    "a later fragment": bytes(Frame(flags=0x0001)),
    "a fragment far behind": bytes(Frame(flags=0x1F00)),
    "the bit that must be zero": bytes(Frame(flags=0x8000)),
    "a wrong header checksum": changed(Frame(), IP + 10, b"\x12\x34", right=False),
    "an IP length one more": changed(Frame(), IP + 2, struct.pack("!H", 36)),
    "an IP length one less": changed(Frame(), IP + 2, struct.pack("!H", 34)),
    "a UDP length one more": changed(Frame(), UDP4 + 4, struct.pack("!H", 16)),
    "a UDP length one less": changed(Frame(), UDP4 + 4, struct.pack("!H", 14)),
    "lengths of less than a header": changed(replace(Frame(), payload=b""), IP + 2, struct.pack("!H", 27))[: UDP4 + 4]
    + struct.pack("!HH", 7, 0),
    "a byte behind the packet": bytes(Frame(payload=bytes(100))) + b"\0",
    "a byte more than the shortest frame": bytes(Frame()).ljust(61, b"\0"),
    "a byte missing": bytes(Frame())[:-1],
    "version 7": changed(over_ipv6(), IP, b"\x70"),
    "no UDP checksum over IPv6": bytes(over_ipv6(udp_checksum=0)),
    "an IPv6 length one more": changed(over_ipv6(), IP + 4, struct.pack("!H", 16)),
    "a UDP length one more, over IPv6": changed(over_ipv6(), UDP6 + 4, struct.pack("!H", 16)),
    "a UDP length of zero, over IPv6": changed(over_ipv6(), UDP6 + 4, bytes(2)),
    "a byte behind the packet, over IPv6": bytes(over_ipv6()) + b"\0",
    "a self test": bytes(Frame(source_port=SELF_TEST_PORT)),
    "a self test over IPv6": bytes(over_ipv6(source_port=SELF_TEST_PORT)),
}


@pytest.mark.parametrize("frame", ODD.values(), ids=ODD)
def test_what_is_not_plain_is_left_to_the_sockets(kernel: Kernel, frame: bytes) -> None:
    """Unchanged, and counted as that, although there is a path: they alone decide on it."""
    outcome = kernel.meet(frame)
    assert (outcome.verdict, outcome.frame) == (NEXT, frame)
    assert outcome.counted == {(6 if frame[12] == 0x86 else 4, 7): KernelTraffic(passed=1)}


PLAIN = {
    "a datagram": Frame(),
    "an empty one": Frame(payload=b""),
    "a long one": Frame(payload=bytes(1472)),
    "one that may be fragmented": Frame(flags=0),
    "one without a UDP checksum": Frame(udp_checksum=0),
    "one with a class of traffic": Frame(tos=0xB8),
    "one over IPv6": over_ipv6(),
    "an empty one over IPv6": over_ipv6(payload=b""),
    "one over IPv6 with a class of traffic": over_ipv6(tos=0xB8),
}


@pytest.mark.parametrize("frame", PLAIN.values(), ids=PLAIN)
def test_a_plain_datagram_is_replied_to(kernel: Kernel, frame: Frame) -> None:
    """Whatever its length, its class and its flag "don't fragment"."""
    outcome = kernel.meet(frame)
    assert (outcome.verdict, outcome.frame) == (REDIRECT, bytes(frame.reply))
    traffic = KernelTraffic(replied=1, replied_bytes=len(frame.payload))
    assert outcome.counted == {(frame.version, 7): traffic}


def test_what_fills_up_a_short_frame_stays(kernel: Kernel) -> None:
    """An Ethernet frame has 60 bytes at least; those behind the packet come back as they are."""
    frame = bytes(Frame()).ljust(60, b".")
    outcome = kernel.meet(frame)
    assert (outcome.verdict, outcome.frame) == (REDIRECT, bytes(Frame().reply).ljust(60, b"."))


@pytest.mark.parametrize("linear", [14, 20, 34, 41])
@pytest.mark.parametrize("frame", [Frame(), over_ipv6()], ids=["IPv4", "IPv6"])
def test_headers_may_lie_in_any_part_of_a_frame(frame: Frame, linear: int) -> None:
    """A driver may put but the link header in front; `tests/netns` has a packet like that for tcx.

    Kernels before 6.18 do not make such a frame for a test: there all of it is in front.
    """
    makes_parts = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 18)
    with with_paths(XDP) as kernel:
        refused = replace(frame, source_port=53)  # of ours it would be dropped
        tcp = changed(refused, IP + (9 if frame.version == 4 else 6), b"\6")
        for octets, expected in ((bytes(frame), 3), (bytes(replace(refused, to_port=8)), 2), (tcp, 2)):
            given = xdp_context(linear if makes_parts else len(octets))
            verdict, left, *_ = run_program(kernel.programs.ingress, octets, context=given)
            assert (verdict, left) == (expected, bytes(frame.reply) if expected == 3 else octets)


def test_options_are_no_ports(kernel: Kernel) -> None:
    """Where a header is longer, the place of the port has something else: here the number of ours."""
    octets = with_options(Frame())
    frame = octets[:UDP4] + b"\1\1\0\7" + octets[UDP4 + 4 :]
    outcome = kernel.meet(frame[:IP] + with_checksum(frame[IP : UDP4 + 4]) + frame[UDP4 + 4 :])
    assert (outcome.verdict, outcome.counted) == (NEXT, {(4, 7): KernelTraffic(passed=1)})


@pytest.mark.parametrize("make", [Frame, over_ipv6])
def test_a_train_counts_as_its_datagrams(tcx: Kernel, make: Callable[..., Frame]) -> None:
    """It has one header for all, and the kernel says how many they are."""
    frame = make(payload=bytes(range(50)))
    outcome = tcx.meet(frame, gso_size=20, segments=3)
    assert (outcome.verdict, outcome.frame) == (REDIRECT, bytes(frame.reply))
    assert outcome.counted == {(frame.version, 7): KernelTraffic(replied=3, replied_bytes=50)}


def test_a_train_of_unknown_length_is_left_to_the_sockets(tcx: Kernel) -> None:
    """It counts as one here."""
    outcome = tcx.meet(Frame(payload=bytes(50)), gso_size=20, segments=0)
    assert (outcome.verdict, outcome.counted) == (NEXT, {(4, 7): KernelTraffic(passed=1)})


def test_in_the_driver_the_station_of_the_interface_is_compared() -> None:
    """Each byte of it; the driver of a card does not say whom a frame is for."""
    own = bytes.fromhex("020000000701")
    with with_paths(Hook(LinkKind.ETHERNET, station=own)) as kernel:
        assert kernel.meet(Frame(stations=own + bytes(6))).verdict == REDIRECT
        for at in range(6):
            other = own[:at] + bytes([own[at] ^ 0x10]) + own[at + 1 :]
            assert kernel.meet(Frame(stations=other + bytes(6))).counted == {}


def test_a_listener_on_one_address_is_on_no_other(kernel: Kernel) -> None:
    """A path to another address of the same port, where another service replied, was not noted."""
    for to in (LOCAL, OTHER_LOCAL):
        kernel.note(Frame(to=to, to_port=7007).reply)
    assert kernel.meet(Frame(to=LOCAL, to_port=7007)).verdict == REDIRECT
    assert kernel.meet(Frame(to=OTHER_LOCAL, to_port=7007)).verdict == NEXT


def test_frames_without_a_link_header_have_no_stations_and_no_filling() -> None:
    """There the steps that look at either are shorter; a test run always has the header of Ethernet."""

    def instructions(kind: LinkKind) -> int:
        code, tables = Assembler(), Tables(**dict.fromkeys(Tables.__slots__, 0))
        build = Build(hook=Hook(kind), tables=tables, options=Options(cpus=2, rows=2, fresh_ns=1, stale_ns=2))
        for label in ("next", "pass"):
            code.label(label)
        for step in (leave_other_stations, pass_odd_frames, count_train):
            step(code, build, IPV4)
        return len(code.assemble().instructions) // 8

    assert instructions(LinkKind.ETHERNET) - instructions(LinkKind.BARE) == 4
