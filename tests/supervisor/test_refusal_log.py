"""Whatever is refused, and however much, the log has few entries, and in the end they add up."""

from collections import Counter

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.typing import EventDict
from support.loopback import listener

from echod.net.listener import Listener, Protocol
from echod.stats.outcomes import Close, Drop
from echod.stats.refusals import Report
from echod.supervisor.refusal_log import MAX_ENTRIES, MAX_SOURCES, SUMMARY_SECONDS, RefusalLog

UDP = listener(port=7)
OTHER = listener("::1", port=7)
TCP = listener(port=7, protocol=Protocol.TCP)


def report(reason: int = Drop.ACCESS, *, more: bool = False, **sources: int) -> Report:
    """Make a report; `a=3` is 192.0.2.97, refused three times."""
    known = {f"192.0.2.{ord(name)}": refused for name, refused in sources.items()}
    return Report(listener=0, reason=reason, refused=sum(known.values()) + more, sources=known, more=more)


def test_the_first_refusal_is_logged_at_once(log: list[EventDict]) -> None:
    """An entry has where, why, how many, from how many, and from whom most; and one sentence of all that."""
    refusals = RefusalLog()
    refusals.add(UDP, report(a=1, b=1199))
    refusals.log_due(1000.0)
    assert log == [
        {
            "event": "refused",
            "log_level": "warning",
            "message": "refused 1,200 datagrams at udp://127.0.0.1:7: access, from 2 sources, "
            "most from 192.0.2.98 (1,199)",
            "listener": "udp://127.0.0.1:7",
            "reason": "access",
            "refused": 1200,
            "sources": 2,
            "more_sources": False,
            "top_source": "192.0.2.98",
            "top_source_refused": 1199,
        }
    ]


LOW = (
    "; their source port is below guard.min_source_port: let honest clients send from a higher port (nping sends from "
    "53: use -g 40000)"
)


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        (Drop.LOOP, ""),
        (Drop.SOURCE_PORT_LOW, LOW),
        (
            Drop.SOURCE_PORT_REFUSED,
            "; guard.refuse_source_ports has their source port: let honest clients send from another port",
        ),
        (Drop.SOURCE_PORT_OWN, "; echod listens on their source port: let honest clients send from another port"),
    ],
)
def test_an_entry_about_a_source_port_has_advice(log: list[EventDict], reason: Drop, advice: str) -> None:
    """A datagram's client can use another port; a closed connection whose reason has the same number has no advice."""
    refusals, close = RefusalLog(), Close(reason)
    refusals.add(UDP, report(reason, a=1))
    refusals.add(TCP, report(close, a=1))
    refusals.log_due(1000.0)
    counts = "from 1 source, most from 192.0.2.97 (1)"
    assert [entry["message"] for entry in log] == [
        f"refused 1 datagram at udp://127.0.0.1:7: {reason.name.lower()}, {counts}{advice}",
        f"refused 1 connection at tcp://127.0.0.1:7: {close.name.lower()}, {counts}",
    ]


def test_further_sources_are_named_as_more(log: list[EventDict]) -> None:
    """Where a worker did not know all, neither does the entry, and it reports that."""
    refusals = RefusalLog()
    refusals.add(UDP, report(a=5, more=True))
    refusals.add(UDP, report(b=5))
    refusals.log_due(1000.0)
    assert (log[0]["refused"], log[0]["sources"], log[0]["more_sources"]) == (11, 2, True)
    assert "from more than 2 sources" in log[0]["message"]


def test_at_most_ten_entries_at_a_look_and_the_rest_waits_its_turn(log: list[EventDict]) -> None:
    """Many listeners that all refuse are logged ten at a look, each once before any is logged twice, none lost."""
    refusals = RefusalLog()
    listeners = [listener(port=1 + number) for number in range(100)]
    for second in range(30):
        for each in listeners:
            refusals.add(each, report(a=1))
        before = len(log)
        refusals.log_due(1000.0 + second)
        assert len(log) - before <= MAX_ENTRIES
    logged = Counter(entry["listener"] for entry in log)
    assert set(logged.values()) == {3}
    assert len(logged) == 100
    assert sum(entry["refused"] for entry in log[-100:]) == 100 * 10


def test_sources_are_bounded_and_refusals_are_not(log: list[EventDict]) -> None:
    """Of 100,000 addresses a thousand are remembered, and each datagram is counted."""
    refusals = RefusalLog()
    for number in range(400):
        sources = {f"10.{number >> 8}.{number & 255}.{index}": 1 for index in range(250)}
        refusals.add(UDP, Report(listener=0, reason=Drop.RATE, refused=250, sources=sources, more=False))
    assert {len(summary.sources) for summary in refusals._summaries.values()} == {MAX_SOURCES}
    refusals.log_due(1000.0)
    assert (log[0]["refused"], log[0]["sources"], log[0]["more_sources"]) == (100_000, MAX_SOURCES, True)


SOURCES = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 50), min_size=1)
REPORTS = st.one_of(
    st.tuples(st.sampled_from([UDP, OTHER]), st.sampled_from(list(Drop)), SOURCES),
    st.tuples(st.just(TCP), st.sampled_from(list(Close)), SOURCES),
)


@settings(deadline=None)
@given(looks=st.lists(st.lists(REPORTS, max_size=20), max_size=20))
def test_each_refusal_is_logged_once_and_as_soon_as_it_may_be(
    looks: list[list[tuple[Listener, Drop | Close, dict[str, int]]]],
) -> None:
    """A listener and reason have an entry at once, then one in ten seconds, with all since the last and the top source.

    Of those that are due at a look, ten are logged; after the last report all are, within the next minute.
    """
    refusals, pending = RefusalLog(), dict[tuple[str, str], Counter[str]]()
    due: Counter[tuple[str, str]] = Counter()
    for second in range(len(looks) + 60):
        for where, reason, sources in looks[second] if second < len(looks) else ():
            total = sum(sources.values())
            refusals.add(where, Report(listener=0, reason=reason, refused=total, sources=sources, more=False))
            pending.setdefault((str(where), reason.name.lower()), Counter()).update(sources)
        allowed = {key for key in pending if due[key] <= second}
        with structlog.testing.capture_logs() as log:
            refusals.log_due(float(second))
        assert len(log) == min(MAX_ENTRIES, len(allowed))
        for entry in log:
            key = (entry["listener"], entry["reason"])
            assert key in allowed
            due[key] = second + int(SUMMARY_SECONDS)
            since = pending.pop(key)
            assert entry["top_source_refused"] == max(since.values()) == since[entry["top_source"]]
            assert (entry["refused"], entry["sources"]) == (since.total(), len(since))
    assert pending == {}


def test_full_queues_are_logged_like_refusals(log: list[EventDict]) -> None:
    """Once in ten seconds for each listener, with the sum; one that lost nothing is not mentioned."""
    refusals = RefusalLog()
    refusals.add_kernel_drops(UDP, 4777)
    refusals.add_kernel_drops(OTHER, 0)
    for second in range(10):
        refusals.log_due(1000.0 + second)
        refusals.add_kernel_drops(UDP, 1)
    refusals.log_due(1000.0 + SUMMARY_SECONDS)
    assert [(entry["event"], entry["dropped"]) for entry in log] == [("queue_full", 4777), ("queue_full", 10)]
    assert log[0]["message"] == (
        "the kernel dropped at least 4,777 datagrams at udp://127.0.0.1:7 before echod received them (a train counts "
        "as one), most likely because the queue was full: raise udp.receive_buffer, or workers if they are busy"
    )
    assert log[0]["log_level"] == "warning"
