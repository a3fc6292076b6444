"""echod.measurement.in_flight: what each thing that comes back makes of the probes in flight."""

from dataclasses import replace
from typing import Any

import pytest

from echod.measurement.events import NEVER, Event, Kind, Moment
from echod.measurement.in_flight import InFlight, ProbeError
from echod.measurement.payload import Payloads
from echod.measurement.round_trip import Response
from echod.measurement.statistics import Statistics

SECOND = 10**9
WALL = 1_700_000_000 * SECOND
PEER = "192.0.2.1:7"


def at(clock: int, step: int = 0) -> Moment:
    """Return the moment of a monotonic time; the wall clock was set forward by `step`."""
    return Moment(wall=WALL + clock + step, clock=clock)


class Bench:
    """A flight whose probes go one each second, with the payloads that went."""

    def __init__(self, *sizes: int, source_ports: int = 1, history: int = 65_536) -> None:
        """Launch a probe of each size."""
        self.in_flight = InFlight(Payloads(0xCAFE), timeout=10 * SECOND, history=history, offset=WALL)
        self.payloads = [b""]
        for number, size in enumerate(sizes, start=1):
            clock = number * SECOND
            payload = self.in_flight.payload(clock - 5, size)
            self.payloads.append(payload)
            assert self.in_flight.sent(payload, clock - 5, at(clock), port_index=number % source_ports) == number

    def response(self, data: bytes, after: int = 1000, **more: object) -> Response:
        """Return what arrives so many ns after the last probe went."""
        last = (len(self.payloads) - 1) * SECOND
        stamp, read = WALL + last + after, at(last + after + 50)
        response = Response(data=data, stamp=stamp, read=read, address=PEER, ttl=61)
        return replace(response, **more)  # type: ignore[arg-type]

    def received(self, data: bytes, after: int = 1000, **more: object) -> Event:
        """Let something arrive."""
        return self.in_flight.received(self.response(data, after, **more))


def test_a_whole_reply_settles_its_probe() -> None:
    """It has the probe's number and times, the kernel's round-trip time, and where it came from."""
    bench = Bench(56, 56)
    event = bench.received(bench.payloads[2])
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
    assert bench.in_flight.count == 1
    assert bench.received(bench.payloads[1]).next_sent == at(2 * SECOND)


def test_a_second_reply_is_a_duplicate() -> None:
    """It settles nothing."""
    bench = Bench(56)
    bench.received(bench.payloads[1])
    event = bench.received(bench.payloads[1], 5000)
    assert (event.kind, event.settles, event.previous, event.rtt) == (Kind.DUPLICATE, False, Kind.REPLY, 5000)


def test_a_reply_is_late_by_its_own_time_not_by_the_readers() -> None:
    """Whoever reads it before he had given the probe up reads a late reply all the same."""
    bench = Bench(56)
    in_time = replace(bench.response(bench.payloads[1], 10 * SECOND - 1), read=at(99 * SECOND))
    assert bench.in_flight.received(in_time).kind is Kind.REPLY
    bench = Bench(56)
    event = bench.received(bench.payloads[1], 10 * SECOND)
    assert (event.kind, event.settles, event.previous) == (Kind.LATE, True, None)


def test_a_probe_is_given_up_in_time_and_its_reply_is_late() -> None:
    """Lost until it comes; then it is late, and no longer lost. A second late one is a duplicate."""
    bench = Bench(56, 56)
    assert bench.in_flight.next_expiry() == 11 * SECOND
    assert bench.in_flight.expire(at(11 * SECOND - 1)) == []
    (lost,) = bench.in_flight.expire(at(11 * SECOND))
    assert (lost.kind, lost.sequence, lost.settles, lost.next_sent) == (Kind.LOST, 1, True, at(2 * SECOND))
    (last,) = bench.in_flight.expire(at(12 * SECOND))
    assert last.next_sent == NEVER
    assert (bench.in_flight.count, bench.in_flight.next_expiry()) == (0, None)
    event = bench.received(bench.payloads[1], 20 * SECOND)
    assert (event.kind, event.settles, event.previous) == (Kind.LATE, True, Kind.LOST)
    assert bench.received(bench.payloads[1]).kind is Kind.DUPLICATE


