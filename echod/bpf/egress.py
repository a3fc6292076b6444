"""The steps of the egress program: note the path of each reply that this host itself sends from a port of ours.

It changes no packet. What it notes, the ingress program repeats: the interface, the stations and the hop limit are
those of the reply. Invariant: what is forwarded, or was sent by the ingress program, teaches nothing.
"""

from enum import IntEnum

from echod.bpf.asm import R0, R1, R2, R3, R4, R5, R6, R7, R10, Assembler
from echod.bpf.checks import at, load_entry
from echod.bpf.layout import (
    IPV4,
    MULTIPLIER,
    NEWCOMERS_BYTES,
    PATH_HOPS,
    PATH_IFINDEX,
    PATH_KEY,
    PATH_STATIONS,
    PATH_UNTIL,
    PREFIX,
    SPECIFIC,
    STATION_BYTES,
    UDP,
    UDP_BYTES,
    Context,
    Headers,
    Helper,
    LinkKind,
    Verdict,
)
from echod.bpf.options import Build


class Stack(IntEnum):
    """Where values lie on the stack of the egress program."""

    KEY = -40
    PATH = -80
    PREFIX = -104


def leave_what_others_send(code: Assembler, _build: Build) -> None:
    """Leave what came in by an interface, and what goes into a VLAN, which has an interface of its own."""
    for field in (Context.INGRESS_IFINDEX, Context.VLAN_PRESENT):
        code.load(R2, 4, R6, field)
        code.jump_if(R2, "!=", 0, "next")


def load_protocol(code: Assembler, _build: Build) -> None:
    """Load the EtherType into R2, in network byte order."""
    code.load(R2, 4, R6, Context.PROTOCOL)


def leave_what_is_no_reply(code: Assembler, build: Build, headers: Headers) -> None:
    """Leave what is no datagram from a port of ours. Afterwards R2 is the begin of the frame, R7 the entry."""
    link = build.kind.header_bytes
    code.label(at("family", headers))
    code.load(R2, 4, R6, Context.DATA)
    code.load(R3, 4, R6, Context.DATA_END)
    code.compute(R4, "=", R2)
    code.compute(R4, "+", link + headers.size + UDP_BYTES)
    code.jump_if(R4, ">", R3, "next")
    if headers is IPV4:
        code.load(R5, 1, R2, link)
        code.jump_if(R5, "!=", 0x45, "next")
        code.load(R5, 2, R2, link + 6)
        code.jump_if(R5, "&", 0xFF3F, "next")  # of a fragment: the others have no ports
    code.load(R5, 1, R2, link + headers.next_header)
    code.jump_if(R5, "!=", UDP, "next")
    code.load(R5, 2, R2, link + headers.size)
    load_entry(code, build, headers, R5, R7)
    code.jump_if(R7, "==", 0, "next")


def write_path(code: Assembler, build: Build, headers: Headers) -> None:
    """Write key and value of the path."""
    link = build.kind.header_bytes
    for offset in range(0, 16, 4):
        for part, field in ((Stack.KEY, headers.destination), (Stack.KEY + 16, headers.source)):
            if offset < headers.address_bytes:
                code.load(R5, 4, R2, link + field + offset)
                code.store(4, R10, part + offset, R5)
            else:
                code.store(4, R10, part + offset, 0)
    code.store(8, R10, Stack.KEY + PATH_KEY.size - 8, 0)
    code.load(R5, 2, R2, link + headers.size)
    code.store(2, R10, Stack.KEY + PATH_KEY.size - 8, R5)
    code.store(2, R10, Stack.KEY + PATH_KEY.size - 6, headers.version)
    for offset in range(0, STATION_BYTES, 4):
        if build.kind is LinkKind.BARE:
            code.store(4, R10, Stack.PATH + PATH_STATIONS + offset, 0)
        else:
            code.load(R5, 4, R2, offset)
            code.store(4, R10, Stack.PATH + PATH_STATIONS + offset, R5)
    code.store(8, R10, Stack.PATH + PATH_HOPS, 0)
    code.load(R5, 1, R2, link + headers.hops)
    code.store(1, R10, Stack.PATH + PATH_HOPS, R5)
    code.jump("path")


def leave_other_addresses(code: Assembler, build: Build) -> None:
    """Leave what is sent from an address that is not that of the listener: another service has the same port."""
    code.label("path")
    code.jump_if(R7, "&", SPECIFIC, "specific")
    code.jump("note")
    code.label("specific")
    code.store(4, R10, Stack.PREFIX, 8 * (PREFIX.size - 4))
    code.load(R2, 2, R10, Stack.KEY + PATH_KEY.size - 6)
    code.store(2, R10, Stack.PREFIX + 4, R2)
    code.load(R2, 2, R10, Stack.KEY + PATH_KEY.size - 8)
    code.store(2, R10, Stack.PREFIX + 6, R2)
    for offset in (0, 8):
        code.load(R2, 8, R10, Stack.KEY + 16 + offset)
        code.store(8, R10, Stack.PREFIX + 8 + offset, R2)
    code.map(R1, build.tables.local)
    code.stack(R2, Stack.PREFIX)
    code.call(Helper.MAP_LOOKUP)
    code.jump_if(R0, "==", 0, "next")


def leave_newcomers(code: Assembler, build: Build) -> None:
    """Leave a path that is new, until the sockets reply on it again.

    A hash of each path has a slot, which is shared with others and has room for four. So a peer that sends a single
    datagram costs no entry of the map of paths; a million of them push nobody out.
    """
    slot_bits = build.options.newcomers.bit_length() - 1
    code.label("note")
    code.constant(R2, build.options.seed)
    code.constant(R3, MULTIPLIER)
    for offset in range(0, PATH_KEY.size, 8):
        code.load(R4, 8, R10, Stack.KEY + offset)
        code.compute(R2, "^", R4)
        code.compute(R2, "*", R3)
    code.compute(R4, "=", R2)
    code.compute(R4, ">>", 64 - slot_bits)
    code.compute(R4, "*", NEWCOMERS_BYTES)
    code.compute(R2, ">>", 16)  # the lowest bits of a product are of the lowest bits alone
    code.compute(R2, "&", 0xFFFF)
    code.map_value(R1, build.tables.newcomers)
    code.compute(R1, "+", R4)
    for offset in range(0, NEWCOMERS_BYTES, 2):
        code.load(R3, 2, R1, offset)
        code.jump_if(R3, "==", R2, "known")
    code.load(R3, 8, R1, 0)
    code.compute(R3, "<<", 16)
    code.compute(R2, "|", R3)
    code.store(8, R1, 0, R2)
    code.jump("next")
    code.label("known")


def note_path(code: Assembler, build: Build) -> None:
    """Note the path, with the time until which it is fresh and that at which it ends."""
    code.load(R2, 4, R6, Context.IFINDEX)
    code.store(4, R10, Stack.PATH + PATH_IFINDEX, R2)
    code.call(Helper.TIME)
    for offset, nanoseconds in ((0, build.options.fresh_ns), (PATH_UNTIL, build.options.stale_ns)):
        code.constant(R2, nanoseconds)
        code.compute(R2, "+", R0)
        code.store(8, R10, Stack.PATH + offset, R2)
    code.map(R1, build.tables.paths)
    code.stack(R2, Stack.KEY)
    code.stack(R3, Stack.PATH)
    code.compute(R4, "=", 0)
    code.call(Helper.MAP_UPDATE)


def leave(code: Assembler, _build: Build) -> None:
    """Let the packet go on, as if the program were not there."""
    code.label("next")
    code.compute(R0, "=", Verdict.NEXT)
    code.exit()
