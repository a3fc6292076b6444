"""echod.measurement.in_flight: what each thing that comes back makes of the probes in flight."""

from dataclasses import replace

import pytest

from echod.measurement.events import NEVER, Event, Kind, Moment
from echod.measurement.in_flight import Flight, Obstacle
from echod.measurement.payload import Payloads
from echod.measurement.round_trip import Arrival
from echod.measurement.statistics import Survey

SECOND = 10**9
WALL = 1_700_000_000 * SECOND
PEER = "192.0.2.1:7"


def at(clock: int, step: int = 0) -> Moment:
    """Return the moment of a monotonic time; the wall clock was set forward by `step`."""
    return Moment(wall=WALL + clock + step, clock=clock)


class Bench:
    """A flight whose probes go one each second, with the payloads that went."""

    def __init__(self, *sizes: int, sources: int = 1, history: int = 65_536) -> None:
        """Launch a probe of each size."""
        self.flight = Flight(Payloads(0xCAFE), timeout=10 * SECOND, history=history, offset=WALL)
        self.payloads = [b""]
        for number, size in enumerate(sizes, start=1):
            clock = number * SECOND
            payload = self.flight.payload(clock - 5, size)
            self.payloads.append(payload)
            assert self.flight.launch(payload, clock - 5, at(clock), source=number % sources) == number

    def arrival(self, data: bytes, after: int = 1000, **more: object) -> Arrival:
        """Return what arrives so many ns after the last probe went."""
        last = (len(self.payloads) - 1) * SECOND
        stamp, read = WALL + last + after, at(last + after + 50)
        arrival = Arrival(data=data, stamp=stamp, read=read, address=PEER, ttl=61)
        return replace(arrival, **more)  # type: ignore[arg-type]

    def land(self, data: bytes, after: int = 1000, **more: object) -> Event:
        """Let something arrive."""
        return self.flight.land(self.arrival(data, after, **more))


def test_a_whole_reply_settles_its_probe() -> None:
    """It has the probe's number and times, the kernel's round-trip time, and where it came from."""
    bench = Bench(56, 56)
    event = bench.land(bench.payloads[2])
    assert event == Event(
        kind=Kind.REPLY,
        time=WALL + 2 * SECOND + 1000,
        clock=2 * SECOND + 1000,
        sequence=2,
        settles=True,
        size=56,
        expected=56,
        sent=at(2 * SECOND),
        rtt=1000,
        address=PEER,
        ttl=61,
    )
    assert bench.flight.in_flight == 1
    assert bench.land(bench.payloads[1]).until == at(2 * SECOND)


def test_a_second_reply_is_a_duplicate() -> None:
    """It settles nothing."""
    bench = Bench(56)
    bench.land(bench.payloads[1])
    event = bench.land(bench.payloads[1], 5000)
    assert (event.kind, event.settles, event.before, event.rtt) == (Kind.DUPLICATE, False, Kind.REPLY, 5000)


def test_a_reply_is_late_by_its_own_time_not_by_the_readers() -> None:
    """Whoever reads it before he had given the probe up reads a late reply all the same."""
    bench = Bench(56)
    in_time = replace(bench.arrival(bench.payloads[1], 10 * SECOND - 1), read=at(99 * SECOND))
    assert bench.flight.land(in_time).kind is Kind.REPLY
    bench = Bench(56)
    event = bench.land(bench.payloads[1], 10 * SECOND)
    assert (event.kind, event.settles, event.before) == (Kind.LATE, True, None)


