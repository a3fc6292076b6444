"""echod.cli.inquiry: what becomes of a source, with the rule that decides, and the limits that hold for it."""

from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.peers import peer

from echod.admission.rules import Rules
from echod.cli.inquiry import inquire, parse_source
from echod.config.schema import Config
from echod.worker.rules import declare_rules

OWN = (ip_network("10.0.0.77"), ip_network("fd00::77"))
UDP = ["udp://0.0.0.0:7007", "udp://127.0.0.1:7008", "udp://[::]:7007"]


def asked(source: str, **sections: Any) -> list[tuple[bool, str]]:  # noqa: ANN401 - as YAML is
    """Return what becomes of a source, by a config of UDP listeners or of these sections."""
    config = Config.model_validate({"listeners": UDP} | sections)
    return [(answer.replied, answer.text) for answer in inquire(config, parse_source(source), OWN)]


def reply(source: str, **sections: Any) -> str:  # noqa: ANN401 - as YAML is
    """Return the answer about a source that is replied to over the only protocol of a config."""
    ((replied, text),) = asked(source, **sections)
    assert replied
    return text


def refusal(source: str, **sections: Any) -> str:  # noqa: ANN401 - as YAML is
    """Return the answer about a source that is not replied to over the only protocol of a config."""
    ((replied, text),) = asked(source, **sections)
    assert not replied
    return text


@pytest.mark.parametrize("text", ["192.0.2.1:40000", "[2001:db8::1]:40000", "0.0.0.0:0", "[::]:65535"])
def test_a_source_is_read_and_written(text: str) -> None:
    """An address and a port, of IPv6 in brackets."""
    assert str(parse_source(text)) == text


def test_the_interface_of_a_link_local_source_is_passed_over() -> None:
    """No rule asks for it."""
    assert parse_source("[fe80::1%eth0]:5") == parse_source("[fe80::1]:5")


@pytest.mark.parametrize(
    "text",
    [
        *("", "lan", "host:7", "192.0.2.1", "192.0.2.1:", "192.0.2.1:65536", "192.0.2.1:99999999", "192.0.2:5"),
        *("::1:5", "[::1]", "[::1]:x", "[192.0.2.1]:5", "[::1:5", "[1::2::3]:7", "1.2.3.4:-5", "1.2.3.4:5 "),
        "1.2.3.4:5\n",
    ],
)
def test_what_is_no_source_is_refused_with_what_to_write(text: str) -> None:
    """One sentence for whatever it is."""
    with pytest.raises(ValueError, match="is not a source: write ADDRESS:PORT, such as 192") as error:
        parse_source(text)
    assert str(error.value).startswith(repr(text))


@pytest.mark.parametrize(
    ("source", "sections", "why"),
    [
        ("10.0.0.1:0", {}, "(dropped_source_port_zero): no reply can reach port 0"),
        (
            "10.0.0.1:7008",
            {},
            "(dropped_source_port_own): udp://127.0.0.1:7008 has the same port, and another echod may be there",
        ),
        ("10.0.0.1:1023", {}, "(dropped_source_port_low): guard.min_source_port is 1024"),
        ("10.0.0.1:1900", {}, "(dropped_source_port_refused): guard.refuse_source_ports has 1900"),
        ("0.0.0.1:4000", {}, "(dropped_source_invalid): 0.0.0.1 is not a valid source"),
        ("[::ffff:a00:1]:4000", {}, "(dropped_source_invalid): ::ffff:a00:1 is not a valid source"),
        (
            "[fd00::77]:4000",
            {},
            "(dropped_source_is_self): fd00::77 is an address of this host; on this host, use 127.0.0.1 or ::1",
        ),
        ("192.0.2.1:4000", {}, "(dropped_access): access.allow has no entry with 192.0.2.1"),
        (
            "10.9.0.1:4000",
            {"access": {"allow": ["private"], "deny": ["fd00::/8", "10.9.0.0/16"]}},
            "(dropped_access): access.deny has 10.9.0.0/16",
        ),
    ],
)
def test_what_refuses_a_datagram_is_named(source: str, sections: dict[str, Any], why: str) -> None:
    """With the counter that it goes into, the key and the entry."""
    assert refusal(source, **sections) == f"udp from {source}: refused {why}"


