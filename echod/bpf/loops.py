"""The steps of the ingress program that break loops: as `admission.loops`, by samples.

Owns the hash, which a callback computes over the whole payload: a keyed multiplication of 64 bits, not SipHash. Of a
train the first datagram is hashed, and all are dropped. Invariant: a peer loses nothing in its first PATIENCE samples.
"""

from typing import Final

from echod.admission.loops import PATIENCE, PERIOD
from echod.bpf.asm import R0, R1, R2, R3, R4, R6, R7, R8, R9, R10, Assembler
from echod.bpf.layout import MULTIPLIER, Context, Helper, Loop, Stack
from echod.bpf.options import Build

_CHUNK: Final = 128
_CHUNKS: Final = 512
"""Bytes that the callback hashes at a time, and how often it is called at most: for 65,536 bytes."""


def sample(code: Assembler, build: Build) -> None:
    """Compare one datagram in PERIOD with earlier ones of its peer: see `admission.loops`. Of a train, its first."""
    if not build.options.loop_breaker:
        return
    code.load(R0, 8, R10, Stack.CHANCE)
    code.compute(R0, "&", PERIOD - 1)
    code.jump_if(R0, "!=", 0, "reply")
    for offset in (0, 8):
        code.load(R2, 8, R10, Stack.PATH_KEY + offset)
        code.store(8, R10, Stack.SAMPLE + offset, R2)
    _hash_payload(code, build)
    code.store(8, R10, Stack.NUMBER, 1)
    code.map(R1, build.tables.peers)
    code.stack(R2, Stack.SAMPLE)
    code.call(Helper.MAP_LOOKUP)
    code.jump_if(R0, "==", 0, "new peer")  # R9 is 1
    code.compute(R1, "=", 1)
    code.add_atomically(R0, 0, R1)
    code.load(R9, 8, R0, 0)
    code.jump("look")
    code.label("new peer")
    _remember(code, build.tables.peers)
    code.label("look")
    code.map(R1, build.tables.samples)
    code.stack(R2, Stack.SAMPLE)
    code.call(Helper.MAP_LOOKUP)
    code.jump_if(R0, "==", 0, "new sample")
    code.jump_if(R9, ">", PATIENCE, "loop")
    code.jump("reply")
    code.label("new sample")
    _remember(code, build.tables.samples)


def _remember(code: Assembler, table: int) -> None:
    """Enter the key of the sample, or its begin, with the value 1."""
    code.map(R1, table)
    code.stack(R2, Stack.SAMPLE)
    code.stack(R3, Stack.NUMBER)
    code.compute(R4, "=", 0)
    code.call(Helper.MAP_UPDATE)


def _hash_payload(code: Assembler, build: Build) -> None:
    """Hash all of the payload, or of its first datagram, by the callback; write the hash behind the key of the peer."""
    code.compute(R2, "=", R8)
    if not build.is_xdp:
        code.load(R3, 4, R6, Context.GSO_SIZE)
        code.jump_if(R3, "==", 0, "single")
        code.jump_if(R3, ">=", R8, "single")
        code.compute(R2, "=", R3)
        code.label("single")
    code.store(8, R10, Stack.LOOP + Loop.LENGTH, R2)
    code.constant(R3, build.options.seed)
    code.compute(R2, "^", R3)
    code.store(8, R10, Stack.LOOP + Loop.HASH, R2)
    code.store(8, R10, Stack.LOOP + Loop.CONTEXT, R6)
    code.load(R2, 8, R10, Stack.PAYLOAD)
    code.store(8, R10, Stack.LOOP + Loop.AT, R2)
    code.compute(R1, "=", _CHUNKS)
    code.function_address(R2, "hash")
    code.stack(R3, Stack.LOOP)
    code.compute(R4, "=", 0)
    code.call(Helper.LOOP)
    code.load(R2, 8, R10, Stack.LOOP + Loop.AT)
    code.jump_if(R2, "==", 0, "pass")
    code.load(R2, 8, R10, Stack.LOOP + Loop.HASH)
    code.store(8, R10, Stack.HASH, R2)


def hash_a_chunk(code: Assembler, build: Build) -> None:
    """Hash one part of the payload, whose index is R1, as the callback of a helper; return 1 behind the last.

    All but the hash comes from the index. With numbers carried over, the verifier would not find that the loop ends.
    """
    if not build.options.loop_breaker:
        return
    code.begin_function("hash", arguments=2)
    code.compute(R6, "=", R2)
    code.compute(R7, "=", R1)
    code.compute(R7, "*", _CHUNK)
    code.load(R4, 8, R6, Loop.LENGTH)
    code.compute(R4, "-", R7)
    code.jump_if(R4, "signed >", 0, "more")
    code.label("end")
    code.compute(R0, "=", 1)
    code.exit()
    code.label("more")
    for offset in range(0, _CHUNK, 8):
        code.store(8, R10, offset - _CHUNK, 0)
    code.jump_if(R4, "<=", _CHUNK, "rest")
    code.compute(R4, "=", _CHUNK)
    code.label("rest")
    code.load(R1, 8, R6, Loop.CONTEXT)
    code.load(R2, 8, R6, Loop.AT)
    code.compute(R2, "+", R7)
    code.stack(R3, -_CHUNK)
    code.call(build.abi.load_bytes)
    code.jump_if(R0, "==", 0, "read")
    code.store(8, R6, Loop.AT, 0)
    code.jump("end")
    code.label("read")
    code.load(R0, 8, R6, Loop.HASH)
    code.constant(R3, MULTIPLIER)
    for offset in range(0, _CHUNK, 8):
        code.load(R2, 8, R10, offset - _CHUNK)
        code.compute(R0, "^", R2)
        code.compute(R0, "*", R3)
        code.compute(R2, "=", R0)
        code.compute(R2, ">>", 32)
        code.compute(R0, "^", R2)
    code.store(8, R6, Loop.HASH, R0)
    code.compute(R0, "=", 0)
    code.exit()