def test_a_probe_is_given_up_in_time_and_its_reply_is_late() -> None:
    """Lost until it comes; then it is late, and no longer lost. A second late one is a duplicate."""
    bench = Bench(56, 56)
    assert bench.flight.next_expiry() == 11 * SECOND
    assert bench.flight.expire(at(11 * SECOND - 1)) == []
    (lost,) = bench.flight.expire(at(11 * SECOND))
    assert (lost.kind, lost.sequence, lost.settles, lost.until) == (Kind.LOST, 1, True, at(2 * SECOND))
    (last,) = bench.flight.expire(at(12 * SECOND))
    assert last.until == NEVER
    assert (bench.flight.in_flight, bench.flight.next_expiry()) == (0, None)
    event = bench.land(bench.payloads[1], 20 * SECOND)
    assert (event.kind, event.settles, event.before) == (Kind.LATE, True, Kind.LOST)
    assert bench.land(bench.payloads[1]).kind is Kind.DUPLICATE


def test_a_clock_that_is_set_does_not_falsify_how_long_a_probe_was_waited_for() -> None:
    """The monotonic clock says it."""
    (lost,) = Bench(56).flight.expire(at(11 * SECOND, -3600 * SECOND))
    assert lost.rtt == 10 * SECOND


def test_at_the_end_less_patience_is_enough() -> None:
    """But never more than the timeout."""
    bench = Bench(56, 56)
    assert bench.flight.expire(at(2 * SECOND), SECOND + 1) == []
    assert [lost.sequence for lost in bench.flight.expire(at(2 * SECOND), SECOND)] == [1]
    assert [lost.sequence for lost in bench.flight.expire(at(12 * SECOND), 99 * SECOND)] == [2]


def test_settled_probes_do_not_expire() -> None:
    """What was answered is passed over."""
    bench = Bench(56, 56)
    bench.land(bench.payloads[1])
    assert bench.flight.expire(at(0)) == []
    assert bench.flight.next_expiry() == 12 * SECOND


def corrupted(payload: bytes, *offsets: int) -> bytes:
    """Flip bits in these bytes."""
    return bytes(byte ^ 0x55 if offset in offsets else byte for offset, byte in enumerate(payload))


@pytest.mark.parametrize("offsets", [(40, 41), (0,), (3,), (2, 3), (5,), (8, 9), (20,)])
def test_corruption_is_found_wherever_it_is_also_in_the_number(offsets: tuple[int, ...]) -> None:
    """The probe that it was is found by what is left of it, and the place is named."""
    bench = Bench(56, 56, 56)
    event = bench.land(corrupted(bench.payloads[2], *offsets))
    assert (event.kind, event.sequence) == (Kind.CORRUPT, 2)
    assert (event.offset, event.count) == (offsets[0], len(offsets))


def test_a_number_that_became_that_of_another_probe_is_told_from_it() -> None:
    """3 became 2 on the way: what follows the number is 3's."""
    bench = Bench(56, 56, 56)
    data = bench.payloads[2][:4] + bench.payloads[3][4:]
    event = bench.land(data)
    assert (event.kind, event.sequence, event.offset, event.count) == (Kind.CORRUPT, 3, 3, 1)


@pytest.mark.parametrize("length", [55, 24, 5, 4, 1, 0])
def test_a_reply_that_ends_early_is_truncated(length: int) -> None:
    """Also where nothing is left of it; then it is taken for the oldest in flight."""
    bench = Bench(56)
    event = bench.land(bench.payloads[1][:length])
    assert (event.kind, event.sequence, event.size, event.expected) == (Kind.TRUNCATED, 1, length, 56)
    assert (event.offset, event.count) == (length, 56 - length)


def test_a_reply_with_more_than_was_sent_is_extended() -> None:
    """All that was sent is there."""
    bench = Bench(56)
    event = bench.land(bench.payloads[1] + b"!!")
    assert (event.kind, event.sequence, event.offset, event.count) == (Kind.EXTENDED, 1, 56, 2)


def test_a_whole_copy_after_a_damaged_one_is_the_reply() -> None:
    """The damaged one settles the probe until then; a third is a duplicate, and damage after it settles nothing."""
    bench = Bench(56)
    assert bench.land(bench.payloads[1][:30]).settles
    assert not bench.land(bench.payloads[1][:31]).settles
    event = bench.land(bench.payloads[1])
    assert (event.kind, event.settles, event.before) == (Kind.REPLY, True, Kind.TRUNCATED)
    assert not bench.land(bench.payloads[1][:30]).settles
    assert bench.land(bench.payloads[1]).kind is Kind.DUPLICATE


