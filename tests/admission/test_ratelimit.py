"""echod.admission.ratelimit: a source gets its burst and its rate, all sources together theirs, in bounded memory."""

import mmap
import os
import struct
from collections.abc import Callable
from math import inf, nan
from random import Random
from time import monotonic

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echod.admission.ratelimit import RateLimit, _Allowance

SOURCE, OTHER = b"\xc0\x00\x02\x01", b"\xc0\x00\x02\x02"
UPTIMES = [0.0, 1e3, 1e5, 1e6, 1e7, 1e8]
"""Seconds since the clock began; the last is three years."""

RANDOM = Random(20_261_121)  # noqa: S311 - no secret: the same in each run


def memory(sources: int = 1024) -> memoryview:
    """Make the memory that workers share."""
    return memoryview(bytearray(RateLimit.size(sources)))


def limit(  # noqa: PLR0913 - each is a part of the config
    per_source: int | None = None,
    burst: int = 1,
    total: int | None = None,
    *,
    sources: int = 1024,
    over: memoryview | None = None,
    slip: Callable[[], bool] | None = None,
    dry_run: bool = False,
) -> RateLimit:
    """Lay a table over memory of its own, or over that of another."""
    buffer = memory(sources) if over is None else over
    return RateLimit(
        buffer, sources=sources, per_source=per_source, burst=burst, total=total, slip=slip, dry_run=dry_run
    )


# -- the rate of one source


@pytest.mark.parametrize("uptime", UPTIMES)
@pytest.mark.parametrize(("rate", "burst"), [(1, 1), (1, 5), (3, 1), (1000, 1), (1000, 10), (100_000, 256)])
def test_a_source_gets_its_burst_and_then_its_rate(uptime: float, rate: int, burst: int) -> None:
    """At once it gets its burst and no more; after each interval one more, not sooner; after a long rest, the burst.

    It holds whenever the clock began: with a rounding at each step it would be one less, or none at a burst of one.
    """
    for _ in range(20):
        bucket, now = limit(rate, burst), uptime + RANDOM.random() * 1000
        assert sum(bucket.take(SOURCE, 1, now) for _ in range(burst + 5)) == burst
        for interval in range(1, 6):
            assert bucket.take(SOURCE, 1, now + (interval - 0.25) / rate) == 0
            assert bucket.take(SOURCE, 1, now + interval / rate) == 1
            assert bucket.take(SOURCE, 1, now + interval / rate) == 0
        assert bucket.take(SOURCE, 2 * burst + 5, now + (burst + 6) / rate) == burst


@pytest.mark.parametrize("uptime", UPTIMES)
@pytest.mark.parametrize(("rate", "train", "pause"), [(1000, 1, 1 / 4000), (100_000, 64, 1 / 4000), (7, 1, 0.01)])
def test_a_source_that_is_too_loud_is_held_to_its_rate(uptime: float, rate: int, train: int, pause: float) -> None:
    """Over 20,000 tries at several times the rate it gets its rate to 0.1 %, also three years after the clock began."""
    burst = 64
    bucket = limit(rate, burst)
    got = sum(bucket.take(SOURCE, train, uptime + step * pause) for step in range(20_000))
    due = rate * 19_999 * pause
    assert due * 0.999 <= got - burst <= due * 1.001 + 1


def test_sources_do_not_pay_for_one_another() -> None:
    """One that has spent its burst leaves all of its own to another."""
    bucket = limit(1, 3)
    assert [bucket.take(source, 5, 100.0) for source in (SOURCE, SOURCE, OTHER, SOURCE, OTHER)] == [3, 0, 3, 0, 0]


def test_without_a_limit_everything_passes() -> None:
    """Neither rate set: nothing is refused, and nothing remembered."""
    over = memory()
    bucket = limit(None, over=over)
    assert bucket.take(SOURCE, 10**6, 100.0) == 10**6
    assert bucket.take_each([SOURCE] * 1000, 100.0) == []
    assert not any(over)


# -- the rate of all together


def test_all_sources_together_are_held_to_the_total() -> None:
    """A thousand unknown sources share one account, which a tenth of a second fills."""
    bucket = limit(None, 1, 1000)
    got = sum(bucket.take(source.to_bytes(4, "big"), 1, 100.0) for source in range(1000))
    assert got == 100
    assert sum(bucket.take(source.to_bytes(4, "big"), 1, 100.01) for source in range(1000)) == 10


def test_the_total_lets_the_burst_of_one_source_pass() -> None:
    """Where a tenth of a second would be less than a burst, a burst may come at once all the same."""
    assert limit(None, 50, 10).take(SOURCE, 100, 100.0) == 50


def test_the_total_is_paid_after_the_source() -> None:
    """What the source cannot pay costs the others nothing."""
    bucket = limit(1, 5, 100)
    assert bucket.take(SOURCE, 1000, 100.0) == 5
    assert bucket.take(OTHER, 1000, 100.0) == 5


