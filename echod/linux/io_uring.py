"""One call that receives from many streams, and one that sends to them: what recvmmsg(2) and sendmmsg(2) are to UDP.

Owns an io_uring (io_uring(7)) and one slot of memory for each of the streams that it serves at once. It makes no
decisions: `tcp.connections` does. The contract:

- The kernel gets no work that outlives the call: every receive and send has MSG_DONTWAIT, so it is done, or has failed,
  when io_uring_enter(2) returns. Between calls the kernel uses no descriptor and no memory of the ring. There is no
  kernel thread: everything runs in this thread, so no memory barriers are needed.
- The memory never moves and lives as long as the `IoUring`; every pointer in it was computed here, once.
- The first half of the entries receive into the slots, the second half send from the same slots.
- The kernel may complete entries in another order than submitted (failed ones first, say), so each carries the number
  of its slot.
"""

import ctypes
import errno
import mmap
import os
import socket
from array import array
from struct import Struct
from typing import Final

SLOTS: Final = 256
"""Most streams served at once."""

SLOT_BYTES: Final = 4096 + 64
"""Room for the data of one stream. More than a page, so that a message of 4,096 bytes does not fill it and is known to
be complete. Not a power of two, which would map the beginnings of all slots to the same few cache lines."""

# The numbers are the same on every architecture that echod runs on (asm-generic/unistd.h).
_SETUP, _ENTER = ctypes.c_long(425), ctypes.c_long(426)
_GETEVENTS: Final = ctypes.c_long(1)
_NOTHING: Final = ctypes.c_long(0)

_PARAMS: Final = Struct("<7I3I10I10I")
"""`struct io_uring_params`: 7 words and 3 reserved, then `struct io_sqring_offsets` and `struct io_cqring_offsets`."""
_FEATURES: Final = 5
_SQ: Final = 10
"""Index of the submission ring's offsets: head, tail, mask, entries, flags, dropped, array."""
_CQ: Final = 20
"""Index of the completion ring's offsets: head, tail, mask, entries, overflow, cqes."""

_NEEDED: Final = 1 << 0 | 1 << 1 | 1 << 5
"""Features: one mapping for both rings, no dropped completions, and Linux 5.7, which honours MSG_DONTWAIT."""

_ENTRIES_AT: Final = 0x10000000
"""The offset at which to map the submission entries."""

_ENTRY_WORDS: Final = 16
"""`struct io_uring_sqe`, 64 bytes: opcode 0, fd 4, address 16, length 24, flags of the message 28, user data 32."""
_COMPLETION_WORDS: Final = 4
"""`struct io_uring_cqe`, 16 bytes: user data 0, result 8, flags 12."""

_OP_SEND: Final = 26
_OP_RECV: Final = 27

_FLAGS: Final = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

_syscall = ctypes.CDLL(None, use_errno=True).syscall


