"""An assembler for BPF: instructions with labels, and the BTF that the kernel demands of a program with a callback.

Owns the encoding of instructions (RFC 9669; `struct bpf_insn` in linux/bpf.h) and of BTF (linux/btf.h). It knows no
program. Invariant: `assemble` returns what was written, in order, with every label resolved.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from struct import Struct
from typing import Final, Literal, TypeAlias

INSTRUCTION_BYTES: Final = 8


class Register(Enum):
    """R0 has results, R1 to R5 arguments, R6 to R9 outlive calls, R10 is the end of the stack."""

    R0 = 0
    R1 = 1
    R2 = 2
    R3 = 3
    R4 = 4
    R5 = 5
    R6 = 6
    R7 = 7
    R8 = 8
    R9 = 9
    R10 = 10


R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = Register

Operand: TypeAlias = Register | int
"""A register, or a number of 32 bits, which is extended with its sign."""

Size: TypeAlias = Literal[1, 2, 4, 8]
"""Bytes that an instruction reads or writes. A shorter number is extended with zeros."""

Operator: TypeAlias = Literal["+", "-", "*", "&", "|", "<<", ">>", "%", "^", "="]
Comparison: TypeAlias = Literal["==", "!=", ">", ">=", "<", "<=", "&", "signed >"]

_INSTRUCTION: Final = Struct("<BBhi")
_SIZES: Final = {1: 0x10, 2: 0x08, 4: 0x00, 8: 0x18}
_OPERATORS: Final = {
    "+": 0x00,
    "-": 0x10,
    "*": 0x20,
    "|": 0x40,
    "&": 0x50,
    "<<": 0x60,
    ">>": 0x70,
    "%": 0x90,
    "^": 0xA0,
    "=": 0xB0,
}
_COMPARISONS: Final = {
    "==": 0x10,
    ">": 0x20,
    ">=": 0x30,
    "&": 0x40,
    "!=": 0x50,
    "signed >": 0x60,
    "<": 0xA0,
    "<=": 0xB0,
}
_ALU64, _JMP, _BY_REGISTER = 0x07, 0x05, 0x08
_LOAD, _STORE, _STORE_NUMBER, _ATOMIC = 0x61, 0x63, 0x62, 0xC3
_LOAD_WIDE, _TO_BIG_ENDIAN, _MOVE32, _CALL, _EXIT = 0x18, 0xDC, 0xBC, 0x85, 0x95
_MAP, _MAP_VALUE, _FUNCTION = 1, 2, 4
"""What a wide load loads, in its source register: BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE, BPF_PSEUDO_FUNC."""
_COMPARE_EXCHANGE: Final = 0xF1


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function in a program: the index of its first instruction, and its number of arguments."""

    name: str
    first: int
    arguments: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """An assembled program. `functions` are the program itself and its callbacks, or nothing if it has no callback."""

    instructions: bytes
    functions: tuple[Function, ...]

    @property
    def btf(self) -> tuple[bytes, bytes]:
        """Return the BTF of the functions, and the `struct bpf_func_info` of each."""
        return _describe(self.functions)


