"""echod.bpf.maps: what is in the maps for a declaration, and what the counters in them say."""

import struct
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from random import Random

import pytest
from support.bpf import ANY, ANY6, LOCAL, LOCAL6, declaration, rules
from support.loopback import listener

from echod.admission.rules import Rules, RuleSet
from echod.bpf.layout import PORTS, SELF_TEST, SPECIFIC
from echod.bpf.maps import (
    KernelTraffic,
    Kind,
    Shape,
    add_rows,
    describe,
    join_rows,
    local_entries,
    pack_number,
    pack_ports,
    refused_entries,
    shapes,
)
from echod.bpf.options import Limits
from echod.net.networks import Network
from echod.stats.outcomes import Drop


def port_at(packed: bytes, version: int, port: int) -> int:
    """Return the entry of a destination port."""
    (entry,) = struct.unpack_from("<H", packed, (1 if version == 4 else 3) * 65_536 + 2 * port)
    assert isinstance(entry, int)
    return entry


def key(network: str, port: int = 0) -> bytes:
    """Return the key of a prefix: its length behind version and port, these, and the address."""
    declared = ip_network(network)
    head = struct.pack("<IH", 32 + declared.prefixlen, declared.version) + struct.pack("!H", port)
    return head + declared.network_address.packed.ljust(16, b"\0")


# -- ports


def test_source_ports_have_the_reason_of_the_rules() -> None:
    """Each of the 65,536, and the port of self tests has a mark of its own."""
    packed = pack_ports(declaration(self_test_port=20_000))
    compiled, host = Rules(rules()), ip_address("10.0.0.2")
    expected = [compiled.judge_host(host, port, on_loopback=False) for port in range(65_536)]
    assert [packed[port] for port in range(65_536) if port != 20_000] == [
        int(drop or 0) for port, drop in enumerate(expected) if port != 20_000
    ]
    assert packed[20_000] == SELF_TEST == 255
    assert len(packed) == 5 * PORTS


def test_destination_ports_have_their_row() -> None:
    """By family, in order; a listener that has its port not on all addresses has a mark."""
    declared = declaration(
        listeners=(listener(ANY, 7), listener(LOCAL6, 7), listener(ANY6, 9), listener(ANY, 9, zone="eth0"))
    )
    packed = pack_ports(declared)
    assert declared.accounts == ((4, 7), (4, 9), (6, 7), (6, 9))
    assert declared.rows == 8
    assert port_at(packed, 4, 7) == 1
    assert port_at(packed, 4, 9) == 2 | SPECIFIC
    assert port_at(packed, 6, 7) == 3 | SPECIFIC
    assert port_at(packed, 6, 9) == 4
    assert sum(any(packed[PORTS + 2 * n : PORTS + 2 * n + 2]) for n in range(2 * PORTS)) == 4


def test_a_port_with_a_wildcard_is_general_whatever_else_it_has() -> None:
    """One of its listeners has all addresses."""
    declared = declaration(listeners=(listener(LOCAL, 7), listener(ANY, 7)))
    assert port_at(pack_ports(declared), 4, 7) == 1


# -- local addresses


def test_a_wildcard_is_every_own_address_and_loopback() -> None:
    """Of its family alone, under no port."""
    entries = dict(local_entries(declaration(listeners=(listener(ANY, 7), listener(ANY, 9)))))
    expected = ("10.0.0.1/32", "10.0.0.9/32", "127.0.0.0/8")
    assert entries == {key(network): pack_number(1) for network in expected}
    entries = dict(local_entries(declaration(listeners=(listener(ANY6, 7),))))
    expected = ("fd00::1/128", "fd00::9/128", "::1/128")
    assert entries == {key(network): pack_number(1) for network in expected}


def test_a_listener_on_one_address_is_that_one_under_its_port() -> None:
    """One that is bound to an interface is not there: its port may be another's at another interface."""
    declared = declaration(
        listeners=(
            listener(LOCAL, 7),
            listener(LOCAL6, 9, zone="eth0"),
            listener(ANY, 8, zone="eth0"),
            listener(ANY6, 8, zone="eth0"),
        )
    )
    assert dict(local_entries(declared)) == {key("10.0.0.1/32", 7): pack_number(1)}


# -- refused prefixes


def test_each_listed_prefix_has_the_verdict_of_the_first_level_that_contains_it() -> None:
    """Also one that a level before contains; and what nobody lists is refused."""
    declared = RuleSet(
        allow=(ip_network("10.0.0.0/8"), ip_network("10.1.1.0/24"), ip_network("192.0.2.0/24")),
        deny=(ip_network("10.1.0.0/16"), ip_network("192.0.2.0/24")),
        own_addresses=(ip_network("10.1.2.3/32"),),
    )
    entries = dict(refused_entries(declared))
    expected = {
        "0.0.0.0/0": Drop.ACCESS,
        "10.0.0.0/8": 0,
        "10.1.0.0/16": Drop.ACCESS,
        "10.1.1.0/24": Drop.ACCESS,
        "10.1.2.3/32": Drop.SOURCE_IS_SELF,
        "192.0.2.0/24": Drop.ACCESS,
        "127.0.0.0/8": Drop.SOURCE_INVALID,
        "::/0": Drop.ACCESS,
        "::/96": Drop.SOURCE_INVALID,
    }
    assert {network: entries[key(network)] for network in expected} == {
        network: pack_number(drop) for network, drop in expected.items()
    }
    assert len(entries) == 6 + 4 + 4  # ours and the default of IPv4, and what no host has of both


