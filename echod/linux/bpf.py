"""bpf(2): maps, programs, the links that attach them, and test runs: an unsafe module. The contract:

- Every buffer lives on the Python side until its call returns; the kernel keeps no pointer, but to what `Map.view`
  maps, which outlives the descriptor.
- Of `union bpf_attr` (linux/bpf.h) each call passes its own fields, from the first; what is behind them is zero to the
  kernel. Fields are little-endian, as on every host that echod runs on.
- A descriptor is closed by whoever made it. A map or program lives on while another program or a link uses it; a link
  is detached when its last descriptor, in whatever process, is closed.
- Sizes of keys and values are those that the map was made with: another size is a ValueError before the kernel reads.

Owns the numbers of the commands. It decides nothing, and never waits. What the kernel refuses is an OSError; a program
that the verifier refuses is a `ProgramRefusedError`, which has its log. Sources: bpf(2), linux/bpf.h, and
Documentation/bpf of the kernel. Links at the ingress and egress of an interface (tcx) need Linux 6.6.
"""

import ctypes
import errno
import mmap
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Final

XDP: Final = 37
INGRESS: Final = 46
EGRESS: Final = 47
"""BPF_XDP, BPF_TCX_INGRESS and BPF_TCX_EGRESS: where a program of an interface is attached."""

NO_CONTEXT: Final = bytes(192)
"""A `struct __sk_buff` that says nothing."""

_CALLS: Final = {"x86_64": 321, "ppc64le": 361}
_CALL: Final = ctypes.c_long(_CALLS.get(os.uname().machine, 280))
"""The number of bpf(2): 280 in asm-generic/unistd.h, which all newer architectures have."""

_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _MAP_DELETE, _PROG_LOAD, _TEST_RUN = 0, 1, 2, 3, 5, 10
_GET_INFO, _BTF_LOAD, _LOOKUP_BATCH, _UPDATE_BATCH, _LINK_CREATE, _LINK_UPDATE, _LINK_DETACH = (
    15,
    18,
    24,
    26,
    28,
    29,
    34,
)

_TYPES: Final = {XDP: 6, INGRESS: 3, EGRESS: 3}
"""`enum bpf_prog_type`: BPF_PROG_TYPE_XDP and BPF_PROG_TYPE_SCHED_CLS."""
_PROGRAM_FLAGS: Final = {XDP: 1 << 5}
"""BPF_F_XDP_HAS_FRAGS: the program is fit for frames in several parts, as drivers have them of large MTUs."""
_LINK_FLAGS: Final = {XDP: 1 << 2}
"""XDP_FLAGS_DRV_MODE: in the driver, or not at all."""
_LICENSE: Final = b"Dual MIT/GPL"
_LOG_BYTES: Final = 1 << 24
_FUNCTION_INFO_BYTES: Final = 8
_BATCH: Final = 4096
_GROWTH_BYTES: Final = 512
_LINK_INFO_BYTES, _LINK_IFINDEX = 64, 16
"""`struct bpf_link_info`: three words, and behind them, aligned, the interface."""

_syscall = ctypes.CDLL(None, use_errno=True).syscall


class ProgramRefusedError(OSError):
    """The verifier refuses a program. `log` says why, at length."""

    def __init__(self, number: int, text: str, *, log: str) -> None:
        """Take the log."""
        super().__init__(number, text)
        self.log = log


def _bpf(command: int, attributes: bytes) -> tuple[int, bytes]:
    """Call bpf(2); return its result, and the attributes as it left them. Raises OSError."""
    buffer = _buffer(attributes)
    result = _syscall(_CALL, ctypes.c_long(command), buffer, ctypes.c_long(len(attributes)))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result, buffer.raw


def _buffer(data: bytes) -> "ctypes.Array[ctypes.c_char]":
    return ctypes.create_string_buffer(data, max(1, len(data)))


def _at(buffer: "ctypes.Array[ctypes.c_char] | None") -> int:
    return ctypes.addressof(buffer) if buffer is not None else 0


