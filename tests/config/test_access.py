"""echod.config.access: the entries of an access list, and which of them include public addresses."""

import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echod.config.access import AccessEntry, find_covered, is_public, parse_entry


@pytest.mark.parametrize(
    ("text", "covered"),
    [
        *((text, [text]) for text in ("10.0.0.0/8", "0.0.0.0/0", "::/0", "::/96", "2001:db8::/32", "224.0.0.0/3")),
        ("fe80::1", ["fe80::1/128"]),
        ("192.0.2.1", ["192.0.2.1/32"]),
        ("loopback", ["127.0.0.0/8", "::1/128"]),
        ("link-local", ["169.254.0.0/16", "fe80::/10"]),
        ("private", ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]),
        ("any", ["0.0.0.0/0", "::/0"]),
    ],
)
def test_a_text_becomes_an_entry_and_back(text: str, covered: list[str]) -> None:
    """A network is itself, an address is a network of its own, and a name stands for networks of both families.

    Writing gives the text again.
    """
    entry = parse_entry(text)
    assert ([str(network) for network in entry.networks], str(entry)) == (covered, text)


def test_two_spellings_of_a_network_are_one_entry() -> None:
    """An entry is kept in its shortest form, so that a reload finds no difference where there is none; hashable."""
    assert {parse_entry("2001:DB8:0::/32"), parse_entry("192.0.2.1/32")} == {
        AccessEntry("2001:db8::/32", (IPv6Network("2001:db8::/32"),)),
        AccessEntry("192.0.2.1", (IPv4Network("192.0.2.1/32"),)),
    }


WANTED = "write a network such as 192.0.2.0/24, or loopback, link-local, private or any"


@pytest.mark.parametrize("name", ["any", "all", "lan", "wan", "net", "every", "internet", "anyone", "many", "world"])
@pytest.mark.parametrize("spell", [str.upper, str.title, "{}y".format, "-{}".format])
def test_the_whole_internet_is_never_proposed(name: str, spell: Callable[[str], str]) -> None:
    """Who misspells something may mean much less than any; what the names are is reported, and `any` is the last."""
    with pytest.raises(ValueError, match=r"loopback, link-local, private or any$"):
        parse_entry(spell(name))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1" * 61, f"has 61 characters: {WANTED}"),
        ("10.0.0.0 /8", "contains white space: write each entry on its own line, without white space"),
        ("any\n", "contains white space: write each entry on its own line, without white space"),
        ("any\x7f", "contains an unprintable character: remove it"),
        ("10.1.2.3/8", "10.1.2.3 is one address of a network: write 10.0.0.0/8 for all of it, or 10.1.2.3 alone"),
        ("fe80::1/10", "fe80::1 is one address of a network: write fe80::/10 for all of it, or fe80::1 alone"),
        ("10.0.0.0/33", "the prefix length 33 is out of bounds: write a number from 0 to 32 after the slash"),
        ("fe80::/129", "the prefix length 129 is out of bounds: write a number from 0 to 128 after the slash"),
        ("10.0.0.0/08", "the prefix length 08 begins with a zero: write 10.0.0.0/8"),
        ("10.0.0.0/", '"" is not a prefix length: write a number from 0 to 32 after the slash'),
        ("10.0.0.0/-8", '"-8" is not a prefix length: write a number from 0 to 32 after the slash'),
        ("10.0.0.0/\u0668", '"\u0668" is not a prefix length: write a number from 0 to 32 after the slash'),
        ("10.0.0.0/255.0.0.0", '"255.0.0.0" is not a prefix length: write a number from 0 to 32 after the slash'),
        ("fe80::1%eth0", "an interface is not allowed here: write fe80::1"),
        ("%eth0", f'"%eth0" is not a network: {WANTED}'),
        ("[fe80::1%eth0]", "brackets are not allowed here: write fe80::1%eth0"),
        ("[::1]", "brackets are not allowed here: write ::1"),
        ("[fe80::]/10", "brackets are not allowed here: write fe80::"),
        ("fe80:::1", f'"fe80:::1" is not an IPv6 address: {WANTED}'),
        ("10.0.0.1:7", f'"10.0.0.1:7" is not an IPv6 address: {WANTED}'),
        ("10.0.0/24", '"10.0.0" is not an IPv4 address: write four numbers from 0 to 255, without leading zeros'),
        ("256.0.0.1", '"256.0.0.1" is not an IPv4 address: write four numbers from 0 to 255, without leading zeros'),
        ("10.0.0.01", '"10.0.0.01" is not an IPv4 address: write four numbers from 0 to 255, without leading zeros'),
        ("Any", f'"Any" is not a network: {WANTED}'),
        ("lan", f'"lan" is not a network: {WANTED}'),
        ("local", f'"local" is not a network: {WANTED}'),
        ("LOOPBACK", '"LOOPBACK" is not known: did you mean loopback?'),
        ("linklocal", '"linklocal" is not known: did you mean link-local?'),
        ("privat", '"privat" is not known: did you mean private?'),
        ("world", f'"world" is not a network: {WANTED}'),
        ("10.0.0.1-10.0.0.9", f'"10.0.0.1-10.0.0.9" is not a network: {WANTED}'),
        ("", f'"" is not a network: {WANTED}'),
        ("::ffff:10.1.2.3", "is an IPv4-mapped IPv6 network: write 10.1.2.3/32"),
        ("::ffff:10.1.2.3/104", "is an IPv4-mapped IPv6 network: write 10.0.0.0/8"),
        ("::ffff:0:0/96", f"is an IPv4-mapped IPv6 network: {WANTED}"),
        ("10.1.2.3/0", "10.1.2.3/0 is every address of IPv4: write 10.1.2.3 alone, or its network"),
        ("2001:db8::7/0", "2001:db8::7/0 is every address of IPv6: write 2001:db8::7 alone, or its network"),
        ("0.0.0.0/00", '"00" is not a prefix length: write a number from 0 to 32 after the slash'),
        ("224.0.0.0/4", "224.0.0.0/4 is multicast, which is never the source of a datagram: remove it"),
        ("239.1.2.3", "239.1.2.3/32 is multicast, which is never the source of a datagram: remove it"),
        ("ff02::1", "ff02::1/128 is multicast, which is never the source of a datagram: remove it"),
        ("0.0.0.0/32", f"0.0.0.0 is never the source of a datagram: {WANTED}"),
        ("::/128", f":: is never the source of a datagram: {WANTED}"),
    ],
)
def test_a_text_that_is_no_entry_is_refused_with_what_to_write(text: str, sentence: str) -> None:
    """Whatever is wrong is reported in one sentence that shows the way out."""
    with pytest.raises(ValueError, match=rf"^{re.escape(sentence)}\Z"):
        parse_entry(text)