def test_a_clock_that_is_set_does_not_falsify_how_long_a_probe_was_waited_for() -> None:
    """The monotonic clock says it."""
    (lost,) = Bench(56).in_flight.expire(at(11 * SECOND, -3600 * SECOND))
    assert lost.rtt == 10 * SECOND


def test_at_the_end_less_patience_is_enough() -> None:
    """But never more than the timeout."""
    bench = Bench(56, 56)
    assert bench.in_flight.expire(at(2 * SECOND), SECOND + 1) == []
    assert [lost.sequence for lost in bench.in_flight.expire(at(2 * SECOND), SECOND)] == [1]
    assert [lost.sequence for lost in bench.in_flight.expire(at(12 * SECOND), 99 * SECOND)] == [2]


def test_settled_probes_do_not_expire() -> None:
    """What was answered is passed over."""
    bench = Bench(56, 56)
    bench.received(bench.payloads[1])
    assert bench.in_flight.expire(at(0)) == []
    assert bench.in_flight.next_expiry() == 12 * SECOND


def corrupted(payload: bytes, *offsets: int) -> bytes:
    """Flip bits in these bytes."""
    return bytes(byte ^ 0x55 if offset in offsets else byte for offset, byte in enumerate(payload))


@pytest.mark.parametrize("offsets", [(40, 41), (0,), (3,), (2, 3), (5,), (8, 9), (20,)])
def test_corruption_is_found_wherever_it_is_also_in_the_number(offsets: tuple[int, ...]) -> None:
    """The probe that it was is found by what is left of it, and the place is named."""
    bench = Bench(56, 56, 56)
    event = bench.received(corrupted(bench.payloads[2], *offsets))
    assert (event.kind, event.sequence) == (Kind.CORRUPT, 2)
    assert (event.offset, event.count) == (offsets[0], len(offsets))


def test_a_number_that_became_that_of_another_probe_is_told_from_it() -> None:
    """3 became 2 on the way: what follows the number is 3's."""
    bench = Bench(56, 56, 56)
    data = bench.payloads[2][:4] + bench.payloads[3][4:]
    event = bench.received(data)
    assert (event.kind, event.sequence, event.offset, event.count) == (Kind.CORRUPT, 3, 3, 1)


@pytest.mark.parametrize("length", [55, 24, 5, 4, 1, 0])
def test_a_reply_that_ends_early_is_truncated(length: int) -> None:
    """Also where nothing is left of it; then it is taken for the oldest in flight."""
    bench = Bench(56)
    event = bench.received(bench.payloads[1][:length])
    assert (event.kind, event.sequence, event.size, event.expected) == (Kind.TRUNCATED, 1, length, 56)
    assert (event.offset, event.count) == (length, 56 - length)


def test_a_reply_with_more_than_was_sent_is_extended() -> None:
    """All that was sent is there."""
    bench = Bench(56)
    event = bench.received(bench.payloads[1] + b"!!")
    assert (event.kind, event.sequence, event.offset, event.count) == (Kind.EXTENDED, 1, 56, 2)


def test_a_whole_copy_after_a_damaged_one_is_the_reply() -> None:
    """The damaged one settles the probe until then; a third is a duplicate, and damage after it settles nothing."""
    bench = Bench(56)
    assert bench.received(bench.payloads[1][:30]).settles
    assert not bench.received(bench.payloads[1][:31]).settles
    event = bench.received(bench.payloads[1])
    assert (event.kind, event.settles, event.previous) == (Kind.REPLY, True, Kind.TRUNCATED)
    assert not bench.received(bench.payloads[1][:30]).settles
    assert bench.received(bench.payloads[1]).kind is Kind.DUPLICATE


