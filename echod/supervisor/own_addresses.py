"""This host's own addresses, as the supervisor knows them: read when the kernel says that they may have changed.

Owns the last result, when the next look is due, and the one log entry if there is none. It decides nothing: rule 7 of
`Admission` does. Invariants: a host whose addresses cannot be read is still served, and its operator has been warned;
however often they change, looks take a bounded share of the time.
"""

import socket
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

import structlog

from echod.linux.netlink import ELSEWHERE, LocalAddresses
from echod.linux.poll import READ, Poll
from echod.net.networks import Network
from echod.supervisor.timers import Agenda

REST_SECONDS: Final = 0.02
"""After notifications, those of so much time are taken together. The first ones after a rest are acted on at once."""

_REST_SECONDS_EACH: Final = 200e-6
"""More rest for each network: a change costs the supervisor, and each worker, 15 us of CPU for each."""

_LONGEST_RETRY_SECONDS: Final = 1.0

_log = structlog.get_logger()


class Ownership:
    """The addresses and prefixes of this host."""

    def __init__(self, poll: Poll, agenda: Agenda, on_change: Callable[[], None]) -> None:
        """Know nothing yet. After `start`, `on_change` is called when `networks` has changed."""
        self.networks: tuple[Network, ...] = ()
        self._poll, self._agenda, self._on_change = poll, agenda, on_change
        self._addresses: LocalAddresses | None = None
        self._told = ""

    def start(self, passed: socket.socket | None, adopted: Iterable[socket.socket], now: float) -> None:
        """Look, from now on whenever there is news, through the passed netlink socket or one opened here.

        `adopted` are the passed listening sockets.
        """
        addresses = LocalAddresses(passed)
        if not all(map(addresses.belongs_to, adopted)):
            self._tell(ELSEWHERE)
            addresses.leave()
        elif addresses.fileno() < 0:
            self._tell(addresses.problem)
        else:
            self._addresses = addresses
            self._look(addresses)
            self._rest(addresses, now)

    def close(self) -> None:
        """Hear no more: a later change must not start echod again."""
        if self._addresses is not None:
            self._addresses.leave()

    def _on_news(self, addresses: LocalAddresses, now: float) -> None:
        """Take the notifications, and look if they concern own addresses; then rest."""
        self._poll.unregister(addresses.fileno())
        self._hear(addresses, now)

    def _hear(self, addresses: LocalAddresses, now: float) -> None:
        if addresses.hear():
            self._look(addresses)
        self._rest(addresses, now)

    def _try_again(self, addresses: LocalAddresses, now: float) -> None:
        self._look(addresses)
        self._rest(addresses, now)

    def _rest(self, addresses: LocalAddresses, now: float) -> None:
        """Wait a while until the next notifications are taken, or until what has failed is tried again."""
        rest = max(REST_SECONDS, _REST_SECONDS_EACH * len(self.networks))
        if addresses.is_due:
            rest = max(rest, min(_LONGEST_RETRY_SECONDS, REST_SECONDS * 2**addresses.failures))
            self._agenda.at(now + rest, partial(self._try_again, addresses))
        else:
            self._agenda.at(now + rest, partial(self._wait, addresses))

    def _wait(self, addresses: LocalAddresses, now: float) -> None:
        """Wait for news; while the host has no epoll watch left for that, read them now and then without."""
        try:
            self._poll.register(addresses.fileno(), READ, partial(self._on_news, addresses))
        except OSError:
            self._agenda.at(now + _LONGEST_RETRY_SECONDS, partial(self._hear, addresses))

    def _look(self, addresses: LocalAddresses) -> None:
        """Read the addresses from the kernel."""
        found = addresses.look()
        self._tell(addresses.problem)
        if found is not None:
            _log.debug("own_addresses", count=len(found))
            self.networks = found
            self._on_change()

    def _tell(self, problem: str) -> None:
        """Log a problem once, when it appears."""
        if problem and problem != self._told:
            _log.warning("own_addresses_unknown", message=problem)
        self._told = problem