def test_damage_after_it_was_given_up_takes_the_loss_back() -> None:
    """It was not lost: it came, damaged."""
    bench = Bench(56)
    bench.flight.expire(at(100 * SECOND))
    event = bench.land(bench.payloads[1][:30])
    assert (event.kind, event.settles, event.before) == (Kind.TRUNCATED, True, Kind.LOST)


def test_a_reply_from_elsewhere_is_no_answer() -> None:
    """It is named, and the probe is settled as such; the true reply still counts."""
    bench = Bench(56)
    event = bench.land(bench.payloads[1], asked=False, address="192.0.2.2:7")
    assert (event.kind, event.settles, event.address) == (Kind.DIFFERENT_ADDRESS, True, "192.0.2.2:7")
    assert bench.land(bench.payloads[1]).kind is Kind.REPLY


@pytest.mark.parametrize("data", [b"\xff" * 56, b"\xff" * 3, b"\xff" * 100, Payloads(0xF00).encode(1, WALL, 56)[:20]])
def test_what_no_probe_explains_is_foreign(data: bytes) -> None:
    """Random bytes, short ones too, and another run's probe are nobody's reply."""
    event = Bench(56, 56).land(data)
    assert (event.kind, event.sequence, event.rtt) == (Kind.UNMATCHED, None, None)


def test_without_anything_in_flight_nothing_is_explained() -> None:
    """Not even an empty datagram."""
    assert Bench().land(b"").kind is Kind.UNMATCHED


def test_small_probes_are_matched_by_the_low_end_of_their_number() -> None:
    """One byte of number: the oldest in flight with it; and after it the latest that was answered."""
    bench = Bench(*[1] * 258)
    assert [bench.land(b"\x02").sequence for _ in range(2)] == [2, 258]
    event = bench.land(b"\x02")
    assert (event.kind, event.sequence) == (Kind.DUPLICATE, 258)


def test_empty_probes_are_matched_in_their_order() -> None:
    """Nothing tells them apart, so the oldest in flight is answered first."""
    bench = Bench(0, 0)
    assert [bench.land(b"").sequence for _ in range(2)] == [1, 2]
    assert bench.land(b"").kind is Kind.DUPLICATE


def test_each_source_port_has_probes_of_its_own() -> None:
    """An empty reply to the second port is none to a probe of the first."""
    bench = Bench(0, 0, sources=2)
    assert bench.land(b"", source=0).sequence == 2


def test_what_is_forgotten_is_stale_if_it_says_so_itself() -> None:
    """Memory is bounded: of an old probe's whole reply only the payload's own time is known."""
    later = Bench(56, 56, 56, history=2)
    for number in (1, 2, 3):
        later.land(later.payloads[number])
    later.payloads.append(later.flight.payload(4 * SECOND, 56))
    later.flight.launch(later.payloads[4], 4 * SECOND, at(4 * SECOND))
    event = later.land(later.payloads[1])
    assert (event.kind, event.sequence, event.sent) == (Kind.STALE, 1, at(SECOND - 5))
    assert event.rtt == 3 * SECOND + 1005
    assert later.land(Payloads(0xCAFE).encode(9, WALL, 56)).kind is Kind.UNMATCHED


def test_what_waited_for_an_older_probe_is_forgotten_with_it() -> None:
    """One that is long in flight does not let the memory grow for good."""
    bench = Bench(56, 56, 56, 56, history=2)
    for number in (2, 3, 4, 1):
        bench.land(bench.payloads[number])
    bench.flight.launch(bench.flight.payload(0, 56), 0, at(5 * SECOND))
    assert [bench.land(bench.payloads[number]).kind for number in (3, 4)] == [Kind.STALE, Kind.DUPLICATE]