class Assembler:
    """Instructions, in the order of the calls. Numbers are 64 bits wide unless a size is given."""

    def __init__(self) -> None:
        """Begin a program."""
        self._instructions: list[tuple[int, int, int, int]] = []
        self._labels: dict[str, int] = {}
        self._jumps: dict[int, str] = {}
        self._addresses: dict[int, str] = {}
        self._functions: list[Function] = []

    def _emit(self, opcode: int, to: int = 0, source: int = 0, offset: int = 0, number: int = 0) -> None:
        number &= 0xFFFF_FFFF
        self._instructions.append((opcode, to | source << 4, offset, number - ((number & 1 << 31) << 1)))

    # -- memory

    def load(self, to: Register, size: Size, base: Register, offset: int) -> None:
        """Read memory."""
        self._emit(_LOAD | _SIZES[size], to.value, base.value, offset)

    def store(self, size: Size, base: Register, offset: int, operand: Operand) -> None:
        """Write memory."""
        if isinstance(operand, Register):
            self._emit(_STORE | _SIZES[size], base.value, operand.value, offset)
        else:
            self._emit(_STORE_NUMBER | _SIZES[size], base.value, 0, offset, operand)

    def add_atomically(self, base: Register, offset: int, operand: Register) -> None:
        """Add to a number of 64 bits in memory."""
        self._emit(_ATOMIC | _SIZES[8], base.value, operand.value, offset)

    def compare_exchange(self, base: Register, offset: int, new: Register) -> None:
        """Write a number of 64 bits if R0 is what is there; R0 is afterwards what was there."""
        self._emit(_ATOMIC | _SIZES[8], base.value, new.value, offset, _COMPARE_EXCHANGE)

    # -- numbers

    def compute(self, to: Register, operator: Operator, operand: Operand) -> None:
        """Change a register; `=` copies."""
        self._emit(*self._coded(_ALU64 | _OPERATORS[operator], to, operand, 0))

    def constant(self, to: Register, number: int) -> None:
        """Load a number of 64 bits."""
        self._wide(to, 0, number, number >> 32)

    def cut(self, to: Register) -> None:
        """Keep the low 32 bits."""
        self._emit(_MOVE32, to.value, to.value)

    def from_network_order(self, to: Register) -> None:
        """Read a number of 16 bits in network byte order, and the other way round."""
        self._emit(_TO_BIG_ENDIAN, to.value, number=16)

    # -- addresses

    def stack(self, to: Register, offset: int) -> None:
        """Load an address on the stack, at a negative offset."""
        self.compute(to, "=", R10)
        self.compute(to, "+", offset)

    def map(self, to: Register, descriptor: int) -> None:
        """Load a map, for a helper."""
        self._wide(to, _MAP, descriptor, 0)

    def map_value(self, to: Register, descriptor: int, offset: int = 0) -> None:
        """Load an address in the only value of an array."""
        self._wide(to, _MAP_VALUE, descriptor, offset)

    def function_address(self, to: Register, label: str) -> None:
        """Load the address of a function, for a helper that calls back."""
        self._addresses[len(self._instructions)] = label
        self._wide(to, _FUNCTION, 0, 0)

    # -- control

    def label(self, name: str) -> None:
        """Name the place of the next instruction. Raises ValueError if the name is taken."""
        if name in self._labels:
            raise ValueError(f"two places are called {name}")
        self._labels[name] = len(self._instructions)

    def jump(self, label: str) -> None:
        """Go on at a label."""
        self._jumps[len(self._instructions)] = label
        self._emit(_JMP)

    def jump_if(self, left: Register, comparison: Comparison, right: Operand, label: str) -> None:
        """Go on at a label if this holds; `&` holds if the two have a bit in common."""
        self._jumps[len(self._instructions)] = label
        self._emit(*self._coded(_JMP | _COMPARISONS[comparison], left, right, 0))

    def call(self, helper: int) -> None:
        """Call a helper of the kernel, by its number; R1 to R5 are undefined afterwards."""
        self._emit(_CALL, number=helper)

    def exit(self) -> None:
        """Return R0."""
        self._emit(_EXIT)

    def begin_function(self, name: str, arguments: int) -> None:
        """Begin a function, whose name is a label. The program must have ended before."""
        self.label(name)
        self._functions.append(Function(name=name, first=len(self._instructions), arguments=arguments))

    def assemble(self) -> Code:
        """Return the program. Raises KeyError for a label that is nowhere."""
        resolved = list(self._instructions)
        for at, name in self._jumps.items():
            opcode, registers, _, number = resolved[at]
            resolved[at] = (opcode, registers, self._labels[name] - at - 1, number)
        for at, name in self._addresses.items():
            opcode, registers, offset, _ = resolved[at]
            resolved[at] = (opcode, registers, offset, self._labels[name] - at - 1)
        functions = [Function(name="main", first=0, arguments=1), *self._functions] if self._functions else []
        return Code(
            instructions=b"".join(_INSTRUCTION.pack(*each) for each in resolved),
            functions=tuple(functions),
        )

    @staticmethod
    def _coded(opcode: int, to: Register, operand: Operand, offset: int) -> tuple[int, int, int, int, int]:
        """Encode an operand that is a register or a number."""
        if isinstance(operand, Register):
            return opcode | _BY_REGISTER, to.value, operand.value, offset, 0
        return opcode, to.value, 0, offset, operand

    def _wide(self, to: Register, kind: int, low: int, high: int) -> None:
        """Load 64 bits, with an instruction of twice the length."""
        self._emit(_LOAD_WIDE, to.value, kind, 0, low)
        self._emit(0, number=high)


# linux/btf.h
_HEADER: Final = Struct("<HBBIIIII")
_TYPE: Final = Struct("<III")
_PARAMETER: Final = Struct("<II")
_FUNCTION_INFO: Final = Struct("<II")
_MAGIC, _VERSION = 0xEB9F, 1
_INT, _FUNC, _FUNC_PROTO = 1 << 24, 12 << 24, 13 << 24
_SIGNED32: Final = 1 << 24 | 32
_INT_TYPE: Final = 1
"""The number of the first type: int, that of all arguments and results."""


def _describe(functions: Sequence[Function]) -> tuple[bytes, bytes]:
    """Describe functions of ints, each by its prototype and its name."""
    strings = b"\0int\0"
    types = _TYPE.pack(1, _INT, 4) + _SIGNED32.to_bytes(4, "little")
    infos = b""
    for number, function in enumerate(functions):
        prototype = _INT_TYPE + 1 + 2 * number
        types += _TYPE.pack(0, _FUNC_PROTO | function.arguments, _INT_TYPE)
        types += _PARAMETER.pack(len(strings), _INT_TYPE) * function.arguments
        strings += b"argument\0"
        types += _TYPE.pack(len(strings), _FUNC, prototype)
        strings += function.name.encode() + b"\0"
        infos += _FUNCTION_INFO.pack(function.first, prototype + 1)
    header = _HEADER.pack(_MAGIC, _VERSION, 0, _HEADER.size, 0, len(types), len(types), len(strings))
    return header + types + strings, infos
