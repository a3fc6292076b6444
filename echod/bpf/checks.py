"""The steps of the ingress program that are made for each family: is this a plain datagram to one of our ports?

Each writes its instructions. What is not ours goes to `next`, untouched and uncounted; what is ours but not a whole and
plain datagram that is right in every field goes to `pass`: the sockets decide. Afterwards R6 is the context, R7 the
number of datagrams, R8 the bytes of payload, and the stack has the headers and the key of the path.
"""

from typing import Final

from echod.bpf.asm import R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10, Assembler, Register
from echod.bpf.layout import (
    BY_PORT,
    IPV6,
    PATH_KEY,
    SELF_TEST,
    SHORTEST_FRAME,
    UDP,
    UDP_BYTES,
    UDP_CHECKSUM,
    UDP_LENGTH,
    Context,
    Headers,
    Helper,
    LinkKind,
    Stack,
)
from echod.bpf.options import Build

_PACKET_HOST: Final = 0  # linux/if_packet.h

_ETHERTYPE, _SENDER, _STATION_BYTES = 12, 6, 6
"""In an Ethernet header, which begins with the station that it is for."""
_GROUP_BIT: Final = 1
"""In the first byte of a station: many stations, which nobody sends from."""
_VERSION_AND_LENGTH: Final = 0x45
"""IPv4, and a header of five words."""
_FRAGMENT4: Final = 0xFFBF
"""All bits of flags and fragment offset but "don't fragment" (RFC 791), also the one that must be zero (RFC 3514)."""


def at(name: str, headers: Headers) -> str:
    """Return a label in the steps of one family."""
    return f"{name}{headers.version}"


def load_entry(code: Assembler, build: Build, headers: Headers, port: Register, to: Register) -> None:
    """Look up a destination port, in network byte order, in the map of ports. Changes both registers and R1."""
    code.from_network_order(port)
    code.compute(port, "&", 0xFFFF)  # an older verifier knows no bound of it
    code.compute(port, "<<", 1)
    code.map_value(R1, build.tables.ports, BY_PORT[headers.version])
    code.compute(R1, "+", port)
    code.load(to, 2, R1, 0)


def load_protocol(code: Assembler, build: Build) -> None:
    """Load the EtherType into R2, in network byte order. That of a VLAN is not IP: it has an interface of its own."""
    if not build.is_xdp:
        code.load(R2, 4, R6, Context.PROTOCOL)
        return
    code.load(R2, 4, R6, build.abi.data)
    code.load(R3, 4, R6, build.abi.data_end)
    code.compute(R4, "=", R2)
    code.compute(R4, "+", build.kind.header_bytes)
    code.jump_if(R4, ">", R3, "next")
    code.load(R2, 2, R2, _ETHERTYPE)


def leave_what_is_not_ours(code: Assembler, build: Build, headers: Headers) -> None:
    """Most traffic is other traffic: look where it lies, before anything is copied."""
    link = build.kind.header_bytes
    code.label(at("family", headers))
    code.load(R2, 4, R6, build.abi.data)
    code.load(R3, 4, R6, build.abi.data_end)
    code.compute(R4, "=", R2)
    code.compute(R4, "+", link + headers.size + UDP_BYTES)
    code.jump_if(R4, ">", R3, at("copy", headers))
    code.load(R5, 1, R2, link + headers.next_header)
    code.jump_if(R5, "!=", UDP, "next")
    code.load(R5, 2, R2, link + headers.size + 2)
    load_entry(code, build, headers, R5, R5)
    code.jump_if(R5, "==", 0, "next")


def copy_headers(code: Assembler, build: Build, headers: Headers) -> None:
    """Copy the headers to the stack, wherever they lie, and look again."""
    link = build.kind.header_bytes
    code.label(at("copy", headers))
    code.compute(R1, "=", R6)
    code.compute(R2, "=", 0)
    code.stack(R3, Stack.IP - link)
    code.compute(R4, "=", link + headers.size + UDP_BYTES)
    code.call(build.abi.load_bytes)
    code.jump_if(R0, "!=", 0, "next")
    code.load(R2, 1, R10, Stack.IP + headers.next_header)
    code.jump_if(R2, "!=", UDP, "next")
    code.load(R5, 2, R10, Stack.IP + headers.size + 2)
    load_entry(code, build, headers, R5, R5)
    code.jump_if(R5, "==", 0, "next")
    code.store(8, R10, Stack.ENTRY, R5)


def leave_other_stations(code: Assembler, build: Build, _headers: Headers) -> None:
    """Leave what is sent to another station, to many, or in a VLAN, which has an interface of its own."""
    frame = Stack.IP - build.kind.header_bytes
    if build.is_xdp:
        for offset in range(0, _STATION_BYTES, 2):
            code.load(R2, 2, R10, frame + offset)
            code.jump_if(R2, "!=", int.from_bytes(build.hook.station[offset : offset + 2], "little"), "next")
    else:
        code.load(R2, 4, R6, Context.PACKET_TYPE)
        code.jump_if(R2, "!=", _PACKET_HOST, "next")
        code.load(R2, 4, R6, Context.VLAN_PRESENT)
        code.jump_if(R2, "!=", 0, "next")
    if build.kind is not LinkKind.BARE:
        code.load(R2, 1, R10, frame + _SENDER)
        code.jump_if(R2, "&", _GROUP_BIT, "pass")


