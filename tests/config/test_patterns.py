"""echod.config.patterns: each expression matches what its parser takes, and hardly anything else."""

import re
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from echod.config import patterns
from echod.config.access import parse_entry
from echod.net.listener import parse_endpoint, parse_listener

NETWORK = re.compile(patterns.NETWORK)
LISTENER = re.compile(patterns.LISTENER)
ENDPOINT = re.compile(patterns.ENDPOINT)


def takes(parse: Callable[[str], object], text: str) -> bool:
    """Tell whether a parser takes a text."""
    with suppress(ValueError):
        parse(text)
        return True
    return False


@given(st.integers(0, 3000), st.integers(0, 3000))
@example(0, 0)
@example(0, 9)
@example(100, 2999)
def test_the_numbers_between_two_are_matched_and_no_other(one: int, other: int) -> None:
    """Nor is one with a leading zero."""
    low, high = sorted((one, other))
    pattern = re.compile(f"^{patterns.number(low, high)}$")
    matched = [number for number in range(3100) if pattern.search(str(number))]
    assert matched == list(range(low, high + 1))
    assert not pattern.search(f"0{low}")


@given(st.integers(1, 2**31), st.integers(1, 2**31), st.integers(0, 2**32))
def test_the_numbers_between_two_large_ones_are_matched(one: int, other: int, number: int) -> None:
    """Of any length."""
    low, high = sorted((one, other))
    pattern = re.compile(f"^{patterns.number(low, high)}$")
    for each in (number, low - 1, low, low + 1, high - 1, high, high + 1):
        assert bool(pattern.search(str(each))) == (low <= each <= high)


@pytest.mark.parametrize("text", ["4096", "4096B", "4096 B", "008  MiB", "4 KiB", "1048576 KiB", "1024MiB", "1 GiB"])
def test_a_size_within_the_bounds_is_matched(text: str) -> None:
    """With a unit or without, and any number of spaces before it."""
    assert re.search(patterns.size(4096, 2**30), text)


@pytest.mark.parametrize(
    "text", ["4095", "3 KiB", "1048577 KiB", "1025 MiB", "2 GiB", "0 B", "8 MB", "8 mib", "MiB", "8.5 MiB"]
)
def test_another_size_is_not_matched(text: str) -> None:
    """Each unit has its bounds."""
    assert not re.search(patterns.size(4096, 2**30), text)


SIX = st.ip_addresses(v=6).flatmap(
    lambda address: st.sampled_from([str(address), address.exploded, str(address).upper()])
)
PARTS = st.sampled_from(["::", ":", "1", "0", "ab", "FFFF", "12345", "g", "1.2.3.4", "256", "."])
SIXES = SIX | st.lists(PARTS, max_size=18).map("".join) | st.from_regex(re.compile("[0-9a-f:]{2,40}"), fullmatch=True)


@settings(max_examples=400)
@given(SIXES)
@example("::")
@example("::ffff:192.0.2.1")
@example("1:2:3:4:5:6:192.0.2.1")
@example("1:2:3:4:5::192.0.2.1")
@example("1:2:3:4:5:6:7::")
def test_an_ipv6_address_is_matched_and_nothing_else(text: str) -> None:
    """By the judgement of Python's ipaddress."""
    assert bool(NETWORK.search(text)) == (takes(IPv6Address, text) or takes(IPv4Address, text))


@given(st.ip_addresses(), st.integers(0, 140))
def test_what_is_a_network_is_matched(address: IPv4Address | IPv6Address, length: int) -> None:
    """And no longer prefix than an address has bits; one whose host bits are set is only found by the parser."""
    assert NETWORK.search(str(address))
    assert bool(NETWORK.search(f"{address}/{length}")) == (length <= address.max_prefixlen)
    assert not NETWORK.search(f"{address}/0{length}")
    assert not takes(parse_entry, f"{address}/{address.max_prefixlen + 1}")


HOSTS = st.ip_addresses(v=4).map(str) | SIX.map(lambda text: f"[{text}]")
ZONES = st.sampled_from(
    ["", "%eth0", "%vrf-red", "%br-1.100", "%ü", "%a]b", "%[x", "%", "%a:b", "%a b", "%toolongtobeaname"]
)
PORTS = st.sampled_from(["", ":", ":0", ":07", ":65536", ":7-", ":9-7"]) | st.integers(1, 65_535).map(
    lambda port: f":{port}"
)


@given(st.sampled_from(["udp", "tcp", "http", "UDP", "sctp", ""]), HOSTS, ZONES, PORTS, PORTS)
def test_what_the_parser_takes_is_matched(scheme: str, host: str, zone: str, port: str, last: str) -> None:
    """Listeners with a range and without, and endpoints."""
    where = f"{host[:-1]}{zone}]" if host.endswith("]") else host + zone
    for text in (f"{scheme}://{where}{port}", f"{scheme}://{where}{port}{last.replace(':', '-')}"):
        assert LISTENER.search(text) or not takes(parse_listener, text)
        assert ENDPOINT.search(text) or not takes(parse_endpoint, text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "0.0.0.0:7",
            "udp:/0.0.0.0:7",
            "udp://localhost:7",
            "udp://*:7",
            "udp://0.0.0.0",
            "udp://0.0.0.0:",
            "udp://:7",
        ),
        *("udp://0.0.0.0:0", "udp://0.0.0.0:65536", "udp://0.0.0.0:07", "udp://0.0.0.0:7-", "udp://0.0.0.0:7-8-9"),
        *("udp://256.0.0.1:7", "udp://01.2.3.4:7", "udp://1.2.3:7", "udp://::1:7", "udp://[::1:7", "udp://[1.2.3.4]:7"),
        *(
            "udp://[::g]:7",
            "udp://0.0.0.0:7/",
            "udp://a@0.0.0.0:7",
            "udp://0.0.0.0%:7",
            "udp://[fe80::1%a:b]:7",
            " udp://[::]:7",
        ),
    ],
)
def test_what_no_parser_takes_is_not_matched(text: str) -> None:
    """Nor as an endpoint."""
    for pattern, parse, each in (
        (LISTENER, parse_listener, text),
        (ENDPOINT, parse_endpoint, text.replace("udp:", "http:")),
    ):
        assert not takes(parse, each)
        assert not pattern.search(each)


@pytest.mark.parametrize(
    ("text", "matches"), [("auto", True), ("/", True), ("/run", True), ("run", False), ("automatic", False)]
)
def test_a_directory_is_absolute_or_auto(text: str, matches: bool) -> None:  # noqa: FBT001 - a column of a table
    """What follows the slash is not reported."""
    assert bool(re.search(patterns.DIRECTORY, text)) == matches


@pytest.mark.parametrize(
    ("text", "matches"), [("echo.example.com", True), ("x", True), ("_a-b", True), ("-a", False), ("a:80", False)]
)
def test_a_name_of_a_host_has_neither_protocol_nor_port(text: str, matches: bool) -> None:  # noqa: FBT001 - as above
    """It begins and ends with a letter, a digit or an underscore."""
    assert bool(re.search(patterns.HOST_NAME, text)) == matches


@pytest.mark.parametrize("name", ["LISTENER", "ENDPOINT", "NETWORK", "HOST_NAME", "DIRECTORY"])
def test_an_expression_is_of_both_dialects(name: str) -> None:
    """Without look-around, references and what else only one of them has; anchored at its beginning."""
    pattern: str = getattr(patterns, name)
    assert not re.search(r"\(\?|\\[^.\[\]s]", pattern)
    assert pattern.startswith("^")
