"""The self test: whether a datagram through each UDP listener and a byte through each TCP listener come back.

Owns the probes and their sockets for the second that a test takes. The supervisor chooses the
mark and never tests itself. Invariant: a listener passes only if it replied in time, from the address probed. The
probe comes from that same address of this host, so that no other echo server can be mistaken for it.
"""

import errno
import fcntl
import os
import secrets
import socket
import struct
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from operator import itemgetter
from pathlib import Path
from typing import Final

from echod.admission.selftest import SECRET_BYTES, Result, SelfTest, choose_port
from echod.errors import StatusUnknownError
from echod.linux.poll import READ, WRITE, Poll
from echod.linux.sockets import bind_address, open_probe
from echod.net.listener import Listener, Protocol, parse_listener
from echod.stats.snapshot import Snapshot

TEST_SECONDS: Final = 1.0
"""Time in which every reply must arrive."""

_RESEND_SECONDS: Final = 0.25
"""Time after which a datagram without a reply is sent again: a loss in a full queue is not a fault of echod."""

_RETRY_SECONDS: Final = 0.02
"""Interval between attempts to bind the port while another test has it."""

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
"""SO_LINGER of 0 seconds: the connection ends with a reset, so that no TIME_WAIT keeps the port from the next test."""
_BYTE: Final = b"\x07"

_SIOCGIFADDR: Final = 0x8915
_NAME_BYTES: Final = 16
"""IFNAMSIZ (netdevice(7)). In a `struct ifreq` of 40 bytes the address follows, as a sockaddr_in."""

_LOOPBACK: Final = (IPv4Address("127.0.0.1"), IPv6Address("::1"))

_PROBLEMS: Final = {
    errno.EADDRNOTAVAIL: "this host does not have the address {address}",
    errno.ENODATA: "its interface has no address to probe",
    errno.ENODEV: "this host does not have its interface",
    errno.EADDRINUSE: "the source port of self tests is in use by another process",
    errno.ECONNREFUSED: "nothing listens there",
    errno.ECONNRESET: "closed the connection at once",
}


def choose_mark(taken: Collection[int], *, lowest: int) -> SelfTest | None:
    """Choose the mark of the probes, with a port from `lowest` up that is not taken, or None if no port is left."""
    port = choose_port(secrets.choice, taken=taken, lowest=lowest)
    return SelfTest(port=port, secret=secrets.token_bytes(SECRET_BYTES)) if port is not None else None


@dataclass(slots=True, eq=False)
class _Probe:
    """One listener under test."""

    listener: Listener
    target: Listener
    """The same at an address that can be probed."""
    host: str = ""
    """The address that a reply over UDP must come from."""
    sent: float = 0.0
    seconds: float | None = None
    problem: str = ""

    @property
    def done(self) -> bool:
        """Tell whether there is nothing more to wait for."""
        return self.seconds is not None or bool(self.problem)

    def fail(self, error: OSError) -> None:
        """Set why there will be no reply."""
        problem = _PROBLEMS.get(error.errno or 0) or f"cannot be probed: {error.strerror}"
        self.problem = problem.format(address=self.target.address)


def _probe(listener: Listener) -> _Probe:
    """Make the probe of a listener: of all addresses at loopback, of all of an interface at one of that."""
    probe = _Probe(listener, target=listener)
    if listener.address.is_unspecified:
        ipv6 = isinstance(listener.address, IPv6Address)
        try:
            address = _address_of(listener.zone, ipv6=ipv6) if listener.zone else _LOOPBACK[ipv6]
            probe.target = replace(listener, address=address)
        except OSError as error:
            probe.fail(error)
    return probe


def _address_of(name: str, *, ipv6: bool) -> IPv4Address | IPv6Address:
    """Return an address of an interface, or of one that is enslaved to it, as in a VRF. OSError: there is none."""
    enslaved = (path.name.removeprefix("lower_") for path in Path("/sys/class/net", name).glob("lower_*"))
    for each in (name, *sorted(enslaved)):
        found = _address6(each) if ipv6 else _address4(each)
        if found is not None:
            return found
    raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))


