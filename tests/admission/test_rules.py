"""echod.admission.rules: each rule on a source, its reason, and the order of the rules."""

import itertools
from dataclasses import replace
from ipaddress import ip_address

import pytest
from support.peers import CLIENT, access, admission, names, peer, rules

from echod.admission.rules import Access, Rules
from echod.stats.outcomes import Drop


def judged(host: str, port: int = CLIENT, *, on_loopback: bool = False) -> Drop | None:
    """Say what the rules say of a peer."""
    return rules().judge(peer(host, port), on_loopback=on_loopback)


# -- the ports of a peer


@pytest.mark.parametrize("host", ["10.0.0.1", "fd00::1"])
@pytest.mark.parametrize("on_loopback", [False, True])
@pytest.mark.parametrize(
    ("port", "drop"),
    [
        (0, Drop.SOURCE_PORT_ZERO),
        (1, Drop.SOURCE_PORT_LOW),
        (7, Drop.SOURCE_PORT_OWN),
        (1023, Drop.SOURCE_PORT_LOW),
        (1024, None),
        (1792, None),  # 0x0700: port 7 with its bytes turned round
        (1900, Drop.SOURCE_PORT_REFUSED),
        (7007, Drop.SOURCE_PORT_OWN),
        (11_211, Drop.SOURCE_PORT_REFUSED),
        (65_535, None),
    ],
)
def test_a_port_is_refused_for_its_own_reason(host: str, port: int, drop: Drop | None, *, on_loopback: bool) -> None:
    """Zero, our own, a low one and a listed one, of both families, wherever the datagram came in."""
    assert judged(host, port, on_loopback=on_loopback) is drop


def test_the_first_of_the_port_rules_names_the_drop() -> None:
    """A port that is our own, low and listed is counted as our own, a low and listed one as low, and zero as zero."""
    listed = frozenset({0, 7, 19, 1900})
    declared = replace(access(), own_ports=frozenset({7, 0}), min_source_port=1024, refuse_source_ports=listed)
    compiled = Rules(declared)
    drops = [compiled.judge(peer("10.0.0.1", port), on_loopback=False) for port in (0, 7, 19, 1900)]
    expected = [Drop.SOURCE_PORT_ZERO, Drop.SOURCE_PORT_OWN, Drop.SOURCE_PORT_LOW, Drop.SOURCE_PORT_REFUSED]
    assert drops == expected


@pytest.mark.parametrize("lowest", [0, 1])
def test_with_no_port_named_zero_alone_is_refused(lowest: int) -> None:
    """No answer can go to port zero; each of the other 65,535 is a client's."""
    compiled = Rules(replace(access(), min_source_port=lowest))
    refused = [port for port in range(65_536) if compiled.judge(peer("10.0.0.1", port), on_loopback=False) is not None]
    assert refused == [0]
    assert compiled.judge(peer("10.0.0.1", 0), on_loopback=False) is Drop.SOURCE_PORT_ZERO


# -- its address


@pytest.mark.parametrize(
    ("host", "elsewhere", "on_loopback"),
    [
        *((host, False, False) for host in ("0.0.0.1", "0.255.255.255", "224.0.0.0", "239.255.255.255")),
        *((host, False, False) for host in ("240.0.0.0", "255.255.255.254", "255.255.255.255")),
        *((host, False, True) for host in ("127.0.0.0", "127.0.0.1", "127.255.255.255", "::1")),
        *((host, True, True) for host in ("1.0.0.0", "126.255.255.255", "128.0.0.0", "223.255.255.255")),
        *((host, False, False) for host in ("::", "::2", "::127.0.0.1", "::255.255.255.255")),
        *((host, False, False) for host in ("::ffff:0.0.0.0", "::ffff:127.0.0.1", "::ffff:255.255.255.255")),
        *((host, False, False) for host in ("ff00::", "ff02::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")),
        *((host, True, True) for host in ("::1:0:0", "::fffe:ffff:ffff", "::1:0:0:0", "fe80::1", "2001:db8::1")),
        ("feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", True, True),
    ],
)
def test_an_address_that_no_host_has_is_refused(host: str, *, elsewhere: bool, on_loopback: bool) -> None:
    """Each block that no datagram honestly comes from, to its edges; loopback's own pass where they came in on it."""
    assert judged(host) is (None if elsewhere else Drop.SOURCE_INVALID)
    assert judged(host, on_loopback=True) is (None if on_loopback else Drop.SOURCE_INVALID)