def test_damage_after_it_was_given_up_takes_the_loss_back() -> None:
    """It was not lost: it came, damaged."""
    bench = Bench(56)
    bench.in_flight.expire(at(100 * SECOND))
    event = bench.received(bench.payloads[1][:30])
    assert (event.kind, event.settles, event.previous) == (Kind.TRUNCATED, True, Kind.LOST)


def test_a_reply_from_elsewhere_is_no_answer() -> None:
    """It is named, and the probe is settled as such; the true reply still counts."""
    bench = Bench(56)
    event = bench.received(bench.payloads[1], from_target=False, address="192.0.2.2:7")
    assert (event.kind, event.settles, event.address) == (Kind.DIFFERENT_ADDRESS, True, "192.0.2.2:7")
    assert bench.received(bench.payloads[1]).kind is Kind.REPLY


@pytest.mark.parametrize("data", [b"\xff" * 56, b"\xff" * 3, b"\xff" * 100, Payloads(0xF00).encode(1, WALL, 56)[:20]])
def test_what_no_probe_explains_is_foreign(data: bytes) -> None:
    """Random bytes, short ones too, and another run's probe are nobody's reply."""
    event = Bench(56, 56).received(data)
    assert (event.kind, event.sequence, event.rtt) == (Kind.UNMATCHED, None, None)


def test_without_anything_in_flight_nothing_is_explained() -> None:
    """Not even an empty datagram."""
    assert Bench().received(b"").kind is Kind.UNMATCHED


def test_small_probes_are_matched_by_the_low_end_of_their_number() -> None:
    """One byte of number: the oldest in flight with it; and after it the latest that was answered."""
    bench = Bench(*[1] * 258)
    assert [bench.received(b"\x02").sequence for _ in range(2)] == [2, 258]
    event = bench.received(b"\x02")
    assert (event.kind, event.sequence) == (Kind.DUPLICATE, 258)


def test_empty_probes_are_matched_in_their_order() -> None:
    """Nothing tells them apart, so the oldest in flight is answered first."""
    bench = Bench(0, 0)
    assert [bench.received(b"").sequence for _ in range(2)] == [1, 2]
    assert bench.received(b"").kind is Kind.DUPLICATE


def test_each_source_port_has_probes_of_its_own() -> None:
    """An empty reply to the second port is none to a probe of the first."""
    bench = Bench(0, 0, source_ports=2)
    assert bench.received(b"", port_index=0).sequence == 2


def test_what_is_forgotten_is_stale_if_it_says_so_itself() -> None:
    """Memory is bounded: of an old probe's whole reply only the payload's own time is known."""
    later = Bench(56, 56, 56, history=2)
    for number in (1, 2, 3):
        later.received(later.payloads[number])
    later.payloads.append(later.in_flight.payload(4 * SECOND, 56))
    later.in_flight.sent(later.payloads[4], 4 * SECOND, at(4 * SECOND))
    event = later.received(later.payloads[1])
    assert (event.kind, event.sequence, event.sent) == (Kind.STALE, 1, at(SECOND - 5))
    assert event.rtt == 3 * SECOND + 1005
    assert later.received(Payloads(0xCAFE).encode(9, WALL, 56)).kind is Kind.UNMATCHED


def test_what_waited_for_an_older_probe_is_forgotten_with_it() -> None:
    """One that is long in flight does not let the memory grow for good."""
    bench = Bench(56, 56, 56, 56, history=2)
    for number in (2, 3, 4, 1):
        bench.received(bench.payloads[number])
    bench.in_flight.sent(bench.in_flight.payload(0, 56), 0, at(5 * SECOND))
    assert [bench.received(bench.payloads[number]).kind for number in (3, 4)] == [Kind.STALE, Kind.DUPLICATE]


def test_what_is_in_flight_is_never_forgotten() -> None:
    """However many there are."""
    bench = Bench(56, 56, 56, 56, history=2)
    assert [bench.received(payload).kind for payload in bench.payloads[1:]] == [Kind.REPLY] * 4


