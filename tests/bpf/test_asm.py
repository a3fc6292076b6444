"""echod.bpf.asm: each instruction as RFC 9669 has it, labels, and the BTF of a program with a callback."""

import struct
from collections.abc import Callable

import pytest

from echod.bpf.asm import INSTRUCTION_BYTES, R0, R1, R2, R3, R6, R10, Assembler


def assembled(write: Callable[[Assembler], object]) -> str:
    """Return the instructions that a function writes: opcode, registers (source, destination), offset, number."""
    code = Assembler()
    write(code)
    instructions = struct.iter_unpack("<BBhi", code.assemble().instructions)
    return "; ".join(
        f"{opcode:02x} {registers:02x} {offset} {number}" for opcode, registers, offset, number in instructions
    )


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (lambda code: code.load(R1, 1, R6, 12), "71 61 12 0"),
        (lambda code: code.load(R1, 2, R6, 12), "69 61 12 0"),
        (lambda code: code.load(R1, 4, R6, 12), "61 61 12 0"),
        (lambda code: code.load(R1, 8, R10, -8), "79 a1 -8 0"),
        (lambda code: code.store(1, R10, -8, R2), "73 2a -8 0"),
        (lambda code: code.store(2, R10, -8, R2), "6b 2a -8 0"),
        (lambda code: code.store(4, R10, -8, 5), "62 0a -8 5"),
        (lambda code: code.store(8, R10, -8, -1), "7a 0a -8 -1"),
        (lambda code: code.add_atomically(R1, 16, R2), "db 21 16 0"),
        (lambda code: code.compare_exchange(R1, 0, R2), "db 21 0 241"),
        (lambda code: code.compute(R1, "=", R2), "bf 21 0 0"),
        (lambda code: code.compute(R1, "=", 7), "b7 01 0 7"),
        (lambda code: code.compute(R1, "+", R2), "0f 21 0 0"),
        (lambda code: code.compute(R1, "-", R2), "1f 21 0 0"),
        (lambda code: code.compute(R1, "*", 3), "27 01 0 3"),
        (lambda code: code.compute(R1, "|", 3), "47 01 0 3"),
        (lambda code: code.compute(R1, "&", 0xFFFF_FFFF), "57 01 0 -1"),
        (lambda code: code.compute(R1, "<<", 3), "67 01 0 3"),
        (lambda code: code.compute(R1, ">>", 3), "77 01 0 3"),
        (lambda code: code.compute(R1, "%", 3), "97 01 0 3"),
        (lambda code: code.compute(R1, "^", R3), "af 31 0 0"),
        (lambda code: code.constant(R1, 0x1_8000_0002), "18 01 0 -2147483646; 00 00 0 1"),
        (lambda code: code.cut(R1), "bc 11 0 0"),
        (lambda code: code.from_network_order(R1), "dc 01 0 16"),
        (lambda code: code.stack(R2, -40), "bf a2 0 0; 07 02 0 -40"),
        (lambda code: code.map(R1, 5), "18 11 0 5; 00 00 0 0"),
        (lambda code: code.map_value(R1, 5, 16), "18 21 0 5; 00 00 0 16"),
        (lambda code: code.call(23), "85 00 0 23"),
        (lambda code: code.exit(), "95 00 0 0"),
    ],
)
def test_an_instruction_is_encoded_as_the_standard_says(write: Callable[[Assembler], object], expected: str) -> None:
    """Opcode, registers, offset and number of each, as RFC 9669 has them."""
    assert assembled(write) == expected


@pytest.mark.parametrize(
    ("comparison", "by_number", "by_register"),
    [
        ("==", "15", "1d"),
        (">", "25", "2d"),
        (">=", "35", "3d"),
        ("&", "45", "4d"),
        ("!=", "55", "5d"),
        ("signed >", "65", "6d"),
        ("<", "a5", "ad"),
        ("<=", "b5", "bd"),
    ],
)
def test_a_jump_counts_from_the_instruction_behind_it(comparison: str, by_number: str, by_register: str) -> None:
    """Forward and backward, over instructions of both lengths."""

    def write(code: Assembler) -> None:
        code.label("begin")
        code.jump_if(R1, comparison, 9, "end")  # type: ignore[arg-type]
        code.constant(R2, 1)
        code.jump_if(R1, comparison, R2, "begin")  # type: ignore[arg-type]
        code.jump("begin")
        code.label("end")
        code.exit()

    expected = f"{by_number} 01 4 9; 18 02 0 1; 00 00 0 0; {by_register} 21 -4 0; 05 00 -5 0; 95 00 0 0"
    assert assembled(write) == expected


def test_a_label_is_one_place() -> None:
    """A second place of its name, and a jump to a label that is nowhere, are mistakes in a program of ours."""
    code = Assembler()
    code.label("here")
    with pytest.raises(ValueError, match="two places are called here"):
        code.label("here")
    code.jump("nowhere")
    with pytest.raises(KeyError, match="nowhere"):
        code.assemble()


def test_a_program_without_a_callback_describes_no_function() -> None:
    """The kernel then wants no BTF."""
    code = Assembler()
    code.exit()
    assert code.assemble().functions == ()


def test_a_callback_is_described_beside_the_program() -> None:
    """Its address is relative; the BTF has int, and for both a prototype and a function with its name."""
    code = Assembler()
    code.compute(R0, "=", 0)
    code.function_address(R2, "back")
    code.exit()
    code.begin_function("back", arguments=2)
    code.exit()
    assembled = code.assemble()
    (_, registers, _, number) = struct.unpack_from("<BBhi", assembled.instructions, INSTRUCTION_BYTES)
    assert (registers, number) == (0x42, 2)
    assert [(each.name, each.first, each.arguments) for each in assembled.functions] == [("main", 0, 1), ("back", 4, 2)]
    btf, infos = assembled.btf
    assert struct.unpack("<4I", infos) == (0, 3, 4, 5)
    header, types = struct.unpack_from("<HBBIIIII", btf), btf[24:]
    assert header == (0xEB9F, 1, 0, 24, 0, 16 + (12 + 8 + 12) + (12 + 16 + 12), 88, 33)
    expected = [1, 1 << 24, 4, 1 << 24 | 32, 0, 13 << 24 | 1, 1, 5, 1, 14, 12 << 24, 2]
    expected += [0, 13 << 24 | 2, 1, 19, 1, 19, 1, 28, 12 << 24, 4]
    assert list(struct.unpack_from("<22I", types)) == expected
    assert types[88:] == b"\0int\0argument\0main\0argument\0back\0"
