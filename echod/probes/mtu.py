"""The search for the path MTU by probes that may not be fragmented.

Owns the probing of one size after the other. `measurement.path_mtu` says which comes next, and what it means.
Invariant: a size fails only after several probes of it were not answered, or after a router or this host said so.
"""

import select
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from secrets import randbits
from time import monotonic_ns, time_ns
from typing import Final

from echod.linux.sockopt import IP_RECVFRAGSIZE, IPV6_MTU, IPV6_RECVFRAGSIZE
from echod.measurement.icmp import FRAGMENTATION_NEEDED
from echod.measurement.path_mtu import ROUND, Finding, Search, Way
from echod.measurement.payload import HEADER_BYTES, Payloads
from echod.probes import sockets
from echod.probes.settings import DISCOVERY, ProbeSettings
from echod.probes.sockets import open_outlet
from echod.probes.target import Target
from echod.probes.udp import UdpLine

HEADERS: Final = {socket.AF_INET: 28, socket.AF_INET6: 48}
"""Bytes of an IP and a UDP header."""

_MOST: Final = {socket.AF_INET: 65_535, socket.AF_INET6: 65_575}
"""Bytes of the greatest packet: RFC 791; RFC 8200 counts its own header apart."""

_LEAST_PATIENCE: Final = 200_000_000
_PATIENCE_TRIPS: Final = 10
"""Once a round-trip time is known, silence of so many of them (and `_LEAST_PATIENCE` at least) is no reply."""

_BURST: Final = 256
"""Datagrams that are looked at before the clock is."""

_IPV6_LEAST: Final = 1280
"""Every IPv6 link carries this (RFC 8200, 5)."""

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """What came of a size: a reply, in fragments of so many bytes or whole; or who said that it is too long."""

    replied: bool = False
    fragments: int = 0
    router: str = ""
    told: int = 0
    local: bool = False
    reason: str = "no reply"


class MtuProbe:
    """The search towards one target."""

    def __init__(self, target: Target, settings: ProbeSettings, tell: Tell) -> None:
        """Take whom each tried size is told."""
        self._target, self._settings, self._tell = target, settings, tell
        self._headers = HEADERS[target.family]
        self._payloads = Payloads(randbits(32), settings.pattern)
        self._sequence = 0
        self._patience = settings.timeout
        self._complained = _Answer()
        self._fragments = 0

    def run(self) -> Finding:
        """Search; Ctrl-C ends it with what is known by then."""
        highest, interrupted, back = _MOST[self._target.family], False, Way()
        search = Search(low=HEADER_BYTES + self._headers, high=highest)
        try:
            with open_outlet(self._target, self._settings.sockets) as sock:
                sockets.discover(sock, DISCOVERY["probe"])
                sockets.tell_fragments(sock)
                highest = self._highest(sock)
                search = Search(low=HEADER_BYTES + self._headers, high=highest)
                self._search(sock, search)
            if search.passes is not None and search.passes < highest:
                back = self._look_back(highest)
        except KeyboardInterrupt:
            interrupted = True
        return Finding(
            passes=search.passes,
            fails=search.fails,
            highest=highest,
            router=self._complained.router,
            reason=self._complained.reason if self._complained.router else "",
            told=self._complained.told,
            local=self._complained.local,
            fragments=self._fragments,
            back=back,
            interrupted=interrupted,
        )

    def _search(self, sock: socket.socket, search: Search) -> None:
        """Ask for one size after the other until the limit is found."""
        while (size := search.next_size()) is not None:
            answer = self._ask(sock, size)
            if answer.replied:
                search.passed(size)
                self._fragments = max(self._fragments, answer.fragments)
                continue
            search.failed(size, answer.told)
            if answer.router or answer.local:
                self._complained = answer

    def _highest(self, sock: socket.socket) -> int:
        """Return the greatest packet that this host's interface takes, whatever is known of the path behind it."""
        most = _MOST[self._target.family]
        complaint = UdpLine(sock, self._target, 0).send(self._payloads.encode(0, time_ns(), most - self._headers))
        # Any other complaint comes again with the first probe of the search, and is told there.
        return complaint.mtu if complaint and complaint.reason == FRAGMENTATION_NEEDED and complaint.mtu else most

    def _look_back(self, size: int) -> Way:
        """Send probes that may be fragmented, and look how their replies come."""
        with open_outlet(self._target, self._settings.sockets) as sock:
            sockets.discover(sock, DISCOVERY["dont"])
            sockets.tell_fragments(sock)
            if self._target.family == socket.AF_INET6:
                with suppress(OSError):
                    sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU, _IPV6_LEAST)
                # The kernel looks at that only where the interface's own MTU makes it take a packet to pieces.
                size = min(size + 1, _MOST[self._target.family])
            answer = self._ask(sock, size, note=" in fragments")
        return Way(size=size, answered=answer.replied, fragments=answer.fragments)

    def _ask(self, sock: socket.socket, size: int, note: str = "") -> _Answer:
        """Send probes of a size until one is answered, or somebody says why none will be."""
        answer = _Answer()
        for _ in range(ROUND):
            answer = self._try(sock, size)
            if answer.replied or answer.told:
                break
        mtu = f" (mtu={answer.told})" if answer.told else ""
        by = f" says {answer.router}" if answer.router else ""
        self._tell(f"{size} bytes{note}: {'reply' if answer.replied else answer.reason}{mtu}{by}")
        return answer

    def _try(self, sock: socket.socket, size: int) -> _Answer:
        """Send one probe and wait for what comes of it."""
        self._sequence += 1
        payload = self._payloads.encode(self._sequence, time_ns(), size - self._headers)
        line = UdpLine(sock, self._target, 0)
        begun = monotonic_ns()
        if complaint := line.send(payload):
            local = complaint.reason == FRAGMENTATION_NEEDED
            return _Answer(reason=complaint.reason, told=complaint.mtu, local=local)
        while (left := begun + self._patience - monotonic_ns()) > 0:
            select.select([sock], [], [], left / 1e9)
            for obstacle in line.complaints():
                if obstacle.data is not None and not payload.startswith(obstacle.data[: len(payload)]):
                    continue  # of an earlier probe
                return _Answer(reason=obstacle.reason, told=obstacle.mtu, router=obstacle.address)
            fragments = _receive(sock, payload)
            if fragments is not None:
                self._learn(monotonic_ns() - begun)
                return _Answer(replied=True, fragments=fragments)
        return _Answer()

    def _learn(self, rtt: int) -> None:
        self._patience = min(self._settings.timeout, max(_LEAST_PATIENCE, _PATIENCE_TRIPS * rtt))


def _receive(sock: socket.socket, payload: bytes) -> int | None:
    """Return the size of the greatest fragment of the reply, zero where it came whole, None where it has not come."""
    for _ in range(_BURST):  # who sends without end is not waited for without end
        try:
            data, control, _, _ = sock.recvmsg(1 << 16, 256)
        except OSError:
            break
        if data == payload:
            sizes = [int.from_bytes(value[:4], "little") for _, kind, value in control if kind in _FRAGMENTS]
            return max(sizes, default=0)
    return None


_FRAGMENTS: Final = (IP_RECVFRAGSIZE, IPV6_RECVFRAGSIZE)
