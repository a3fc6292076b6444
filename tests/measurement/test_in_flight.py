"""echod.measurement.in_flight: which event each response is, and what it makes of the probes in flight."""

from dataclasses import replace
from typing import Any

import pytest

from echod.measurement.events import NEVER, Event, Kind, Moment
from echod.measurement.icmp import NetworkError
from echod.measurement.in_flight import InFlight, probe_error
from echod.measurement.payload import Payloads
from echod.measurement.round_trip import Response

SECOND = 10**9
WALL = 1_700_000_000 * SECOND
PEER = "192.0.2.1:7"


def at(clock: int, step: int = 0) -> Moment:
    """Return the moment of a monotonic time; the wall clock was set forward by `step`."""
    return Moment(wall=WALL + clock + step, clock=clock)


class Bench:
    """Probes sent one each second, from 1 on, with their payloads. The timeout is ten seconds."""

    def __init__(self, *sizes: int, source_ports: int = 1, history: int = 65_536) -> None:
        """Send a probe of each size."""
        self.in_flight = InFlight(Payloads(0xCAFE), timeout=10 * SECOND, history=history, offset=WALL)
        self.payloads = [b""]
        for size in sizes:
            self.send(size, port_index=len(self.payloads) % source_ports)

    def send(self, size: int = 56, *, step: int = 0, port_index: int = 0, send_stamp: int = 0) -> None:
        """Send a probe; the wall clock was set forward by `step`."""
        number = len(self.payloads)
        clock = number * SECOND
        payload = self.in_flight.payload(clock - 5, size)
        self.payloads.append(payload)
        moment = at(clock, step)
        sent = self.in_flight.sent(payload, clock - 5, moment, port_index=port_index, send_stamp=send_stamp)
        assert sent == number

    def received(self, data: bytes, after: int = 1000, **more: object) -> Event:
        """Receive data so many ns after the last probe was sent; it is read 50 ns later."""
        last = (len(self.payloads) - 1) * SECOND
        response = Response(data=data, stamp=WALL + last + after, read=at(last + after + 50), address=PEER, ttl=61)
        return self.in_flight.received(replace(response, **more))  # type: ignore[arg-type]

    def failed(self, data: bytes, port_index: int = 0) -> Event:
        """Receive an error from a router, at nine seconds, that quotes these bytes."""
        error = NetworkError(reason="host unreachable", address="10.0.0.1")
        return self.in_flight.failed(probe_error(error, at(9 * SECOND), data, port_index=port_index))


def corrupted(payload: bytes, *offsets: int) -> bytes:
    """Flip bits in these bytes."""
    return bytes(byte ^ 0x55 if offset in offsets else byte for offset, byte in enumerate(payload))


