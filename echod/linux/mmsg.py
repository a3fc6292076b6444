"""The memory that recvmmsg(2) and sendmmsg(2) work on, and the two calls.

Owns one anonymous mapping of headers, I/O vectors, addresses and control messages, and one of payload. It makes no
decisions: `Batch` does. The contract:

- The mapping never moves and lives as long as the `Vector`; every pointer in it was computed here, once.
- `received` are the headers that `recvmmsg` fills; `answers`, `composed` and `apart` are three more that `Batch` may
  send from. All point into the same names and payload: a reply is sent from the very bytes that came in.
- Before a receive, `restore` resets everything but names and payload to its initial state. So two receives that differ
  only in names and payload are equal in every other byte. After two that were equal, `reopen` is enough.
- The mapping may be shared with the supervisor, which reads it when this process has died: see `unfinished`.
- The layout is that of a 64-bit little-endian Linux kernel (`struct mmsghdr`, recvmmsg(2); `struct cmsghdr`, cmsg(3));
  `cli` refuses to run elsewhere.
"""

import ctypes
import mmap
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from struct import Struct
from typing import Final, Literal

from echod.linux.mmsg_layout import (
    CONTROL_AT,
    CONTROL_BYTES,
    ENDS,
    HEADER_BYTES,
    IOVEC_BYTES,
    MEMORY_BYTES,
    NAME_LENGTH,
    SLOT_BYTES,
    SLOTS,
)
from echod.net.peers import NAME_BYTES, PEER4_BYTES, PEER6_BYTES

_MESSAGE: Final = Struct("<QQQQQQ")
"""`struct msghdr` without `msg_flags`, which a send ignores."""

_MSG_DONTWAIT: Final = int(socket.MSG_DONTWAIT)

NAMES: Final = {socket.AF_INET: (16, PEER4_BYTES), socket.AF_INET6: (NAME_LENGTH, PEER6_BYTES)}
"""For each family `msg_namelen`, the size of its `sockaddr`, and how many bytes of that identify a peer."""

# No `argtypes`: they would double the cost of the call. So each argument is an int of 32 bits, or made by `byref`.
# PyDLL: the calls never wait, so there is no need to release the GIL.
_libc = ctypes.PyDLL(None, use_errno=True)
_recvmmsg, _sendmmsg = _libc.recvmmsg, _libc.sendmmsg


def constant(code: Literal["I", "Q"], value: int) -> memoryview:
    """Return a read-only view of `SLOTS` equal numbers."""
    size = 8 if code == "Q" else 4
    return memoryview(value.to_bytes(size, "little") * SLOTS).cast(code)


_ZEROS: Final = constant("Q", 0)
_ZEROS32: Final = constant("I", 0)