def test_where_the_total_is_short_the_last_of_a_batch_are_refused() -> None:
    """Of eight, one is over its own limit; with room for five in all, the last two are refused with it."""
    each = [SOURCE, SOURCE, SOURCE, OTHER, b"a", b"b", b"c", b"d"]
    assert limit(1, 2, 1000).take_each(each, 100.0) == [2]
    assert limit(1, 2, 50).take_each(each, 100.0) == [2, 6, 7]


# -- the slip: on credit, so that the rate stays the rate


def by_chance(one_in: int) -> Callable[[], bool]:
    """Return what says yes once in so many calls, at random."""
    random = Random(one_in).random  # noqa: S311 - the same in each run
    return lambda: random() < 1 / one_in


@pytest.mark.parametrize("train", [1, 41])
@pytest.mark.parametrize("total", [None, 1000])
@pytest.mark.parametrize("slip", [None, 1, 8, 1000])
def test_a_forged_source_gets_its_rate_and_no_more(slip: int | None, total: int | None, train: int) -> None:
    """At 41 times its rate for two seconds: what is due, its burst, and on credit at most its burst again."""
    bucket = limit(1000, 256, total, slip=by_chance(slip) if slip else None)
    got = sum(bucket.take(SOURCE, train, 100.0 + step * train / 41_000) for step in range(82_000 // train))
    assert 2000 <= got <= 2000 + (512 if slip else 256)
    assert (bucket.slipped > 0) == (slip is not None)


@pytest.mark.parametrize("slip", [None, 8])
def test_nothing_slips_through_the_total(slip: int | None) -> None:
    """Of 40,000 sources a second, each within its own limit or one over it, all together get the total."""
    bucket = limit(1, 1, 1000, slip=by_chance(slip) if slip else None)
    got = refused = 0
    for step in range(2000):
        sources = [(step * 10 + number // 4).to_bytes(4, "big") for number in range(40)]
        over = bucket.take_each(sources, 100.0 + step / 1000)
        got, refused = got + 40 - len(over), refused + len(over)
    assert got + refused == 80_000
    assert 2000 <= got <= 2000 + 100


@pytest.mark.parametrize(
    ("times", "slip", "least", "most"),
    [(1, 8, 0.1, 0.3), (4, 8, 0.1, 0.3), (40, 8, 0.015, 0.04), (1, None, 0.0, 0.01)],
)
def test_a_forger_cannot_silence_the_source_that_it_forges(
    times: int, slip: int | None, least: float, most: float
) -> None:
    """One in eight is heard of who shares an account with a forger; with one who sends 40 times the rate, one in 40.

    Without slip none is, but for the burst, where a forged one comes just before each honest datagram.
    """
    bucket, forged, honest, collected = limit(1000, 16, slip=by_chance(slip) if slip else None), 10 * times, 2000, 0
    for step in range(honest):
        behind = RANDOM.randrange(forged)
        for number in range(forged):
            at = 100.0 + step / 100 + number / (100 * forged)
            bucket.take(SOURCE, 1, at)
            collected += bucket.take(SOURCE, 1, at) if number == behind else 0
    assert least <= collected / honest <= most


def test_what_was_answered_on_credit_is_missing_later() -> None:
    """An account overdrawn by its burst is even again after two bursts' time, and as if nothing had been."""
    bucket = limit(10, 20, slip=lambda: True)
    assert bucket.take(SOURCE, 100, 100.0) == 40
    assert bucket.slipped == 20
    assert bucket.take_each([SOURCE] * 3, 100.2) == [2]
    assert bucket.slipped == 22
    assert bucket.take(SOURCE, 100, 104.2) == 40
    assert limit(10, 20, slip=lambda: True).take_each([SOURCE] * 50, 100.0) == list(range(40, 50))


def test_in_a_dry_run_nothing_is_refused_and_what_would_have_been_is_counted() -> None:
    """Without slip: neither of a source nor of the total, one by one, in trains and in batches."""
    bucket = limit(10, 20, 300, slip=lambda: True, dry_run=True)
    assert bucket.take(SOURCE, 50, 100.0) == 50
    assert bucket.slipped == 30
    assert bucket.take_each([SOURCE] * 5 + [OTHER], 100.0) == []
    assert bucket.slipped == 35
    assert bucket.take_each([number.to_bytes(4, "big") for number in range(100)], 100.0) == []
    assert bucket.slipped == 35 + 100 - (30 - 21)


# -- one by one, in a batch, in several workers


TURNS = st.lists(
    st.tuples(st.integers(0, 8).map(lambda eighths: eighths / 8), st.lists(st.sampled_from([b"a", b"b", b"c"]))),
    max_size=12,
)


@settings(deadline=None)
@given(
    per_source=st.sampled_from([None, 1, 2, 4]),
    burst=st.integers(1, 5),
    total=st.sampled_from([None, 8, 64]),
    slip=st.sampled_from([0, 1, 2]),
    turns=TURNS,
)
def test_a_batch_is_charged_as_its_datagrams_one_by_one(
    per_source: int | None, burst: int, total: int | None, slip: int, turns: list[tuple[float, list[bytes]]]
) -> None:
    """Whatever came before, `take_each` refuses the very datagrams that `take` refuses one after the other."""
    together, single = (limit(per_source, burst, total, slip=by_chance(slip) if slip else None) for _ in range(2))
    now = 1000.0
    for pause, sources in turns:
        now += pause
        expected = [index for index, source in enumerate(sources) if not single.take(source, 1, now)]
        assert together.take_each(sources, now) == expected
        assert together.slipped == single.slipped


@settings(deadline=None)
@given(trains=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 70)), max_size=12), burst=st.integers(1, 64))
def test_a_train_is_charged_as_its_datagrams(trains: list[tuple[int, int]], burst: int) -> None:
    """A train of n gets what n datagrams get that come at the same moment."""
    together, single, now = limit(4, burst, 64), limit(4, burst, 64), 1000.0
    for eighths, datagrams in trains:
        now += eighths / 8
        assert together.take(SOURCE, datagrams, now) == sum(single.take(SOURCE, 1, now) for _ in range(datagrams))


def test_workers_hold_the_limits_together() -> None:
    """Two tables over one memory, as two workers have them, answer a source, and all, no more than one would."""
    over = memory()
    workers = [limit(10, 20, 300, over=over) for _ in range(2)]
    assert sum(workers[step % 2].take(SOURCE, 1, 100.0) for step in range(100)) == 20
    assert workers[0].take_each([SOURCE] * 5, 100.0) == [0, 1, 2, 3, 4]
    assert sum(workers[step % 2].take(SOURCE, 1, 101.0) for step in range(100)) == 10
    got = sum(workers[step % 2].take(step.to_bytes(4, "big"), 1, 200.0) for step in range(100))
    assert got == 30


class Meddled(list[float]):
    """An account of which another worker takes something just after it was read, so many times."""

    def __init__(self, account: float, taken: float, times: int = 1) -> None:
        """Begin with this account."""
        super().__init__([account])
        self.taken, self.times = taken, times

    def __getitem__(self, place: int) -> float:  # type: ignore[override]
        """Read it, and take."""
        account = super().__getitem__(place)
        if self.times:
            self.times -= 1
            self[place] = account + self.taken
        return account


def charge(even: Meddled, datagrams: int) -> tuple[int, float]:
    """Charge the account at 100 s, with one a second and a burst of ten; return what is allowed, and the account."""
    within = _Allowance(1.0, 10.0, 2 * (10.0)).charge(even, 0, datagrams, 100.0)  # type: ignore[arg-type]
    return within, next(iter(even))


def test_what_another_worker_charges_meanwhile_is_not_given_back() -> None:
    """Neither where nothing is allowed, nor where something is: then it is reckoned anew, with what the other took."""
    assert charge(Meddled(110.0, 5.0), 1) == (0, 115.0)
    assert charge(Meddled(104.0, 3.0), 2) == (2, 109.0)
    assert charge(Meddled(104.0, 4.0), 9) == (2, 110.0)
    assert charge(Meddled(104.0, 6.0), 1) == (0, 110.0)


def test_a_worker_does_not_try_for_ever() -> None:
    """However busy the others are, it has decided after a few attempts."""
    within, account = charge(Meddled(0.0, 0.5, times=1000), 1)
    assert (within, account) == (1, 101.0)


def test_workers_at_the_same_instant_hold_the_limit_together() -> None:
    """Two processes that charge one account as fast as they can get its rate, and not a quarter more."""
    rate, seconds = 5000, 0.5
    over = memoryview(mmap.mmap(-1, RateLimit.size(1024)))
    got = memoryview(mmap.mmap(-1, 16)).cast("q")
    began, children = monotonic(), []
    for worker in range(2):
        child = os.fork()
        if child == 0:
            bucket, end = limit(rate, rate // 10, over=over), monotonic() + seconds
            while (now := monotonic()) < end:
                got[worker] += bucket.take(SOURCE, 1, now)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    # One that is put to sleep between its last look and its write gives back what the other has charged meanwhile.
    assert 0 < sum(got) <= 1.25 * rate * (monotonic() - began + 0.1)


# -- the table


def test_the_top_source_is_never_forgotten_and_no_new_source_is_refused() -> None:
    """Among 100,000 others in a table of 1,024 a source is held to its rate, and each of the others is replied to."""
    bucket = limit(10, 10)
    got = bucket.take(SOURCE, 10, 100.0)
    for number in range(100_000):
        now = 100.0 + number * 1e-5
        assert bucket.take(b"\x0a" + RANDOM.randbytes(3), 1, now) == 1
        if number % 100 == 0:
            got += len([SOURCE]) - len(bucket.take_each([SOURCE], now))
    assert 19 <= got <= 20


def test_a_new_source_takes_the_entry_of_one_whose_account_is_balanced() -> None:
    """In a table of one place the last to come is remembered, and one that was forgotten begins anew."""
    bucket = limit(1, 2, sources=1)
    assert bucket.take(SOURCE, 5, 100.0) == 2
    assert bucket.take(SOURCE, 5, 100.0) == 0
    assert bucket.take(OTHER, 5, 200.0) == 2
    assert bucket.take(SOURCE, 5, 200.0) == 2


def test_two_places_are_enough_for_two_sources() -> None:
    """Whichever they are: the places that a source may have are two, so no source is forgotten for the other."""
    for number in range(100):
        bucket, both = limit(1, 1, sources=2), [b"%d" % number, b"and %d" % number]
        assert bucket.take_each(both, 100.0) == []
        assert bucket.take_each(both, 100.0) == [0, 1]


@pytest.mark.parametrize(("sources", "places"), [(1, 1), (2, 2), (3, 4), (1024, 1024), (1025, 2048), (65_536, 65_536)])
def test_the_table_has_a_size(sources: int, places: int) -> None:
    """Sixteen bytes for each of the next power of two, and a cache line for all together: nothing lies beyond."""
    size = RateLimit.size(sources)
    assert size == 64 + 16 * places
    memory = bytearray(size + 64)
    bucket = RateLimit(memoryview(memory), sources=sources, per_source=1, burst=1, total=1)
    bucket.take_each([RANDOM.randbytes(8) for _ in range(5000)], 100.0)
    assert not any(memory[size:])


@settings(deadline=None)
@given(
    sources=st.lists(st.binary(max_size=32), max_size=70),
    datagrams=st.integers(0, 2**40),
    now=st.floats(0, 1e9),
    places=st.sampled_from([1, 2, 1024]),
)
def test_no_source_and_no_time_is_too_odd(sources: list[bytes], datagrams: int, now: float, places: int) -> None:
    """Whatever bytes a source is of, whatever it asks at whatever time, it gets from nothing to what it asked."""
    bucket = limit(1000, 256, 10_000, sources=places)
    over = bucket.take_each(sources, now)
    assert over == sorted(set(over))
    assert not set(over) - set(range(len(sources)))
    for source in sources:
        assert 0 <= bucket.take(source, datagrams, now) <= min(datagrams, 256)


@pytest.mark.parametrize(
    ("total", "place", "most"),
    [(None, 64 + 8, 64.1), (10, 0, 62.1)],
    ids=["of a source: two bursts, an interval and a minute", "of all: a burst, an interval and a minute"],
)
def test_an_account_that_no_worker_has_written_starts_anew(total: int | None, place: int, most: float) -> None:
    """What a broken one wrote mutes nobody and frees nobody; up to the most that others write it is believed."""
    over = memory(1)
    bucket = limit(None if total else 10, 20, total, sources=1, over=over)
    written = [(100.0, 20), (100 + most - 0.01, 0), (100 + most + 0.01, 20)]
    for account, within in (*written, *((each, 20) for each in (nan, inf, -inf, 1e308, -1e308, 1e6))):
        bucket.take(SOURCE, 1, 100.0)
        over[place : place + 8] = struct.pack("d", account)
        assert bucket.take(SOURCE, 1000, 100.0) == within
        over[place : place + 8] = struct.pack("d", account)
        assert bucket.take_each([SOURCE] * 21, 100.0) == [*range(within, 21)]
        over[place : place + 8] = struct.pack("d", account)
        assert bucket.take_each([SOURCE], 100.0) == ([] if within else [0])


@pytest.mark.parametrize("behind", [1e-6, 0.001, 1.0, 59.0])
@pytest.mark.parametrize("slip", [None, lambda: True])
def test_a_worker_whose_clock_is_behind_gives_nothing_back(behind: float, slip: Callable[[], bool] | None) -> None:
    """Each reads the clock once a turn: an account that another has just filled is full, and no broken one."""
    page = memoryview(bytearray(RateLimit.size(4)))
    ahead, late = (
        RateLimit(page, sources=4, per_source=1000, burst=100, total=20_000, slip=slip, dry_run=False) for _ in range(2)
    )
    for number in range(200):
        ahead.take(b"%d" % number, 1000, 100.0)
    ahead.take(SOURCE, 1000, 100.0)
    assert late.take(SOURCE, 1000, 100.0 - behind) == 0
    assert late.take_each([SOURCE, OTHER, b"another"], 100.0 - behind) == [0, 1, 2]
