"""The two limits on TCP connections, exact over all workers without a lock.

Each worker records its connections in its own part of a shared ledger, as a keyed 64-bit hash of the source, and
counts over all parts. It records first and counts second, so two workers that accept at the same moment may both
refuse the last entry, but can never both take it. Owns the ledger; never closes anything.
"""

from hashlib import blake2b
from ipaddress import ip_address

from echod.net.peers import source_at
from echod.stats.counters import CounterPage, SlotField
from echod.stats.outcomes import Close


class ConnectionLedger:
    """The ledger as the worker of one slot sees it."""

    def __init__(self, page: CounterPage, slot: int, *, limit: int, limit_per_source: int, secret: bytes) -> None:
        """Take an empty slot of the page. `secret`, the same in all workers, prevents chosen hash collisions."""
        self._limit = limit
        self._limit_per_source = limit_per_source
        self._secret = secret
        self._headers = [page.header(number) for number in range(page.slots)]
        self._ledgers = [page.ledger(number) for number in range(page.slots)]
        self._header = self._headers[slot]
        self._ledger = self._ledgers[slot]
        self._free: list[int] = []

    def key(self, host: str, scope: int = 0) -> int:
        """Return the key of the source at an address (IPv6: with its scope id), as accept(2) returns it."""
        source = source_at(ip_address(host.partition("%")[0]).packed, scope)
        return int.from_bytes(blake2b(source, digest_size=8, key=self._secret).digest(), "little") or 1

    def enter(self, key: int) -> int:
        """Record a connection; return its place. Call `over_limit` next."""
        entry = self._free.pop() if self._free else self._header[SlotField.PLACES]
        self._ledger[entry] = key
        # Count the place only now: before, it may hold a stale key of a worker that died.
        if entry == self._header[SlotField.PLACES]:
            self._header[SlotField.PLACES] = entry + 1
        self._header[SlotField.CONNECTIONS] += 1
        return entry

    def leave(self, entry: int) -> None:
        """Remove a connection."""
        self._ledger[entry] = 0
        self._header[SlotField.CONNECTIONS] -= 1
        self._free.append(entry)

    @property
    def connections(self) -> int:
        """Return how many connections are open in all workers."""
        return sum(header[SlotField.CONNECTIONS] for header in self._headers)

    def over_limit(self, key: int) -> Close | None:
        """Return the limit that the connection just entered exceeds, if any."""
        if self.connections > self._limit:
            return Close.OVER_LIMIT
        wanted = key.to_bytes(8, "little")
        same = sum(
            ledger[: header[SlotField.PLACES]].tobytes().count(wanted)
            for header, ledger in zip(self._headers, self._ledgers, strict=True)
        )
        return Close.OVER_SOURCE_LIMIT if same > self._limit_per_source else None
