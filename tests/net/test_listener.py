"""echod.net.listener: what may stand in a listener's text, and when two are in each other's way."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.loopback import ANY, listener

from echod.net.listener import (
    MAX_PORT,
    Listener,
    Protocol,
    find_overlaps,
    in_ranges,
    overlap,
    parse_endpoint,
    parse_listener,
)


def one(text: str) -> Listener:
    """Parse a text that opens a single listener."""
    (only,) = parse_listener(text)
    return only


def refusal(text: str) -> str:
    """Parse a text that must be refused, and return the sentence."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the sentence is what the test asserts
        parse_listener(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("udp://0.0.0.0:7", listener(ANY, 7)),
        ("tcp://[::]:65535", listener("::", 65535, Protocol.TCP)),
        ("udp://[::1]:7000", listener("::1", 7000)),
        ("udp://[fe80::1%eth0]:7", listener("fe80::1", 7, zone="eth0")),
        ("udp://[fe80::1%abcdefghijklmno]:7", listener("fe80::1", 7, zone="abcdefghijklmno")),
        ("udp://192.0.2.1%vrf-red:7", listener("192.0.2.1", 7, zone="vrf-red")),
        ("tcp://0.0.0.0%eth0.100:7", listener(ANY, 7, Protocol.TCP, "eth0.100")),
        ("udp://[::%eth1]:7", listener("::", 7, zone="eth1")),
    ],
)
def test_a_text_becomes_its_listener_and_back(text: str, made: Listener) -> None:
    """Parsing gives protocol, address, port and zone; writing gives the text again."""
    assert one(text) == made
    assert str(made) == text


def test_two_spellings_of_an_address_are_one_listener() -> None:
    """Listeners compare by what they bind, not by how it was written, and are hashable."""
    assert {one("udp://[::1]:7"), one("udp://[0:0::0:1]:7")} == {one("udp://[::1]:7")}


def test_a_range_opens_one_listener_a_port() -> None:
    """`7000-7002` is three listeners by ascending port; a range of one port is allowed."""
    ports = parse_listener("udp://0.0.0.0:7000-7002")
    assert len(ports) == 3
    assert [str(each) for each in ports] == [f"udp://0.0.0.0:{port}" for port in (7000, 7001, 7002)]
    assert [each.port for each in parse_listener("udp://0.0.0.0:7-7")] == [7]


