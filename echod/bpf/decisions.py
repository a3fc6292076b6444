"""The steps of the ingress program that decide: is there a path, and who is refused?

They work on the key of the path, for both families alike. R9 tells whether the kernel may reply, 1, or the sockets, 0;
at `drop` it is the reason. Invariant: nothing is dropped or charged that is not sent to a listener of ours.
"""

from typing import Final

from echod.bpf.asm import R0, R1, R2, R3, R4, R6, R9, R10, Assembler
from echod.bpf.layout import (
    PATH_HOPS,
    PATH_IFINDEX,
    PATH_KEY,
    PATH_STATIONS,
    PATH_UNTIL,
    PREFIX,
    SPECIFIC,
    STATION_BYTES,
    Helper,
    LinkKind,
    Stack,
)
from echod.bpf.options import Build

RENEW_NS: Final = 100_000_000
"""From one datagram of a path that is no longer fresh, and goes to the sockets, to the next."""


def find_path(code: Assembler, build: Build) -> None:
    """Find out what the sockets replied last, if that is recent and went out by this interface.

    Who comes in by another is a stranger there: which sources are valid depends on the interface.
    """
    code.label("known")
    # A branch that is only guessed (Spectre) leads to the reply without a path: an older verifier wants it written.
    code.store(8, R10, Stack.HOPS, 0)
    code.jump_if(R9, "!=", 0, "refused")
    code.call(Helper.TIME if build.options.limits else Helper.COARSE_TIME)
    code.store(8, R10, Stack.NOW, R0)
    code.map(R1, build.tables.paths)
    code.stack(R2, Stack.PATH_KEY)
    code.call(Helper.MAP_LOOKUP)
    code.jump_if(R0, "==", 0, "stranger")
    code.load(R2, 8, R0, PATH_UNTIL)
    code.map_value(R4, build.tables.forgotten)
    code.load(R4, 8, R4, 0)
    code.jump_if(R2, "<=", R4, "stranger")
    code.load(R3, 8, R10, Stack.NOW)
    code.jump_if(R2, "<", R3, "stranger")
    code.load(R2, 4, R0, PATH_IFINDEX)
    code.load(R4, 4, R6, build.abi.ifindex)
    code.jump_if(R2, "!=", R4, "stranger")
    code.load(R2, 8, R0, 0)
    code.jump_if(R3, "<=", R2, "fresh")
    code.compute(R4, "=", R3)
    code.compute(R4, "+", RENEW_NS)
    code.compute(R1, "=", R0)
    code.compute(R0, "=", R2)
    code.compare_exchange(R1, 0, R4)
    code.jump_if(R0, "==", R2, "charge")  # this one renews the path
    code.compute(R0, "=", R1)
    code.label("fresh")
    if build.kind is not LinkKind.BARE:
        for offset in range(0, STATION_BYTES, 2):
            code.load(R2, 2, R0, PATH_STATIONS + offset)
            code.store(2, R10, Stack.IP - build.kind.header_bytes + offset, R2)
    code.load(R2, 1, R0, PATH_HOPS)
    code.store(8, R10, Stack.HOPS, R2)
    code.compute(R9, "=", 1)
    code.jump("charge")


def refuse_ports(code: Assembler, build: Build) -> None:
    """Drop what comes from a refused port."""
    code.label("refused")
    _require_local(code, build, "port")
    code.jump("drop")


def refuse_addresses(code: Assembler, build: Build) -> None:
    """Drop what comes from a refused address; on `lo`, where the rules are others, the sockets do that."""
    code.label("stranger")
    if build.kind is not LinkKind.LOOPBACK:
        _copy_address(code, Stack.PATH_KEY)
        code.store(2, R10, Stack.PREFIX + 6, 0)
        _match(code, build.tables.refuse)
        code.jump_if(R0, "==", 0, "pass")
        code.load(R9, 8, R0, 0)
    if build.options.limits is None:
        code.jump_if(R9, "==", 0, "pass")  # wherever it goes
    _require_local(code, build, "address")
    code.jump_if(R9, "!=", 0, "drop")


def _require_local(code: Assembler, build: Build, name: str) -> None:
    """Pass what is not sent to an address of a listener, uncharged: it may be for another service, or another host."""
    _copy_address(code, Stack.LOCAL)
    code.load(R2, 8, R10, Stack.ENTRY)
    code.compute(R2, "&", SPECIFIC)
    code.jump_if(R2, "==", 0, f"any {name}")
    code.load(R2, 2, R10, Stack.PATH_KEY + PATH_KEY.size - 8)
    code.label(f"any {name}")
    code.store(2, R10, Stack.PREFIX + 6, R2)
    _match(code, build.tables.local)
    code.jump_if(R0, "==", 0, "pass")


def _copy_address(code: Assembler, part: Stack) -> None:
    """Write an address of the key of the path, and its version, into the key of a prefix."""
    for offset in (0, 8):
        code.load(R2, 8, R10, part + offset)
        code.store(8, R10, Stack.PREFIX + 8 + offset, R2)
    code.load(R2, 2, R10, Stack.VERSION)
    code.store(2, R10, Stack.PREFIX + 4, R2)


def _match(code: Assembler, table: int) -> None:
    """Look up the longest prefix of the key."""
    code.store(4, R10, Stack.PREFIX, 8 * (PREFIX.size - 4))
    code.map(R1, table)
    code.stack(R2, Stack.PREFIX)
    code.call(Helper.MAP_LOOKUP)