@pytest.mark.parametrize(
    ("response", "rtt"),
    [
        ({}, 1000),
        ({"stamp": None}, 1050),
        ({"read": at(SECOND + 1050, SECOND)}, 1050),
        ({"read": at(SECOND + 1050, -SECOND)}, 1050),
    ],
)
def test_a_clock_that_is_set_does_not_falsify_the_round_trip(response: dict[str, Any], rtt: int) -> None:
    """The kernel's stamp counts where there is one, and no step of the wall clock since the probe was sent."""
    bench = Bench(56)
    event = bench.received(bench.payloads[1], **response)
    assert (event.rtt, event.clock) == (rtt, SECOND + rtt)


def test_a_clock_that_is_set_does_not_falsify_what_is_stale() -> None:
    """The send times in all payloads are those of the clock as it was when the run began."""
    bench = Bench(56, 56, history=1)
    bench.received(bench.payloads[1])
    bench.in_flight.sent(bench.in_flight.payload(3 * SECOND, 56), 3 * SECOND, at(3 * SECOND, -3600 * SECOND))
    event = bench.received(bench.payloads[1], stamp=WALL - 3600 * SECOND, read=at(4 * SECOND, -3600 * SECOND))
    assert (event.kind, event.rtt) == (Kind.STALE, 3 * SECOND + 5)


def test_an_outage_and_what_was_overtaken_last_as_long_as_the_monotonic_clock_says() -> None:
    """Probes went each second, and the wall clock was set back by an hour before each of them."""
    in_flight, statistics = InFlight(Payloads(0xCAFE), timeout=10 * SECOND, history=65_536, offset=WALL), Statistics()
    payloads = [b""]
    for number in range(1, 6):
        payloads.append(in_flight.payload(number * SECOND, 56))
        in_flight.sent(payloads[number], number * SECOND, at(number * SECOND, -3600 * SECOND * number))
        statistics.sent += 1
    for number, clock in ((1, 6), (5, 7), (4, 8)):
        read = at(clock * SECOND, -3600 * SECOND * clock)
        statistics.add(in_flight.received(Response(data=payloads[number], stamp=read.wall, read=read, address=PEER)))
    for event in in_flight.expire(at(20 * SECOND, -36_000 * SECOND)):
        statistics.add(event)
    assert statistics.outages.longest
    assert (statistics.outages.longest.first, statistics.outages.longest.duration) == (2, 2 * SECOND)
    assert (statistics.order.reordered, statistics.order.max_late) == (1, SECOND)
    assert statistics.latency.max == 5 * SECOND
    refused = in_flight.failed(
        ProbeError(reason="x", address="", moment=at(21 * SECOND, 3600 * SECOND), data=payloads[3])
    )
    assert refused.rtt == 18 * SECOND


def test_a_reply_that_came_in_time_is_not_late_however_late_it_is_read() -> None:
    """The reader was stopped, and gave the probe up before he saw what had come."""
    bench = Bench(56)
    bench.in_flight.expire(at(30 * SECOND))
    event = bench.received(bench.payloads[1], 5000, read=at(30 * SECOND))
    assert (event.kind, event.rtt, event.settles, event.previous) == (Kind.REPLY, 5000, True, Kind.LOST)


def test_when_a_probe_went_the_kernel_knows_better() -> None:
    """Its stamp counts; one from before the probe was passed to it is that of another."""
    for send_stamp, rtt in ((WALL + SECOND + 300, 700), (WALL + SECOND - 1, 1000), (0, 1000)):
        bench = Bench()
        payload = bench.in_flight.payload(SECOND, 56)
        bench.payloads.append(payload)
        bench.in_flight.sent(payload, SECOND, at(SECOND), send_stamp=send_stamp)
        assert bench.received(payload).rtt == rtt


def refusal(data: bytes | None, port_index: int = 0) -> ProbeError:
    """Return an error from a router."""
    return ProbeError(
        reason="host unreachable", address="10.0.0.1", moment=at(9 * SECOND), data=data, port_index=port_index
    )