def test_what_is_replied_to_is_reported_with_its_listener_and_its_limits() -> None:
    """The entry that allows it, where it is replied to, and how much of it; limits only where there are some."""
    begin = "udp from 10.0.0.1:4000: replied to at udp://0.0.0.0:7007: access.allow has private"
    assert reply("10.0.0.1:4000") == begin
    limits: dict[str, Any] = {"datagrams_per_second": 1000, "total_datagrams_per_second": 50_000}
    limited = (
        f"{begin}; at most 1,000 a second from 10.0.0.1, in bursts of 256; at most 50,000 a second from all sources"
    )
    assert reply("10.0.0.1:4000", limits=limits) == limited
    dry = "; limits.dry_run: datagrams above a limit are counted and replied to"
    assert reply("10.0.0.1:4000", limits=limits | {"dry_run": True}) == limited + dry
    assert reply("10.0.0.1:4000", limits={"dry_run": True}) == begin


@pytest.mark.parametrize(("host", "name"), [("fd00::1", "the /64 of fd00::1"), ("fe80::1", "fe80::1"), ("::1", "::1")])
def test_what_counts_as_one_source_is_named(host: str, name: str) -> None:
    """A /64 of IPv6, but not where several hosts share one."""
    text = reply(f"[{host}]:4000", limits={"datagrams_per_second": 5})
    assert text.endswith(f"; at most 5 a second from {name}, in bursts of 256")


def test_a_connection_is_asked_of_the_lists_alone() -> None:
    """No port is refused over TCP; the listeners and the limits are those of TCP."""
    tcp = ["tcp://10.0.0.77:7", "tcp://0.0.0.0:9"]
    assert reply("10.0.0.1:53", listeners=tcp) == (
        "tcp from 10.0.0.1:53: replied to at tcp://10.0.0.77:7 and 1 more: access.allow has private; "
        "at most 64 connections from 10.0.0.1, 1,024 in all"
    )
    refused = "tcp from 192.0.2.1:53: refused (closed_access): access.allow has no entry with 192.0.2.1"
    assert refusal("192.0.2.1:53", listeners=tcp) == refused
    assert [replied for replied, _ in asked("10.0.0.1:53", listeners=[*UDP, *tcp])] == [False, True]


def in_mode(mode: str, address: str) -> dict[str, str]:
    """Return an entry of `listeners`."""
    return {"address": address, "mode": mode}


def test_the_mode_is_named() -> None:
    """That of an echo is not. One that replies to nobody is named at the end, and does not count as a reply."""
    several = [*UDP, in_mode("stamp", "udp://0.0.0.0:862"), in_mode("discard", "udp://0.0.0.0:9-10")]
    assert reply("10.0.0.1:4000", listeners=several) == (
        "udp from 10.0.0.1:4000: replied to at udp://0.0.0.0:7007, in mode stamp at udp://0.0.0.0:862: access.allow "
        "has private; mode discard, at udp://0.0.0.0:9 and 1 more, replies to nobody"
    )
    assert refusal("10.0.0.1:4000", listeners=several[-1:]) == (
        "udp from 10.0.0.1:4000: gets no reply: mode discard, at udp://0.0.0.0:9 and 1 more, replies to nobody"
    )
    assert refusal("10.0.0.1:4000", listeners=[in_mode("discard", "tcp://0.0.0.0:9")]) == (
        "tcp from 10.0.0.1:4000: gets no reply: mode discard, at tcp://0.0.0.0:9, replies to nobody"
    )


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("127.9.9.9:4000", "udp://127.0.0.1:7073"),
        ("[::1]:4000", "udp://[::1]:7073"),
        *((source, "udp://10.0.0.77:7073") for source in ("10.0.0.1:4000", "172.31.0.1:4000", "192.168.0.1:4000")),
        ("[fdff::1]:4000", "udp://[fd00::77]:7073"),
    ],
)
def test_reveal_replies_to_loopback_and_private_sources(source: str, place: str) -> None:
    """With its mode."""
    text = reply(source, listeners=[in_mode("reveal", place)], access={"allow": ["loopback", "private"]})
    assert text.startswith(f"udp from {source}: replied to in mode reveal at {place}: access.allow has ")