@settings(deadline=None)
@given(st.text() | st.text(st.sampled_from("0123456789abcdef:./%[]-\u0661\n"), max_size=60))
def test_any_text_is_an_entry_or_a_sentence(text: str) -> None:
    """Nothing but ValueError comes out; what is taken is the same entry when it is written and read again."""
    try:
        entry = parse_entry(text)
    except ValueError as error:
        assert 10 < len(str(error)) < 300  # noqa: PT017 - whether it raises is what differs
    else:
        assert parse_entry(str(entry)) == entry


LOCAL = ("loopback", "link-local", "private", "10.2.0.0/16", "172.31.255.255", "100.64.0.0/10", "192.0.2.0/24")
LOCAL += ("198.51.100.7", "203.0.113.0/24", "198.18.0.0/15", "0.0.0.0/8", "240.0.0.0/4", "255.255.255.255", "::1")
LOCAL += ("fe80::/64", "fd00::/8", "2001:db8::/32")
"""Networks for local use, examples, benchmarks and no use at all (RFC 6890)."""

PUBLIC = ("any", "0.0.0.0/0", "::/0", "8.8.8.8", "10.0.0.0/7", "172.0.0.0/8", "100.0.0.0/8", "128.0.0.0/1", "2000::/3")
"""Of each a part, at least, is elsewhere."""


@pytest.mark.parametrize(("text", "public"), [*((text, False) for text in LOCAL), *((text, True) for text in PUBLIC)])
def test_a_network_is_public_as_soon_as_a_part_of_it_is(text: str, *, public: bool) -> None:
    """What is nobody's in the Internet has no hosts of the Internet."""
    assert is_public(parse_entry(text)) is public


@pytest.mark.parametrize(
    ("entries", "others", "covered"),
    [
        ("private 8.8.8.8", "10.0.0.0/8", []),
        ("private 8.8.8.8", "8.8.8.0/24", [1]),
        ("private 8.8.8.8", "any", [0, 1]),
        ("loopback private", "private ::1 127.0.0.0/8", [0, 1]),
        ("10.0.0.0/7 10.0.0.0/8", "10.0.0.0/8", [1]),
        ("any ::1", "0.0.0.0/0", []),
        ("any ::1", "0.0.0.0/0 ::/0", [0, 1]),
        ("any", "", []),
        ("", "any", []),
    ],
)
def test_an_entry_is_covered_where_each_of_its_networks_is(entries: str, others: str, covered: list[int]) -> None:
    """Wider and equal networks cover, of the same family only; a name is covered with all of its networks."""
    assert find_covered(map(parse_entry, entries.split()), map(parse_entry, others.split())) == covered