@pytest.mark.parametrize(("length", "sequence"), [(56, 2), (4, 2), (3, 1), (0, 1), (None, 1)])
def test_an_error_is_about_the_probe_whose_number_came_with_it(length: int | None, sequence: int) -> None:
    """Routers send back at least some bytes; without the number it is the oldest in flight."""
    bench = Bench(56, 56, 56)
    event = bench.in_flight.failed(refusal(None if length is None else bench.payloads[2][:length]))
    assert (event.kind, event.sequence, event.settles) == (Kind.ERROR, sequence, True)
    assert (event.reason, event.address, event.sent) == ("host unreachable", "10.0.0.1", at(sequence * SECOND))
    assert (event.next_sent, event.rtt) == (at((sequence + 1) * SECOND), (9 - sequence) * SECOND)


def test_an_error_about_nothing_in_flight_is_still_told() -> None:
    """It has no number; and one about a probe that was answered settles nothing."""
    bench = Bench(56)
    bench.received(bench.payloads[1])
    event = bench.in_flight.failed(refusal(None))
    assert (event.sequence, event.settles, event.reason) == (None, False, "host unreachable")
    event = bench.in_flight.failed(refusal(bench.payloads[1]))
    assert (event.sequence, event.settles, event.previous) == (1, False, Kind.REPLY)


def test_probes_that_waited_for_a_connection_are_timed_from_there() -> None:
    """Those in flight; what was answered before keeps its times."""
    bench = Bench(56, 56)
    bench.received(bench.payloads[1])
    bench.in_flight.connected(at(2 * SECOND + 400))
    assert bench.received(bench.payloads[2]).rtt == 600
    assert bench.received(bench.payloads[1]).sent == at(SECOND)


def test_a_connection_that_stands_moves_no_probe_of_another() -> None:
    """Each source port has a connection of its own."""
    bench = Bench(56, 56, source_ports=2)
    bench.in_flight.connected(at(2 * SECOND + 400), port_index=0)
    assert bench.received(bench.payloads[2]).rtt == 600
    assert bench.received(bench.payloads[1], port_index=1).rtt == SECOND + 1000


def test_what_a_third_address_has_damaged_is_told_and_the_probe_is_still_waited_for() -> None:
    """Anybody may send such a thing: it ends no probe."""
    bench = Bench(56)
    event = bench.received(bench.payloads[1][:30], from_target=False, address="192.0.2.2:7")
    assert (event.kind, event.settles, event.sequence, bench.in_flight.count) == (Kind.TRUNCATED, False, 1, 1)
    assert bench.received(bench.payloads[1]).previous is None


def test_whatever_comes_back_what_is_kept_does_not_grow() -> None:
    """Duplicates, damage, what nobody asked for, errors: all that is remembered are the probes."""
    bench = Bench(*[56] * 8)
    things = [*bench.payloads[1:4], bench.payloads[4][:20], corrupted(bench.payloads[5], 0), b"\xff" * 56, b"", b"x"]

    def kept() -> list[int]:
        in_flight = bench.in_flight
        return [
            len(in_flight._probes),
            len(in_flight._queue),
            sum(map(len, in_flight._by_port.values())),
            len(in_flight._by_port),
        ]

    for number in range(2000):
        bench.received(
            things[number % len(things)], from_target=bool(number % 3), address=f"192.0.2.1:{number}", port_index=number
        )
        bench.in_flight.failed(refusal(bench.payloads[6 + number % 2], port_index=number))
    assert kept() == [8, 8, bench.in_flight.count, 1]


def test_a_reply_among_many_in_flight_is_found_by_its_send_time() -> None:
    """Where its number is damaged, and far more are in flight than are compared one by one."""
    bench = Bench(*[56] * 500)
    event = bench.received(corrupted(bench.payloads[400], 0))
    assert (event.kind, event.sequence) == (Kind.CORRUPT, 400)