OCTETS = "write four numbers from 0 to 255, without leading zeros"
PORT = "write a number from 1 to 65535, or a range such as 7000-7015"
NAME = 'write up to 15 characters, none of them "/", ":" or "%"'
HOST = "write an address of this host"
LINK = "write [fe80::1%eth0], or another interface"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("udp://" + "1" * 95, "has 101 characters: write udp://ADDRESS:PORT"),
        ("udp://0.0.0.0: 7", "contains white space: remove it"),
        ("udp://0.0.0.0:7\n", "contains white space: remove it"),
        ("udp://0.0.0.0:7\x7f", "contains an unprintable character: remove it"),
        ('udp://0.0.0.0:"7"', "contains a quote: put all of it in quotes, or remove the quote"),
        ("udp://'0.0.0.0':7", "contains a quote: put all of it in quotes, or remove the quote"),
        ("0.0.0.0:7", "has no protocol: write udp://0.0.0.0:7 or tcp://0.0.0.0:7"),
        ("udp:0.0.0.0:7", "has no protocol: write udp://0.0.0.0:7 or tcp://0.0.0.0:7"),
        ("tcp:/[::]:7", "has no protocol: write udp://[::]:7 or tcp://[::]:7"),
        ("", "has no protocol: write udp://ADDRESS:PORT or tcp://ADDRESS:PORT"),
        ("upd://0.0.0.0:7", 'the protocol "upd" is not known: did you mean udp?'),
        ("TCP://0.0.0.0:7", 'the protocol "TCP" is not known: did you mean tcp?'),
        ("sctp6x://0.0.0.0:7", 'the protocol "sctp6x" is not known: write udp or tcp'),
        ("udp://0.0.0.0:7/echo", 'contains "/": write udp://ADDRESS:PORT and nothing else'),
        ("tcp://root@0.0.0.0:7", 'contains "@": write tcp://ADDRESS:PORT and nothing else'),
        ("udp://0.0.0.0:7?a", 'contains "?": write udp://ADDRESS:PORT and nothing else'),
        ("udp://0.0.0.0:7#a", 'contains "#": write udp://ADDRESS:PORT and nothing else'),
        ("udp://[::1", "an IPv6 address needs a pair of brackets before its port: write [ADDRESS]:PORT"),
        ("udp://[::1]7", "an IPv6 address needs a pair of brackets before its port: write [ADDRESS]:PORT"),
        ("udp://::1:7", "an IPv6 address needs brackets, followed by one port: write [ADDRESS]:PORT"),
        ("udp://:7", "has no address: write 0.0.0.0 for all of IPv4, [::] for all of IPv6"),
        ("udp://*:7", "has no address: write 0.0.0.0 for all of IPv4, [::] for all of IPv6"),
        ("udp://", "has no address: write 0.0.0.0 for all of IPv4, [::] for all of IPv6"),
        ("udp://0.0.0.0", "has no port: write 0.0.0.0:7, or another port"),
        ("udp://0.0.0.0:", "has no port: write 0.0.0.0:7, or another port"),
        ("udp://[::]", "has no port: write [::]:7, or another port"),
        ("udp://[::]:", "has no port: write [::]:7, or another port"),
        ("udp://0.0.0.0:echo", f'"echo" is not a port: {PORT}'),
        ("udp://0.0.0.0:7-", f'"7-" is not a port: {PORT}'),
        ("udp://0.0.0.0:-7", f'"-7" is not a port: {PORT}'),
        ("udp://0.0.0.0:\u0667", f'"\u0667" is not a port: {PORT}'),
        ("udp://0.0.0.0:0", "the port 0 is out of bounds: write a number from 1 to 65535"),
        ("udp://0.0.0.0:65536", "the port 65536 is out of bounds: write a number from 1 to 65535"),
        ("udp://0.0.0.0:7-65536", "the port 65536 is out of bounds: write a number from 1 to 65535"),
        ("udp://0.0.0.0:0-7", "the port 0 is out of bounds: write a number from 1 to 65535"),
        ("udp://0.0.0.0:007", "the port 007 begins with a zero: write 7"),
        ("udp://0.0.0.0:7015-7000", "the port range runs backwards: write 7000-7015"),
        ("udp://localhost:7", '"localhost" is not an address: host names are not looked up, write the address itself'),
        ("udp://256.0.0.1:7", f'"256.0.0.1" is not an IPv4 address: {OCTETS}'),
        ("udp://127.0.0.01:7", f'"127.0.0.01" is not an IPv4 address: {OCTETS}'),
        ("udp://224.0.0.1:7", f"224.0.0.1 is not the address of a single host: {HOST}"),
        ("udp://255.255.255.255:7", f"255.255.255.255 is not the address of a single host: {HOST}"),
        ("udp://[0.0.0.0]:7", '"0.0.0.0" is not an IPv6 address: only IPv6 addresses are written in brackets'),
        ("udp://[]:7", '"" is not an IPv6 address: only IPv6 addresses are written in brackets'),
        ("udp://[::ffff:1.2.3.4]:7", "[::ffff:1.2.3.4] is an IPv4-mapped IPv6 address: write 1.2.3.4 without brackets"),
        ("udp://[::ffff:0:0]:7", "[::ffff:0:0] is an IPv4-mapped IPv6 address: write 0.0.0.0 without brackets"),
        ("udp://[ff02::1]:7", f"[ff02::1] is not the address of a single host: {HOST}"),
        ("udp://[::1%]:7", "has no interface after the %: write [::1%eth0], or another interface, or remove the %"),
        ("udp://0.0.0.0%:7", "has no interface after the %: write 0.0.0.0%eth0, or another interface, or remove the %"),
        ("udp://0.0.0.0%a%b:7", f'"a%b" is not an interface name: {NAME}'),
        ("udp://[fe80::1]:7", f"a link-local address needs its interface: {LINK}"),
        ("udp://[fe80::1%]:7", f"a link-local address needs its interface: {LINK}"),
        ("udp://[fe80::1%abcdefghijklmnop]:7", f'"abcdefghijklmnop" is not an interface name: {NAME}'),
        ("udp://[fe80::1%eth0:1]:7", f'"eth0:1" is not an interface name: {NAME}'),
    ],
)
def test_a_text_that_cannot_be_is_refused_with_what_to_write(text: str, sentence: str) -> None:
    """Each message names what is wrong and what to write instead."""
    assert refusal(text) == sentence


