"""echod.ping.far_end: what a responder reports, in words and in fields."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from echod.measurement.events import Event, Kind, Moment
from echod.measurement.responder import Report
from echod.measurement.statistics import Statistics
from echod.net.mode import Mode
from echod.ping.far_end import event_fields, fields, lines

SECOND = 10**9


def reply(sequence: int, count: int | None, **more: Any) -> Event:  # noqa: ANN401 - fields of the report
    """Return the reply to a probe that left at its number of seconds; `out`, `back` and `held` are in us."""
    out, back, held = more.pop("out", 1000), more.pop("back", 2000), more.pop("held", 3000)
    sent = Moment(wall=0, clock=sequence * SECOND)
    event = {name: more.pop(name) for name in ("new_responder",) if name in more}
    received = sent.clock + out * 1000
    report = Report(received=received, replied=received + held * 1000, wraps=2**62, count=count, **more)
    rtt = (out + back + held) * 1000
    clock = sent.clock + rtt
    return Event(
        kind=Kind.REPLY,
        time=0,
        clock=clock,
        sequence=sequence,
        settles=True,
        sent=sent,
        rtt=rtt,
        report=report,
        **event,
    )


def statistics(*events: Event, sent: int) -> Statistics:
    """Return the statistics of these events."""
    found = Statistics(sent=sent)
    for each in events:
        found.add(each)
    return found


def lost(*sequences: int, kind: Kind = Kind.LOST, **more: Any) -> Sequence[Event]:  # noqa: ANN401
    """Return the events of lost probes."""
    return [Event(kind=kind, time=0, sequence=each, settles=True, **more) for each in sequences]


def test_both_directions_have_a_line() -> None:
    """With losses, copies, reordering and delay variation, where there are any; and the time at the responder."""
    found = statistics(
        reply(1, 1),
        reply(2, 2, out=1500, back=2200),
        reply(4, 4, held=5000),
        reply(3, 5),
        *lost(5, 6, 7),
        reply(8, 7),
        sent=8,
    )
    assert lines(found, Mode.UDPECHO_PLUS) == [
        "network min/avg/max/mdev = 3.000/3.140/3.700/0.280 ms, without the time at the responder",
        "responder min/avg/max = 3.000/3.400/5.000 ms",
        (
            "out: 1 probe lost, 1 reordered by up to 1 place, delay variation avg/max = 0.333/0.500 ms (RFC 3393), "
            "99.9% of delays within 0.500 ms (RFC 5481)"
        ),
        (
            "back: 2 replies lost, delay variation avg/max = 0.133/0.200 ms (RFC 3393), "
            "99.9% of delays within 0.200 ms (RFC 5481)"
        ),
    ]
    told = fields(found)
    assert told["network_ms"] == {"min": 3.0, "avg": 3.14, "max": 3.7, "median": 3.0}
    assert told["responder_ms"] == {"min": 3.0, "avg": 3.4, "max": 5.0, "median": 3.0}
    assert told["out"] == {
        "pdv_ms": 0.5,
        "ipdv_ms": {"avg": 0.333333, "max": 0.5},
        "lost": 1,
        "duplicates": 0,
        "reordered": 1,
        "reordered_places": 1,
    }
    assert (told["back"]["lost"], told["lost_unknown"], told["responder_failures"]) == (2, 0, 0)
    assert (told["responder_changes"], "far_ttls" in told) == (0, False)


def test_copies_have_a_direction() -> None:
    """One is made on the way out, and one on the way back."""
    copies = [replace(reply(1, 2), settles=False), reply(2, 3), replace(reply(2, 3), settles=False)]
    found = statistics(reply(1, 1), *copies, sent=2)
    out, back = lines(found, Mode.UDPECHO_PLUS)[2:4]
    assert out.startswith("out: 0 probes lost, 1 duplicated, ")
    assert back.startswith("back: 0 replies lost, 1 duplicated, ")


@pytest.mark.parametrize(
    ("events", "line"),
    [
        (
            [reply(1, 1), *lost(2, 3)],
            "lost in an unknown direction: 2 probes: before the first reply of a responder, or after the last",
        ),
        (
            [reply(1, None), *lost(2), reply(3, None)],
            "lost in an unknown direction: 1 probe: the reflector is stateless: it does not count",
        ),
        (
            [reply(1, 1), *lost(2), reply(3, 9)],
            (
                "lost in an unknown direction: 1 probe: "
                "the responder counts more requests than were sent, perhaps those of others too"
            ),
        ),
        (
            [reply(1, 1), *lost(2, kind=Kind.ERROR, reason="host unreachable")],
            "lost in an unknown direction: 1 probe: before the first reply of a responder, or after the last",
        ),
    ],
)
def test_a_loss_whose_direction_is_unknown_has_a_line_and_a_reason(events: list[Event], line: str) -> None:
    """Then no line and no field states a loss of one direction, unless it is known too."""
    found = statistics(*events, sent=len(events))
    assert [each for each in lines(found, Mode.STAMP) if "unknown" in each] == [line]
    if "responder, or" not in line:
        assert "lost" not in fields(found)["out"]
        assert not [each for each in lines(found, Mode.STAMP) if each.startswith("out: 0 probes lost")]


def test_a_responder_that_counts_others_too_has_its_line_without_losses() -> None:
    """The lines of the directions lack their counts, and this says why."""
    found = statistics(reply(1, 1), reply(2, 5), sent=2)
    assert [each for each in lines(found, Mode.UDPECHO_PLUS) if "direction" in each] == [
        "no direction is known: the responder counts more requests than were sent, perhaps those of others too"
    ]
    assert "lost" not in fields(found)["out"]


def test_a_clock_that_was_set_tells_no_time() -> None:
    """The reply left before its request arrived: that is shown as unknown, not as the wrap of a clock."""
    set_back = reply(2, 2, held=-1)
    some, none = statistics(reply(1, 1), set_back, sent=2), statistics(set_back, sent=2)
    assert lines(some, Mode.UDPECHO_PLUS)[1] == "responder min/avg/max = 3.000/3.000/3.000 ms"
    assert lines(none, Mode.UDPECHO_PLUS)[0] == (
        "responder: its replies left before the requests arrived, by its clock: its time is unknown"
    )
    assert lines(none, Mode.UDPECHO_PLUS)[1].startswith("out: ")
    assert (fields(some)["responder_ms"]["max"], "responder_ms" in fields(none), "network_ms" in fields(none)) == (
        3.0,
        False,
        False,
    )
    told = event_fields(set_back)
    assert (told["network_ms"], told["responder_ms"]) == (None, None)


def test_a_probe_that_was_not_sent_is_lost_in_no_direction() -> None:
    """It is an error of this host."""
    unsent = lost(2, 4, kind=Kind.ERROR, reason="send queue full on this host", unsent=True)
    found = statistics(reply(1, 1), *unsent, reply(3, 2), sent=4)
    assert [each for each in lines(found, Mode.STAMP) if "unknown" in each] == []
    assert (fields(found)["out"]["lost"], fields(found)["lost_unknown"]) == (0, 0)


def test_a_responder_that_changed_or_failed_is_said() -> None:
    """With the first time that it changed."""
    found = statistics(reply(1, 1), reply(3, 3, failures=1), reply(7, 1, new_responder=True), sent=7)
    assert lines(found, Mode.UDPECHO_PLUS)[4:] == [
        "responder: could not reply to 1 request",
        "responder changed: 1 time, the first at seq=7: it was restarted, or replaced",
    ]
    assert (fields(found)["responder_changes"], fields(found)["responder_failures"]) == (1, 1)


def test_how_requests_arrived_is_said() -> None:
    """TTL and DSCP, and how many were re-marked; the way back only where it is known how replies were sent."""
    known = {"ttl": 61, "dscp": 0, "request_dscp": 46}
    found = statistics(reply(1, 1, **known), reply(2, 2, **known), sent=2)
    assert lines(found, Mode.STAMP)[4:] == [
        "far end, ttl of requests: 61 (2 requests)",
        "far end, dscp of requests: 0 (2 requests); changed on the way: 2 requests out",
    ]
    replies = [reply(number, number, **known, reply_dscp=46) for number in (1, 2)]
    both = statistics(replace(replies[0], dscp=46), replace(replies[1], dscp=10), sent=2)
    assert lines(both, Mode.STAMP)[5].endswith("changed on the way: 2 requests out, 1 reply back")
    told = fields(both)
    assert (told["out"]["remarked"], told["back"]["remarked"]) == (2, 1)
    assert (told["far_ttls"], told["far_dscps"]) == ([{"ttl": 61, "requests": 2}], [{"dscp": 0, "requests": 2}])


def test_a_plain_echo_is_recognized() -> None:
    """Where a mode was asked for; otherwise there is nothing to say. Nor is there without any reply."""
    plain = Event(kind=Kind.REPLY, time=0, sequence=1, settles=True, rtt=5)
    found = statistics(plain, sent=1)
    assert lines(found, Mode.UDPECHO_PLUS) == ["no reply is of a UDPEchoPlus server: this is a plain echo server"]
    assert lines(found, Mode.STAMP) == ["no reply is of a STAMP reflector: this is a plain echo server"]
    assert (lines(found, Mode.ECHO), fields(found)) == ([], {})
    assert lines(statistics(*lost(1), sent=1), Mode.STAMP) == []


def damaged(kind: Kind, **more: Any) -> Event:  # noqa: ANN401 - fields of an event
    """Return a damaged reply to the first probe."""
    return Event(kind=kind, time=0, sequence=1, settles=True, rtt=5, **more)


BASE = "the reflector replies with the base packet alone, without TLVs: write -s 44"
NO_SSID = "the reflector does not return the SSID (RFC 8762 alone): leave --ssid out"
ANOTHER = "no reply is whole, as if this were no STAMP reflector: --mode auto finds out what it is"


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        (damaged(Kind.TRUNCATED, size=44, expected=80), BASE),
        (damaged(Kind.TRUNCATED, size=43, expected=44), ANOTHER),
        (damaged(Kind.TRUNCATED, size=60, expected=80), ANOTHER),
        (damaged(Kind.CORRUPT, offset=14, count=2), NO_SSID),
        (damaged(Kind.CORRUPT, offset=15, count=1), NO_SSID),
        (damaged(Kind.CORRUPT, offset=15, count=2), ANOTHER),
        (damaged(Kind.CORRUPT, offset=4, count=12), ANOTHER),
        (Event(kind=Kind.UNMATCHED, time=0), ANOTHER),
    ],
)
def test_where_no_reply_is_whole_a_sentence_says_what_to_write(event: Event, sentence: str) -> None:
    """Nothing is said if nothing came, or if one is whole."""
    found = statistics(event, sent=2)
    assert lines(found, Mode.STAMP) == [sentence]
    assert lines(found, Mode.ECHO) == []
    assert lines(found, Mode.UDPECHO_PLUS) == [
        "no reply is whole, as if this were no UDPEchoPlus server: --mode auto finds out what it is"
    ]
    assert sentence not in lines(statistics(event, reply(2, 2), sent=2), Mode.STAMP)


def test_an_event_has_what_was_reported_of_it() -> None:
    """And nothing if nothing was."""
    event = reply(1, 1, ttl=60, dscp=9, new_responder=True)
    assert event_fields(event) == {
        "network_ms": 3.0,
        "responder_ms": 3.0,
        "far_ttl": 60,
        "far_dscp": 9,
        "new_responder": True,
    }
    assert set(event_fields(lost(1)[0]).values()) == {None}
