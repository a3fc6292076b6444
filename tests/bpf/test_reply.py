"""echod.bpf.reply: the reply is the frame that the sockets of this host would send, to the last byte.

No test has a frame that cannot be written, which would be left to the sockets: that takes a host without memory for the
copy of a packet that a tap holds too, at that moment.
"""

import struct
from dataclasses import replace

import pytest
from support.bpf import HOPS, REDIRECT, STATIONS, Frame, Kernel, both_drivers, needs_bpf, over_ipv6
from support.bpf import with_checksum as checked

from echod.bpf.layout import Hook

pytestmark = needs_bpf


@both_drivers
@pytest.mark.parametrize("hops", [1, 2, 63, 64, 65, 128, 255])
@pytest.mark.parametrize("tos", [0, 1, 0xB8, 0xFF])
def test_the_header_is_that_of_a_reply(hook: Hook, hops: int, tos: int) -> None:
    """Whatever hop limit and class the datagram had, those of the reply are the sockets', and the checksum is right."""
    with Kernel(hook=hook) as kernel:
        for frame in (Frame(hops=hops, tos=tos), over_ipv6(hops=hops, tos=tos)):
            kernel.note(frame.reply)
            outcome = kernel.meet(frame)
            assert (outcome.verdict, outcome.frame) == (REDIRECT, bytes(frame.reply))


def test_a_reply_may_be_fragmented_and_its_number_is_chosen_if_that_of_the_request_need_not_be_unique() -> None:
    """Without "don't fragment", as from the sockets: the way back may have a smaller MTU."""
    with Kernel() as kernel:
        kernel.note(Frame().reply)
        numbers = set()
        for _ in range(100):
            outcome = kernel.meet(Frame(identification=0, flags=0x4000))
            number = int.from_bytes(outcome.frame[18:20], "big")
            numbers.add(number)
            expected = replace(Frame().reply, identification=number)
            assert (outcome.verdict, outcome.frame) == (REDIRECT, bytes(expected))
        assert len(numbers) > 10
        assert kernel.meet(Frame(identification=0)).frame[18:22] == bytes(4)


def test_a_flow_label_is_not_repeated() -> None:
    """It is the sender's (RFC 6437, 3)."""
    with Kernel() as kernel:
        kernel.note(over_ipv6().reply)
        labelled = bytearray(bytes(over_ipv6()))
        labelled[14:18] = struct.pack("!L", 6 << 28 | 0x2F << 20 | 0xABCDE)
        assert kernel.meet(bytes(labelled)).frame == bytes(over_ipv6().reply)


def test_a_checksum_of_zero_is_written_as_zero() -> None:
    """A sum over all words of a header never gives 65,535; corrected by what has changed, the same number could be."""
    with Kernel() as kernel:
        for identification in range(0x10000):
            reply = Frame(identification=identification).reply
            if bytes(reply)[24:26] == bytes(2):
                break
        kernel.note(reply)
        assert kernel.meet(Frame(identification=identification)).frame == bytes(reply)


def test_the_stations_are_those_of_the_noted_reply() -> None:
    """Not those of the datagram: it may come from any station of the link."""
    with Kernel() as kernel:
        for frame in (Frame(), over_ipv6()):
            kernel.note(frame.reply)
            stations = bytes(6) + bytes.fromhex("02000000ffff")
            replied = kernel.meet(stations + bytes(frame)[12:]).frame
            assert replied[:12] == STATIONS
            assert replied[12:] == bytes(frame.reply)[12:]


def test_the_checksum_of_the_test_is_that_of_the_standard() -> None:
    """The example of RFC 1071 has the sum ddf2; here the header is zeros but for its four words."""
    header = bytes(12) + bytes.fromhex("0001f203f4f5f6f7")
    assert checked(header)[10:12] == bytes.fromhex("220d")
    assert HOPS != 64
