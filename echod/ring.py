"""One call that receives from many streams, and one that sends to them: what recvmmsg(2) and sendmmsg(2) are to UDP.

Owns an io_uring (io_uring(7)) and one slot of memory for each of the streams that it serves at once. It decides
nothing: `Streams` does. The contract:

- The kernel is given no work that outlives the call: every receive and send has MSG_DONTWAIT, so it is done, or has
  failed, when io_uring_enter(2) returns. No descriptor and no byte of memory is in the kernel's hands between calls,
  there is no thread of the kernel's, and since all is done by this one there is nothing to order (no barriers).
- The memory never moves and lives as long as the `Ring`; every pointer in it was computed here, once.
- The first half of the entries receive into the slots, the second half send from the same.
- The kernel may tell of them in another order than they were given (of those that failed first, say), so
  each has the number of its slot.
"""

import ctypes
import errno
import mmap
import os
import socket
from array import array
from struct import Struct
from typing import Final

STREAMS: Final = 256
"""Streams that are served at once."""

SLOT_BYTES: Final = 4096 + 64
"""Room for what one stream sent: a page, and more than that, so that a message of 4,096 bytes is seen to be all there
was. And no power of two: the beginnings of all slots would be kept in the same few places of the CPU's cache."""

# The numbers are the same on every architecture that echod runs on (asm-generic/unistd.h).
_SETUP, _ENTER = ctypes.c_long(425), ctypes.c_long(426)
_GETEVENTS: Final = ctypes.c_long(1)
_NOTHING: Final = ctypes.c_long(0)

_PARAMS: Final = Struct("<7I3I10I10I")
"""`struct io_uring_params`: 7 words and 3 reserved, then `struct io_sqring_offsets` and `struct io_cqring_offsets`."""
_FEATURES: Final = 5
_SQ: Final = 10
"""Where the first begin: head, tail, mask, entries, flags, dropped, array."""
_CQ: Final = 20
"""Where the second begin: head, tail, mask, entries, overflow, cqes."""

_NEEDED: Final = 1 << 0 | 1 << 1 | 1 << 5
"""Features: one mapping for both rings, nothing dropped, and Linux 5.7, of which MSG_DONTWAIT means what it says."""

_ENTRIES_AT: Final = 0x10000000
"""Where the mapping of the submission entries begins."""

_ENTRY_WORDS: Final = 16
"""`struct io_uring_sqe`, 64 bytes: opcode 0, fd 4, address 16, length 24, flags of the message 28, user data 32."""
_COMPLETION_WORDS: Final = 4
"""`struct io_uring_cqe`, 16 bytes: user data 0, result 8, flags 12."""

_OP_SEND: Final = 26
_OP_RECV: Final = 27

_FLAGS: Final = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall


class Ring:
    """Slots for STREAMS streams, and the two calls."""

    def __init__(self) -> None:
        """Set up, and see that it works. OSError: this kernel has it not, or this host's policy forbids it."""
        params = bytearray(_PARAMS.size)
        setup = _syscall(_SETUP, ctypes.c_long(2 * STREAMS), (ctypes.c_char * len(params)).from_buffer(params))
        self._fd = _checked(setup)
        self._enter = ctypes.c_long(self._fd)
        told = _PARAMS.unpack(params)
        try:
            if told[_FEATURES] & _NEEDED != _NEEDED:
                raise _missing()
            self._map(told)
            self._fill()
            self._try()
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Give it back to the kernel, as far as its memory is in use no more."""
        os.close(self._fd)

    def _map(self, told: tuple[int, ...]) -> None:
        """Map what is shared with the kernel, and find its parts (io_uring_setup(2))."""
        entries, completions, array_at, completions_at = told[0], told[1], told[_SQ + 6], told[_CQ + 5]
        size = max(array_at + 4 * entries, completions_at + 4 * _COMPLETION_WORDS * completions)
        self._rings = mmap.mmap(self._fd, size)
        self._entries = mmap.mmap(self._fd, 4 * _ENTRY_WORDS * entries, offset=_ENTRIES_AT)
        words = memoryview(self._rings).cast("I")
        (self._sq_head, self._sq_tail), (self._cq_head, self._cq_tail) = (
            (words[told[part] // 4 :][:1], words[told[part + 1] // 4 :][:1]) for part in (_SQ, _CQ)
        )
        self._order = words[array_at // 4 :][:entries]
        self._told = memoryview(self._rings).cast("i")[completions_at // 4 :][: _COMPLETION_WORDS * completions]

    def _fill(self) -> None:
        """Write all that stays the same of every entry."""
        self._payload = mmap.mmap(-1, STREAMS * SLOT_BYTES)
        payload = ctypes.addressof(ctypes.c_char.from_buffer(self._payload))
        octets, words = memoryview(self._entries), memoryview(self._entries).cast("i")
        pointers = memoryview(self._entries).cast("Q")
        for index in range(2 * STREAMS):
            at = index * _ENTRY_WORDS
            octets[4 * at] = _OP_RECV if index < STREAMS else _OP_SEND
            pointers[at // 2 + 2] = payload + index % STREAMS * SLOT_BYTES
            words[at + 6], words[at + 7], words[at + 8] = SLOT_BYTES, _FLAGS, index % STREAMS
        half = STREAMS * _ENTRY_WORDS
        self._sources = words[1:half:_ENTRY_WORDS]
        self._targets = words[half + 1 :: _ENTRY_WORDS]
        self._lengths = words[half + 6 :: _ENTRY_WORDS]
        self._receives = memoryview(array("I", range(STREAMS)))
        self._sends = memoryview(array("I", range(STREAMS, 2 * STREAMS)))
        self._in_order = memoryview(array("i", range(STREAMS)))
        self._completions = memoryview(array("i", bytes(4 * _COMPLETION_WORDS * STREAMS)))
        self._slots = self._completions[0::_COMPLETION_WORDS]
        self._results = self._completions[2::_COMPLETION_WORDS]
        self._again = memoryview(array("i", [-errno.EAGAIN] * STREAMS))
        self._counts = [ctypes.c_long(count) for count in range(STREAMS + 1)]

    def _try(self) -> None:
        """Receive where nothing is: a policy may allow the set-up and forbid the rest. OSError."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            (result,) = self.receive(memoryview(array("i", [ours.fileno()])))
        if result != -errno.EAGAIN:
            raise _missing()

    def slot(self, index: int) -> memoryview:
        """Return the room of one stream: what it sent lies there until the next receive."""
        return memoryview(self._payload)[index * SLOT_BYTES :][:SLOT_BYTES]

    def receive(self, descriptors: memoryview) -> memoryview:
        """Receive once from each of these, at most STREAMS, into the slots.

        Return for each how many bytes came, none at its end, or the negative of an error number (recv(2)). They stay
        until the next call. Both are of C's int. OSError: the kernel has no means now, and nothing was received.
        """
        count = len(descriptors)
        self._sources[:count] = self._targets[:count] = descriptors
        _checked(self._run(self._receives, count))
        return self._results[:count]

    def send(self, lengths: memoryview) -> memoryview:
        """Send so many bytes of each slot to where they came from. Return what became of it (send(2)), likewise.

        Without means that is EAGAIN for all.
        """
        count = len(lengths)
        self._lengths[:count] = lengths
        self._run(self._sends, count)
        return self._results[:count]

    def _run(self, entries: memoryview, count: int) -> int:
        """Let the kernel do the first so many entries; return how many it began, or -1 (io_uring_enter(2))."""
        begin = self._sq_tail[0]
        _lay(self._order, begin, entries[:count])
        self._sq_tail[0] = begin + count & 0xFFFFFFFF
        done = _syscall(_ENTER, self._enter, self._counts[count], self._counts[count], _GETEVENTS, _NOTHING, _NOTHING)
        first, last = self._cq_head[0], self._cq_tail[0]
        told = last - first & 0xFFFFFFFF
        _take(self._told, first * _COMPLETION_WORDS, self._completions[: told * _COMPLETION_WORDS])
        self._cq_head[0] = last
        if told != count:
            # Out of memory. What was not begun must not be begun with the next, when nobody means it any more.
            self._sq_tail[0] = self._sq_head[0]
            self._put_in_order(told, count)
        elif self._slots[:count] != self._in_order[:count]:
            self._put_in_order(told, count)
        return int(done)

    def _put_in_order(self, told: int, count: int) -> None:
        """Give each of so many slots its own result, and EAGAIN to those of which nothing was told."""
        pairs = list(zip(self._slots[:told].tolist(), self._results[:told].tolist(), strict=True))
        self._results[:count] = self._again[:count]
        for slot, result in pairs:
            self._results[slot] = result


def _missing() -> OSError:
    """Return the error of a kernel that has not what is needed."""
    return OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def _checked(result: int) -> int:
    """Return what a call returned, or raise its OSError."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _lay(ring: memoryview, at: int, values: memoryview) -> None:
    """Write into a ring, from a place that is counted on for ever."""
    begin = at % len(ring)
    until_the_end = len(ring) - begin
    ring[begin : begin + len(values)] = values[:until_the_end]
    if len(values) > until_the_end:
        ring[: len(values) - until_the_end] = values[until_the_end:]


def _take(ring: memoryview, at: int, values: memoryview) -> None:
    """Read from it, likewise."""
    begin = at % len(ring)
    until_the_end = len(ring) - begin
    values[:until_the_end] = ring[begin : begin + len(values)]
    if len(values) > until_the_end:
        values[until_the_end:] = ring[: len(values) - until_the_end]