def _address4(name: str) -> IPv4Address | None:
    """Return the primary IPv4 address of an interface (netdevice(7))."""
    request = struct.pack(f"{_NAME_BYTES}s24x", os.fsencode(name))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            answer = fcntl.ioctl(sock.fileno(), _SIOCGIFADDR, request)
        except OSError:
            return None
    return IPv4Address(answer[_NAME_BYTES + 4 : _NAME_BYTES + 8])


def _address6(name: str) -> IPv6Address | None:
    """Return an IPv6 address of an interface that is not link-local."""
    for line in Path("/proc/self/net/if_inet6").read_text(encoding="utf-8").splitlines():
        digits, *_, found = line.split()
        address = IPv6Address(bytes.fromhex(digits))
        if found == name and not address.is_link_local:
            return address
    return None


def listeners_of(snapshot: Snapshot) -> list[Listener]:
    """Return the listeners in a snapshot, UDP first. Raises StatusUnknownError if a name is not that of a listener."""
    names = [*(each.name for each in snapshot.activity.udp), *(each.name for each in snapshot.activity.tcp)]
    try:
        found = [parse_listener(name) for name in names]
    except ValueError as error:
        raise StatusUnknownError(f"the status names a listener that cannot be probed: {error}") from None
    return [each.first for each in found]  # a status has no ranges


def run_self_test(
    listeners: Iterable[Listener], mark: SelfTest | None, seconds: float = TEST_SECONDS
) -> tuple[Result, ...]:
    """Probe each listener; return the results as soon as all have replied, or when the time is over.

    `mark` is the mark that echod published (`status.read_self_test`), or None to probe as an ordinary client.
    """
    return _Run(listeners, mark).run(seconds)


