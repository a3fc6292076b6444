"""Outgoing messages: one `sendmmsg` if all goes well, and what becomes of each message otherwise.

Owns the handling of messages that the kernel refuses. Never waits or queues. Never retries a refused message, except
for the first call of a reply, and for a train that was refused as a whole: its datagrams are sent one by one.
Invariant: each datagram to be sent is counted once, as replied or as failed, and none that cannot be sent costs another
its reply.
"""

import errno
import os
from array import array
from collections import Counter
from dataclasses import dataclass
from typing import Final

from echod.linux.mmsg import Vector
from echod.linux.mmsg_layout import HEADER_BYTES, IOVEC_BYTES, SLOTS
from echod.udp.sock import UdpSocket

_NO_TRAIN: Final = frozenset({errno.EIO, errno.EINVAL, errno.EMSGSIZE})
"""Errors for a train that the route or the device cannot take, although each of its datagrams may pass."""

_HEADER_LONGS: Final = HEADER_BYTES // 8


def raise_fatal(error: int) -> None:
    """Raise OSError if every later call would fail with this error too: the descriptor is not a socket."""
    if error in (errno.EBADF, errno.ENOTSOCK):
        raise OSError(error, os.strerror(error))


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Messages to send: the offset of their headers, and the slots and datagrams of each.

    `lengths` views the `msg_len` of each header, which the kernel sets to the bytes sent. `weights` are the datagrams
    of each message (None: one each), `runs` the slots of each (None: slot i for message i).
    """

    headers_at: int
    lengths: memoryview
    weights: list[int] | None = None
    runs: list[range] | None = None

    def weight(self, first: int, after: int) -> int:
        """Return the datagrams of the messages from `first` up to `after`."""
        return after - first if self.weights is None else sum(self.weights[first:after])

    def run(self, message: int) -> range:
        """Return the slots that this message answers."""
        return range(message, message + 1) if self.runs is None else self.runs[message]


class Dispatch:
    """The reply to one batch, and its outcome."""

    def __init__(self, vector: Vector, sock: UdpSocket, slots: Outgoing, segments: dict[int, int]) -> None:
        """Reply from this vector through this socket.

        `slots` are those of the batch, each as one message; `segments` the bytes in a segment of each that is a train.
        """
        self._vector = vector
        self._sock = sock
        self._slots = slots
        self._segments = segments
        self.replied = self.octets = 0
        """Datagrams and bytes sent."""
        self.failures: Counter[int] = Counter()
        """Errno to the datagrams that the kernel refused: these alone are skipped."""
        self.failed: Counter[int] = Counter()
        """Slot to the datagrams of it that were refused."""

    def send(self, out: Outgoing, sent: int = 0, *, apart: bool = False) -> None:
        """Send all messages, of which a first call sent `sent`, or failed (below 0): the next call then fails likewise.

        With `apart` none of them is a train. Raises OSError if the descriptor is not a socket.
        """
        count, done = len(out.lengths), 0
        while True:
            if sent > 0:
                self.replied += out.weight(done, done + sent)
                self.octets += sum(out.lengths[done : done + sent].tolist())
                done += sent
            if done == count:
                return
            sent = self._vector.send(self._sock.fd, out.headers_at + done * HEADER_BYTES, count - done)
            if sent > 0:
                continue
            error = -sent
            raise_fatal(error)
            if error == errno.EAGAIN:
                # The send buffer is full. Waiting would delay every other client too.
                self._note(out, done, count, error)
                return
            run = out.run(done)
            # A train that was cut to one datagram is one too: its header still has UDP_SEGMENT.
            if error in _NO_TRAIN and not apart and (len(run) > 1 or run.start in self._segments):
                self._send_apart(error, run)
            else:
                self._note(out, done, done + 1, error)
            done += 1

    def _note(self, out: Outgoing, first: int, after: int, error: int) -> None:
        """Count the datagrams of these messages as failed."""
        self.failures[error] += out.weight(first, after)
        for message in range(first, after):
            run = out.run(message)
            for slot in run:
                self.failed[slot] += out.weight(message, message + 1) // len(run)

    def _send_apart(self, error: int, run: range) -> None:
        """Send the datagrams of a train that the kernel refused one by one; learn from it if the kernel takes those.

        If it takes none of them, the joining was not the cause. A train that arrived as one is taken apart each time:
        that costs no more than receiving its datagrams one by one, which without UDP_GRO all trains would be.
        """
        vector, slots, first, replied = self._vector, self._slots, run.start, self.replied
        length = vector.spans[first + 1].length[first]
        if len(run) > 1:
            each = [range(slot, slot + 1) for slot in run]
            out = Outgoing(slots.headers_at + first * HEADER_BYTES, slots.lengths[first : run.stop], runs=each)
            self.send(out, apart=True)
            if self.replied > replied:
                # EIO: no train passes on this route: no checksum offload, or IPsec.
                longest = 0 if error == errno.EIO else length - 1
                self._sock.longest_joined = min(self._sock.longest_joined, longest)
            return
        starts = range(0, length, self._segments[first])
        for chunk in (starts[i : i + SLOTS] for i in range(0, len(starts), SLOTS)):
            self._split(first, chunk)
            runs = [range(first, first + 1)] * len(chunk)
            self.send(Outgoing(vector.apart_at, vector.apart_length[: len(chunk)], runs=runs), apart=True)

    def _split(self, slot: int, starts: range) -> None:
        """Build one message for each segment of a train, which start at these offsets of the slot."""
        vector, count, step = self._vector, len(starts), starts.step
        longs = vector.longs
        header = array("Q", longs[(self._slots.headers_at + slot * HEADER_BYTES) // 8 :][:_HEADER_LONGS])
        end = self._sock.control.segment_end(header[5])
        header[4] += end
        header[5] -= end
        headers = longs[vector.apart_at // 8 :][: count * _HEADER_LONGS]
        headers[:] = header * count
        headers[2::_HEADER_LONGS] = _steps(vector.base + vector.apart_iovecs_at, IOVEC_BYTES, count)
        iovecs = longs[vector.apart_iovecs_at // 8 :][: 2 * count]
        iovecs[0::2] = _steps(longs[(vector.iovecs_at + slot * IOVEC_BYTES) // 8] + starts[0], step, count)
        iovecs[1::2] = array("Q", [step]) * count
        iovecs[-1] = min(step, vector.spans[slot + 1].length[slot] - starts[-1])


def _steps(first: int, step: int, count: int) -> "array[int]":
    """Return `count` addresses, `step` apart."""
    return array("Q", range(first, first + count * step, step))
