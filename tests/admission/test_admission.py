"""The admission: what is remembered of peers; a look over a batch says what a look at each datagram says."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import cycle
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.peers import CLIENT, access, admission, admit_all, limit, names, peer, rules

from echod.admission.admission import Admission
from echod.admission.rules import Rules
from echod.admission.selftest import SelfTest
from echod.net.peers import PEER4_BYTES
from echod.stats.outcomes import Drop

HOSTS = ("10.0.0.1", "10.0.0.2", "10.0.0.9", "192.0.2.1", "127.0.0.1", "224.0.0.1")
HOSTS6 = ("fd00::1", "fd00::2", "fd00:0:0:1::1", "fd00::9", "2001:db8::1", "::1", "ff02::1")


# -- what is remembered


def test_an_address_that_becomes_ours_is_decided_anew() -> None:
    """A peer that was answered is refused as soon as its address is known to be our own, in batches and in trains."""
    by, batch = admission(), [peer("192.0.2.1")]
    assert admit_all(by, batch) == {}
    by.set_own_addresses([ip_network("192.0.2.1")])
    assert admit_all(by, batch) == {0: Drop.SOURCE_IS_SELF}
    assert by.admit(batch[0], on_loopback=False, unicast=True, truncated=False) is Drop.SOURCE_IS_SELF
    by.set_own_addresses([])
    assert admit_all(by, batch) == {}


def test_what_is_known_of_a_peer_on_loopback_is_not_believed_elsewhere() -> None:
    """127.0.0.1 is answered where it came in on loopback, and right after that refused where it did not."""
    by, batch = admission(), [peer("127.0.0.1")]
    assert admit_all(by, batch, on_loopback=True) == {}
    assert admit_all(by, batch) == {0: Drop.SOURCE_INVALID}
    assert admit_all(by, batch, on_loopback=True) == {}


def test_memory_is_bounded_whoever_comes() -> None:
    """100,000 unknown peers leave at most `sources` of them remembered; a forgotten one is not refused."""
    by = admission(sources=1024)
    most = 0
    for number in range(0, 100_000, 50):
        batch = [peer(str(ip_address(0x0A00_0000 + number + index))) for index in range(50)]
        assert admit_all(by, batch) == {}
        assert by._known[False].issuperset(batch)
        most = max(most, len(by._known[False]))
    assert 500 < most <= 1024
    assert peer("10.0.0.0") not in by._known[False]
    assert admit_all(by, [peer("10.0.0.0")]) == {}


def test_who_is_admitted_is_known_and_who_is_refused_is_judged_each_time() -> None:
    """Known where they came in, and there alone."""
    by, one, low = admission(), peer("10.0.0.1"), peer("10.0.0.1", 53)
    for _ in range(2):
        assert admit_all(by, [one, low]) == {1: Drop.SOURCE_PORT_LOW}
        assert by._known == {False: {one}, True: set()}


# -- a batch that the rules let pass


@pytest.mark.parametrize("make", [lambda host: peer(f"10.0.0.{host}"), lambda host: peer(f"fd00:0:0:{host}::1")])
def test_with_a_limit_each_datagram_of_a_batch_is_charged(make: Callable[[int], bytes]) -> None:
    """Whether few sources sent them or each another one, those over the limit are reported, the last of each source."""
    by, now = admission(burst=2), 100.0
    assert by.limited
    length = len(make(1))
    few = [make(1), make(2), make(1), make(1), make(2), make(1)]
    assert by.clears_all(names(few), length, False)
    assert by.charge_all(names(few), length, now) == {3: Drop.RATE, 5: Drop.RATE}
    many = [make(1), make(2), make(3), make(4)]
    assert by.charge_all(names(many), length, now) == {0: Drop.RATE, 1: Drop.RATE}
    assert by.charge_all(names(few), length, now) == {0: Drop.RATE, 1: Drop.RATE} | dict.fromkeys(
        range(2, 6), Drop.RATE
    )


def test_charged_alike_by_name_and_by_peer() -> None:
    """A batch is charged the same whether the rules cleared it at once or looked at each peer."""
    random = Random(1)  # noqa: S311 - no secret: the same batches each time
    one, other = admission(burst=3), admission(burst=3)
    for now in range(100, 120):
        batch = [peer(f"10.0.{random.randrange(2)}.{random.randrange(8)}") for _ in range(random.randrange(1, 40))]
        assert one.charge_all(names(batch), PEER4_BYTES, now) == admit_all(other, batch, now)


def test_without_a_limit_nobody_is_charged() -> None:
    """There is nothing that a datagram could be over."""
    by = admission()
    assert not by.limited
    assert by.charge_all(names([peer("10.0.0.1")] * 64), PEER4_BYTES, 100.0) == {}
    assert by.take(peer("10.0.0.1"), 10, 100.0) == 10


# -- rate


def test_who_is_refused_by_a_rule_pays_nothing() -> None:
    """Rate comes last: a forger who is refused for his port cannot spend what his victim has."""
    by = admission(burst=2)
    forged, honest = peer("10.0.0.1", 53), peer("10.0.0.1")
    assert admit_all(by, [forged] * 60) == dict.fromkeys(range(60), Drop.SOURCE_PORT_LOW)
    assert admit_all(by, [forged, honest, honest, honest]) == {0: Drop.SOURCE_PORT_LOW, 3: Drop.RATE}


def test_a_batch_over_the_limit_loses_its_last() -> None:
    """Of five from a source with a burst of three, the last two are refused; its neighbour is not touched."""
    by = admission(burst=3)
    one, other = peer("10.0.0.1"), peer("10.0.0.2")
    assert admit_all(by, [one, one, other, one, one, other, one]) == {4: Drop.RATE, 6: Drop.RATE}
    assert admit_all(by, [one, other], 101.0) == {}


def test_addresses_of_one_host_share_its_account() -> None:
    """From another port, or of IPv6 another address of its /64, a source has no more than from one."""
    by = admission(burst=2)
    assert admit_all(by, [peer("10.0.0.1", 2000 + number) for number in range(4)]).keys() == {2, 3}
    assert admit_all(by, [peer(f"fd00::{number}") for number in range(1, 5)]).keys() == {2, 3}


def test_some_over_the_limit_are_slipped_and_counted() -> None:
    """What slips through is answered all the same, of single datagrams and of trains, and `slipped` has the number."""
    chances = cycle([True, False])
    by = Admission(rules(), sources=1024, limit=limit(2, slip=lambda: next(chances)))
    over = admit_all(by, [peer("10.0.0.1")] * 8)
    assert over == {3: Drop.RATE, 5: Drop.RATE, 6: Drop.RATE, 7: Drop.RATE}
    assert by.slipped == 2
    assert by.take(peer("10.0.0.2"), 5, 100.0) == 2 + 2
    assert by.slipped == 2 + 2
    assert admission().slipped == 0


# -- the look over a batch


PEERS = st.builds(peer, st.sampled_from(HOSTS), st.sampled_from([0, 7, 53, 1900, CLIENT, CLIENT + 1]))
PEERS6 = st.builds(peer, st.sampled_from(HOSTS6), st.sampled_from([0, 7, 53, 1900, CLIENT, CLIENT + 1]))
CLIENTS = st.builds(peer, st.sampled_from(HOSTS), st.just(CLIENT))
BATCHES = st.one_of(*(st.lists(each, min_size=1, max_size=64) for each in (PEERS, PEERS6, CLIENTS)))


def one_by_one(by: Admission, batch: list[bytes], now: float, *, on_loopback: bool) -> dict[int, Drop]:
    """Decide slot by slot, as is done of trains."""
    refused = {}
    for index, each in enumerate(batch):
        drop = by.admit(each, on_loopback=on_loopback, unicast=True, truncated=False)
        if drop is None and not by.take(each, 1, now):
            drop = Drop.RATE
        if drop is not None:
            refused[index] = drop
    return refused


@settings(deadline=None)
@given(
    batches=st.lists(st.tuples(BATCHES, st.integers(0, 8), st.booleans()), max_size=5),
    burst=st.sampled_from([0, 1, 5, 40]),
    total=st.sampled_from([None, 64]),
)
def test_the_look_over_a_batch_agrees_with_the_looks_at_each_datagram(
    batches: list[tuple[list[bytes], int, bool]], burst: int, total: int | None
) -> None:
    """`admit_all` refuses and charges exactly as `admit` and `take` do one after the other."""
    lists = access(allow=["10.0.0.0/8", "127.0.0.0/8", "fd00::/8", "::1"], deny=["10.0.0.2", "fd00::2"])
    pair = [admission(rules(lists, own=["10.0.0.9", "fd00::9"]), burst=burst, total=total) for _ in range(2)]
    now = 1000.0
    for batch, eighths, on_loopback in batches:
        now += eighths / 8
        if batch:
            cleared = pair[0].clears_all(names(batch), len(batch[0]), on_loopback)
            assert not cleared or not pair[0]._rules.judge_each(batch, on_loopback=on_loopback)
        refused = admit_all(pair[0], batch, now, on_loopback=on_loopback)
        assert refused == one_by_one(pair[1], batch, now, on_loopback=on_loopback)


@settings(deadline=None)
@given(
    peers=st.one_of(
        st.lists(st.binary(min_size=8, max_size=8), max_size=64),
        st.lists(st.binary(min_size=28, max_size=28), max_size=64),
    ),
    datagrams=st.integers(1, 65_535),
    now=st.floats(0, 1e9),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_no_peer_is_too_odd(peers: list[bytes], datagrams: int, now: float, flags: tuple[bool, bool, bool]) -> None:
    """Whatever bytes the kernel hands over as an address, in whatever order, the decision is a value."""
    by = admission(sources=1024, burst=5, total=1000)
    on_loopback, unicast, truncated = flags
    assert admit_all(by, peers, now, on_loopback=on_loopback).keys() <= set(range(len(peers)))
    for each in peers:
        drop = by.admit(each, on_loopback=on_loopback, unicast=unicast, truncated=truncated)
        assert drop is None or drop in Drop
        assert 0 <= by.take(each, datagrams, now) <= datagrams


# -- self tests


TEST = SelfTest(port=61_000, secret=b"secret")


def admission_with_test() -> Admission:
    """Make an admission that knows a self test, on a host that is 192.0.2.1 and 2001:db8::1."""
    declared = replace(access(deny=["198.51.100.0/24"]), own_ports=frozenset({7, TEST.port}))
    by = Admission(Rules(declared), sources=1024, self_test=TEST)
    by.set_own_addresses(map(ip_network, ("192.0.2.1", "2001:db8::1")))
    return by


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "127.0.0.1", "127.9.9.9", "::1"])
def test_a_probe_of_this_host_with_the_secret_is_a_self_test(host: str) -> None:
    """From each of its own addresses, and with nothing but the secret."""
    by, probe = admission_with_test(), peer(host, TEST.port)
    assert by.may_be_test(probe)
    assert by.is_test(probe, TEST.secret)
    assert not by.is_test(probe, TEST.secret + b"!")


@pytest.mark.parametrize("host", ["192.0.2.2", "2001:db8::2", "203.0.113.1"])
def test_the_secret_from_elsewhere_is_worth_nothing(host: str) -> None:
    """Whoever has overheard it cannot use it from outside."""
    assert not admission_with_test().is_test(peer(host, TEST.port), TEST.secret)


def test_only_the_port_of_self_tests_is_looked_at_again() -> None:
    """What comes from the ports of listeners is refused as ever, and without a self test nothing is one."""
    assert not admission_with_test().may_be_test(peer("127.0.0.1", 7))
    assert not admission().may_be_test(peer("127.0.0.1", TEST.port))
    assert not admission().is_test(peer("127.0.0.1", TEST.port), TEST.secret)


@pytest.mark.parametrize(
    ("host", "on_loopback", "verdict"),
    [
        ("192.0.2.2", False, None),
        ("2001:db8::2", False, None),
        ("198.51.100.1", False, Drop.ACCESS),
        ("192.0.2.1", False, Drop.SOURCE_IS_SELF),
        ("127.0.0.1", False, Drop.SOURCE_INVALID),
        ("127.0.0.1", True, None),
        ("::1", True, None),
    ],
)
def test_anybody_else_with_that_port_is_judged_by_his_address(
    host: str, *, on_loopback: bool, verdict: Drop | None
) -> None:
    """As if he had any other port, which on another host may well be his by chance."""
    by = admission_with_test()
    assert by.judge_address(peer(host, TEST.port), on_loopback=on_loopback) is verdict
    assert by.admit(peer(host, 40_000), on_loopback=on_loopback, unicast=True, truncated=False) is verdict


def test_to_the_rules_the_port_is_one_of_our_own() -> None:
    """So ordinary traffic pays no look for self tests, and none of these is ever remembered as admitted."""
    by, batch = admission_with_test(), [peer("203.0.113.1", TEST.port)]
    for _ in range(2):
        assert admit_all(by, batch) == {0: Drop.SOURCE_PORT_OWN}