@pytest.mark.parametrize("host", ["192.0.2.7", "198.51.100.99", "2001:db8::7", "2001:db8:1::99"])
def test_an_address_of_this_host_is_refused_but_on_loopback(host: str) -> None:
    """A single address of our own, and one of a prefix local as a whole (AnyIP), can come from loopback alone."""
    compiled = rules(own=["192.0.2.7", "198.51.100.0/24", "2001:db8::7", "2001:db8:1::/48"])
    assert compiled.judge(peer(host), on_loopback=False) is Drop.SOURCE_IS_SELF
    assert compiled.judge(peer(host), on_loopback=True) is None
    assert compiled.judge(peer("192.0.2.8"), on_loopback=False) is None
    assert compiled.judge(peer("2001:db8:2::7"), on_loopback=False) is None


@pytest.mark.parametrize(
    ("host", "drop"),
    [
        ("10.1.2.3", None),
        ("10.9.0.1", Drop.ACCESS),
        ("10.9.9.9", Drop.ACCESS),
        ("11.0.0.1", Drop.ACCESS),
        ("fd00::1", None),
        ("fd00:9::1", Drop.ACCESS),
        ("2001:db8::1", Drop.ACCESS),
    ],
)
def test_deny_wins_then_allow_else_refused(host: str, drop: Drop | None) -> None:
    """Of both families, for datagrams wherever they came in and for connections: deny, also where allow is narrower."""
    lists = access(allow=["10.0.0.0/8", "10.9.9.9/32", "fd00::/8"], deny=["10.9.0.0/16", "fd00:9::/32"])
    for on_loopback in (False, True):
        assert rules(lists).judge(peer(host), on_loopback=on_loopback) is drop
    assert Access(lists).admits(host) is (drop is None)


def test_nobody_is_allowed_by_an_empty_list() -> None:
    """Closed is what a list is that names nobody."""
    assert not Access(access(allow=())).admits("10.0.0.1")
    assert not Access(access(allow=["0.0.0.0/0"])).admits("fd00::1")


def test_a_connection_from_a_link_local_address_is_told_by_its_address() -> None:
    """The name that accept(2) gives has an interface, the lists do not."""
    assert Access(access(allow=["fe80::/10"])).admits("fe80::1%eth0")


@pytest.mark.parametrize(
    ("host", "own"), [("192.0.2.7", True), ("192.0.2.8", False), ("fd00::7", True), ("fd00::8", False)]
)
def test_an_address_is_judged_without_its_port(host: str, *, own: bool) -> None:
    """A port that is refused does not matter. An own address is known as such, and so is every loopback address."""
    compiled = rules(own=["192.0.2.7", "fd00::7"])
    drop = compiled.judge_address(peer(host, 7), on_loopback=False)
    assert drop is (Drop.SOURCE_IS_SELF if own else None)
    assert compiled.is_own(peer(host, 7)) is own
    assert compiled.is_own(peer("127.9.9.9"))
    assert compiled.is_own(peer("::1"))


# -- the order of the rules


