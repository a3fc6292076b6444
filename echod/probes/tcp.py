"""The transport over TCP: one connection, opened when a probe needs it, whose bytes are split into replies.

Owns the connection and the splitting. Never decides what a reply means: `InFlight` does. Invariant: bytes come back in
the order in which they were sent, so that the size of each reply is known in advance.
"""

import errno
import select
import socket
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic_ns
from typing import Final

from echod.errors import UsageError
from echod.measurement.events import Moment
from echod.measurement.icmp import NetworkError, local_error
from echod.measurement.in_flight import ProbeError, probe_error
from echod.measurement.payload import SEQUENCE_BYTES
from echod.measurement.round_trip import Response
from echod.probes.loop import Loop
from echod.probes.settings import ProbeSettings
from echod.probes.sockets import open_probe_socket, read_clocks, read_control
from echod.probes.target import Target

_MOST: Final = 1 << 18
_CONTROL_BYTES: Final = 128

MOST_UNSENT: Final = 1 << 20
"""Bytes that are kept for a peer that does not read, besides those in the send buffer of the kernel."""

MOST_UNANSWERED: Final = 65_536
"""Most probes on one connection without a reply: as many as may be in flight."""

_UNDER_WAY: Final = (errno.EINPROGRESS, errno.EALREADY)
_FROM_PEER: Final = (errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """A connection is open; the probes that waited for it are sent at `moment`. `took` is its handshake in ns."""

    moment: Moment
    took: int


Received = Response | ProbeError | Connected


class TcpTransport:
    """One connection to one target; a new one after an error."""

    def __init__(
        self,
        target: Target,
        port_index: int,
        settings: ProbeSettings,
        *,
        loop: Loop,
        receive: Callable[["TcpTransport"], None],
    ) -> None:
        """Take what the loop calls when there is something to read.

        A handshake that takes longer than the timeout of a probe is started again.
        """
        self.port_index = port_index
        self.port = 0
        """The source port; zero while there is none."""
        self.send_stamp = 0  # the kernel does not report it
        self.has_errors = False
        self.dropped = 0  # TCP sends again what had no room
        self._target = target
        self._sockets = settings.sockets
        self._loop = loop
        self._on_ready = partial(receive, self)
        self._timeout = settings.timeout
        self._sock: socket.socket | None = None
        self._begun = 0
        self._connected = self._writing = False
        self._waiting: deque[tuple[int, bytes]] = deque()
        """The size of each probe without a reply, and the sequence number that it begins with."""
        self._unsent = bytearray()
        self._came = bytearray()

    def send(self, payload: bytes) -> NetworkError | None:
        """Send a probe, or keep it until the connection is open; return the error if it cannot be sent."""
        if self._sock is not None and not self._connected and monotonic_ns() - self._begun >= self._timeout:
            self.close()
        if self._sock is None and (network_error := self._connect()):
            return network_error
        if (self._unsent and len(self._unsent) + len(payload) > MOST_UNSENT) or len(self._waiting) >= MOST_UNANSWERED:
            return local_error(errno.EAGAIN)
        self._unsent += payload
        if network_error := self._write():
            return network_error
        self._waiting.append((len(payload), payload[:SEQUENCE_BYTES]))
        return None

    def receive(self) -> Iterator[Received]:
        """Yield what was received: the connection, replies, or its end."""
        if self._sock is None:
            return
        if not self._connected:
            number = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number:
                yield from self._break(self._error(number))
                return
            moment = read_clocks()
            self._connected = True
            yield Connected(moment=moment, took=moment.clock - self._begun)
        if network_error := self._write():
            yield from self._break(replace(network_error, address=self._target.ip))
            return
        yield from self._read(self._sock)

    def close(self) -> None:
        """Close the connection, if there is one, and forget its data."""
        if self._sock is not None:
            self._loop.unregister(self._sock.fileno())
            self._sock.close()
        self._sock, self._connected = None, False
        self._waiting.clear()
        self._unsent.clear()
        self._came.clear()

    def _connect(self) -> NetworkError | None:
        try:
            self._sock = open_probe_socket(self._target, self._sockets, self.port_index)
        except UsageError as error:  # available at the start, and no longer: an address, descriptors
            return NetworkError(reason=str(error))
        self._begun = monotonic_ns()
        number = self._sock.connect_ex(self._target.address)
        if number and number not in _UNDER_WAY:
            self._sock.close()
            self._sock = None
            return self._error(number)
        self.port = int(self._sock.getsockname()[1])
        self._writing = False
        self._want_write(wanted=True)
        return None

    def _write(self) -> NetworkError | None:
        if self._sock is None or not self._connected:
            return None
        try:
            while self._unsent:
                del self._unsent[: self._sock.send(self._unsent)]
        except BlockingIOError:
            self._want_write(wanted=True)  # the rest is sent when there is room
            return None
        except OSError as error:
            return self._error(error.errno or 0)
        self._want_write(wanted=False)
        return None

    def _want_write(self, *, wanted: bool) -> None:
        if self._sock is not None and wanted is not self._writing:
            self._writing = wanted
            events = select.EPOLLIN | (select.EPOLLOUT if wanted else 0)
            self._loop.register(self._sock.fileno(), self._on_ready, events)

    def _read(self, sock: socket.socket) -> Iterator[Received]:
        try:
            data, control, _, _ = sock.recvmsg(_MOST, _CONTROL_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            yield from self._break(self._error(error.errno or 0))
            return
        read = read_clocks()
        if not data:
            if self._came:
                yield self._response(bytes(self._came), None, read)
                self._waiting.popleft()
            yield from self._break(NetworkError(reason="connection closed", address=self._target.ip))
            return
        self._came += data
        stamp, _, _ = read_control(control)
        while self._waiting and len(self._came) >= self._waiting[0][0]:
            size, _ = self._waiting.popleft()
            yield self._response(bytes(self._came[:size]), stamp, read)
            del self._came[:size]
        if self._came and not self._waiting:
            yield self._response(bytes(self._came), stamp, read)
            self._came.clear()

    def _response(self, data: bytes, stamp: int | None, read: Moment) -> Response:
        return Response(data=data, stamp=stamp, read=read, address=self._target.endpoint, port_index=self.port_index)

    def _break(self, network_error: NetworkError) -> Iterator[ProbeError]:
        """Yield an error for each probe without a reply, and close the connection."""
        probes = [begin for _, begin in self._waiting]
        self.close()
        for begin in probes:
            yield probe_error(network_error, read_clocks(), begin, port_index=self.port_index)

    def _error(self, number: int) -> NetworkError:
        """Name an errno, with the address of the peer if the error is from there."""
        network_error = local_error(number)
        return replace(network_error, address=self._target.ip) if number in _FROM_PEER else network_error
