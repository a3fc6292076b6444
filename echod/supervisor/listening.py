"""The listening sockets that the supervisor holds until it stops, by listener.

Owns these sockets, the netlink socket that may be passed, and the HTTP sockets, which listen for requests of metrics.
Workers inherit only copies, and the exporter only copies of the HTTP sockets, so neither their death nor a reload loses
a datagram that the kernel has queued. Never reads a socket. Invariant: `acquire` changes nothing that is held; only
`commit` does, and it cannot fail.
"""

import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from echod.config.diff import Plan, plan
from echod.config.socket_unit import Units
from echod.errors import AddressUnavailableError, EchodError, NotPermittedError, PassedSocketError
from echod.linux.arrival import report_arrivals, set_dscp
from echod.linux.sockets import (
    Buffers,
    bind_socket,
    find_absence,
    got_buffers,
    grant,
    kernel_drops,
    open_socket,
    set_buffers,
)
from echod.net.listener import Endpoint, Listener, Protocol, overlap
from echod.net.mode import PLAIN, ListenerOptions
from echod.stats.rates import unwrapped
from echod.supervisor.adoption import METRICS, adopt_http_socket, adopt_socket, device_of

_log = structlog.get_logger()

ALL_PLAIN: Final[Mapping[Listener, ListenerOptions]] = {}
"""The options of listeners that have none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquisition:
    """Sockets for a new generation, and what `commit` or `abandon` needs to know about them."""

    plan: Plan
    sockets: dict[Listener, list[socket.socket]]
    granted: Buffers
    """What this process can get of the buffers that the config requests."""
    opened: list[socket.socket] = field(default_factory=list)
    unbound: list[tuple[Listener, socket.socket]] = field(default_factory=list)
    """Further sockets for listeners that are kept. They are bound at commit: once bound they get datagrams, which
    nobody would read before."""
    http_sockets: dict[Endpoint, socket.socket] = field(default_factory=dict)
    """The sockets for metrics."""
    detached: frozenset[Listener] = frozenset()
    """What is held, but bound to an interface that was removed or renamed."""
    renewed: frozenset[Listener] = frozenset()
    """Those of them that are opened anew, because there is an interface of that name again."""


class ListeningSockets:
    """Sockets by listener: one for TCP, one for each worker for UDP, and passed sockets as they were passed."""

    def __init__(self, units: Units) -> None:
        """Hold nothing. Take the units of this echod, for messages."""
        self._units = units
        self.netlink: socket.socket | None = None
        """The socket that systemd passed to read the host's addresses, which a sandbox without its network cannot."""
        self.sockets: dict[Listener, list[socket.socket]] = {}
        self.adopted: dict[Listener, None] = {}
        """The listeners that the service manager passed, in order."""
        self.options: dict[Listener, ListenerOptions] = {}
        """The options that the sockets of listeners were made to suit, but for plain ones."""
        self._dropped: dict[socket.socket, int] = {}
        """What the kernel dropped at each UDP socket held."""
        self._dropped_before: dict[Listener, int] = {}
        self._http: dict[Endpoint, socket.socket] = {}
        self._adopted_http: list[socket.socket] = []
        self._logged: set[str] = set()
        """The listeners that the log names as detached."""

    @property
    def http_sockets(self) -> list[socket.socket]:
        """Return the listening sockets for metrics: those passed, else those of the config."""
        return self._adopted_http or list(self._http.values())

    def adopt(self, passed: Mapping[int, str], buffers: Buffers) -> None:
        """Take over passed sockets, descriptors with their names, and log the listeners.

        Raises PassedSocketError if one cannot be served.
        """
        buffers = grant(buffers)
        for fd, name in passed.items():
            if name == METRICS:
                self._adopted_http.append(adopt_http_socket(fd, buffers))
                continue
            listener, sock = adopt_socket(fd, buffers)
            if listener is not None:
                self.sockets.setdefault(listener, []).append(sock)
                self.adopted[listener] = None
            elif self.netlink is None:
                self.netlink = sock
            else:
                sock.close()
                raise PassedSocketError(
                    f"passed socket {fd} is a second ListenNetlink=route: the .socket unit may have one only"
                )
        for listener in self.adopted:
            _log.info("listener_adopted", listener=str(listener))

    def bindable(self, listeners: Sequence[Listener]) -> tuple[Listener, ...]:
        """Return those of the default listeners that this host can bind; none if sockets were passed instead."""
        if self.adopted:
            return ()
        possible = tuple(listener for listener in listeners if not find_absence(listener))
        for listener in sorted(set(listeners) - set(possible), key=str):
            _log.warning("listener_skipped", listener=str(listener), reason="this host does not have the address")
        return possible

    def acquire(
        self, listeners: Sequence[Listener], *, workers: int, buffers: Buffers, metrics: Sequence[Endpoint] = ()
    ) -> Acquisition:
        """Open the sockets that these listeners, metrics and adopted listeners need, for this number of workers.

        Raises EchodError, after closing all that was opened here.
        """
        wanted = (*listeners, *(adopted for adopted in self.adopted if adopted not in set(listeners)))
        metrics = () if self._adopted_http else metrics
        detached = frozenset(listener for _, listener in self._detached())
        back = detached.difference(self.adopted) & {*wanted, *(each.listener for each in metrics)}
        renewed = frozenset(listener for listener in back if not find_absence(listener, early=True))
        found = Acquisition(
            plan=plan([each for each in self.sockets if each not in renewed], wanted),
            sockets={},
            granted=grant(buffers),
            detached=detached,
            renewed=renewed,
        )
        try:
            for listener in wanted:
                found.sockets[listener] = self._open(listener, workers, found)
            for endpoint in metrics:
                held = self._http.get(endpoint) if endpoint.listener not in renewed else None
                found.http_sockets[endpoint] = held or self._open_http_socket(endpoint, wanted, found)
        except Exception:
            self.abandon(found)
            raise
        return found

    def _open(self, listener: Listener, workers: int, found: Acquisition) -> list[socket.socket]:
        """Return all sockets of a listener, opening those that are missing.

        UDP has one for each worker, among which the kernel distributes the peers. If there are more sockets than
        workers now, all stay open and are shared out: closing one would lose the datagrams queued on it. Passed sockets
        cannot have siblings, because the same user would have to bind those.
        """
        held = list(self.sockets.get(listener, ())) if listener not in found.renewed else []
        if listener in self.adopted:
            return held
        more: list[socket.socket] = []
        wanted = workers if listener.protocol is Protocol.UDP else 1
        beside = self._needs_sibling(listener, found, found.sockets)
        for number in range(len(held), wanted):
            try:
                sock = open_socket(listener, found.granted, sibling=number > 0 or beside, bind=not held)
            except (AddressUnavailableError, NotPermittedError) as error:
                if not self.adopted:
                    raise
                raise type(error)(
                    f"{error}; `listeners` has it, but systemd does not pass it: add {listener.unit_line} to "
                    f"{self._units.socket} (systemctl edit {self._units.socket}) and restart that and "
                    f"{self._units.service}, or remove it from the file"
                ) from None
            found.opened.append(sock)
            more.append(sock)
            if held:
                found.unbound.append((listener, sock))
        return held + more

    def _needs_sibling(self, listener: Listener, found: Acquisition, more: Iterable[Listener]) -> bool:
        """Return whether echod holds the port with another socket: only a sibling can then be bound.

        That socket is of a wider or narrower listener, or for HTTP, and is about to be closed: no config uses a port
        twice, and passed sockets allow no sibling. Or it is of one of the listeners `more`, which were opened before,
        and one of the two is bound to an interface: both then serve. A detached listener has its port on an interface
        of another name.
        """
        held = (*self.sockets, *(endpoint.listener for endpoint in self._http))
        ours = (*more, *(replace(each, zone="") if each in found.detached else each for each in held))
        return any(other.port == listener.port and overlap(listener, other) for other in ours)

    def _open_http_socket(self, metrics: Endpoint, wanted: Sequence[Listener], found: Acquisition) -> socket.socket:
        """Open the socket of an endpoint. Raises EchodError, also if one of the wanted listeners has the port."""
        listener = metrics.listener
        beside = not any(overlap(listener, each) for each in wanted) and self._needs_sibling(listener, found, ())
        try:
            sock = open_socket(listener, found.granted, sibling=beside)
        except (AddressUnavailableError, NotPermittedError) as error:
            hint = f"; as systemd holds the ports, enable {self._units.metrics} and restart {self._units.service}"
            raise type(error)(f"metrics.listen: {error}{hint if self.adopted else ''}") from None
        found.opened.append(sock)
        return sock

    def abandon(self, acquisition: Acquisition) -> None:
        """Close what was opened; what was held before is unchanged."""
        for sock in acquisition.opened:
            sock.close()

    def commit(self, acquisition: Acquisition, options: Mapping[Listener, ListenerOptions] = ALL_PLAIN) -> None:
        """Hold these sockets from now on, and close the listeners that were removed. It opens nothing.

        `options` are those of the listeners of the config; others are plain.
        """
        for listener in acquisition.plan.keep:
            for sock in self.sockets[listener] if listener.protocol is Protocol.UDP else ():
                set_buffers(sock, acquisition.granted)
        for listener, sock in acquisition.unbound:
            try:
                bind_socket(sock, listener)
            except EchodError:
                # The address has left the host. Sockets bound there continue to serve; the next reload tries again.
                acquisition.sockets[listener].remove(sock)
                sock.close()
        for listener in (*acquisition.plan.close, *(acquisition.renewed & self.sockets.keys())):
            self._close(listener)
        self.sockets = acquisition.sockets
        for listener, sockets in self.sockets.items():
            self._suit(listener, sockets, options.get(listener, PLAIN))
        self._logged.clear()  # what is still detached is logged again
        for endpoint, sock in self._http.items():
            if acquisition.http_sockets.get(endpoint) is sock:
                continue
            with suppress(OSError):  # it may not listen any more
                sock.shutdown(socket.SHUT_RDWR)  # in the exporter's copy too, so that the port is free at once
            sock.close()
        self._http = acquisition.http_sockets

    def _suit(self, listener: Listener, sockets: Sequence[socket.socket], options: ListenerOptions) -> None:
        """Have these sockets report and send what the options need, and no more than before without them."""
        before = self.options.pop(listener, PLAIN)
        if options != PLAIN:
            self.options[listener] = options
        for sock in sockets if options != before or options != PLAIN else ():
            if listener.protocol is Protocol.UDP:
                report_arrivals(sock, report=options.measured)
            if isinstance(options.dscp, int) or isinstance(before.dscp, int):
                set_dscp(sock, options.dscp if isinstance(options.dscp, int) else 0)

    def log_detached(self) -> None:
        """Log each listener that receives nothing any more, once, and again after a reload that did not repair it."""
        detached = dict(self._detached())
        for name, listener in detached.items():
            if name not in self._logged:
                unit = f"restart the .socket unit that passes it, and {self._units.service},"
                remedy = unit if listener in self.adopted else "run `echod reload`"
                message = (
                    f"{name} receives nothing any more: its interface was removed or renamed; {remedy} when this "
                    f"host has the interface {listener.zone} again"
                )
                _log.warning("listener_detached", message=message, listener=name)
        self._logged = set(detached)

    def _detached(self) -> Iterator[tuple[str, Listener]]:
        """Yield what is bound to an interface that was removed or renamed, with its name in the log."""
        for listener, sockets in self.sockets.items():
            if listener.zone and any(device_of(sock) != listener.zone for sock in sockets):
                yield str(listener), listener
        for endpoint, sock in self._http.items():
            if endpoint.listener.zone and device_of(sock) != endpoint.listener.zone:
                yield f"metrics.listen: {endpoint}", endpoint.listener

    def close_unpassed(self) -> None:
        """Close all listeners that were not passed: when the workers have, too, clients are refused at once."""
        for listener in self.sockets.keys() - self.adopted.keys():
            self._close(listener)

    def _close(self, listener: Listener) -> None:
        self._dropped_before[listener] = self.kernel_drops(listener)
        for sock in self.sockets.pop(listener):
            self._dropped.pop(sock, None)
            sock.close()

    def kernel_drops(self, listener: Listener) -> int:
        """Return the datagrams that the kernel dropped at this listener's sockets, including earlier ones.

        To be called before a socket drops another 2**32: the kernel then counts from 0 again.
        """
        if listener.protocol is Protocol.TCP:
            return 0
        total = self._dropped_before.get(listener, 0)
        for sock in self.sockets.get(listener, ()):
            self._dropped[sock] = unwrapped(self._dropped.get(sock, 0), kernel_drops(sock))
            total += self._dropped[sock]
        return total

    def smallest_buffers(self) -> Buffers | None:
        """Return the smallest buffers that the kernel granted a UDP socket, or None without one."""
        udp = [sockets for listener, sockets in self.sockets.items() if listener.protocol is Protocol.UDP]
        granted = [got_buffers(sock) for sockets in udp for sock in sockets]
        if not granted:
            return None
        return Buffers(receive=min(got.receive for got in granted), send=min(got.send for got in granted))