def test_a_whole_reply_is_an_event_with_all_that_is_known_of_its_probe() -> None:
    """Number, times, the round-trip time by the timestamps of the kernel, and the sender."""
    bench = Bench(56, 56)
    assert bench.received(bench.payloads[2]) == Event(
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


def test_other_headers_than_those_of_the_reply_before_are_a_change() -> None:
    """Of the first replies to probes: not of duplicates, damaged ones, or those from another address."""
    bench = Bench(56, 56, 56, 56)
    seen = [
        bench.received(bench.payloads[1], dscp=0),
        bench.received(bench.payloads[1], ttl=50, dscp=9),
        bench.received(bench.payloads[2][:30], ttl=50, dscp=9),
        bench.received(bench.payloads[2], ttl=50, dscp=9, from_target=False),
        bench.received(bench.payloads[2], dscp=0),
        bench.received(bench.payloads[3], ttl=60, dscp=46),
        bench.received(bench.payloads[4], ttl=60, dscp=10),
    ]
    assert [(each.ttl, each.dscp) for each in seen] == [
        (61, 0), (50, 9), (50, 9), (50, 9), (61, 0), (60, 46), (60, 10)
    ]  # fmt: skip
    assert [(each.previous_ttl, each.previous_dscp) for each in seen[:5]] == [(None, None)] * 5
    assert [(each.previous_ttl, each.previous_dscp) for each in seen[5:]] == [(61, 0), (None, 46)]


@pytest.mark.parametrize(
    ("responses", "events"),
    [
        ("whole whole", [(Kind.REPLY, True, None), (Kind.DUPLICATE, False, Kind.REPLY)]),
        (
            "short short whole short whole",
            [
                (Kind.TRUNCATED, True, None),
                (Kind.TRUNCATED, False, Kind.TRUNCATED),
                (Kind.REPLY, True, Kind.TRUNCATED),
                (Kind.TRUNCATED, False, Kind.REPLY),
                (Kind.DUPLICATE, False, Kind.REPLY),
            ],
        ),
        ("elsewhere whole", [(Kind.DIFFERENT_ADDRESS, True, None), (Kind.REPLY, True, Kind.DIFFERENT_ADDRESS)]),
        ("forged whole", [(Kind.TRUNCATED, False, None), (Kind.REPLY, True, None)]),
        ("lost short", [(Kind.LOST, True, None), (Kind.TRUNCATED, True, Kind.LOST)]),
        ("lost error lost", [(Kind.LOST, True, None), (Kind.ERROR, True, Kind.LOST)]),
        (
            "error whole error",
            [(Kind.ERROR, True, None), (Kind.REPLY, True, Kind.ERROR), (Kind.ERROR, False, Kind.REPLY)],
        ),
        ("whole lost", [(Kind.REPLY, True, None)]),
    ],
)
def test_the_outcome_of_a_probe_is_the_best_response(
    responses: str, events: list[tuple[Kind, bool, Kind | None]]
) -> None:
    """A whole reply outweighs all; else the first counts, but loss is taken back. A forged one is no outcome."""
    bench, found = Bench(56), []
    payload = bench.payloads[1]
    for response in responses.split():
        if response == "lost":
            found += bench.in_flight.expire(at(11 * SECOND))
        elif response == "error":
            found.append(bench.failed(payload))
        else:
            data = payload[:30] if response in ("short", "forged") else payload
            found.append(bench.received(data, from_target=response not in ("elsewhere", "forged")))
    assert [(event.kind, event.settles, event.previous) for event in found] == events


@pytest.mark.parametrize(
    ("after", "read", "expired", "kind"),
    [
        (10 * SECOND - 1, 99, False, Kind.REPLY),
        (10 * SECOND, 11, False, Kind.LATE),
        (10 * SECOND - 1, 99, True, Kind.REPLY),
        (20 * SECOND, 21, True, Kind.LATE),
    ],
)
def test_a_reply_is_late_by_its_arrival(after: int, read: int, *, expired: bool, kind: Kind) -> None:
    """It does not matter when it is read, nor whether the probe was given up before. Another one is a duplicate."""
    bench = Bench(56)
    if expired:
        assert len(bench.in_flight.expire(at(99 * SECOND))) == 1
    event = bench.received(bench.payloads[1], after, read=at((1 + read) * SECOND))
    assert (event.kind, event.settles, event.previous) == (kind, True, Kind.LOST if expired else None)
    assert bench.received(bench.payloads[1]).kind is Kind.DUPLICATE


def test_a_probe_is_given_up_after_the_timeout_by_the_monotonic_clock() -> None:
    """The event of its loss has the time that its reply was awaited, and when the next probe was sent, if one was."""
    bench = Bench(56, 56)
    assert bench.in_flight.next_expiry() == 11 * SECOND
    assert bench.in_flight.expire(at(11 * SECOND - 1)) == []
    (lost,) = bench.in_flight.expire(at(11 * SECOND, -3600 * SECOND))
    assert (lost.kind, lost.sequence, lost.settles, lost.rtt) == (Kind.LOST, 1, True, 10 * SECOND)
    assert (lost.size, lost.expected, lost.sent, lost.next_sent) == (56, 56, at(SECOND), at(2 * SECOND))
    (last,) = bench.in_flight.expire(at(12 * SECOND))
    assert last.next_sent == NEVER
    assert (bench.in_flight.count, bench.in_flight.next_expiry()) == (0, None)


def test_at_the_end_of_a_run_a_shorter_patience_takes_the_place_of_the_timeout() -> None:
    """A longer one does not. Probes with a reply do not expire."""
    bench = Bench(56, 56, 56)
    bench.received(bench.payloads[1])
    assert bench.in_flight.expire(at(3 * SECOND), SECOND + 1) == []
    assert bench.in_flight.next_expiry() == 12 * SECOND
    assert [lost.sequence for lost in bench.in_flight.expire(at(3 * SECOND), SECOND)] == [2]
    assert [lost.sequence for lost in bench.in_flight.expire(at(13 * SECOND), 99 * SECOND)] == [3]


@pytest.mark.parametrize("offsets", [(40, 41), (0,), (3,), (2, 3), (5,), (8, 9), (20,)])
def test_a_corrupt_reply_is_attributed_to_its_probe(offsets: tuple[int, ...]) -> None:
    """Also if its number is damaged, among more probes in flight than are compared one by one."""
    bench = Bench(*[56] * 500)
    event = bench.received(corrupted(bench.payloads[400], *offsets))
    assert (event.kind, event.sequence) == (Kind.CORRUPT, 400)
    assert (event.offset, event.count) == (offsets[0], len(offsets))


def test_a_number_that_became_that_of_another_probe_is_recognized() -> None:
    """The number 3 became 2: the rest of the payload is that of probe 3."""
    bench = Bench(56, 56, 56)
    event = bench.received(bench.payloads[2][:4] + bench.payloads[3][4:])
    assert (event.kind, event.sequence, event.offset, event.count) == (Kind.CORRUPT, 3, 3, 1)


@pytest.mark.parametrize("length", [55, 24, 5, 4, 1, 0, 58])
def test_a_reply_of_another_length_is_truncated_or_extended(length: int) -> None:
    """Even an empty one: it is attributed to the oldest probe in flight."""
    bench = Bench(56)
    event = bench.received((bench.payloads[1] + b"!!")[:length])
    assert (event.kind, event.sequence) == (Kind.TRUNCATED if length < 56 else Kind.EXTENDED, 1)
    assert (event.size, event.expected, event.offset, event.count) == (length, 56, min(length, 56), abs(56 - length))


@pytest.mark.parametrize("data", [b"\xff" * 56, b"\xff" * 3, b"\xff" * 100, Payloads(0xF00).encode(1, WALL, 56)[:20]])
def test_data_that_belongs_to_no_probe_is_unmatched(data: bytes) -> None:
    """Random bytes, short ones too, and a probe of another run; and whatever comes while nothing is in flight."""
    event = Bench(56, 56).received(data)
    assert (event.kind, event.sequence, event.rtt) == (Kind.UNMATCHED, None, None)
    assert Bench().received(b"").kind is Kind.UNMATCHED


def test_replies_to_small_probes_are_matched_by_the_low_end_of_their_number() -> None:
    """The oldest in flight with it comes first; if there is none, the latest with a reply."""
    bench = Bench(*[1] * 258)
    assert [bench.received(b"\x02").sequence for _ in range(2)] == [2, 258]
    event = bench.received(b"\x02")
    assert (event.kind, event.sequence) == (Kind.DUPLICATE, 258)


def test_empty_replies_are_matched_in_the_order_of_the_probes_of_their_port() -> None:
    """Nothing else distinguishes them."""
    bench = Bench(0, 0, 0, source_ports=2)
    events = [bench.received(b"", port_index=port) for port in (0, 1, 1, 1, 0)]
    assert [(event.kind, event.sequence) for event in events] == [
        (Kind.REPLY, 2),
        (Kind.REPLY, 1),
        (Kind.REPLY, 3),
        (Kind.DUPLICATE, 3),
        (Kind.DUPLICATE, 2),
    ]


def test_a_whole_reply_to_a_forgotten_probe_is_stale() -> None:
    """Its times are those of its payload, by the wall clock as it was when the run began, however it is set since."""
    bench = Bench(56, 56, 56, history=2)
    for number in (1, 2, 3):
        bench.received(bench.payloads[number])
    bench.send(step=-3600 * SECOND)
    stamp, read = WALL - 3600 * SECOND, at(5 * SECOND, -3600 * SECOND)
    event = bench.received(bench.payloads[1], stamp=stamp, read=read)
    assert (event.kind, event.sequence, event.sent) == (Kind.STALE, 1, at(SECOND - 5))
    assert event.rtt == 4 * SECOND + 5
    assert bench.received(Payloads(0xCAFE).encode(9, WALL, 56)).kind is Kind.UNMATCHED


def test_probes_in_flight_are_remembered_and_those_after_them() -> None:
    """However short the history is. Once an old one has a reply, they are forgotten together."""
    bench = Bench(56, 56, 56, 56, history=2)
    assert [bench.received(bench.payloads[number]).kind for number in (2, 3, 4, 1)] == [Kind.REPLY] * 4
    bench.send()
    assert [bench.received(bench.payloads[number]).kind for number in (3, 4)] == [Kind.STALE, Kind.DUPLICATE]


@pytest.mark.parametrize(
    ("response", "rtt"),
    [
        ({"stamp": None}, 1050),
        ({"read": at(SECOND + 1050, SECOND)}, 1050),
        ({"read": at(SECOND + 1050, -SECOND)}, 1050),
    ],
)
def test_a_clock_that_is_set_does_not_falsify_a_round_trip(response: dict[str, Any], rtt: int) -> None:
    """Then, and without a timestamp of the kernel, it is the time until the reply was read."""
    bench = Bench(56)
    event = bench.received(bench.payloads[1], **response)
    assert (event.rtt, event.clock) == (rtt, SECOND + rtt)


@pytest.mark.parametrize(("send_stamp", "rtt"), [(WALL + SECOND + 300, 700), (WALL + SECOND - 1, 1000), (0, 1000)])
def test_a_round_trip_begins_with_the_send_timestamp_of_the_kernel(send_stamp: int, rtt: int) -> None:
    """One from before the send belongs to an earlier probe."""
    bench = Bench()
    bench.send(send_stamp=send_stamp)
    assert bench.received(bench.payloads[1]).rtt == rtt


@pytest.mark.parametrize(("length", "sequence"), [(56, 2), (4, 2), (3, 1), (0, 1)])
def test_an_error_belongs_to_the_probe_that_it_quotes(length: int, sequence: int) -> None:
    """Without the number, it belongs to the oldest in flight."""
    bench = Bench(56, 56, 56)
    event = bench.failed(bench.payloads[2][:length])
    assert (event.kind, event.sequence, event.settles) == (Kind.ERROR, sequence, True)
    assert (event.reason, event.address, event.sent) == ("host unreachable", "10.0.0.1", at(sequence * SECOND))
    assert (event.next_sent, event.rtt) == (at((sequence + 1) * SECOND), (9 - sequence) * SECOND)


def test_an_error_is_an_event_also_if_nothing_is_in_flight() -> None:
    """It has no number then."""
    event = Bench().failed(b"")
    assert (event.sequence, event.settles, event.reason) == (None, False, "host unreachable")


def test_probes_that_waited_for_a_connection_are_timed_from_there() -> None:
    """Those in flight of the same source port; a probe with a reply keeps its times."""
    bench = Bench(56, 56, 56, 56, source_ports=2)
    bench.received(bench.payloads[2])
    bench.in_flight.connected(at(4 * SECOND + 400))
    assert bench.received(bench.payloads[4]).rtt == 600
    assert bench.received(bench.payloads[2]).sent == at(2 * SECOND)
    assert bench.received(bench.payloads[3], port_index=1).rtt == SECOND + 1000


def test_memory_does_not_grow_with_responses() -> None:
    """Duplicates, damage, forged datagrams, errors: only probes are remembered."""
    bench = Bench(*[56] * 8)
    things = [*bench.payloads[1:4], bench.payloads[4][:20], corrupted(bench.payloads[5], 0), b"\xff" * 56, b"", b"x"]
    for number in range(2000):
        bench.received(
            things[number % len(things)], from_target=bool(number % 3), address=f"192.0.2.1:{number}", port_index=number
        )
        bench.failed(bench.payloads[6 + number % 2], port_index=number)
    in_flight = bench.in_flight
    ports = in_flight._by_port
    assert (len(in_flight._probes), len(in_flight._queue), len(ports)) == (8, 8, 1)
    assert sum(map(len, ports.values())) == in_flight.count
