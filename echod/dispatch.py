"""Messages on their way out: one `sendmmsg` where all is well, and what becomes of each where it is not.

Owns what a reply does that the kernel refuses. Never waits or queues, nor tries again what was refused, but for the
first call of a reply, and for the datagrams of a train that only together were too much. Invariant: each datagram
that was to be sent is counted once, as replied or as failed, and none that cannot be sent costs another its reply.
"""

import errno
import os
from array import array
from dataclasses import dataclass
from typing import Final

from echod.port import Port
from echod.vector import HEADER_BYTES, IOVEC_BYTES, SEGMENT_CMSG_BYTES, SLOTS, Vector

_FATAL: Final = frozenset({errno.EBADF, errno.ENOTSOCK})
_NO_TRAIN: Final = frozenset({errno.EIO, errno.EINVAL, errno.EMSGSIZE})
"""What the kernel says of a train that the route or the device cannot take, though each datagram may pass."""

_HEADER_LONGS: Final = HEADER_BYTES // 8


def raise_fatal(error: int) -> None:
    """Raise OSError where every later call would meet this error too: the descriptor is no socket."""
    if error in _FATAL:
        raise OSError(error, os.strerror(error))


@dataclass(frozen=True, slots=True)
class Slots:
    """The slots of a batch as messages of their own: where their headers lie, their bytes, the segments of trains."""

    at: int
    lengths: memoryview
    segments: dict[int, int]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Messages to send: where their headers lie, and what each stands for.

    `lengths` views the `msg_len` of each header, which the kernel sets to the bytes sent. `weights` are datagrams
    of each message, one without; `runs` the slots of each, slot i for message i without.
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
    """The reply to one batch, and what became of it."""

    def __init__(self, vector: Vector, port: Port, slots: Slots) -> None:
        """Send from this vector through this port what answers these slots."""
        self._vector = vector
        self._port = port
        self._slots = slots
        self._replied = self._octets = 0
        self._failures: dict[int, int] = {}

    def send(self, out: Outgoing, sent: int) -> tuple[int, int, dict[int, int]]:
        """Send all messages, of which a first attempt sent so many, or, below 0, failed: its error comes again.

        Returns the datagrams and bytes sent, and errno to datagrams of what the kernel refused: that is passed over,
        alone. Raises OSError where the descriptor is no socket.
        """
        self._send(out, sent)
        return self._replied, self._octets, self._failures

    def _send(self, out: Outgoing, sent: int = 0) -> None:
        count, done = len(out.lengths), 0
        while True:
            if sent > 0:
                self._replied += out.weight(done, done + sent)
                self._octets += sum(out.lengths[done : done + sent].tolist())
                done += sent
            if done == count:
                return
            sent = self._vector.send(self._port.fd, out.headers_at + done * HEADER_BYTES, count - done)
            if sent > 0:
                continue
            error = -sent
            raise_fatal(error)
            if error == errno.EAGAIN:
                # The send buffer is full. Waiting would make every other client wait too.
                self._fail(error, out.weight(done, count))
                return
            if error in _NO_TRAIN and (out.weight(done, done + 1) > 1 or self._is_cut(out, done)):
                self._send_apart(error, out.run(done))
            else:
                self._fail(error, out.weight(done, done + 1))
            done += 1

    def _is_cut(self, out: Outgoing, message: int) -> bool:
        """Tell whether this is a train that was cut to one datagram: it still asks to be taken apart."""
        whole = out.headers_at in (self._vector.received_at, self._vector.composed_at)
        return whole and out.run(message).start in self._slots.segments

    def _fail(self, error: int, datagrams: int) -> None:
        self._failures[error] = self._failures.get(error, 0) + datagrams

    def _send_apart(self, error: int, run: range) -> None:
        """Send the datagrams of a train that the kernel refused one by one; learn from it where it takes those.

        Where it does not, that they were joined was not what was wrong. A train that came as one is taken apart each
        time: that costs no more than if the kernel gave us its datagrams one by one, as it then would those of all.
        """
        vector, slots, first, replied = self._vector, self._slots, run.start, self._replied
        length = vector.spans[first + 1].length[first]
        if len(run) > 1:
            self._send(Outgoing(slots.at + first * HEADER_BYTES, slots.lengths[first : run.stop]))
            if self._replied > replied:
                # EIO: by this route none passes, for it has no checksum offload, or has IPsec.
                longest = 0 if error == errno.EIO else length - 1
                self._port.longest_joined = min(self._port.longest_joined, longest)
            return
        starts = range(0, length, slots.segments[first])
        for chunk in (starts[i : i + SLOTS] for i in range(0, len(starts), SLOTS)):
            self._split(first, chunk)
            self._send(Outgoing(vector.apart_at, vector.apart_length[: len(chunk)]))

    def _split(self, slot: int, starts: range) -> None:
        """Build one message for each segment of a train that starts at one of these offsets of the slot."""
        vector, count, step = self._vector, len(starts), starts.step
        longs = vector.longs
        header = array("Q", longs[(self._slots.at + slot * HEADER_BYTES) // 8 :][:_HEADER_LONGS])
        header[4] += SEGMENT_CMSG_BYTES
        header[5] -= SEGMENT_CMSG_BYTES
        headers = longs[vector.apart_at // 8 :][: count * _HEADER_LONGS]
        headers[:] = header * count
        headers[2::_HEADER_LONGS] = _steps(vector.base + vector.apart_iovecs_at, IOVEC_BYTES, count)
        iovecs = longs[vector.apart_iovecs_at // 8 :][: 2 * count]
        iovecs[0::2] = _steps(longs[(vector.iovecs_at + slot * IOVEC_BYTES) // 8] + starts[0], step, count)
        iovecs[1::2] = array("Q", [step]) * count
        iovecs[-1] = min(step, vector.spans[slot + 1].length[slot] - starts[-1])


def _steps(first: int, step: int, count: int) -> "array[int]":
    """Return so many addresses, each a step behind the one before."""
    return array("Q", range(first, first + count * step, step))