def test_the_longest_listener_that_can_be_is_accepted() -> None:
    """The cap on characters lets every real listener through."""
    address = "fe80:0000:0000:0000:0000:0000:255.255.255.255%abcdefghijklmno"
    assert one(f"udp://[{address}]:65535-65535").zone == "abcdefghijklmno"


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ("udp://0.0.0.0:7 tcp://0.0.0.0:7 udp://[::]:7 udp://0.0.0.0:8 udp://127.0.0.1:9", {}),
        ("udp://[fe80::1%eth0]:7 udp://[fe80::1%eth1]:7 udp://[::%eth1]:8", {}),
        ("udp://0.0.0.0:7 udp://0.0.0.0%red:7 udp://10.0.0.1%blue:7 udp://10.0.0.1%green:7", {}),
        (
            "udp://0.0.0.0%red:7 udp://10.0.0.1%red:7 udp://10.0.0.1:7",
            {1: "udp://10.0.0.1%red:7 is already covered by udp://0.0.0.0%red:7 in listeners[0]"},
        ),
        (
            "udp://[::%eth0]:7 udp://[fe80::1%eth0]:7 udp://[fe80::1%eth1]:7",
            {1: "udp://[fe80::1%eth0]:7 is already covered by udp://[::%eth0]:7 in listeners[0]"},
        ),
        (
            "udp://[::1]:7 tcp://[::1]:7 udp://[0::1]:7",
            {2: "udp://[::1]:7 is already listed in listeners[0]"},
        ),
        (
            "udp://127.0.0.1:5-9 udp://127.0.0.1:8-20",
            {1: "udp://127.0.0.1:8 is already listed in listeners[0]"},
        ),
        (
            "udp://0.0.0.0:7 udp://127.0.0.1:7",
            {1: "udp://127.0.0.1:7 is already covered by udp://0.0.0.0:7 in listeners[0]"},
        ),
        (
            "tcp://[fe80::1%eth0]:6-8 tcp://[::]:7",
            {0: "tcp://[fe80::1%eth0]:7 is already covered by tcp://[::]:7 in listeners[1]"},
        ),
    ],
)
def test_listeners_in_each_others_way_are_found(texts: str, found: dict[int, str]) -> None:
    """Equal ones by the later text, covered ones by the single address; what can stand together is left alone."""
    ranges = map(parse_listener, texts.split())
    overlaps = find_overlaps(dict(enumerate(ranges)))
    assert {index: f"{clause} in listeners[{other}]" for index, (other, clause) in overlaps.items()} == found


@given(st.sampled_from(Protocol), st.ip_addresses(), st.integers(1, MAX_PORT), st.sampled_from(["", "eth0.5"]))
def test_the_text_of_any_listener_is_that_listener_or_refused(
    protocol: Protocol,
    address: IPv4Address | IPv6Address,
    port: int,
    zone: str,
) -> None:
    """Parsing undoes writing, for all addresses but those that nobody can listen on."""
    zone = zone or ("eth0" if isinstance(address, IPv6Address) and address.is_link_local else "")
    made = listener(str(address), port, protocol, zone)
    is_mapped = isinstance(address, IPv6Address) and address.ipv4_mapped is not None
    if address.is_multicast or is_mapped or address == IPv4Address("255.255.255.255"):
        assert "write" in refusal(str(made))
    else:
        assert one(str(made)) == made


@given(st.text() | st.from_regex(r"(udp|tcp|)(://|:|)\[?[0-9a-f.:%]*\]?:?[0-9-]*", fullmatch=True))
def test_any_text_is_a_listener_or_a_sentence(text: str) -> None:
    """Nothing but ValueError comes out, and its sentence can be printed."""
    try:
        found = parse_listener(text)
    except ValueError as error:
        assert str(error).isprintable()  # noqa: PT017 - many a text is a listener
    else:
        assert one(str(found.first)) == found.first