def test_what_is_in_flight_is_never_forgotten() -> None:
    """However many there are."""
    bench = Bench(56, 56, 56, 56, history=2)
    assert [bench.land(payload).kind for payload in bench.payloads[1:]] == [Kind.REPLY] * 4


@pytest.mark.parametrize(
    ("arrival", "rtt"),
    [
        ({}, 1000),
        ({"stamp": None}, 1050),
        ({"read": at(SECOND + 1050, SECOND)}, 1050),
        ({"read": at(SECOND + 1050, -SECOND)}, 1050),
    ],
)
def test_a_clock_that_is_set_does_not_falsify_the_round_trip(arrival: dict[str, object], rtt: int) -> None:
    """The kernel's stamp counts where there is one, and no step of the wall clock since the probe was sent."""
    bench = Bench(56)
    event = bench.land(bench.payloads[1], **arrival)
    assert (event.rtt, event.clock) == (rtt, SECOND + rtt)


def test_a_clock_that_is_set_does_not_falsify_what_is_stale() -> None:
    """The send times in all payloads are those of the clock as it was when the run began."""
    bench = Bench(56, 56, history=1)
    bench.land(bench.payloads[1])
    bench.flight.launch(bench.flight.payload(3 * SECOND, 56), 3 * SECOND, at(3 * SECOND, -3600 * SECOND))
    event = bench.land(bench.payloads[1], stamp=WALL - 3600 * SECOND, read=at(4 * SECOND, -3600 * SECOND))
    assert (event.kind, event.rtt) == (Kind.STALE, 3 * SECOND + 5)


def test_an_outage_and_what_was_overtaken_last_as_long_as_the_monotonic_clock_says() -> None:
    """Probes went each second, and the wall clock was set back by an hour before each of them."""
    flight, survey = Flight(Payloads(0xCAFE), timeout=10 * SECOND, history=65_536, offset=WALL), Survey()
    payloads = [b""]
    for number in range(1, 6):
        payloads.append(flight.payload(number * SECOND, 56))
        flight.launch(payloads[number], number * SECOND, at(number * SECOND, -3600 * SECOND * number))
        survey.sent += 1
    for number, clock in ((1, 6), (5, 7), (4, 8)):
        read = at(clock * SECOND, -3600 * SECOND * clock)
        survey.take(flight.land(Arrival(data=payloads[number], stamp=read.wall, read=read, address=PEER)))
    for event in flight.expire(at(20 * SECOND, -36_000 * SECOND)):
        survey.take(event)
    assert survey.outages.longest
    assert (survey.outages.longest.first, survey.outages.longest.duration) == (2, 2 * SECOND)
    assert (survey.order.reordered, survey.order.max_late) == (1, SECOND)
    assert survey.latency.max == 5 * SECOND
    refused = flight.refuse(Obstacle(reason="x", address="", moment=at(21 * SECOND, 3600 * SECOND), data=payloads[3]))
    assert refused.rtt == 18 * SECOND


def test_a_reply_that_came_in_time_is_not_late_however_late_it_is_read() -> None:
    """The reader was stopped, and gave the probe up before he saw what had come."""
    bench = Bench(56)
    bench.flight.expire(at(30 * SECOND))
    event = bench.land(bench.payloads[1], 5000, read=at(30 * SECOND))
    assert (event.kind, event.rtt, event.settles, event.before) == (Kind.REPLY, 5000, True, Kind.LOST)


def test_when_a_probe_went_the_kernel_knows_better() -> None:
    """Its stamp counts; one from before the probe was passed to it is that of another."""
    for left, rtt in ((WALL + SECOND + 300, 700), (WALL + SECOND - 1, 1000), (0, 1000)):
        bench = Bench()
        payload = bench.flight.payload(SECOND, 56)
        bench.payloads.append(payload)
        bench.flight.launch(payload, SECOND, at(SECOND), left=left)
        assert bench.land(payload).rtt == rtt