class IoUring:
    """Slots for SLOTS streams, and the two calls."""

    def __init__(self) -> None:
        """Set up, and check that it works. OSError: the kernel lacks it, or this host's policy forbids it."""
        params = bytearray(_PARAMS.size)
        setup = _syscall(_SETUP, ctypes.c_long(2 * SLOTS), (ctypes.c_char * len(params)).from_buffer(params))
        self._fd = _checked(setup)
        self._enter = ctypes.c_long(self._fd)
        parsed = _PARAMS.unpack(params)
        try:
            self._map(parsed)
            self._fill()
            self._check()
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close the descriptor; the kernel frees the ring when its memory is no longer mapped."""
        os.close(self._fd)

    def _map(self, params: tuple[int, ...]) -> None:
        """Map the memory shared with the kernel; find its parts (io_uring_setup(2)). OSError: it lacks a feature."""
        if params[_FEATURES] & _NEEDED != _NEEDED:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        entries, completions, array_at, completions_at = params[0], params[1], params[_SQ + 6], params[_CQ + 5]
        size = max(array_at + 4 * entries, completions_at + 4 * _COMPLETION_WORDS * completions)
        self._rings = mmap.mmap(self._fd, size)
        self._entries = mmap.mmap(self._fd, 4 * _ENTRY_WORDS * entries, offset=_ENTRIES_AT)
        words = memoryview(self._rings).cast("I")
        (self._sq_head, self._sq_tail), (self._cq_head, self._cq_tail) = (
            (words[params[part] // 4 :][:1], words[params[part + 1] // 4 :][:1]) for part in (_SQ, _CQ)
        )
        self._submission_ring = words[array_at // 4 :][:entries]
        self._completion_ring = memoryview(self._rings).cast("i")[completions_at // 4 :][
            : _COMPLETION_WORDS * completions
        ]

    def _fill(self) -> None:
        """Write the constant fields of every entry."""
        self._payload = mmap.mmap(-1, SLOTS * SLOT_BYTES)
        payload = ctypes.addressof(ctypes.c_char.from_buffer(self._payload))
        octets, words = memoryview(self._entries), memoryview(self._entries).cast("i")
        pointers = memoryview(self._entries).cast("Q")
        for index in range(2 * SLOTS):
            at = index * _ENTRY_WORDS
            octets[4 * at] = _OP_RECV if index < SLOTS else _OP_SEND
            pointers[at // 2 + 2] = payload + index % SLOTS * SLOT_BYTES
            words[at + 6], words[at + 7], words[at + 8] = SLOT_BYTES, _FLAGS, index % SLOTS
        half = SLOTS * _ENTRY_WORDS
        self._sources = words[1:half:_ENTRY_WORDS]
        self._targets = words[half + 1 :: _ENTRY_WORDS]
        self._lengths = words[half + 6 :: _ENTRY_WORDS]
        self._receives = memoryview(array("I", range(SLOTS)))
        self._sends = memoryview(array("I", range(SLOTS, 2 * SLOTS)))
        self._identity = memoryview(array("i", range(SLOTS)))
        self._completions = memoryview(array("i", bytes(4 * _COMPLETION_WORDS * SLOTS)))
        self._slots = self._completions[0::_COMPLETION_WORDS]
        self._results = self._completions[2::_COMPLETION_WORDS]
        self._eagain = memoryview(array("i", [-errno.EAGAIN] * SLOTS))
        self._counts = [ctypes.c_long(count) for count in range(SLOTS + 1)]

    def _check(self) -> None:
        """Receive from an empty socket: a policy may allow the setup and forbid the rest. Raises OSError."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            (result,) = self.receive(memoryview(array("i", [ours.fileno()])))
        if result != -errno.EAGAIN:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    def slot(self, index: int) -> memoryview:
        """Return the slot of one stream: its data stays there until the next receive."""
        return memoryview(self._payload)[index * SLOT_BYTES :][:SLOT_BYTES]

    def receive(self, descriptors: memoryview) -> memoryview:
        """Receive once from each of these descriptors, at most SLOTS, into the slots.

        Return for each the bytes received, 0 at the end of the stream, or a negative errno (recv(2)). The results are
        valid until the next call. Both views are of C's int. OSError: the kernel lacks resources, nothing was received.
        """
        count = len(descriptors)
        self._sources[:count] = self._targets[:count] = descriptors
        _checked(self._run(self._receives, count))
        return self._results[:count]

    def send(self, lengths: memoryview) -> memoryview:
        """Send this many bytes of each slot back to its stream. Return the results (send(2)) as `receive` does.

        If the kernel lacks resources, that is EAGAIN for all that it did not begin.
        """
        count = len(lengths)
        self._lengths[:count] = lengths
        self._run(self._sends, count)
        return self._results[:count]

    def _run(self, entries: memoryview, count: int) -> int:
        """Submit the first `count` entries; return how many the kernel began, or -1 (io_uring_enter(2))."""
        begin = self._sq_tail[0]
        _write_ring(self._submission_ring, begin, entries[:count])
        self._sq_tail[0] = begin + count & 0xFFFFFFFF
        done = _syscall(_ENTER, self._enter, self._counts[count], self._counts[count], _GETEVENTS, _NOTHING, _NOTHING)
        first, last = self._cq_head[0], self._cq_tail[0]
        completed = last - first & 0xFFFFFFFF
        _read_ring(self._completion_ring, first * _COMPLETION_WORDS, self._completions[: completed * _COMPLETION_WORDS])
        self._cq_head[0] = last
        if completed != count:
            # Out of memory. Entries that were not begun must not run with the next call.
            self._sq_tail[0] = self._sq_head[0]
            self._put_in_order(completed, count)
        elif self._slots[:count] != self._identity[:count]:
            self._put_in_order(completed, count)
        return int(done)

    def _put_in_order(self, completed: int, count: int) -> None:
        """Put each result at its slot, of `count`, and EAGAIN at slots without a completion."""
        pairs = list(zip(self._slots[:completed].tolist(), self._results[:completed].tolist(), strict=True))
        self._results[:count] = self._eagain[:count]
        for slot, result in pairs:
            self._results[slot] = result


def _checked(result: int) -> int:
    """Return the result of a call, or raise its OSError."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _write_ring(ring: memoryview, at: int, values: memoryview) -> None:
    """Write into a ring, from an index that is never wrapped."""
    begin = at % len(ring)
    until_the_end = len(ring) - begin
    ring[begin : begin + len(values)] = values[:until_the_end]
    if len(values) > until_the_end:
        ring[: len(values) - until_the_end] = values[until_the_end:]


def _read_ring(ring: memoryview, at: int, values: memoryview) -> None:
    """Read from a ring, likewise."""
    begin = at % len(ring)
    until_the_end = len(ring) - begin
    values[:until_the_end] = ring[begin : begin + len(values)]
    if len(values) > until_the_end:
        values[until_the_end:] = ring[: len(values) - until_the_end]
