"""The listening sockets that the supervisor holds until it stops, by listener.

Owns them, and those beside them: the netlink socket that may be passed, and the doors, at which metrics are asked for.
Workers only inherit copies, and the exporter of the doors alone, so no death of theirs, and no reload, loses a datagram
that the kernel has queued. Never reads one. Invariant: `acquire` touches nothing that is held; only `commit` does, and
it cannot fail.
"""

import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from echod.core.endpoint import Endpoint
from echod.core.errors import AddressUnavailableError, BindNotPermittedError, EchodError
from echod.core.listener import Listener, Protocol, overlap
from echod.core.plan import Plan, plan
from echod.sockets import (
    METRICS,
    Buffers,
    adopt_door,
    adopt_socket,
    bind_socket,
    got_buffers,
    grant,
    kernel_drops,
    open_socket,
    set_buffers,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquisition:
    """Sockets for a generation to come, and what `commit` or `abandon` must know of them."""

    plan: Plan
    sockets: dict[Listener, list[socket.socket]]
    buffers: Buffers
    """What the config asks for."""
    granted: Buffers
    """What of that this process can have."""
    opened: list[socket.socket] = field(default_factory=list)
    unbound: list[tuple[Listener, socket.socket]] = field(default_factory=list)
    """Further sockets for listeners that are kept. Bound at commit: from then on they get datagrams, and before it
    there is nobody to read them."""
    doors: dict[Endpoint, socket.socket] = field(default_factory=dict)
    """Where the config wants metrics, if anywhere."""


class Holdings:
    """Sockets by listener: one each for TCP, one for each worker for UDP, and what was passed as it was passed."""

    def __init__(self) -> None:
        """Hold nothing."""
        self.netlink: socket.socket | None = None
        """What systemd passed for asking the host for its addresses, which a sandbox without its network cannot."""
        self._sockets: dict[Listener, list[socket.socket]] = {}
        self._adopted: dict[Listener, None] = {}
        self._dropped_before: dict[Listener, int] = {}
        self._doors: dict[Endpoint, socket.socket] = {}
        self._adopted_doors: list[socket.socket] = []

    @property
    def doors(self) -> list[socket.socket]:
        """Return the sockets at which metrics are asked for: what was passed, else what the config says."""
        return self._adopted_doors or list(self._doors.values())

    @property
    def sockets(self) -> Mapping[Listener, Sequence[socket.socket]]:
        """Return the sockets of all listeners."""
        return self._sockets

    @property
    def adopted(self) -> tuple[Listener, ...]:
        """Return the listeners that the service manager passed."""
        return tuple(self._adopted)

    @property
    def adopted_sockets(self) -> list[socket.socket]:
        """Return the sockets of these listeners."""
        return [sock for listener in self._adopted for sock in self._sockets[listener]]

    def adopt(self, passed: Mapping[int, str], buffers: Buffers) -> None:
        """Take over passed sockets, descriptors with their names. Raises EchodError where one cannot be served."""
        buffers = grant(buffers)
        for fd, name in passed.items():
            if name == METRICS:
                self._adopted_doors.append(adopt_door(fd))
                continue
            listener, sock = adopt_socket(fd, buffers)
            if listener is None:
                self._adopt_netlink(sock)
                continue
            self._sockets.setdefault(listener, []).append(sock)
            self._adopted[listener] = None

    def _adopt_netlink(self, sock: socket.socket) -> None:
        """Keep the one netlink socket. Raises EchodError where there is another."""
        if self.netlink is not None:
            number = sock.fileno()
            sock.close()
            raise EchodError(
                f"passed socket {number} is a second ListenNetlink=route: the .socket unit may have one only"
            )
        self.netlink = sock

    def acquire(
        self, listeners: Sequence[Listener], *, workers: int, buffers: Buffers, metrics: Endpoint | None = None
    ) -> Acquisition:
        """Open what these listeners, metrics and what was adopted need, for so many workers.

        Raises EchodError; then all that was opened here is closed again.
        """
        wanted = (*listeners, *(adopted for adopted in self._adopted if adopted not in set(listeners)))
        changes = plan(tuple(self._sockets), wanted)
        found = Acquisition(plan=changes, sockets={}, buffers=buffers, granted=grant(buffers))
        try:
            for listener in wanted:
                found.sockets[listener] = self._open(listener, workers, found)
            if metrics is not None and not self._adopted_doors:
                found.doors[metrics] = self._doors.get(metrics) or self._open_door(metrics, wanted, found)
        except Exception:
            self.abandon(found)
            raise
        return found

    def _open(self, listener: Listener, workers: int, found: Acquisition) -> list[socket.socket]:
        """Return all sockets of a listener, opening those that are missing.

        UDP has one for each worker, among which the kernel spreads the peers. More than there are workers now stay
        open and are shared out: closing one would lose what is queued on it. Passed sockets cannot have siblings,
        for those would have to be bound by the user that bound them.
        """
        held = list(self._sockets.get(listener, ()))
        if listener in self._adopted:
            return held
        more: list[socket.socket] = []
        wanted = workers if listener.protocol is Protocol.UDP else 1
        beside = self._is_beside_ours(listener)
        for number in range(len(held), wanted):
            try:
                sock = open_socket(listener, found.granted, sibling=number > 0 or beside, bind=not held)
            except (AddressUnavailableError, BindNotPermittedError) as error:
                if not self._adopted:
                    raise
                raise type(error)(f"{error}; `listeners` asks for it, but the .socket unit does not pass it") from None
            found.opened.append(sock)
            more.append(sock)
            if held:
                found.unbound.append((listener, sock))
        return held + more

    def _is_beside_ours(self, listener: Listener) -> bool:
        """Tell whether we have the port, for a wider or narrower listener or a door: then only a sibling can be bound.

        What has it then is on its way out, for no config gives a port twice, and what was passed lets no sibling in.
        """
        ours = (*self._sockets, *(door.listener for door in self._doors))
        return any(overlap(listener, other) for other in ours)

    def _open_door(self, metrics: Endpoint, wanted: Sequence[Listener], found: Acquisition) -> socket.socket:
        """Open the socket of an endpoint. Raises EchodError, also where one of the wanted listeners has the port."""
        beside = not any(overlap(metrics.listener, each) for each in wanted) and self._is_beside_ours(metrics.listener)
        try:
            sock = open_socket(metrics.listener, found.granted, sibling=beside)
        except (AddressUnavailableError, BindNotPermittedError) as error:
            hint = "; where systemd holds the ports, enable echod-metrics.socket and restart echod"
            raise type(error)(f"metrics.listen: {error}{hint if self._adopted else ''}") from None
        found.opened.append(sock)
        return sock

    def abandon(self, acquisition: Acquisition) -> None:
        """Close what was opened; what was held before is as it was."""
        for sock in acquisition.opened:
            sock.close()

    def commit(self, acquisition: Acquisition) -> None:
        """Hold these sockets from now on, and let go of the listeners that are no more. It opens nothing."""
        for listener in acquisition.plan.keep:
            for sock in self._sockets[listener]:
                set_buffers(sock, acquisition.granted)
        for listener, sock in acquisition.unbound:
            try:
                bind_socket(sock, listener)
            except EchodError:
                # The address has left the host. What is bound there serves on; the next reload tries anew.
                acquisition.sockets[listener].remove(sock)
                sock.close()
        for listener in acquisition.plan.close:
            self._let_go(listener)
        self._sockets = acquisition.sockets
        for endpoint in self._doors.keys() - acquisition.doors.keys():
            door = self._doors[endpoint]
            with suppress(OSError):  # which is so where it does not listen any more
                door.shutdown(socket.SHUT_RDWR)  # in the exporter's copy too, so that the port is free at once
            door.close()
        self._doors = acquisition.doors

    def retire(self) -> None:
        """Let go of all listeners that were not passed: who asks once the workers have, too, is refused at once."""
        for listener in self._sockets.keys() - self._adopted.keys():
            self._let_go(listener)

    def _let_go(self, listener: Listener) -> None:
        self._dropped_before[listener] = self.kernel_drops(listener)
        for sock in self._sockets.pop(listener):
            sock.close()

    def kernel_drops(self, listener: Listener) -> int:
        """Return the datagrams that the kernel dropped at this listener's sockets, also at earlier ones."""
        if listener.protocol is Protocol.TCP:
            return 0
        return self._dropped_before.get(listener, 0) + sum(map(kernel_drops, self._sockets.get(listener, ())))

    def smallest_buffers(self) -> Buffers | None:
        """Return what the kernel granted the UDP socket that got least, or None without one."""
        granted = [
            got_buffers(sock)
            for listener, sockets in self._sockets.items()
            for sock in sockets
            if listener.protocol is Protocol.UDP
        ]
        if not granted:
            return None
        return Buffers(receive=min(got.receive for got in granted), send=min(got.send for got in granted))