def test_of_several_faults_the_first_rule_names_the_drop() -> None:
    """In every combination of faults the reason is the first in the order of the numbers: one datagram, one reason."""
    lists = access(allow=["10.0.0.0/8", "127.0.0.0/8", "198.51.100.7"])
    compiled = rules(lists, own=["10.0.0.7", "198.51.100.7", "203.0.113.7", "127.0.0.0/8"])
    hosts = {
        "10.0.0.1": set[Drop](),
        "10.0.0.7": {Drop.SOURCE_IS_SELF},
        "192.0.2.1": {Drop.ACCESS},
        "203.0.113.7": {Drop.SOURCE_IS_SELF, Drop.ACCESS},
        "127.0.0.1": {Drop.SOURCE_INVALID, Drop.SOURCE_IS_SELF},
        "224.0.0.1": {Drop.SOURCE_INVALID, Drop.ACCESS},
    }
    ports = {
        CLIENT: set[Drop](),
        0: {Drop.SOURCE_PORT_ZERO, Drop.SOURCE_PORT_LOW},
        7: {Drop.SOURCE_PORT_OWN, Drop.SOURCE_PORT_LOW},
        99: {Drop.SOURCE_PORT_LOW},
        1900: {Drop.SOURCE_PORT_REFUSED},
    }
    by = admission(compiled)
    for host, port, unicast, truncated in itertools.product(hosts, ports, (True, False), (True, False)):
        faults = hosts[host] | ports[port]
        faults |= {Drop.DESTINATION_NOT_UNICAST} if not unicast else set()
        faults |= {Drop.TRUNCATED} if truncated else set()
        drop = by.admit(peer(host, port), on_loopback=False, unicast=unicast, truncated=truncated)
        assert drop is min(faults, default=None), (host, port, unicast, truncated)


@pytest.mark.parametrize("host", ["10.0.0.1", "10.0.0.9", "224.0.0.1", "fd00::1", "2001:db8::ffff:1", "::", "ff02::1"])
@pytest.mark.parametrize("port", [0, 7, 53, 40_000, 65_535])
def test_a_host_is_judged_as_its_datagram_is(host: str, port: int) -> None:
    """By its address and port alone, in both families."""
    compiled = rules(access(allow=["10.0.0.0/8", "fd00::/8", "2001:db8::ffff:1"], deny=["10.0.0.9"]))
    for on_loopback in (False, True):
        expected = compiled.judge(peer(host, port), on_loopback=on_loopback)
        assert compiled.judge_host(ip_address(host), port, on_loopback=on_loopback) is expected


# -- most batches


def clears(by: Rules, *batch: bytes, on_loopback: bool = False) -> bool:
    """Take the look at a whole batch."""
    return by.clears_all(names(list(batch)), len(batch[0]), on_loopback)


def test_a_batch_of_ordinary_clients_is_cleared_in_two_looks() -> None:
    """With high ports, and addresses of whole networks that may ask; one that may not, or may not be, is enough."""
    by = rules(access(allow=["10.0.0.0/8", "fc00::/7"]))
    one, other, one6, other6 = (
        peer("10.0.0.1"),
        peer("10.255.255.255", 65_535),
        peer("fd00::1"),
        peer("fc00::9", 50_000),
    )
    assert clears(by, one, other, one)
    assert clears(by, one6, other6, one6)
    for undecided in (
        peer("192.0.2.1"),
        peer("0.0.0.1"),
        peer("10.0.0.1", 53),
        peer("10.0.0.1", 0),
        peer("10.0.0.1", 1900),
    ):
        assert not clears(by, one, undecided)
    for undecided in (peer("2001:db8::1"), peer("::"), peer("::ffff:10.0.0.1"), peer("fd00::1", 1023), peer("ff02::1")):
        assert not clears(by, one6, undecided)


def test_a_network_of_which_a_part_is_refused_is_not_cleared() -> None:
    """Nor one with an own address in it: there the look at each decides."""
    by = rules(
        access(allow=["10.0.0.0/8", "11.0.0.0/9", "12.0.0.0/8", "::/0"], deny=["10.1.2.3"]), own=["12.0.0.1", "fd00::1"]
    )
    assert not clears(by, peer("10.0.0.1"))
    assert not clears(by, peer("11.0.0.1"))
    assert not clears(by, peer("12.0.0.2"))
    assert not clears(by, peer("fd00::2"))
    assert clears(by, peer("2001:db8::1"))


def test_loopback_addresses_are_cleared_where_they_are_at_home() -> None:
    """127/8 on the loopback interface, and nowhere else."""
    assert clears(rules(), peer("127.0.0.1"), peer("127.255.0.1"), on_loopback=True)
    assert not clears(rules(), peer("127.0.0.1"))
