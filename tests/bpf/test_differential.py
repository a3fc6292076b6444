"""The ingress program beside a plain description of it: random frames, and both must do the same with each.

The verdict, the number that counts it, and every byte of the reply; what is refused, and why, is what `Rules` says.
ECHOD_TEST_FRAMES sets how many frames, by default 20,000.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from random import Random
from typing import Final

import pytest
from support.bpf import (
    DROP,
    ETHERNET,
    HOPS,
    LISTENERS,
    LOCAL,
    LOCAL6,
    NEXT,
    OTHER_LOCAL,
    OTHER_LOCAL6,
    REDIRECT,
    STATIONS,
    XDP,
    Frame,
    Kernel,
    declaration,
    needs_bpf,
    over_ipv6,
    rules,
    with_checksum,
)

from echod.admission.rules import Rules
from echod.stats.outcomes import Drop

pytestmark = needs_bpf

FRAMES: Final = int(os.environ.get("ECHOD_TEST_FRAMES", "20000"))
SELF_TEST_PORT: Final = 20_000

PORTS: Final = (0, 7, 53, 1023, 1024, 1900, 7007, SELF_TEST_PORT, 40_000, 65_535)
TO_PORTS: Final = (7, 7, 7, 7007, 7007, 8, 1792)
SOURCES4: Final = ("10.0.0.2", "10.0.0.3", "10.66.0.1", "10.66.0.0", "10.65.255.255", "127.0.0.1", LOCAL, OTHER_LOCAL)
SOURCES6: Final = ("fd00::2", "fd00::3", "fd00:66::1", "fe80::2", "::1", "::", "::7", LOCAL6, OTHER_LOCAL6)
STRANGE4: Final = ("192.0.2.1", "224.0.0.1", "0.1.2.3", "255.255.255.255", "11.0.0.0")
STRANGE6: Final = ("::ffff:10.0.0.2", "2001:db8::1", "ff02::1", "fcff::1")
SOURCES: Final = {4: (*SOURCES4, *STRANGE4), 6: (*SOURCES6, *STRANGE6)}
DESTINATIONS: Final = {
    4: (LOCAL, LOCAL, OTHER_LOCAL, "10.0.0.200", "127.0.0.5", "10.255.255.255"),
    6: (LOCAL6, LOCAL6, OTHER_LOCAL6, "fd00::200", "::1", "ff02::1"),
}
OWN: Final = {ip_address(each) for each in (LOCAL, OTHER_LOCAL, LOCAL6, OTHER_LOCAL6, "::1")}


@dataclass(slots=True)
class Description:
    """What the program is to do, in a few plain sentences of Python."""

    rules: Rules
    paths: set[tuple[bytes, bytes, int]] = field(default_factory=set)
    """Peer, local address and port."""

    def note(self, frame: Frame) -> None:
        """Note that the sockets have replied to this; where a listener has one address, only from that one."""
        to = ip_address(frame.to)
        if frame.to_port == 7 or (frame.to_port == 7007 and frame.to in (LOCAL, LOCAL6)):
            self.paths.add((ip_address(frame.source).packed, to.packed, frame.to_port))

    def do(self, frame: bytes) -> tuple[int, str, bytes]:
        """Return verdict, what is counted, and the frame."""
        version = {b"\x08\0": 4, b"\x86\xdd": 6}.get(frame[12:14], 0)
        size = 20 if version == 4 else 40
        packet = frame[14:]
        if not version or len(packet) < size + 8 or packet[9 if version == 4 else 6] != 17:
            return NEXT, "", frame
        source_port, port, udp_length, checksum = struct.unpack_from("!4H", packet, size)
        if port not in (7, 7007) or frame[:6] != bytes(6):
            return NEXT, "", frame
        (length,) = struct.unpack_from("!H", packet, 2 if version == 4 else 4)
        if version == 4:
            fragment = int.from_bytes(packet[6:8], "big") & 0xBFFF
            plain = packet[0] == 0x45 and not fragment and with_checksum(packet[:20]) == packet[:20]
        else:
            plain, length = packet[0] >> 4 == 6 and checksum != 0, length + 40
        filled = len(frame) <= 60 and len(packet) >= length
        if frame[6] & 1 or not plain or length != size + udp_length or udp_length < 8:
            return NEXT, "passed", frame
        if (len(packet) != length and not filled) or source_port == SELF_TEST_PORT:
            return NEXT, "passed", frame
        return self._decide(frame, version, source_port, port)

    def _decide(self, frame: bytes, version: int, source_port: int, port: int) -> tuple[int, str, bytes]:
        source, to = (frame[26:30], frame[30:34]) if version == 4 else (frame[22:38], frame[38:54])
        peer, own = ip_address(source), ip_address(to)
        is_local = own in OWN or (version == 4 and own.is_loopback)
        if port == 7007:
            is_local = str(own) in (LOCAL, LOCAL6)
        drop = self.rules.judge_host(peer, source_port, on_loopback=False)
        by_port = drop is not None and drop <= Drop.SOURCE_PORT_REFUSED
        if (source, to, port) in self.paths and not by_port:
            return REDIRECT, "replied", reply(frame, version)
        if drop is not None and is_local:
            return DROP, drop.name.lower(), frame
        return NEXT, "passed", frame


def reply(frame: bytes, version: int) -> bytes:
    """Return what the sockets would send."""
    if version == 4:
        header = (
            frame[14:15] + b"\0" + frame[16:20] + bytes(2) + bytes([HOPS]) + frame[23:26] + frame[30:34] + frame[26:30]
        )
        head, rest = with_checksum(header), frame[34:]
    else:
        head, rest = b"\x60\0\0\0" + frame[18:21] + bytes([HOPS]) + frame[38:54] + frame[22:38], frame[54:]
    return STATIONS + frame[12:14] + head + rest[2:4] + rest[:2] + rest[4:]


def random_frame(random: Random) -> Frame:
    """Return a datagram that is right in every field."""
    make, version = random.choice(((Frame, 4), (over_ipv6, 6)))
    return make(
        source=random.choice(SOURCES[version]),
        source_port=random.choice(PORTS),
        to=random.choice(DESTINATIONS[version]),
        to_port=random.choice(TO_PORTS),
        payload=random.randbytes(random.choice((0, 1, 17, 18, 19, 100, 1400))),
        hops=random.choice((1, 64, 255)),
        tos=random.choice((0, 0xB8)),
        identification=random.getrandbits(16),
        flags=random.choice((0x4000, 0x4000, 0, 0x2000, 0x8000, 1)),
        udp_checksum=random.choice((0xBEEF, 0xBEEF, 0)),
    )


def spoiled(random: Random, frame: bytes) -> bytes:
    """Return a frame of which a part is something else, or is missing; of most nothing is."""
    octets = bytearray(frame)
    kind = random.randrange(12)
    if kind < 3:
        at = random.randrange(min(len(octets), 62))
        octets[at] = random.choice((0, 1, octets[at] ^ 1 << random.randrange(8), random.getrandbits(8)))
    if kind == 3:
        del octets[random.randint(54, max(54, len(octets))) :]
    if kind == 4:
        octets += random.randbytes(random.choice((1, 4, 18)))
    if kind == 5 and len(octets) < 60:
        octets = octets.ljust(random.randint(len(octets), 61), b".")
    if kind < 2 and octets[12:15] == b"\x08\0\x45":
        octets[14:34] = with_checksum(bytes(octets[14:34]))
    return bytes(octets)


@pytest.fixture(params=[ETHERNET, XDP], ids=["tcx", "xdp"])
def kernel(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    """Give the programs, with a port of self tests, for either driver."""
    admitted = rules(allow=(*rules().allow, ip_network("11.0.0.0/8")))
    declared = declaration(rules=admitted, listeners=LISTENERS, self_test_port=SELF_TEST_PORT)
    with Kernel(declared, request.param) as kernel:
        yield kernel


def test_the_program_does_what_is_described(kernel: Kernel) -> None:
    """For each of many frames, while ever more paths are noted and now and then all are forgotten."""
    random = Random(FRAMES)  # noqa: S311 - no secret
    described = Description(Rules(kernel.declared.rules))
    outcomes: dict[str, int] = {}
    for number in range(FRAMES):
        frame = random_frame(random)
        if random.random() < 0.02:
            kernel.note(frame.reply)
            if frame.flags & 0x3FFF == 0 or frame.version == 6:
                described.note(frame)
        if number % 5000 == 4999:
            kernel.forget()
            described.paths.clear()
        seen = spoiled(random, bytes(frame))
        verdict, counted, left = described.do(seen)
        outcome = kernel.meet_quickly(seen)
        if verdict == REDIRECT and seen[12:14] == b"\x08\0" and seen[20] & 0x40:  # its number is by chance
            left = left[:14] + with_checksum(left[14:18] + outcome[2][18:20] + left[20:34]) + left[34:]
        assert outcome == (verdict, counted, left), seen.hex()
        outcomes[counted] = outcomes.get(counted, 0) + 1
    reasons = {"source_port_zero", "source_port_own", "source_port_low", "source_port_refused", "source_invalid"}
    expected = {"", "passed", "replied", "source_is_self", "access"} | reasons
    assert FRAMES < 10_000 or (set(outcomes) == expected and min(outcomes.values()) > FRAMES / 500), outcomes
