"""Echo on one TCP listener: accept, within the limits; drain. `Connections` moves the bytes.

Owns accepting from the listener. Never blocks, never logs, never raises for what a peer does. Invariant: every accepted
connection is passed to `Connections`, or was closed and counted as exactly one `Close`.
"""

import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, Final

from echod.admission.rules import Access
from echod.linux.accept import ACCEPT_PAUSE_SECONDS, CONNECTION_ERRORS
from echod.linux.poll import READ, SHARED, Poll
from echod.linux.sockets import TCP_BACKLOG, Buffers, set_buffers
from echod.stats.counters import TcpField
from echod.stats.outcomes import Close
from echod.stats.refusals import Tally
from echod.tcp.connections import Connections, IoBuffers, Timeouts
from echod.tcp.limits import ConnectionLedger

MAX_ACCEPTS_PER_WAKEUP: Final = 16

LARGE_BUFFER_CONNECTIONS: Final = 64
"""As many, of all workers together, have LARGE_BUFFERS; each further one has SMALL_BUFFERS."""

SMALL_BUFFERS: Final = Buffers(receive=128 * 1024, send=128 * 1024)
"""Peers that do not read could pin gigabytes of LARGE_BUFFERS."""


class TcpEcho:
    """One TCP listener of a worker, with the connections accepted from it."""

    def __init__(  # noqa: PLR0913 - each is a part that the worker owns and shares out
        self,
        listener: socket.socket,
        *,
        poll: Poll,
        io: IoBuffers,
        access: Access,
        ledger: ConnectionLedger,
        row: memoryview,
        tally: Tally,
        timeouts: Timeouts,
        test_port: int | None = None,
        connections: Callable[..., Connections] = Connections,
    ) -> None:
        """Share the worker's poll, I/O buffers, access lists and ledger.

        Count into this listener's row, and count refusals into its tally. Self tests come from `test_port`;
        `connections` makes those of its mode.
        """
        self._poll = poll
        self.connections = connections(io=io, row=row, timeouts=timeouts, on_close=self._on_close)
        self._row = row
        self._listener: socket.socket | None = listener
        self._access = access
        self._ledger = ledger
        self._tally = tally
        self._test_port = test_port
        self._paused_until: float | None = None
        poll.register(self.connections.epoll.fileno(), READ, self.connections.on_readable)

    # -- accepting

    def listen(self, now: float) -> None:
        """Start, or resume, waiting for connections; where the host has no epoll watch left for that, after a pause."""
        self._paused_until = None
        if self._listener is not None:
            try:
                self._poll.register(self._listener.fileno(), SHARED, self.on_acceptable)
            except OSError:
                self._row[TcpField.ACCEPT_FAILED] += 1
                self._paused_until = now + ACCEPT_PAUSE_SECONDS

    def on_acceptable(self, now: float, most: int = MAX_ACCEPTS_PER_WAKEUP) -> None:
        """Accept from the backlog, at most `most` connections."""
        for _ in range(most):
            if self._listener is None:
                return
            try:
                sock, address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in CONNECTION_ERRORS:
                    continue
                # While the listener stays ready in the poll, the loop would spin.
                self._row[TcpField.ACCEPT_FAILED] += 1
                self._poll.unregister(self._listener.fileno())
                self._paused_until = now + ACCEPT_PAUSE_SECONDS
                return
            sock.setblocking(False)
            self._take(sock, address, now)

    def _take(self, sock: socket.socket, address: tuple[Any, ...], now: float) -> None:
        """Take a connection on, or close it at once if its source is refused or a limit is reached."""
        host, port = address[:2]
        self._row[TcpField.ACCEPTED] += 1
        # Only this host itself can complete a handshake whose two addresses are the same.
        self_test = port == self._test_port and sock.getsockname()[0] == host
        if not (self_test or self._access.admits(host)):
            self._refuse(sock, host, Close.ACCESS)
            return
        key = self._ledger.key(host, *address[3:])
        entry = self._ledger.enter(key)
        refusal = self._ledger.over_limit(key)
        if refusal is None:
            if self._ledger.connections > LARGE_BUFFER_CONNECTIONS:
                set_buffers(sock, SMALL_BUFFERS, shrink=True)
            try:
                self.connections.add(sock, entry, now, self_test=self_test)
            except OSError:
                refusal = Close.NO_MEANS
        if refusal is not None:
            self._ledger.leave(entry)
            self._refuse(sock, host, refusal)

    def _refuse(self, sock: socket.socket, host: str, refusal: Close) -> None:
        """Close a connection that was not taken on."""
        self._row[TcpField.CLOSED + refusal] += 1
        self._tally.add(refusal, ip_address(host.partition("%")[0]).packed, 1)
        sock.close()

    def _on_close(self, entry: int) -> None:
        """Remove an entry; the resources that this frees may be enough to accept again."""
        self._ledger.leave(entry)
        if self._paused_until is not None:
            self.listen(self._paused_until)  # if that fails, it pauses again

    # -- time

    def drain(self, now: float, until: float) -> None:
        """Accept what is in the backlog, then no more, and end all connections, the last at `until`."""
        if self._listener is not None:
            if self._paused_until is None:
                self.on_acceptable(now, TCP_BACKLOG)
            if self._paused_until is None:
                self._poll.unregister(self._listener.fileno())
            self._listener.close()
            self._listener = None
        self._paused_until = None
        self.connections.drain(now, until)

    def next_deadline(self) -> float | None:
        """Return the monotonic time, in seconds, when `on_deadline` has something to do."""
        times = (self._paused_until, self.connections.next_deadline())
        return min((time for time in times if time is not None), default=None)

    def on_deadline(self, now: float) -> None:
        """End the connections that have timed out; resume accepting after a pause."""
        if self._paused_until is not None and now >= self._paused_until:
            self.listen(now)
        self.connections.on_deadline(now)
