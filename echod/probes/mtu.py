"""The search for the path MTU by probes that may not be fragmented.

Owns probing one size after the other. `measurement.path_mtu` chooses the next size and explains the result. Invariant:
a size fails only after several probes of it had no reply, or after a router or this host reported it.
"""

import select
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from secrets import randbits
from time import monotonic_ns, time_ns
from typing import Final

from echod.linux.sockopt import IP_RECVFRAGSIZE, IPV6_MTU, IPV6_RECVFRAGSIZE
from echod.measurement.icmp import FRAGMENTATION_NEEDED
from echod.measurement.path_mtu import TRIES, MtuResult, ReturnPath, Search
from echod.measurement.payload import HEADER_BYTES, Payloads
from echod.probes.settings import DISCOVERY, ProbeSettings
from echod.probes.sockets import open_probe_socket, set_option
from echod.probes.target import HEADERS, Target
from echod.probes.udp import UdpTransport

_LEAST_PATIENCE: Final = 200_000_000
_PATIENCE_TRIPS: Final = 10
"""Round-trip times, once one is known, that a reply is waited for (and at least `_LEAST_PATIENCE`)."""

_BURST: Final = 256
"""Datagrams that are read before the clock is read again."""

_IPV6_LEAST: Final = 1280
"""Every IPv6 link carries this (RFC 8200, 5)."""


_FRAGMENTS: Final = (IP_RECVFRAGSIZE, IPV6_RECVFRAGSIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _SizeResult:
    """The result of a size: a reply, in fragments of so many bytes or whole, or the error and its sender."""

    replied: bool = False
    reply_fragments: int = 0
    router: str = ""
    reported_mtu: int = 0
    local: bool = False
    reason: str = "no reply"


class MtuProbe:
    """The search for the path MTU to one target."""

    def __init__(self, target: Target, settings: ProbeSettings, report: Callable[[str], None]) -> None:
        """Take the function that gets a sentence for each probed size."""
        self._target, self._settings, self._report = target, settings, report
        self._headers = HEADERS[target.family]
        self._most = target.max_payload + self._headers
        """Bytes of the greatest packet: RFC 791; RFC 8200 counts its own header apart."""
        self._payloads = Payloads(randbits(32), settings.pattern)
        self._sequence = 0
        self._patience = settings.timeout
        self._size_error = _SizeResult()
        self._fragments = 0

    def run(self) -> MtuResult:
        """Search; Ctrl-C ends the search with the result until then."""
        interface_mtu, interrupted, return_path = self._most, False, ReturnPath()
        search = Search(low=HEADER_BYTES + self._headers, high=interface_mtu)
        try:
            with self._open("probe") as sock:
                interface_mtu = self._interface_mtu(sock)
                search = Search(low=HEADER_BYTES + self._headers, high=interface_mtu)
                self._search(sock, search)
            if search.passes is not None and search.passes < interface_mtu:
                return_path = self._probe_return_path(interface_mtu)
        except KeyboardInterrupt:
            interrupted = True
        return MtuResult(
            passes=search.passes,
            fails=search.fails,
            interface_mtu=interface_mtu,
            router=self._size_error.router,
            reason=self._size_error.reason if self._size_error.router else "",
            reported_mtu=self._size_error.reported_mtu,
            local=self._size_error.local,
            reply_fragments=self._fragments,
            return_path=return_path,
            interrupted=interrupted,
        )

    def _open(self, discovery: str) -> socket.socket:
        """Open a socket that receives the size of the greatest fragment with what arrives in fragments."""
        sock = open_probe_socket(self._target, replace(self._settings.sockets, discovery=DISCOVERY[discovery]))
        with suppress(OSError):  # kernels before 4.12 do not support it
            set_option(sock, _FRAGMENTS, 1)
        return sock

    def _search(self, sock: socket.socket, search: Search) -> None:
        """Probe one size after the other until the limit is found."""
        while (size := search.next_size()) is not None:
            result = self._probe_size(sock, size)
            if result.replied:
                search.passed(size)
                self._fragments = max(self._fragments, result.reply_fragments)
                continue
            search.failed(size, result.reported_mtu)
            if result.router or result.local:
                self._size_error = result

    def _interface_mtu(self, sock: socket.socket) -> int:
        """Return the MTU of this host's interface, whatever is known of the path behind it."""
        error = UdpTransport(sock, self._target, 0).send(self._payloads.encode(0, time_ns(), self._target.max_payload))
        # Any other error occurs again with the first probe of the search, and is reported there.
        return error.mtu if error and error.reason == FRAGMENTATION_NEEDED and error.mtu else self._most

    def _probe_return_path(self, size: int) -> ReturnPath:
        """Send probes that may be fragmented, and see how their replies arrive."""
        with self._open("dont") as sock:
            if self._target.family == socket.AF_INET6:
                with suppress(OSError):
                    sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU, _IPV6_LEAST)
                # The kernel applies that only to packets greater than the interface's own MTU, which it must fragment.
                size = min(size + 1, self._most)
            result = self._probe_size(sock, size, note=" in fragments")
        return ReturnPath(size=size, replied=result.replied, reply_fragments=result.reply_fragments)

    def _probe_size(self, sock: socket.socket, size: int, note: str = "") -> _SizeResult:
        """Send probes of a size until one has a reply, or an error reports why none will have one."""
        result = _SizeResult()
        for _ in range(TRIES):
            result = self._probe_once(sock, size)
            if result.replied or result.reported_mtu:
                break
        mtu = f" (mtu={result.reported_mtu})" if result.reported_mtu else ""
        by = f" from {result.router}" if result.router else ""
        self._report(f"{size} bytes{note}: {'reply' if result.replied else result.reason}{mtu}{by}")
        return result

    def _probe_once(self, sock: socket.socket, size: int) -> _SizeResult:
        """Send one probe and wait for its reply or an error."""
        self._sequence += 1
        payload = self._payloads.encode(self._sequence, time_ns(), size - self._headers)
        transport = UdpTransport(sock, self._target, 0)
        begun = monotonic_ns()
        if error := transport.send(payload):
            local = error.reason == FRAGMENTATION_NEEDED
            return _SizeResult(reason=error.reason, reported_mtu=error.mtu, local=local)
        while (left := begun + self._patience - monotonic_ns()) > 0:
            select.select([sock], [], [], left / 1e9)
            for quoted in transport.take_errors():
                if not payload.startswith(quoted.data[: len(payload)]):
                    continue  # of an earlier probe
                return _SizeResult(reason=quoted.reason, reported_mtu=quoted.mtu, router=quoted.address)
            fragments = _receive(sock, payload)
            if fragments is not None:
                rtt = monotonic_ns() - begun
                self._patience = min(self._settings.timeout, max(_LEAST_PATIENCE, _PATIENCE_TRIPS * rtt))
                return _SizeResult(replied=True, reply_fragments=fragments)
        return _SizeResult()


def _receive(sock: socket.socket, payload: bytes) -> int | None:
    """Return the size of the greatest fragment of the reply, zero if it came whole, None if there is none."""
    for _ in range(_BURST):  # a peer that sends without end must not hold up the search
        try:
            data, control, _, _ = sock.recvmsg(1 << 16, 256)
        except OSError:
            break
        if data == payload:
            sizes = [int.from_bytes(value[:4], "little") for _, kind, value in control if kind in _FRAGMENTS]
            return max(sizes, default=0)
    return None
