"""Who is answered is what the config says; and where no route leads, nothing comes of an answer."""

from collections.abc import Callable

import pytest
from support.loopback import needs_root
from support.netns.datagrams import CLIENT, CLIENT6, SENDER, SENDER6, numbered, over
from support.netns.stage import Outcome, Stage, answered, refused

pytestmark = needs_root

REASON = "dropped_access"

# The networks for documentation, RFC 5737 and RFC 3849, stand for the Internet; so do 100.64/10, which is shared by
# many (RFC 6598), and the first addresses behind the private ones.
PUBLIC = ("192.0.2.7", "198.51.100.7", "203.0.113.7", "9.255.255.255", "11.0.0.1", "172.32.0.1", "2001:db8::7")
PRIVATE = ("10.255.255.254", "172.16.0.1", "172.31.255.254", "192.168.0.1", "169.254.7.7", "fc00::7", "fdff::7")
"""Without a word on access these are answered, from wherever they come."""


@pytest.mark.parametrize("source", PUBLIC)
def test_the_internet_is_not_answered_by_default(stage: Stage, source: str) -> None:
    """Closed until the operator says otherwise."""
    assert stage.meet(numbered(over(source), 10)) == refused(10, REASON)


@pytest.mark.parametrize("source", PRIVATE)
def test_private_networks_are_answered_by_default(stage: Stage, source: str) -> None:
    """RFC 1918, RFC 3927 and RFC 4193."""
    if source.startswith("169.254."):
        stage.wire.know(source)
    datagrams = numbered(over(source), 10)
    assert stage.meet(datagrams) == answered(datagrams)


def test_a_public_network_is_answered_where_the_config_allows_it(staged: Callable[..., Stage]) -> None:
    """What is allowed is answered, its neighbour is not, and what was allowed by default is not either."""
    stage = staged(
        access={"allow": ["192.0.2.0/25", "2001:db8:0:1::/64", CLIENT, CLIENT6]},
        limits={"datagrams_per_second": "unlimited"},
    )
    for source in ("192.0.2.0", "192.0.2.127", "2001:db8:0:1::", "2001:db8:0:1:ffff:ffff:ffff:ffff"):
        datagrams = numbered(over(source), 10)
        assert stage.meet(datagrams) == answered(datagrams)
    for source in ("192.0.2.128", "192.0.1.255", "2001:db8:0:2::", "2001:db8::ffff:0:0:1", SENDER, SENDER6):
        assert stage.meet(numbered(over(source), 10)) == refused(10, REASON)


def test_a_reload_changes_who_is_answered(staged: Callable[..., Stage]) -> None:
    """The new lists hold from the new generation on, for those who are known from before too."""
    stage = staged()
    datagrams = numbered(over(SENDER), 10)
    assert stage.meet(datagrams) == answered(datagrams)
    stage.reload(access={"deny": [SENDER]})
    assert stage.meet(numbered(over(SENDER), 10)) == refused(10, REASON)
    stage.reload()
    datagrams = numbered(over(SENDER), 10)
    assert stage.meet(datagrams) == answered(datagrams)


@pytest.mark.parametrize(
    ("kind", "error"),
    [("unreachable", "ehostunreach"), ("prohibit", "eacces"), ("blackhole", "einval"), ("throw", "enetunreach")],
)
@pytest.mark.parametrize("prefix", ["10.99.0.0/16", "fd00:99::/32"])
def test_a_source_without_a_route_costs_its_own_answer_alone(stage: Stage, prefix: str, kind: str, error: str) -> None:
    """The kernel refuses to send it; that is counted by its errno, and all others in the batch are answered."""
    family = "-6" if ":" in prefix else "-4"
    good = over(SENDER6 if ":" in prefix else SENDER)
    lost = over("fd00:99::7" if ":" in prefix else "10.99.0.7")
    stage.wire.configure(family, "route", "add", kind, prefix)
    try:
        goods = numbered(good, 96)
        mixed = [each for pair in zip(goods, numbered(lost, 96), strict=True) for each in pair]
        assert stage.meet(mixed, burst=64) == Outcome(
            received=192,
            refused={f"send_failed_{error}": 96},
            answers=[each.answer for each in goods],
        )
    finally:
        stage.wire.configure(family, "route", "delete", kind, prefix)
