"""Sessions: what was counted for each client of a measuring mode.

Owns the counts and when they are forgotten. It knows no packet. Invariant: at most MOST sessions are remembered, and
one that is in use is forgotten only when half as many others were used after it, or half of MOST_OF_SOURCE others of
its own source: nobody alone can make a listener forget the sessions of others.
"""

from collections.abc import Sequence
from typing import Final

from echod.net.peers import PEER4_BYTES, PEER6_BYTES, source_of

MOST: Final = 16_384
"""Sessions of a listener and worker. They take 7 MiB; a client that was forgotten begins anew, and sees that."""

MOST_OF_SOURCE: Final = 512
"""Sessions of one source: an address has 65,535 ports, and each of them as many SSIDs."""

WAIT_SECONDS: Final = 900.0
"""A session that is idle for so long to twice as long is over: REFWAIT of RFC 5357, 4.2."""


class Session:
    """One session: the requests that were received, and those of them whose reply could not be sent."""

    __slots__ = ("failed", "received")

    def __init__(self) -> None:
        """Begin at zero."""
        self.received = self.failed = 0


class Sessions:
    """The sessions of one listener in one worker."""

    def __init__(self, most: int = MOST) -> None:
        """Remember at most so many."""
        self._half = max(1, most // 2)
        self._recent: dict[bytes, Session] = {}
        self._older: dict[bytes, Session] = {}
        """Those that were not used since the last turn."""
        self._recent_of: dict[bytes, list[bytes]] = {}
        self._older_of: dict[bytes, list[bytes]] = {}
        """The keys of each source: all that are recent, and those that were when they became older."""
        self._turn_at = 0.0

    def find(self, keys: Sequence[bytes], now: float) -> list[Session]:
        """Return the session of each key, in their order; one that is not remembered begins.

        A key is what identifies a session: its peer, and behind it more where the protocol has it.
        """
        if now >= self._turn_at:
            self._turn()
            self._turn_at = now + WAIT_SECONDS
        found = list(map(self._recent.get, keys))
        if all(found):
            return found  # type: ignore[return-value]  # no None is in it
        return [self._find(key) for key in keys]

    def _find(self, key: bytes) -> Session:
        session = self._recent.get(key)
        if session is None:
            session = self._older.pop(key, None) or Session()
            if len(self._recent) >= self._half or len(self) >= 2 * self._half:
                self._turn()
            source = source_of(key if len(key) >= PEER6_BYTES else key[:PEER4_BYTES])
            if len(self._recent_of.get(source, ())) >= MOST_OF_SOURCE // 2:
                self._turn_source(source)
            self._recent_of.setdefault(source, []).append(key)
            self._recent[key] = session
        return session

    def _turn(self) -> None:
        """Forget what was not used since the last turn."""
        self._older, self._recent = self._recent, {}
        self._older_of, self._recent_of = self._recent_of, {}

    def _turn_source(self, source: bytes) -> None:
        """Forget of one source what was not used since its last turn."""
        for key in self._older_of.get(source, ()):
            self._older.pop(key, None)
        self._older_of[source] = keys = self._recent_of.pop(source)
        for key in keys:
            self._older[key] = self._recent.pop(key)

    def __len__(self) -> int:
        """Return how many are remembered."""
        return len(self._recent) + len(self._older)


def count_train(session: Session, requests: int) -> range:
    """Count so many requests of one session; return their numbers in it, from 1."""
    first = session.received + 1
    session.received += requests
    return range(first, first + requests)


def count_requests(sessions: Sequence[Session]) -> list[int]:
    """Count one request of each of these sessions; return its number in its session, from 1.

    A session may be there more than once.
    """
    numbers = []
    for session in sessions:
        session.received = number = session.received + 1
        numbers.append(number)
    return numbers