@pytest.mark.parametrize(
    "source", ["169.254.0.1:4000", "100.64.0.1:4000", "198.51.100.1:4000", "[fe80::1]:4000", "[2001:db8::1]:4000"]
)
def test_reveal_replies_to_no_other_source(source: str) -> None:
    """Whatever `access.allow` has."""
    sections: dict[str, Any] = {"access": {"allow": ["any"]}, "limits": {"datagrams_per_second": "unlimited"}}
    place = "udp://[fd00::77]:7073" if source.startswith("[") else "udp://10.0.0.77:7073"
    assert refusal(source, listeners=[in_mode("reveal", place)], **sections) == (
        f"udp from {source}: gets no reply: mode reveal, at {place}, replies to loopback and private sources alone"
    )


def test_listeners_out_of_reach_do_not_count() -> None:
    """Of the other family, or on loopback, by its address or its interface, for who is elsewhere."""
    for only in ("udp://127.0.0.1:7", "udp://0.0.0.0%lo:7"):
        assert refusal("10.0.0.1:4000", listeners=[only]) == (
            "udp from 10.0.0.1:4000: reaches no listener: "
            "no udp:// listener has an IPv4 address that other hosts can reach"
        )
        assert reply("127.0.0.1:4000", listeners=[only])
    unreached = "tcp from [::1]:4000: reaches no listener: no tcp:// listener has an IPv6 address and serves lo"
    assert refusal("[::1]:4000", listeners=["tcp://0.0.0.0:7"]) == unreached


@pytest.mark.parametrize("zone", ["eth0", "vrf-red"])
def test_a_listener_on_an_interface_receives_nothing_from_loopback(zone: str) -> None:
    """That one is not lo, and what comes from this host comes in on lo; what other hosts send comes in there."""
    bound = [f"udp://0.0.0.0%{zone}:7", f"tcp://0.0.0.0%{zone}:7", f"udp://[fe80::1%{zone}]:7", "tcp://[::%lo]:7"]
    for source, family in (("127.0.0.1:4000", 4), ("[::1]:4000", 6)):
        replied, text = asked(source, listeners=bound)[0]
        end = f"reaches no listener: no udp:// listener has an IPv{family} address and serves lo"
        assert (replied, text) == (False, f"udp from {source}: {end}")
    assert asked("[::1]:4000", listeners=bound)[1][0]
    assert all(replied for replied, _ in asked("10.0.0.1:4000", listeners=bound))
    assert asked("127.0.0.1:4000", listeners=[*bound, "udp://127.0.0.1:9"])[0][1].startswith(
        "udp from 127.0.0.1:4000: replied to at udp://127.0.0.1:9: "
    )


def test_a_broadcast_address_is_no_source() -> None:
    """Nobody has it, so the kernel drops what comes from there, over UDP and TCP, whatever the rules say."""
    config = Config.model_validate({"listeners": [*UDP, "tcp://0.0.0.0:7"]})
    answers = inquire(config, parse_source("10.9.0.255:4000"), OWN, broadcast=True)
    reason = "10.9.0.255 is a broadcast address of this host's networks, and not a valid source"
    end = f"from 10.9.0.255:4000: refused: {reason}"
    assert [(answer.replied, answer.text) for answer in answers] == [(False, f"udp {end}"), (False, f"tcp {end}")]


@settings(deadline=None, max_examples=40)
@given(
    host=st.sampled_from(
        ["10.0.0.1", "10.0.0.77", "8.8.8.8", "0.0.0.1", "224.0.0.1", "fd00::1", "fd00::77", "2001:db8::1", "::"]
    ),
    port=st.integers(0, 65_535) | st.sampled_from([7007, 7008, 53, 1900]),
)
def test_it_reports_what_the_rules_of_a_worker_decide(host: str, port: int) -> None:
    """Of any source: replied to exactly where `Rules` admits it, else with the name of its `Drop`."""
    config = Config.model_validate({"listeners": UDP})
    drop = Rules(declare_rules(config, config.listeners, OWN)).judge(peer(host, port), on_loopback=False)
    (answer,) = inquire(config, parse_source(f"[{host}]:{port}" if ":" in host else f"{host}:{port}"), OWN)
    assert answer.replied is (drop is None)
    assert drop is None or f"dropped_{drop.name.lower()}" in answer.text
