"""`echod ping` reports the TTL and the DSCP that replies arrive with, and each change of them."""

import json
import select
import socket

import pytest
from support.loopback import at, udp_server
from support.ping.pinging import ended, start

OPTIONS = {
    "127.0.0.1": (socket.IPPROTO_IP, socket.IP_TTL, socket.IP_TOS),
    "::1": (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, socket.IPV6_TCLASS),
}
REPLIES = [(64, 0x00), (64, 0xB9), (61, 0xB9), (61, 0xB9), (61, 0x04)]
"""TTL and TOS byte of each reply; the lowest two bits of the latter are ECN."""


def replied(host: str, *words: object) -> tuple[str, str]:
    """Run `echod ping` against a server that replies with these headers; return its output, and its target."""
    level, ttl, tos = OPTIONS[host]
    with udp_server(host) as server:
        target = f"[{host}]:{at(server)[1]}" if ":" in host else f"{host}:{at(server)[1]}"
        with start("-c", len(REPLIES), "-i", 0, "-W", 30, *words, target) as process:
            for reply in REPLIES:
                assert select.select([server], [], [], 30)[0]
                data, peer = server.recvfrom(65_536)
                server.setsockopt(level, ttl, reply[0])
                server.setsockopt(level, tos, reply[1])
                server.sendto(data, peer)
            return ended(process)[0], target


@pytest.mark.parametrize("host", OPTIONS)
def test_lines_and_statistics_name_ttl_and_dscp_and_their_changes(host: str) -> None:
    """Over both families: in the line of the reply that is the first with another value, and at the end."""
    out, target = replied(host)
    lines = [line.partition(" bytes from ")[2] for line in out.splitlines() if " bytes from " in line]
    shown = [line.partition(" time=")[0] + line.partition(" ms")[2] for line in lines]
    assert shown == [
        f"{target}: seq=1 ttl=64",
        f"{target}: seq=2 ttl=64 dscp=EF (DSCP CHANGED! 0 before)",
        f"{target}: seq=3 ttl=61 dscp=EF (TTL CHANGED! 64 before)",
        f"{target}: seq=4 ttl=61 dscp=EF",
        f"{target}: seq=5 ttl=61 dscp=LE (DSCP CHANGED! EF before)",
    ]
    statistics = out.partition("statistics ---\n")[2].splitlines()
    assert [line for line in statistics if line.startswith(("ttl", "dscp", "path"))] == [
        "ttl of replies: 61 (3 replies), 64 (2 replies)",
        "dscp of replies: 0 (1 reply), LE (1 reply), EF (3 replies)",
        "path changed: 3 times, the first at seq=2 (DSCP CHANGED! 0 before)",
    ]


def test_the_fields_name_them_as_numbers() -> None:
    """In JSON; `previous_` is there where the value has changed, and not otherwise."""
    out, _ = replied("127.0.0.1", "--json")
    *replies, last = [json.loads(line) for line in out.splitlines()]
    names = ("ttl", "dscp", "previous_ttl", "previous_dscp")
    assert [[each.get(name) for name in names] for each in replies] == [
        [64, 0, None, None],
        [64, 46, None, 0],
        [61, 46, 64, None],
        [61, 46, None, None],
        [61, 1, None, 46],
    ]
    summary = last["targets"][0]
    assert summary["ttls"] == [{"ttl": 61, "replies": 3}, {"ttl": 64, "replies": 2}]
    assert summary["dscps"] == [{"dscp": 0, "replies": 1}, {"dscp": 1, "replies": 1}, {"dscp": 46, "replies": 3}]
    assert summary["path_changes"] == 3