def test_a_prefix_of_all_addresses_is_the_default() -> None:
    """Where the access list names it."""
    everybody = RuleSet(allow=(ip_network("0.0.0.0/0"), ip_network("::/0")), deny=())
    entries = dict(refused_entries(everybody))
    assert entries[key("0.0.0.0/0")] == entries[key("::/0")] == pack_number(0)


def longest_match(entries: dict[bytes, bytes], address: IPv4Address | IPv6Address) -> int:
    """Look up an address as the kernel does: by each length, the longest first."""
    bits, octets = address.max_prefixlen, address.max_prefixlen // 8
    for length in range(bits, -1, -1):
        begin = (int(address) >> bits - length << bits - length).to_bytes(octets, "big").ljust(16, b"\0")
        value = entries.get(struct.pack("<IHH", 32 + length, address.version, 0) + begin)
        if value is not None:
            return int.from_bytes(value, "little")
    raise AssertionError("there is no default")


@pytest.mark.parametrize("seed", range(20))
def test_the_longest_match_is_what_the_rules_say(seed: int) -> None:
    """For lists at random, of prefixes that nest in each other, in every level."""
    random = Random(seed)  # noqa: S311 - no secret

    def networks() -> tuple[Network, ...]:
        made: list[Network] = []
        for _ in range(random.randint(0, 8)):
            length = random.randint(0, 10)
            made.append(IPv4Network((random.getrandbits(8) << 24 | random.getrandbits(2) << 22, length), strict=False))
            made.append(
                IPv6Network(
                    (random.choice((0xFD, 0x20, 0)) << 120 | random.getrandbits(2) << 118, length), strict=False
                )
            )
        return tuple(made)

    declared = RuleSet(allow=networks(), deny=networks(), own_addresses=networks())
    entries, compiled = dict(refused_entries(declared)), Rules(declared)
    assert len(entries) == len(refused_entries(declared))
    for _ in range(100):
        address = (
            ip_address(random.getrandbits(32))
            if random.random() < 0.5
            else ip_address(random.choice((0xFD, 0x20, 0)) << 120 | random.getrandbits(120))
        )
        verdict = compiled.judge_host(address, 40_000, on_loopback=False)
        assert longest_match(entries, address) == int(verdict or 0), address


# -- shapes


def test_a_map_that_nothing_needs_is_small() -> None:
    """Without limits there are no accounts, without the loop breaker no samples."""
    declared = declaration(sources=65_536)
    assert declared.bounded is None
    small = shapes(declared, cpus=2, refused=0, local=3)
    assert {name: small[name].entries for name in ("rates", "peers", "samples", "paths")} == {
        "rates": 1,
        "peers": 1,
        "samples": 1,
        "paths": 65_536,
    }
    assert small["refuse"] == Shape(kind=Kind.PREFIXES, key_bytes=24, value_bytes=8, entries=1, flags=1)
    assert small["local"].entries == 3
    assert small["newcomers"] == Shape(kind=Kind.ARRAY, key_bytes=4, value_bytes=65_536 * 2)
    limits = Limits(per_source=1, burst=1)
    full = shapes(replace(declared, limits=limits, loop_breaker=True), cpus=2, refused=9, local=3)
    assert {name: full[name].entries for name in ("rates", "peers", "samples")} == {
        "rates": 65_536,
        "peers": 4096,
        "samples": 65_536,
    }
    assert full["counts"] == Shape(kind=Kind.ARRAY, key_bytes=4, value_bytes=2 * 8 * 256, flags=1 << 10)


def test_a_table_for_few_sources_has_room_for_every_cpu() -> None:
    """Each CPU takes free entries by 128."""
    few = shapes(declaration(sources=1024), cpus=2, refused=0, local=0)
    assert (few["paths"].entries, few["newcomers"].value_bytes) == (4096, 4096 * 2)


@pytest.mark.parametrize(
    ("limits", "bounded"),
    [
        (None, False),
        (Limits(per_source=None, burst=1), False),
        (Limits(per_source=1, burst=1), True),
        (Limits(per_source=None, burst=1, total=1), True),
    ],
)
def test_limits_that_limit_nothing_are_none(limits: Limits | None, *, bounded: bool) -> None:
    """Then the programs charge nothing."""
    assert (declaration(limits=limits).bounded is not None) is bounded


# -- counters


def test_rows_are_added_up_over_the_cpus() -> None:
    """Two CPUs with four rows each; the first row of each is nobody's, and the last is not used."""
    numbers = [0] * (2 * 4 * 32)
    for cpu in range(2):
        for row in range(1, 3):
            at = (4 * cpu + row) * 32
            numbers[at], numbers[at + 1], numbers[at + 2], numbers[at + 3] = 10 * row + cpu, 100, 7, 2
            numbers[at + 8 + Drop.RATE] = 5
    rows = add_rows(struct.pack("<256Q", *numbers), [(4, 7), (6, 7)], 4)
    assert {account: describe(row) for account, row in rows.items()} == {
        (4, 7): KernelTraffic(replied=21, replied_bytes=200, passed=14, slipped=4, dropped={"rate": 10}),
        (6, 7): KernelTraffic(replied=41, replied_bytes=200, passed=14, slipped=4, dropped={"rate": 10}),
    }


def test_pages_are_joined_by_account() -> None:
    """An account that is on one page alone keeps its numbers."""
    joined = join_rows([{(4, 7): [1] * 32}, {(4, 7): [2] * 32, (6, 7): [5] * 32}, {}])
    assert joined == {(4, 7): [3] * 32, (6, 7): [5] * 32}