class Map:
    """A map: what programs and this process share."""

    def __init__(  # noqa: PLR0913 - as the kernel has it
        self, kind: int, *, key_bytes: int, value_bytes: int, entries: int, flags: int = 0, name: str = ""
    ) -> None:
        """Make a map of this kind (`enum bpf_map_type`), empty or zeroed."""
        self.key_bytes, self.value_bytes, self.entries = key_bytes, value_bytes, entries
        fields = (kind, key_bytes, value_bytes, entries, flags, 0, 0, name.encode())
        self.descriptor, _ = _bpf(_MAP_CREATE, struct.pack("<7I16s", *fields))

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.descriptor)

    def lookup(self, key: bytes) -> bytes | None:
        """Return the value of a key; None if the map does not have it."""
        keys, values = _buffer(self._checked(key, b"")), _buffer(bytes(self.value_bytes))
        try:
            _bpf(_MAP_LOOKUP, struct.pack("<I4xQQQ", self.descriptor, _at(keys), _at(values), 0))
        except FileNotFoundError:
            return None
        return values.raw

    def update(self, key: bytes, value: bytes) -> None:
        """Set the value of a key. OSError: the map is full."""
        keys, values = _buffer(self._checked(key, value)), _buffer(value)
        _bpf(_MAP_UPDATE, struct.pack("<I4xQQQ", self.descriptor, _at(keys), _at(values), 0))

    def delete(self, key: bytes) -> bool:
        """Remove a key; tell whether the map had it."""
        keys = _buffer(self._checked(key, b""))
        try:
            _bpf(_MAP_DELETE, struct.pack("<I4xQQQ", self.descriptor, _at(keys), 0, 0))
        except FileNotFoundError:
            return False
        return True

    def update_all(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        """Set the values of many keys, thousands with each call. OSError: the map is full; some are set."""
        rest = iter(items)
        while some := list(islice(rest, _BATCH)):
            keys = _buffer(b"".join(self._checked(key, value) for key, value in some))
            values = _buffer(b"".join(value for _, value in some))
            addresses = (0, 0, _at(keys), _at(values), len(some), self.descriptor, 0, 0)
            _bpf(_UPDATE_BATCH, struct.pack("<4Q2I2Q", *addresses))

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield the keys of a hash with their values. One that changes meanwhile may be missing."""
        keys, values = _buffer(bytes(_BATCH * self.key_bytes)), _buffer(bytes(_BATCH * self.value_bytes))
        position, following, more = None, _buffer(bytes(4)), True
        while more:
            addresses = (_at(position), _at(following), _at(keys), _at(values), _BATCH, self.descriptor, 0, 0)
            buffer = _buffer(struct.pack("<4Q2I2Q", *addresses))
            result = _syscall(_CALL, ctypes.c_long(_LOOKUP_BATCH), buffer, ctypes.c_long(len(buffer)))
            number = ctypes.get_errno() if result < 0 else 0
            if number not in (0, errno.ENOENT):
                raise OSError(number, os.strerror(number))
            more = number == 0  # ENOENT: these are the last
            position = _buffer(following.raw)
            all_keys, all_values = keys.raw, values.raw
            for index in range(struct.unpack_from("<I", buffer, 32)[0]):
                key, value = index * self.key_bytes, index * self.value_bytes
                yield all_keys[key : key + self.key_bytes], all_values[value : value + self.value_bytes]

    def view(self) -> memoryview:
        """Map the values of an array that was made mappable (BPF_F_MMAPABLE); they change under the view."""
        return memoryview(mmap.mmap(self.descriptor, self.value_bytes * self.entries, prot=mmap.PROT_READ))

    def _checked(self, key: bytes, value: bytes) -> bytes:
        if len(key) != self.key_bytes or len(value) not in (0, self.value_bytes):
            raise ValueError(f"a key of {len(key)} and a value of {len(value)} bytes do not go into this map")
        return key


# -- programs


def load_program(
    instructions: bytes, attached: int, *, name: str = "", btf: bytes = b"", functions: bytes = b""
) -> int:
    """Load a program for XDP, INGRESS or EGRESS; return its descriptor.

    `btf` and `functions`, one `struct bpf_func_info` after the other, describe a program with callbacks. Raises
    ProgramRefusedError where the verifier refuses it, and OSError where the kernel does.
    """
    code, license_, infos = _buffer(instructions), _buffer(_LICENSE + b"\0"), _buffer(functions)
    described = _load_btf(btf) if btf else 0
    count = len(functions) // _FUNCTION_INFO_BYTES

    def load(log: "ctypes.Array[ctypes.c_char] | None") -> int:
        wanted = (int(log is not None), len(log) if log is not None else 0, _at(log))
        flags = _PROGRAM_FLAGS.get(attached, 0)
        head = (_TYPES[attached], len(instructions) // 8, _at(code), _at(license_))
        fields = (*head, *wanted, 0, flags, name.encode(), 0)
        about_functions = (attached, described, _FUNCTION_INFO_BYTES, _at(infos), count)
        return _bpf(_PROG_LOAD, struct.pack("<2I2Q2IQ2I16s4IQI", *fields, *about_functions))[0]

    try:
        with suppress(OSError):
            return load(None)
        log = _buffer(bytes(_LOG_BYTES))
        try:
            return load(log)
        except OSError as error:
            if not log.value:
                raise
            raise ProgramRefusedError(*error.args, log=log.value.decode(errors="replace")) from None
    finally:
        if described:
            os.close(described)


def _load_btf(btf: bytes) -> int:
    types = _buffer(btf)
    return _bpf(_BTF_LOAD, struct.pack("<2Q3I", _at(types), 0, len(btf), 0, 0))[0]


def run_program(
    program: int, frame: bytes, *, context: bytes = NO_CONTEXT, repeat: int = 1
) -> tuple[int, bytes, bytes, int]:
    """Run a program on a frame, which is not sent; return its verdict, the frame and the context that it left, and ns.

    `context` is a `struct __sk_buff`, all of it or its begin, or a `struct xdp_md`. A repeated run begins with what the
    one before has left; the time is that of one.
    """
    data, after = _buffer(frame), _buffer(bytes(len(frame) + _GROWTH_BYTES))
    given, left = _buffer(context), _buffer(context)
    sizes, contexts = (len(frame), len(after)), (len(context), len(context))
    fields = (program, 0, *sizes, _at(data), _at(after), repeat, 0, *contexts, _at(given), _at(left), 0, 0, 0)
    _, result = _bpf(_TEST_RUN, struct.pack("<4I2Q4I2Q3I", *fields))
    _, verdict, _, length, _, _, _, nanoseconds = struct.unpack_from("<4I2Q2I", result)
    return verdict, after.raw[:length], left.raw[: len(context)], nanoseconds


# -- links


def create_link(program: int, ifindex: int, attached: int) -> int:
    """Attach a program to an interface, behind those that are there; return the descriptor of the link.

    OSError EINVAL: the kernel is older than Linux 6.6. ENODEV: there is no such interface. XDP, which only one program
    can have: EOPNOTSUPP, EBUSY and others: the driver of the interface does not take it.
    """
    flags = _LINK_FLAGS.get(attached, 0)
    return _bpf(_LINK_CREATE, struct.pack("<4I4Q", program, ifindex, attached, flags, 0, 0, 0, 0))[0]


def update_link(link: int, program: int) -> None:
    """Put another program in the place of that of a link; no packet finds none. OSError ENOLINK: it is detached."""
    _bpf(_LINK_UPDATE, struct.pack("<4I", link, program, 0, 0))


def detach_link(link: int) -> None:
    """Detach a program, also where other processes have the descriptor of its link."""
    _bpf(_LINK_DETACH, struct.pack("<I", link))


def linked_interface(link: int) -> int:
    """Return the index of the interface of a link; 0 if the interface is gone, or the link is detached."""
    info = _buffer(bytes(_LINK_INFO_BYTES))
    _bpf(_GET_INFO, struct.pack("<2IQ", link, len(info), _at(info)))
    ifindex: int = struct.unpack_from("<I", info, _LINK_IFINDEX)[0]
    return ifindex
