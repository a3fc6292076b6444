"""echod.stats.refusals: how many were refused is exact, from whom is bounded, and both survive as bytes."""

import json
from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echod.stats.outcomes import Close, Drop
from echod.stats.refusals import Report, Tally

ONE_DATAGRAM = 65_536
"""Bytes that the supervisor receives at once."""

COUNTS = st.integers(1, 2**40)


def packed(address: str) -> bytes:
    """Write an address as it lies in a sockaddr."""
    return ip_address(address).packed


def number(index: int) -> bytes:
    """Make an IPv4 address of a number."""
    return IPv4Address(0x0A00_0000 + index).packed


def test_each_reason_has_a_report() -> None:
    """What was refused for one reason is added up, source by source, and apart from all other reasons."""
    tally = Tally(3)
    tally.add(Drop.ACCESS, packed("192.0.2.1"), 1)
    tally.add(Drop.RATE, packed("192.0.2.1"), 10)
    tally.add(Drop.ACCESS, packed("2001:db8::1"), 5)
    tally.add(Drop.ACCESS, packed("192.0.2.1"), 2)
    access = {"2001:db8::1": 5, "192.0.2.1": 3}
    assert list(tally.reports()) == [
        Report(listener=3, reason=Drop.ACCESS, refused=8, sources=access, more=False),
        Report(listener=3, reason=Drop.RATE, refused=10, sources={"192.0.2.1": 10}, more=False),
    ]


def test_what_was_reported_is_not_reported_again() -> None:
    """A report begins the next one anew."""
    tally = Tally(0)
    tally.add(Drop.ACCESS, packed("192.0.2.1"), 7)
    assert [report.refused for report in tally.reports()] == [7]
    assert list(tally.reports()) == []
    tally.add(Drop.ACCESS, packed("192.0.2.1"), 1)
    assert [report.refused for report in tally.reports()] == [1]


@pytest.mark.parametrize(("sources", "more"), [(256, False), (257, True)])
def test_a_report_says_whether_there_were_further_sources(sources: int, *, more: bool) -> None:
    """256 addresses are all named; of 257 one is not, and the report counts it. Each refusal is counted in both."""
    tally = Tally(0)
    for index in range(sources):
        tally.add(Drop.RATE, number(index), 2)
    (report,) = tally.reports()
    assert (report.refused, len(report.sources), report.more) == (2 * sources, 256, more)


def test_a_flood_of_sources_is_counted_and_not_remembered() -> None:
    """Of 100,000 addresses a few hundred stay, the one refused most first; the sum is exact, the report is small."""
    tally = Tally(1023)
    tally.add(Drop.SOURCE_PORT_REFUSED, packed("2001:db8:1111:2222:3333:4444:5555:6666"), 50)
    for index in range(100_000):
        tally.add(Drop.SOURCE_PORT_REFUSED, number(index), 1)
    assert len(tally._sources[Drop.SOURCE_PORT_REFUSED]) <= 257
    (report,) = tally.reports()
    assert (report.refused, report.more) == (100_050, True)
    assert next(iter(report.sources.items())) == ("2001:db8:1111:2222:3333:4444:5555:6666", 50)
    assert len(report.pack()) < ONE_DATAGRAM


@settings(deadline=None)
@given(
    report=st.builds(
        Report,
        listener=st.integers(0, 1023),
        reason=st.sampled_from([int(reason) for reason in (*Drop, *Close)]),
        refused=COUNTS,
        sources=st.dictionaries(st.ip_addresses().map(str), COUNTS, min_size=1, max_size=8),
        more=st.booleans(),
    )
)
def test_a_report_survives_as_bytes(report: Report) -> None:
    """What was packed is unpacked, whatever the numbers are, with the sources in their order."""
    again = Report.unpack(report.pack())
    assert again == report
    assert list(again.sources) == list(report.sources)


@pytest.mark.parametrize(
    "packed", [b"", b"[", b"[0,1,1,{}]", b"[0,1,1,{},false]", b'[-1,1,1,{"::1":1},false]', b'[0,1,1,{"x":1},false]']
)
def test_what_is_no_report_is_no_report(packed: bytes) -> None:
    """ValueError, whatever else it is: also where it has no source, or one that is no address."""
    with pytest.raises(ValueError, match="validation error"):
        Report.unpack(packed)


def test_the_longest_report_is_one_message() -> None:
    """The most addresses of the greatest length, and great counts, fit into what the supervisor receives at once."""
    longest = {f"2001:db8:1111:2222:3333:4444:5555:{0x1000 + index:x}": 2**63 - 1 for index in range(256)}
    report = Report(listener=1023, reason=11, refused=2**63 - 1, sources=longest, more=True)
    assert len(report.pack()) < ONE_DATAGRAM
    assert Report.unpack(report.pack()) == report


def test_a_report_is_never_a_word_of_the_channel() -> None:
    """A report is a JSON list, so it begins with a bracket, and no command or READY does."""
    report = Report(listener=0, reason=1, refused=1, sources={"::1": 1}, more=False)
    assert json.loads(report.pack()) == [0, 1, 1, {"::1": 1}, False]