def pass_odd_headers(code: Assembler, _build: Build, headers: Headers) -> None:
    """Pass options, fragments, wrong lengths and wrong header checksums. Afterwards R8 is the length of the packet."""
    udp = Stack.IP + headers.size
    code.load(R2, 1, R10, Stack.IP)
    if headers is IPV6:
        code.compute(R2, "&", 0xF0)
        code.jump_if(R2, "!=", 0x60, "pass")
        code.load(R2, 2, R10, udp + UDP_CHECKSUM)
        code.jump_if(R2, "==", 0, "pass")  # RFC 8200, 8.1
        code.load(R8, 2, R10, Stack.IP + 4)
    else:
        code.jump_if(R2, "!=", _VERSION_AND_LENGTH, "pass")
        code.load(R2, 2, R10, Stack.IP + 6)
        code.jump_if(R2, "&", _FRAGMENT4, "pass")
        _sum_header(code, headers)
        code.jump_if(R3, "!=", 0xFFFF, "pass")
        code.load(R8, 2, R10, Stack.IP + 2)
    code.from_network_order(R8)
    code.compute(R8, "+", headers.size if headers is IPV6 else 0)
    code.load(R2, 2, R10, udp + UDP_LENGTH)
    code.from_network_order(R2)
    code.compute(R2, "+", headers.size)
    code.jump_if(R2, "!=", R8, "pass")
    code.jump_if(R8, "<", headers.size + UDP_BYTES, "pass")


def _sum_header(code: Assembler, headers: Headers) -> None:
    """Sum up the header, in R3, as in RFC 1071. (The sum is the same in either byte order.)"""
    code.compute(R3, "=", 0)
    for offset in range(0, headers.size, 4):
        code.load(R2, 4, R10, Stack.IP + offset)
        code.compute(R3, "+", R2)
    for _ in range(2):
        code.compute(R2, "=", R3)
        code.compute(R2, ">>", 32)
        code.cut(R3)
        code.compute(R3, "+", R2)
    fold(code, R3, R2)


def fold(code: Assembler, number: Register, scratch: Register) -> None:
    """Fold a sum of less than 33 bits to 16, adding the carry."""
    for _ in range(2):
        code.compute(scratch, "=", number)
        code.compute(scratch, ">>", 16)
        code.compute(number, "&", 0xFFFF)
        code.compute(number, "+", scratch)


def pass_odd_frames(code: Assembler, build: Build, headers: Headers) -> None:
    """Pass a frame that is longer or shorter than its packet, but for what fills it up to the shortest."""
    if build.is_xdp:
        code.compute(R1, "=", R6)
        code.call(Helper.XDP_LENGTH)
        code.compute(R2, "=", R0)
    else:
        code.load(R2, 4, R6, Context.LENGTH)
    code.compute(R3, "=", R8)
    code.compute(R3, "+", build.kind.header_bytes)
    code.jump_if(R2, "==", R3, at("whole", headers))
    if build.kind is not LinkKind.BARE:
        code.jump_if(R2, "<", R3, "pass")
        code.jump_if(R2, "<=", SHORTEST_FRAME, at("whole", headers))
    code.jump("pass")
    code.label(at("whole", headers))
    code.compute(R8, "+", -headers.size - UDP_BYTES)


def count_train(code: Assembler, build: Build, headers: Headers) -> None:
    """Count a train as its datagrams; the sockets get one whose number the kernel does not know. XDP has no trains."""
    if build.is_xdp:
        return
    code.load(R2, 4, R6, Context.GSO_SIZE)
    code.jump_if(R2, "==", 0, at("counted", headers))
    code.load(R7, 4, R6, Context.GSO_SEGMENTS)
    code.jump_if(R7, "!=", 0, at("counted", headers))
    code.compute(R7, "=", 1)
    code.jump("pass")
    code.label(at("counted", headers))


def judge_source_port(code: Assembler, build: Build, headers: Headers) -> None:
    """Afterwards R9 is why the source port is refused, or 0. The sockets alone recognise a self test."""
    code.load(R2, 2, R10, Stack.IP + headers.size)
    code.store(8, R10, Stack.PEER_PORT, 0)
    code.store(2, R10, Stack.PEER_PORT, R2)
    code.store(2, R10, Stack.PEER_PORT + 2, headers.version)
    code.from_network_order(R2)
    code.compute(R2, "&", 0xFFFF)  # as above
    code.map_value(R1, build.tables.ports)
    code.compute(R1, "+", R2)
    code.load(R9, 1, R1, 0)
    code.jump_if(R9, "==", SELF_TEST, "pass")


def write_key(code: Assembler, build: Build, headers: Headers) -> None:
    """Write the key of the path: from here on both families have the same form."""
    for offset in range(0, Stack.LOCAL - Stack.PATH_KEY, 4):
        for part, field in ((Stack.PATH_KEY, headers.source), (Stack.LOCAL, headers.destination)):
            if offset < headers.address_bytes:
                code.load(R2, 4, R10, Stack.IP + field + offset)
                code.store(4, R10, part + offset, R2)
            else:
                code.store(4, R10, part + offset, 0)
    tail = Stack.PATH_KEY + PATH_KEY.size - 8
    code.store(8, R10, tail, 0)
    code.load(R2, 2, R10, Stack.IP + headers.size + 2)
    code.store(2, R10, tail, R2)
    code.store(2, R10, Stack.VERSION, headers.version)
    code.store(8, R10, Stack.PAYLOAD, build.kind.header_bytes + headers.size + UDP_BYTES)
    code.jump("known")