def refusal(data: bytes | None, source: int = 0) -> Obstacle:
    """Return an error from a router."""
    return Obstacle(reason="host unreachable", address="10.0.0.1", moment=at(9 * SECOND), data=data, source=source)


@pytest.mark.parametrize(("length", "sequence"), [(56, 2), (4, 2), (3, 1), (0, 1), (None, 1)])
def test_an_error_is_about_the_probe_whose_number_came_with_it(length: int | None, sequence: int) -> None:
    """Routers send back at least some bytes; without the number it is the oldest in flight."""
    bench = Bench(56, 56, 56)
    event = bench.flight.refuse(refusal(None if length is None else bench.payloads[2][:length]))
    assert (event.kind, event.sequence, event.settles) == (Kind.ERROR, sequence, True)
    assert (event.reason, event.address, event.sent) == ("host unreachable", "10.0.0.1", at(sequence * SECOND))
    assert (event.until, event.rtt) == (at((sequence + 1) * SECOND), (9 - sequence) * SECOND)


def test_an_error_about_nothing_in_flight_is_still_told() -> None:
    """It has no number; and one about a probe that was answered settles nothing."""
    bench = Bench(56)
    bench.land(bench.payloads[1])
    event = bench.flight.refuse(refusal(None))
    assert (event.sequence, event.settles, event.reason) == (None, False, "host unreachable")
    event = bench.flight.refuse(refusal(bench.payloads[1]))
    assert (event.sequence, event.settles, event.before) == (1, False, Kind.REPLY)


def test_probes_that_waited_for_a_connection_are_timed_from_there() -> None:
    """Those in flight; what was answered before keeps its times."""
    bench = Bench(56, 56)
    bench.land(bench.payloads[1])
    bench.flight.depart(at(2 * SECOND + 400))
    assert bench.land(bench.payloads[2]).rtt == 600
    assert bench.land(bench.payloads[1]).sent == at(SECOND)


def test_a_connection_that_stands_moves_no_probe_of_another() -> None:
    """Each source port has a connection of its own."""
    bench = Bench(56, 56, sources=2)
    bench.flight.depart(at(2 * SECOND + 400), source=0)
    assert bench.land(bench.payloads[2]).rtt == 600
    assert bench.land(bench.payloads[1], source=1).rtt == SECOND + 1000


def test_what_a_third_address_has_damaged_is_told_and_the_probe_is_still_waited_for() -> None:
    """Anybody may send such a thing: it ends no probe."""
    bench = Bench(56)
    event = bench.land(bench.payloads[1][:30], asked=False, address="192.0.2.2:7")
    assert (event.kind, event.settles, event.sequence, bench.flight.in_flight) == (Kind.TRUNCATED, False, 1, 1)
    assert bench.land(bench.payloads[1]).before is None


def test_whatever_comes_back_what_is_kept_does_not_grow() -> None:
    """Duplicates, damage, what nobody asked for, errors: all that is remembered are the probes."""
    bench = Bench(*[56] * 8)
    things = [*bench.payloads[1:4], bench.payloads[4][:20], corrupted(bench.payloads[5], 0), b"\xff" * 56, b"", b"x"]

    def kept() -> list[int]:
        flight = bench.flight
        return [len(flight._sent), len(flight._queue), sum(map(len, flight._flying.values())), len(flight._flying)]

    for number in range(2000):
        bench.land(things[number % len(things)], asked=bool(number % 3), address=f"192.0.2.1:{number}", source=number)
        bench.flight.refuse(refusal(bench.payloads[6 + number % 2], source=number))
    assert kept() == [8, 8, bench.flight.in_flight, 1]


def test_a_reply_among_many_in_flight_is_found_by_its_send_time() -> None:
    """Where its number is damaged, and far more are in flight than are compared one by one."""
    bench = Bench(*[56] * 500)
    event = bench.land(corrupted(bench.payloads[400], 0))
    assert (event.kind, event.sequence) == (Kind.CORRUPT, 400)
