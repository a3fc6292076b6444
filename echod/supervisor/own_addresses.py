"""This host's own addresses, as the supervisor knows them: read when the kernel notifies of a possible change.

Owns the last result, the time of the next read, and the one log entry if there is no result. It decides nothing: rule 7
of `Admission` does. Invariants: a host whose addresses cannot be read is still served, and its operator is warned;
however often they change, reading them takes a bounded share of the time.
"""

import socket
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

import structlog

from echod.linux.netlink import OTHER_NAMESPACE, LocalAddresses
from echod.linux.poll import READ, Poll
from echod.net.networks import Network
from echod.supervisor.timers import Timers

PAUSE_SECONDS: Final = 0.02
"""Pause after notifications. Those that arrive meanwhile are handled together; the first one later, at once."""

_PAUSE_SECONDS_EACH: Final = 200e-6
"""A longer pause for each network: a change costs the supervisor, and each worker, 15 us of CPU for each."""

_LONGEST_RETRY_SECONDS: Final = 1.0

_log = structlog.get_logger()


class OwnAddresses:
    """The addresses and prefixes of this host."""

    def __init__(self, poll: Poll, timers: Timers, on_change: Callable[[], None]) -> None:
        """Know nothing yet. After `start`, `on_change` is called when `networks` has changed."""
        self.networks: tuple[Network, ...] = ()
        self._poll, self._timers, self._on_change = poll, timers, on_change
        self._addresses: LocalAddresses | None = None
        self._logged = ""

    def start(self, passed: socket.socket | None, adopted: Iterable[socket.socket], now: float) -> None:
        """Read the addresses, now and at each notification, through the passed netlink socket or one opened here.

        `adopted` are the passed listening sockets.
        """
        addresses = LocalAddresses(passed)
        if not all(map(addresses.belongs_to, adopted)):
            self._log_problem(OTHER_NAMESPACE)
            addresses.unsubscribe()
        elif addresses.fileno() < 0:
            self._log_problem(addresses.problem)
        else:
            self._addresses = addresses
            self._read(addresses, now)

    def close(self) -> None:
        """Leave the netlink group: a later change must not make systemd start echod again."""
        if self._addresses is not None:
            self._addresses.unsubscribe()

    def _on_notification(self, addresses: LocalAddresses, now: float) -> None:
        """Receive the notifications, read the addresses if any concerns them, and pause."""
        self._poll.unregister(addresses.fileno())
        self._receive(addresses, now)

    def _receive(self, addresses: LocalAddresses, now: float) -> None:
        if addresses.receive():
            self._read(addresses, now)
        else:
            self._pause(addresses, now)

    def _pause(self, addresses: LocalAddresses, now: float) -> None:
        """Pause until the next notifications are received, or until what has failed is tried again."""
        pause = max(PAUSE_SECONDS, _PAUSE_SECONDS_EACH * len(self.networks))
        if addresses.is_due:
            pause = max(pause, min(_LONGEST_RETRY_SECONDS, PAUSE_SECONDS * 2**addresses.failures))
            self._timers.at(now + pause, partial(self._read, addresses))
        else:
            self._timers.at(now + pause, partial(self._wait, addresses))

    def _wait(self, addresses: LocalAddresses, now: float) -> None:
        """Wait for notifications; without an epoll watch for that, receive those of each second."""
        try:
            self._poll.register(addresses.fileno(), READ, partial(self._on_notification, addresses))
        except OSError:
            self._timers.at(now + _LONGEST_RETRY_SECONDS, partial(self._receive, addresses))

    def _read(self, addresses: LocalAddresses, now: float) -> None:
        """Read the addresses from the kernel, and pause."""
        found = addresses.read()
        self._log_problem(addresses.problem)
        if found is not None:
            _log.debug("own_addresses", count=len(found))
            self.networks = found
            self._on_change()
        self._pause(addresses, now)

    def _log_problem(self, problem: str) -> None:
        """Log a problem once, when it appears."""
        if problem and problem != self._logged:
            _log.warning("own_addresses_unknown", message=problem)
        self._logged = problem