class _Run:
    """One test."""

    def __init__(self, listeners: Iterable[Listener], mark: SelfTest | None) -> None:
        """Prepare the test; probe nothing yet."""
        self._mark = mark
        self._payload = mark.secret if mark is not None else secrets.token_bytes(SECRET_BYTES)
        self._probes = [_probe(listener) for listener in listeners]
        self._waiting: list[Sequence[_Probe]] = []
        self._sent: list[tuple[socket.socket, _Probe]] = []
        self._by_peer: dict[tuple[str, int], list[tuple[socket.socket, _Probe]]] = {}
        self._poll = Poll()
        self._sockets = ExitStack()

    def run(self, seconds: float) -> tuple[Result, ...]:
        """Probe each listener, and wait."""
        try:
            tcp = [[probe] for probe in self._probes if probe.listener.protocol is Protocol.TCP and not probe.done]
            for probes in [*self._udp_groups(), *tcp]:
                self._attempt(probes)
            self._wait(time.monotonic() + seconds)
        finally:
            self._poll.close()
            self._sockets.close()
        for probe in self._probes:
            if not probe.done:
                probe.problem = f"no reply within {seconds:g} s" if probe.sent else _PROBLEMS[errno.EADDRINUSE]
        return tuple(
            Result(listener=each.listener, seconds=each.seconds, problem=each.problem) for each in self._probes
        )

    def _attempt(self, probes: Sequence[_Probe]) -> None:
        """Probe UDP listeners from one socket, or one TCP listener; if another test has the port, try again later."""
        try:
            if probes[0].listener.protocol is Protocol.UDP:
                self._probe_udp(probes)
            else:
                self._probe_tcp(probes[0])
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                self._waiting.append(probes)
                return
            for probe in probes:
                probe.fail(error)

    def _wait(self, deadline: float) -> None:
        """Receive replies; repeat waiting attempts, and send datagrams without a reply again."""
        resend_at = time.monotonic() + _RESEND_SECONDS
        while not all(probe.done for probe in self._probes):
            now = time.monotonic()
            if now >= deadline:
                return
            if now >= resend_at:
                resend_at = now + _RESEND_SECONDS
                for sock, probe in self._sent:
                    if not probe.done:
                        self._send(sock, probe)
            waiting, self._waiting = self._waiting, []
            for probes in waiting:
                self._attempt(probes)
            next_turn = min(resend_at, deadline, now + _RETRY_SECONDS if self._waiting else deadline)
            for on_ready in self._poll.wait(max(0.0, next_turn - now)):
                on_ready(time.monotonic())

    def _open(self, listener: Listener, beside: Sequence[socket.socket] = ()) -> socket.socket:
        """Open a socket on the port that probes come from. Raises OSError."""
        port = self._mark.port if self._mark is not None else 0
        return self._sockets.enter_context(open_probe(listener, port, beside))

    # -- UDP: one socket for each address and interface

    def _udp_groups(self) -> Iterable[list[_Probe]]:
        groups: dict[object, list[_Probe]] = {}
        for probe in self._probes:
            if probe.listener.protocol is Protocol.UDP and not probe.done:
                try:
                    probe.host = bind_address(probe.target)[0]
                except OSError as error:
                    probe.fail(error)
                else:
                    groups.setdefault((probe.host, probe.target.zone), []).append(probe)
        return groups.values()

    def _probe_udp(self, probes: Sequence[_Probe]) -> None:
        """Probe UDP listeners of one address and interface. Raises OSError if there is no socket for that."""
        # Of one address, one may be bound to an interface, and one not: the kernel must let them have the same port.
        host = probes[0].host
        sock = self._open(probes[0].target, list({own: None for own, probe in self._sent if probe.host == host}))
        on_reply = partial(self._on_replies, sock)
        self._poll.register(sock.fileno(), READ, on_reply)
        for probe in probes:
            probe.sent = time.monotonic()
            self._sent.append((sock, probe))
            self._by_peer.setdefault((host, probe.listener.port), []).append((sock, probe))
            self._send(sock, probe)
            on_reply(time.monotonic())  # so that the replies of many listeners do not overflow the queue

    def _send(self, sock: socket.socket, probe: _Probe) -> None:
        try:
            sock.sendto(self._payload, bind_address(probe.target))
        except BlockingIOError:
            pass  # it is sent again
        except OSError as error:
            probe.fail(error)

    def _on_replies(self, sock: socket.socket, now: float) -> None:
        with suppress(BlockingIOError):
            while True:
                reply, peer = sock.recvfrom(65_536)
                sent = self._by_peer.get((peer[0].partition("%")[0], peer[1]), ())
                waiting = [(own is not sock, probe) for own, probe in sent if not probe.done]
                if waiting and reply == self._payload:
                    # Of two sockets on an address, either may get the reply to the other's probe (IPv4).
                    _, probe = min(waiting, key=itemgetter(0))
                    probe.seconds = now - probe.sent

    # -- TCP: one connection for each listener

    def _probe_tcp(self, probe: _Probe) -> None:
        """Begin a connection to a listener. Raises OSError as `_probe_udp` does, or if that is refused at once."""
        sock = self._open(probe.target)
        if self._mark is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        begun = time.monotonic()
        try:
            with suppress(BlockingIOError):
                sock.connect(bind_address(probe.target))
        except OSError as error:
            sock.close()
            if error.errno == errno.EADDRNOTAVAIL:  # not the address, for it is bound: a probe has this pair of ports
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)) from None
            raise
        probe.sent = begun
        self._poll.register(sock.fileno(), WRITE, partial(self._on_connected, sock, probe))

    def _on_connected(self, sock: socket.socket, probe: _Probe, _now: float) -> None:
        self._poll.unregister(sock.fileno())
        try:
            sock.send(_BYTE)
        except OSError as error:
            probe.fail(error)
            sock.close()
        else:
            self._poll.register(sock.fileno(), READ, partial(self._on_echoed, sock, probe))

    def _on_echoed(self, sock: socket.socket, probe: _Probe, now: float) -> None:
        self._poll.unregister(sock.fileno())
        try:
            reply = sock.recv(64)
        except OSError as error:
            probe.fail(error)
            return
        finally:
            sock.close()  # a listener on another interface may wait for the same pair of ports
        if reply == _BYTE:
            probe.seconds = now - probe.sent
        else:
            probe.problem = "closed the connection at once" if not reply else "replied with other data"
