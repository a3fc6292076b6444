"""Messages on their way out: one `sendmmsg` where all is well, and what becomes of each where it is not.

Owns what a reply does that the kernel refuses. Never waits or queues, nor tries again what was refused, but for the
first call of a reply, and for the datagrams of a train that only together were too much. Invariant: each datagram
that was to be sent is counted once, as replied or as failed, and none that cannot be sent costs another its reply.
"""

import errno
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from echod.port import Port
from echod.sockets import UDP_GRO
from echod.vector import HEADER_BYTES, IOVEC_BYTES, SEGMENT_CMSG_BYTES, SLOTS, Vector

_FATAL: Final = frozenset({errno.EBADF, errno.ENOTSOCK})
_NO_TRAIN: Final = frozenset({errno.EIO, errno.EINVAL, errno.EMSGSIZE})
"""What the kernel says of a train that the route or the device cannot take, though each datagram may pass."""


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

        Where it does not, that they were joined was not what was wrong.
        """
        vector, slots, first, replied = self._vector, self._slots, run.start, self._replied
        length = vector.spans[first + 1].length[first]
        if len(run) > 1:
            self._send(Outgoing(slots.at + first * HEADER_BYTES, slots.lengths[first : run.stop]))
        else:
            starts = range(0, length, slots.segments[first])
            for chunk in (starts[i : i + SLOTS] for i in range(0, len(starts), SLOTS)):
                self._split(first, chunk)
                self._send(Outgoing(vector.apart_at, vector.apart_length[: len(chunk)]))
        if self._replied > replied:
            self._learn(error, length if len(run) > 1 else None)

    def _learn(self, error: int, joined: int | None) -> None:
        """Make no more such trains as the kernel refused, if we made it: of datagrams of `joined` bytes each."""
        port = self._port
        if error == errno.EIO:
            # No checksum offload on the way out: no train will ever pass, so let the kernel make none for us.
            port.longest_joined = 0
            with suppress(OSError):
                port.sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 0)
        elif joined is not None:
            port.longest_joined = min(port.longest_joined, joined - 1)

    def _split(self, slot: int, starts: range) -> None:
        """Build one message for each segment of a train that starts at one of these offsets of the slot."""
        vector = self._vector
        octets, longs = vector.octets, vector.longs
        source = self._slots.at + slot * HEADER_BYTES
        end = vector.spans[slot + 1].length[slot]
        for message, start in enumerate(starts):
            header = vector.apart_at + message * HEADER_BYTES
            iovec = vector.apart_iovecs_at + message * IOVEC_BYTES
            octets[header : header + HEADER_BYTES] = octets[source : source + HEADER_BYTES]
            longs[header // 8 + 2] = vector.base + iovec
            longs[header // 8 + 4] += SEGMENT_CMSG_BYTES
            longs[header // 8 + 5] -= SEGMENT_CMSG_BYTES
            longs[iovec // 8] = longs[(vector.iovecs_at + slot * IOVEC_BYTES) // 8] + start
            longs[iovec // 8 + 1] = min(starts.step, end - start)
