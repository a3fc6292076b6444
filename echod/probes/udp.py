"""The transport over UDP: one socket, its replies and the errors in its error queue.

Owns the reading of control messages. Never decides what a reply means: `InFlight` does. Invariant: the socket is not
connected, so that the kernel does not drop a reply from another address than the one probed.
"""

import socket
from collections.abc import Iterator
from time import monotonic_ns
from typing import Final

from echod.linux.sockets import kernel_drops
from echod.linux.sockopt import IP_RECVERR, IPV6_RECVERR, SO_TIMESTAMPING
from echod.measurement.icmp import THIS_HOST, NetworkError, is_stamp, local_error, read_error
from echod.measurement.in_flight import ProbeError, probe_error
from echod.measurement.round_trip import Response
from echod.probes.sockets import read_clocks, read_control, read_stamp, stamp_sends
from echod.probes.target import Target, endpoint

_CONTROL_BYTES: Final = 512
_MOST: Final = 65_536
_BURST: Final = 256
_BURST_NS: Final = 5_000_000
"""Most datagrams read in a row, and for how many ns: a flood of datagrams must not delay the next probe."""

TRIES: Final = 3
"""Attempts of one send: the kernel also reports the error of an earlier probe there, once for each."""


class UdpTransport:
    """One source port towards one target."""

    def __init__(self, sock: socket.socket, target: Target, port_index: int, *, stamps: bool = False) -> None:
        """Take a socket of `open_probe_socket`; `port_index` is the index of its port among those of the session.

        With `stamps` the kernel reports when each probe was sent.
        """
        self.sock = sock
        self.port_index = port_index
        self.port = int(sock.getsockname()[1])
        self._target = target
        self._address = target.address
        self._peer = target.address[:2]
        self._errors = IP_RECVERR if target.family == socket.AF_INET else IPV6_RECVERR
        self._queued: list[ProbeError] = []
        self._stamps = stamps and stamp_sends(sock)
        self.send_stamp = 0
        """When the kernel passed the last probe to a device, in ns since 1970; zero or earlier if that is not known."""

    def send(self, payload: bytes) -> NetworkError | None:
        """Send a probe; return the error if it could not be sent."""
        number = self.send_stamp = 0
        for _ in range(TRIES):
            try:
                self.sock.sendto(payload, self._address)
            except OSError as error:
                number = error.errno or 0
                if network_error := self._read_errors():
                    return network_error
            else:
                if self._stamps:
                    self._read_errors()  # in the same queue
                return None
        return local_error(number)

    @property
    def dropped(self) -> int:
        """How many datagrams the kernel dropped here: its receive buffer was full, or a checksum was wrong."""
        return kernel_drops(self.sock)

    @property
    def has_errors(self) -> bool:
        """Whether an error was read together with a timestamp: no wait will report it again."""
        return bool(self._queued)

    def receive(self) -> Iterator[Response | ProbeError]:
        """Yield what was received, errors first."""
        yield from self.take_errors()
        end = monotonic_ns() + _BURST_NS
        for _ in range(_BURST):
            try:
                data, control, _, address = self.sock.recvmsg(_MOST, _CONTROL_BYTES)
            except BlockingIOError:
                return
            except OSError:
                continue  # an error of the error queue, which is reported here too
            read = read_clocks()
            stamp, ttl, dscp = read_control(control)
            yield Response(
                data=data,
                stamp=stamp,
                read=read,
                address=endpoint(address),
                from_target=address[:2] == self._peer,
                port_index=self.port_index,
                ttl=ttl,
                dscp=dscp,
            )
            if read.clock >= end:
                return

    def take_errors(self) -> list[ProbeError]:
        """Return the errors that routers and the peer have sent since the last call."""
        self._read_errors()
        queued, self._queued = self._queued, []
        return queued

    def _read_errors(self) -> NetworkError | None:
        """Queue the errors of routers and of the peer; return that of this host, about a probe that was not sent.

        The send timestamps are in the same queue.
        """
        local = None
        for _ in range(_BURST):
            try:
                data, control, _, _ = self.sock.recvmsg(_MOST, _CONTROL_BYTES, socket.MSG_ERRQUEUE)
            except OSError:
                break
            messages = {(level == socket.SOL_SOCKET, kind): value for level, kind, value in control}
            error, stamp = messages.get((False, self._errors)), messages.get((True, SO_TIMESTAMPING))
            if error is not None and is_stamp(error):
                self.send_stamp = read_stamp(stamp) if stamp is not None else 0
            elif error is not None:
                network_error = read_error(error)
                if network_error.address == THIS_HOST:
                    local = network_error
                else:
                    self._queued.append(probe_error(network_error, read_clocks(), data, port_index=self.port_index))
        return local

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()