@pytest.mark.parametrize(
    ("first", "second", "answer"),
    [
        ("tcp://127.0.0.1:7", "tcp://127.0.0.1:7", True),
        ("tcp://127.0.0.1:7", "tcp://0.0.0.0:7", True),
        ("udp://[::]:7", "udp://[fe80::1%eth0]:7", True),
        ("tcp://127.0.0.1:7", "tcp://127.0.0.2:7", False),
        ("udp://[fe80::1%eth0]:7", "udp://[fe80::1%eth1]:7", False),
        ("udp://0.0.0.0%red:7", "udp://0.0.0.0%blue:7", False),
        ("udp://0.0.0.0%red:7", "udp://10.0.0.1:7", True),
        ("tcp://10.0.0.1%red:7", "tcp://10.0.0.1:7", True),
        ("tcp://10.0.0.1%red:7", "tcp://10.0.0.2:7", False),
        ("tcp://127.0.0.1:7", "tcp://127.0.0.1:8", False),
        ("tcp://127.0.0.1:7", "udp://127.0.0.1:7", False),
        ("tcp://0.0.0.0:7", "tcp://[::]:7", False),
    ],
)
def test_two_overlap_where_the_kernel_would_bind_but_one(first: str, second: str, answer: bool) -> None:  # noqa: FBT001
    """The same address, or a wildcard beside any address of its family, on one port of one protocol."""
    assert overlap(one(first), one(second)) is answer
    assert overlap(one(second), one(first)) is answer


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("udp://0.0.0.0:7", "ListenDatagram=0.0.0.0:7"),
        ("tcp://[::1]:7", "ListenStream=[::1]:7"),
        ("udp://[fe80::1%eth0]:7", "ListenDatagram=[fe80::1%eth0]:7"),
        ("udp://[::%eth0]:7", "ListenDatagram=[::]:7 with BindToDevice=eth0"),
        ("tcp://192.0.2.1%eth0:7", "ListenStream=192.0.2.1:7 with BindToDevice=eth0"),
    ],
)
def test_a_listener_has_its_line_in_a_socket_unit(text: str, line: str) -> None:
    """As systemd.socket(5) takes it: a link-local address has its interface behind it, others in another line."""
    assert parse_listener(text).first.unit_line == line


def test_listeners_with_successive_ports_are_one_entry() -> None:
    """Of one protocol, address and interface, in the order given; all of them come back."""
    texts = ["udp://0.0.0.0:7-9", "udp://0.0.0.0:11", "tcp://0.0.0.0:12", "tcp://0.0.0.0%a:13", "tcp://[::]:14-15"]
    listeners = [each for text in texts for each in parse_listener(text)]
    assert [str(each) for each in in_ranges(listeners)] == texts
    assert in_ranges([]) == []
    backwards = in_ranges(reversed([*parse_listener("udp://0.0.0.0:7-8")]))
    assert [str(each) for each in backwards] == ["udp://0.0.0.0:8", "udp://0.0.0.0:7"]


# -- endpoints


@pytest.mark.parametrize(
    ("text", "listener"),
    [
        ("http://127.0.0.1:9007", Listener(protocol=Protocol.TCP, address=IPv4Address("127.0.0.1"), port=9007)),
        ("http://[::]:1", Listener(protocol=Protocol.TCP, address=IPv6Address(0), port=1)),
        (
            "http://[fe80::1%eth0]:65535",
            Listener(protocol=Protocol.TCP, address=IPv6Address("fe80::1"), port=65535, zone="eth0"),
        ),
    ],
)
def test_an_endpoint_is_an_address_and_a_port(text: str, listener: Listener) -> None:
    """Both families are known, the text comes back, and to the kernel it is a TCP port."""
    endpoint = parse_endpoint(text)
    assert endpoint.listener == listener
    assert str(endpoint) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("127.0.0.1:9007", '"127.0.0.1:9007" is not a URL: write http://127.0.0.1:9007, or off'),
        ("on", '"on" is not a URL: write http://127.0.0.1:9007, or off'),
        ("https://127.0.0.1:1", "https is not supported: write http://127.0.0.1:1 and put a proxy in front of it"),
        ("tcp://127.0.0.1:1", 'the protocol "tcp" is not supported: write http://127.0.0.1:1'),
        ("http://127.0.0.1:1/metrics", 'contains "/": write http://ADDRESS:PORT and nothing else'),
        ("http://127.0.0.1", "has no port: write 127.0.0.1:9007, or another port"),
        ("http://127.0.0.1:1-2", '"1-2" is not a port: write a number from 1 to 65535'),
        ("http://127.0.0.1:70000", "the port 70000 is out of bounds: write a number from 1 to 65535"),
        ("http://:9007", "has no address: write http://127.0.0.1:9007"),
        ("http://*:9007", "has no address: write http://127.0.0.1:9007"),
        ("http://", "has no address: write http://127.0.0.1:9007"),
        ("http://::1:9007", "an IPv6 address needs brackets, followed by one port: write [ADDRESS]:PORT"),
        ("http://127.0.0.1:9007 ", "contains white space: remove it"),
        ("http://" + "1" * 100, "has 107 characters: write http://127.0.0.1:9007"),
    ],
)
def test_what_is_no_endpoint_is_refused_with_what_to_write(text: str, message: str) -> None:
    """One sentence, which an operator can act on."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the sentence is what the test asserts
        parse_endpoint(text)
    assert str(caught.value) == message
