"""The steps of the ingress program that make the reply of the datagram: its headers turned round, written at once.

The reply has the same payload, and with it the same UDP checksum, which addresses and ports enter alike in either
order. As from a socket its type of service is 0, and it may be fragmented: the way back may have a smaller MTU than the
way of the request. Its hop limit is that of the replies of the sockets.

Addresses and ports come from the key of the path: to the verifier either family may be on the way to these steps, and
what the other does not write must not be read.
"""

from echod.bpf.asm import R0, R1, R2, R3, R4, R5, R6, R10, Assembler, Size
from echod.bpf.checks import at, fold
from echod.bpf.layout import IPV4, IPV6, PATH_KEY, Headers, Helper, Stack
from echod.bpf.options import Build


def choose_family(code: Assembler, _build: Build) -> None:
    """Go on with the steps of the family."""
    code.label("reply")
    code.load(R2, 2, R10, Stack.VERSION)
    code.jump_if(R2, "==", IPV6.version, at("turn", IPV6))


def turn_round(code: Assembler, build: Build, headers: Headers) -> None:
    """Swap addresses and ports; write the link header, the IP header and the ports into the frame."""
    code.label(at("turn", headers))
    if headers is IPV4:
        _renew_header4(code)
    else:
        code.store(4, R10, Stack.IP, 0x60)  # version 6, traffic class and flow label 0
        code.load(R2, 8, R10, Stack.HOPS)
        code.store(1, R10, Stack.IP + headers.hops, R2)
    size: Size = 4 if headers is IPV4 else 8
    for offset in range(0, headers.address_bytes, size):
        for part, field in ((Stack.LOCAL, headers.source), (Stack.PATH_KEY, headers.destination)):
            code.load(R2, size, R10, part + offset)
            code.store(size, R10, Stack.IP + field + offset, R2)
    code.load(R2, 2, R10, Stack.PATH_KEY + PATH_KEY.size - 8)
    code.store(2, R10, Stack.IP + headers.size, R2)
    code.load(R2, 2, R10, Stack.PEER_PORT)
    code.store(2, R10, Stack.IP + headers.size + 2, R2)
    link = build.kind.header_bytes
    code.compute(R1, "=", R6)
    code.compute(R2, "=", 0)
    code.stack(R3, Stack.IP - link)
    code.compute(R4, "=", link + headers.size + 4)
    code.compute(R5, "=", 0)
    code.call(build.abi.store_bytes)
    code.jump_if(R0, "!=", 0, "pass")
    code.jump("replied")


def _renew_header4(code: Assembler) -> None:
    """Write type of service, time to live and no "don't fragment"; correct the checksum by what changes (RFC 1624).

    The number of a request that may be fragmented is unique, and is kept. That of another need not be (RFC 6864), and
    often is 0: then it is chosen by chance.
    """
    words = (Stack.IP, Stack.IP + 4, Stack.IP + 6, Stack.IP + IPV4.hops)
    code.load(R0, 2, R10, Stack.IP + 4)
    code.load(R2, 2, R10, Stack.IP + 6)  # fragments do not come here
    code.jump_if(R2, "==", 0, "numbered")
    code.call(Helper.RANDOM)
    code.label("numbered")
    code.load(R2, 2, R10, Stack.IP + 10)
    for word in words:
        code.load(R3, 2, R10, word)
        code.compute(R2, "+", R3)
    code.load(R3, 8, R10, Stack.HOPS)
    code.store(1, R10, Stack.IP + 1, 0)
    code.store(2, R10, Stack.IP + 4, R0)
    code.store(2, R10, Stack.IP + 6, 0)
    code.store(1, R10, Stack.IP + IPV4.hops, R3)
    for word in words:
        code.load(R3, 2, R10, word)
        code.compute(R3, "^", 0xFFFF)
        code.compute(R2, "+", R3)
    fold(code, R2, R3)
    code.jump_if(R2, "!=", 0xFFFF, "checksum")
    code.compute(R2, "=", 0)  # the same number; a sum over all words would give this form
    code.label("checksum")
    code.store(2, R10, Stack.IP + 10, R2)
