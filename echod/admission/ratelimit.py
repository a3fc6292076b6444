"""The rate limit of each source: a bounded table, shared by all workers without a lock.

The algorithm is GCRA, in the virtual scheduling form (ITU-T I.371; ATM Forum TM 4.0): for each source its theoretical
arrival time (TAT) is stored, at which its account will be balanced again. Owns the layout of the table; the memory, the
time and the chance are passed in.

The slip: a forger who spends the account of a source must not silence it. So a datagram over the limit is still
answered if chance says so, on credit: it is charged like any other, to an account that may be overdrawn by one more
burst. What is answered so is missing later, so a source gets its rate and no more. While a forger sends less than the
rate divided by that chance, there is always credit. One that sends more spends it too, and then each datagram has the
same chance, whatever its sender. The total has no slip: it protects this host and its network from all sources.

Invariant: in any period a source is answered at most twice its burst and its rate, without slip once its burst, and all
together at most the total and its burst; except if the source was forgotten, or if two workers write within the same
tenth of a microsecond. Two workers that charge one account in a tight loop stay within 1% of its rate.

The table is set-associative: a source has two places, chosen by a keyed hash (Python's, of bytes: SipHash, with a key
of this process), so no peer can choose the place of another source. If both are taken, the source whose account is
nearer to balance is forgotten: the source that sends most is never forgotten, a new source is never refused, and a
balanced account loses nothing.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

_PLACE_BYTES: Final = 16
_HEADER_BYTES: Final = 64
"""The account of all sources together, on its own cache line."""

_SECOND_PLACE: Final = 24
"""Bits of the hash that the first place, of at most 22 bits, does not use."""

_ROUNDING: Final = 1 / 16
"""Allowed for rounding, as a part of an interval: a year after its start, a clock has a resolution of 4 ns."""

_LONGEST_TURN: Final = 60.0
"""Seconds: no turn of a worker, which reads the clock once for each, is longer. So the clock of one worker is never
further ahead of that of another."""

_TRIES: Final = range(4)
"""Attempts to charge an account that other workers charge at the same time."""


@dataclass(frozen=True, slots=True)
class _Allowance:
    """The increment and the limit of GCRA, in seconds."""

    interval: float
    """From one datagram to the next."""
    tolerance: float
    """How far the TAT may be ahead of the clock."""
    most: float
    """Seconds: no worker writes an account that is further ahead. One that is was written by a broken worker, and
    starts anew."""

    def charge(self, tat: "memoryview[float]", place: int, datagrams: int, now: float) -> int:
        """Charge one account; return how many of the datagrams it allows.

        Nothing is written where nothing is allowed, and nothing over what another worker has written meanwhile: either
        would give back to the source what that worker has charged.
        """
        for _ in _TRIES:
            before = tat[place]
            time = before if now < before <= now + self.most else now
            within = int((now + self.tolerance - time) / self.interval + _ROUNDING)
            if within <= 0:
                return 0
            if within > datagrams:  # noqa: PLR1730 - a call costs as much as all the rest
                within = datagrams
            time += within * self.interval
            if tat[place] == before:
                break
        tat[place] = time
        return within


class RateLimit:
    """Datagrams a second, for each source and for all together, None for no limit; `burst` may come at once."""

    def __init__(  # noqa: PLR0913 - each is a part of what the operator can set
        self,
        buffer: memoryview,
        *,
        sources: int,
        per_source: int | None,
        burst: int,
        total: int | None,
        slip: Callable[[], bool] | None = None,
        dry_run: bool = False,
    ) -> None:
        """Lay the table over a zeroed, writable buffer of `size(sources)` bytes, the same in all workers.

        `slip` tells by chance whether a datagram over the limit of its source may be answered on credit; None: none
        may. In a dry run nothing is refused, and there is no credit.
        """
        places = _places(sources)
        octets = buffer.cast("B")
        tables = octets[_HEADER_BYTES : _HEADER_BYTES + _PLACE_BYTES * places]
        self._mask = places - 1
        self._names = tables[: 8 * places].cast("q")
        self._tat = tables[8 * places :].cast("d")
        self._total_tat = octets[:_HEADER_BYTES].cast("d")
        self._each = self._credit = None
        if per_source is not None:
            interval, burst_seconds = 1 / per_source, burst / per_source
            most = 2 * burst_seconds + interval + _LONGEST_TURN
            self._each = _Allowance(interval, burst_seconds, most)
            self._credit = _Allowance(interval, 2 * burst_seconds, most)
        self._slip = None if dry_run else slip
        self._dry_run = dry_run
        self.slipped = 0
        """Datagrams over a limit that were answered, since the start."""
        # The burst of all sources is a tenth of a second's datagrams, but not less than that of a single source.
        self._total = None
        if total is not None:
            tolerance = max(burst / total, 0.1)
            self._total = _Allowance(1 / total, tolerance, tolerance + 1 / total + _LONGEST_TURN)

    @staticmethod
    def size(sources: int) -> int:
        """Return the bytes of a table for this number of sources."""
        return _HEADER_BYTES + _PLACE_BYTES * _places(sources)

    def take(self, source: bytes, datagrams: int, now: float) -> int:
        """Charge a source for datagrams; return how many of them may be answered."""
        within = offered = datagrams
        if self._each is not None:
            offered = within = self._each.charge(self._tat, self._place(hash(source)), datagrams, now)
            if self._slip is not None and within < datagrams:
                offered += self._lend(source, datagrams - within, now)
        answered = self._take_total(offered, now) if self._total is not None else offered
        if self._dry_run:
            self.slipped += datagrams - answered
            return datagrams
        if answered > within:  # the total refuses the last ones
            self.slipped += answered - within
        return answered

    def take_each(self, sources: Sequence[bytes], now: float) -> list[int]:
        """Charge each source for one datagram; return the indices of those that may not be answered."""
        over = self._find_over(self._each, sources, now) if self._each is not None else []
        refused = over
        if over and self._slip is not None:
            refused = [index for index in over if not self._lend(sources[index], 1, now)]
        offered = len(sources) - len(refused)
        short = offered - self._take_total(offered, now)
        if short:
            refused = sorted({*refused, *sorted(set(range(len(sources))).difference(refused))[-short:]})
        if self._dry_run:
            self.slipped += len(refused)
            return []
        if self._slip is not None and over:
            self.slipped += len(set(over).difference(refused))
        return refused

    def _lend(self, source: bytes, over: int, now: float) -> int:
        """Charge a source, on credit, for what chance chooses of datagrams over its limit; return how many."""
        slip = self._slip
        chosen = sum(slip() for _ in range(over)) if slip is not None else 0
        if not chosen or self._credit is None:
            return 0
        return self._credit.charge(self._tat, self._place(hash(source)), chosen, now)

    def _find_over(self, each: _Allowance, sources: Sequence[bytes], now: float) -> list[int]:
        """Do what `charge` does, in one loop: with limits, all traffic passes here."""
        if 2 * len(set(sources)) <= len(sources):
            return self._find_over_few(each, sources, now)
        names, tat, mask, interval = self._names, self._tat, self._mask, each.interval
        latest, most = now + each.tolerance - interval * (1 - _ROUNDING), now + each.most
        over = []
        for index, source in enumerate(sources):
            name = hash(source)
            place = name & mask
            if names[place] != name:
                place = self._place(name)
            time = tat[place]
            if not now <= time <= most:
                time = now
            if time > latest:
                over.append(index)
            else:
                tat[place] = time + interval
        return over

    def _find_over_few(self, each: _Allowance, sources: Sequence[bytes], now: float) -> list[int]:
        """Do the same source by source, if there are fewer sources than datagrams."""
        over: list[int] = []
        for source, datagrams in Counter(sources).items():
            within = each.charge(self._tat, self._place(hash(source)), datagrams, now)
            if within < datagrams:
                over += [index for index, one in enumerate(sources) if one == source][within:]
        return sorted(over)

    def _take_total(self, datagrams: int, now: float) -> int:
        if self._total is None:
            return datagrams
        return self._total.charge(self._total_tat, 0, datagrams, now)

    def _place(self, name: int) -> int:
        """Return the place of a source, allocated if it has none."""
        names, tat = self._names, self._tat
        first = name & self._mask
        second = (first ^ (name >> _SECOND_PLACE | 1)) & self._mask  # never the first: a new source needs two choices
        if names[first] == name:
            return first
        if names[second] == name:
            return second
        # A source that is forgotten starts with a balanced account, so forget the one that owes less.
        place = first if tat[first] <= tat[second] else second
        names[place], tat[place] = name, 0.0
        return place


def _places(sources: int) -> int:
    """Return the places of a table: the least power of two that is not below `sources`."""
    return 1 << (sources - 1).bit_length()