class Views(dict[int, memoryview]):
    """Strided views of numbers in the control messages of some slots, by index."""

    def __init__(self, make: Callable[[int], memoryview]) -> None:
        """Take the function that makes the view of one index."""
        self._make = make

    def __missing__(self, index: int) -> memoryview:
        """Make a view, and keep it."""
        view = self[index] = self._make(index)
        return view


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Strided views of the first `count` slots, made once for each count: slicing would cost more than the work."""

    count: int
    headers: slice
    iovecs: slice
    names: slice
    control: slice
    """Where these four lie in the mapping."""
    fresh: tuple[memoryview, memoryview, memoryview]
    """Headers, I/O vectors and control messages before a receive: buffer sizes for the kernel, no control message."""
    first_control: slice
    """Within a copy of the control messages of all slots: those of these slots."""
    pairs: tuple[slice, slice, slice, slice]
    """Within names, two pairs of adjacent slots: the first two, and two in the middle."""
    control_length: memoryview
    flags: memoryview
    length: memoryview
    iov_length: memoryview
    peers: dict[socket.AddressFamily, Callable[[], tuple[bytes, ...]]]
    """Reads the peers of all names at once: family, port, address, and (IPv6) flow and scope of each, as bytes."""
    words: Views
    longs: Views
    """Numbers of 32 and of 64 bits in the control messages of each slot."""
    zeros: memoryview
    """`count` 64-bit zeros, to compare with."""
    zeros32: memoryview
    """`count` 32-bit zeros, to copy from."""


class Vector:
    """`SLOTS` slots: headers, I/O vectors, names, control messages, payload."""

    def __init__(self, memory: mmap.mmap | None = None, control_bytes: int = CONTROL_BYTES) -> None:
        """Write every pointer and template into a mapping of MEMORY_BYTES, by default a new one.

        Each slot has room for `control_bytes` of control messages, a multiple of 8 and at most MAX_CONTROL_BYTES.
        """
        self.control_bytes = control_bytes
        self.received_at, self.iovecs_at, self.names_at, self.control_at = 0, *ENDS[:2], CONTROL_AT
        self.composed_at, self.composed_control_at, self.apart_at, self.apart_iovecs_at = ENDS[3:7]
        self.answers_at, self.answers_iovecs_at, self.answers_control_at = ENDS[7:10]
        self.answers_joined_at = self.answers_control_at + control_bytes
        self.answers = slice(self.answers_at, self.answers_joined_at + control_bytes)
        """The answers to a batch whose slots are alike: headers, I/O vectors, and two sets of control messages: one for
        single slots, one for joined slots."""

        self.memory = mmap.mmap(-1, MEMORY_BYTES) if memory is None else memory
        self.memory[:] = bytes(MEMORY_BYTES)
        self._payload = mmap.mmap(-1, SLOTS * SLOT_BYTES)
        self._first = ctypes.c_char.from_buffer(self.memory)
        self.base = ctypes.addressof(self._first)
        self.payload_octets = memoryview(self._payload)
        payload = ctypes.addressof(ctypes.c_char.from_buffer(self._payload))
        ready = (self.received_at, self.composed_at, self.answers_at)
        self._pointers = {headers_at: ctypes.byref(self._first, headers_at) for headers_at in ready}
        self._received = self._pointers[self.received_at]

        self.octets = memoryview(self.memory)
        self.words = self.octets.cast("I")
        self.longs = self.octets.cast("Q")
        self.composed_length = self._strided(self.longs, self.composed_at + 56, HEADER_BYTES, SLOTS)
        self.answers_length = self._strided(self.longs, self.answers_at + 56, HEADER_BYTES, SLOTS)
        self.apart_length = self._strided(self.longs, self.apart_at + 56, HEADER_BYTES, SLOTS)

        for slot in range(SLOTS):
            header = (self.received_at + slot * HEADER_BYTES) // 8
            iovec = self.iovecs_at + slot * IOVEC_BYTES
            self.longs[header] = self.base + self.names_at + slot * NAME_BYTES
            self.longs[header + 1] = NAME_LENGTH
            self.longs[header + 2] = self.base + iovec
            self.longs[header + 3] = 1
            self.longs[header + 4] = self.base + self.control_at + slot * control_bytes
            self.longs[header + 5] = control_bytes
            self.longs[iovec // 8] = payload + slot * SLOT_BYTES
            self.longs[iovec // 8 + 1] = SLOT_BYTES
            answer = (self.answers_at + slot * HEADER_BYTES) // 8
            answer_iovec = self.answers_iovecs_at + slot * IOVEC_BYTES
            self.longs[answer : answer + 8] = self.longs[header : header + 8]
            self.longs[answer + 2] = self.base + answer_iovec
            self.longs[answer + 4] = self.base + self.answers_control_at
            self.longs[answer_iovec // 8] = self.longs[iovec // 8]

        self._fresh_answers = self.memory[self.answers]
        self._fresh = memoryview(self.memory[: self.composed_at])
        self.spans = tuple(self._span(count) for count in range(SLOTS + 1))

    @staticmethod
    def _strided(view: memoryview, start: int, stride: int, count: int) -> memoryview:
        """View one field of `count` structs, `stride` bytes apart, the first at byte `start`."""
        size = view.itemsize
        return view[start // size : (start + count * stride) // size : stride // size]

    def _span(self, count: int) -> Span:
        strided = partial(self._strided, count=count)
        header, iovec, control = self.received_at, self.iovecs_at, self.control_at
        longs, words = self.longs, self.words
        fresh, step = self._fresh, self.control_bytes

        def name(slot: int) -> slice:
            return slice(slot * NAME_BYTES, (slot + 1) * NAME_BYTES)

        return Span(
            count=count,
            headers=slice(header, header + count * HEADER_BYTES),
            iovecs=slice(iovec, iovec + count * IOVEC_BYTES),
            names=slice(self.names_at, self.names_at + count * NAME_BYTES),
            control=slice(control, control + count * step),
            fresh=(
                fresh[header : header + count * HEADER_BYTES],
                fresh[iovec : iovec + count * IOVEC_BYTES],
                fresh[control : control + count * step],
            ),
            first_control=slice(count * step),
            pairs=(name(0), name(1), name(count // 2 - 1), name(count // 2)),
            control_length=strided(longs, header + 40, HEADER_BYTES),
            flags=strided(longs, header + 48, HEADER_BYTES),
            length=strided(longs, header + 56, HEADER_BYTES),
            iov_length=strided(longs, iovec + 8, IOVEC_BYTES),
            peers={
                family: partial(Struct(f"{peer}s{NAME_BYTES - peer}x" * count).unpack_from, self.memory, self.names_at)
                for family, (_, peer) in NAMES.items()
            },
            words=Views(lambda word: strided(words, control + 4 * word, step)),
            longs=Views(lambda long: strided(longs, control + 8 * long, step)),
            zeros=_ZEROS[:count],
            zeros32=_ZEROS32[:count],
        )

    def payload(self, slot: int, first: int, after: int) -> bytes:
        """Return a copy of a part of the payload of a slot."""
        return self._payload[slot * SLOT_BYTES + first : slot * SLOT_BYTES + after]

    def restore(self, span: Span) -> None:
        """Undo what a receive into these slots, and its reply, overwrote: the buffer sizes for the kernel."""
        self.memory[span.headers], self.memory[span.iovecs], self.memory[span.control] = span.fresh

    def reopen(self, span: Span) -> None:
        """Do the same after a receive that matched a pattern and was answered from `answers`: reset the headers alone.

        Old control messages may stay: the kernel rewrites every byte that it reports in a header.
        """
        self.memory[span.headers] = span.fresh[0]

    def alike(
        self, family: socket.AddressFamily, control_length: int, length: int, control: bytes, joined: bytes
    ) -> tuple[bytes, bytes]:
        """Return all headers as they are after a receive of `length` bytes in each slot, and the answers to these.

        `control` is the `control_bytes` of any slot, of which `control_length` are used, already turned into those of
        an answer; `joined` are those of an answer to joined slots.
        """
        headers, answers = bytearray(self._fresh[: SLOTS * HEADER_BYTES]), bytearray(self._fresh_answers)
        iovecs = self.answers_iovecs_at - self.answers_at
        with memoryview(headers).cast("Q") as received, memoryview(answers).cast("Q") as sent:
            for view in (received, sent):
                for offset, value in ((8, NAMES[family][0]), (40, control_length), (56, length)):
                    self._strided(view, offset, HEADER_BYTES, SLOTS)[:] = constant("Q", value)
            self._strided(sent, iovecs + 8, IOVEC_BYTES, SLOTS)[:] = constant("Q", length)
        answers[self.answers_control_at - self.answers_at :] = control + joined.ljust(self.control_bytes, b"\0")
        return bytes(headers), bytes(answers)

    def compose(self, message: int, slots: range, name_length: int, iovecs_at: int, control: range) -> None:
        """Make a message to the peer of the first of these slots, with the payload of all of them.

        `iovecs_at` (of slot 0) and `control` are offsets in the mapping.
        """
        base, slot = self.base, slots.start
        _MESSAGE.pack_into(
            self.memory,
            self.composed_at + message * HEADER_BYTES,
            base + self.names_at + slot * NAME_BYTES,
            name_length,
            base + iovecs_at + slot * IOVEC_BYTES,
            len(slots),
            base + control.start,
            len(control),
        )

    def receive(self, fd: int) -> int:
        """Fill slots from the socket's queue without waiting; return the number filled, or the negative of an errno."""
        filled: int = _recvmmsg(fd, self._received, SLOTS, _MSG_DONTWAIT, None)
        return filled if filled >= 0 else -ctypes.get_errno()

    def send(self, fd: int, headers_at: int, count: int) -> int:
        """Send `count` messages from the headers at this offset without waiting.

        Return the number sent, or the negative of an errno. The kernel stops at the first message it refuses, and
        returns the error only if no message was sent before (sendmmsg(2)).
        """
        pointer = self._pointers.get(headers_at) or ctypes.byref(self._first, headers_at)
        sent: int = _sendmmsg(fd, pointer, count, _MSG_DONTWAIT)
        return sent if sent >= 0 else -ctypes.get_errno()
