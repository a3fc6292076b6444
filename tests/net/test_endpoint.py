"""echod.net.endpoint: where metrics are served, as an operator writes it."""

from ipaddress import IPv4Address, IPv6Address

import pytest

from echod.config.document import read
from echod.errors import Mistake
from echod.net.endpoint import Endpoint, find_clash, parse_endpoint, places
from echod.net.listener import Protocol, parse_listener


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("http://127.0.0.1:9007", Endpoint(address=IPv4Address("127.0.0.1"), port=9007)),
        ("http://[::]:1", Endpoint(address=IPv6Address(0), port=1)),
        ("http://[fe80::1%eth0]:65535", Endpoint(address=IPv6Address("fe80::1"), port=65535, zone="eth0")),
    ],
)
def test_an_endpoint_is_an_address_and_a_port(text: str, endpoint: Endpoint) -> None:
    """Both families are known, the text comes back, and to the kernel it is a TCP port."""
    assert parse_endpoint(text) == endpoint
    assert str(endpoint) == text
    assert (endpoint.listener.protocol, str(endpoint.listener)) == (Protocol.TCP, text.replace("http", "tcp"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("127.0.0.1:9007", '"127.0.0.1:9007" is no URL: write http://127.0.0.1:9007, or off'),
        ("on", '"on" is no URL: write http://127.0.0.1:9007, or off'),
        ("https://127.0.0.1:1", "https is not spoken here: write http://127.0.0.1:1 and let a proxy stand before it"),
        ("tcp://127.0.0.1:1", 'the protocol "tcp" is not known here: write http://127.0.0.1:1'),
        ("http://127.0.0.1:1/metrics", 'holds "/": write http://ADDRESS:PORT and nothing else'),
        ("http://127.0.0.1", "names no port: write 127.0.0.1:9007, or another port"),
        ("http://127.0.0.1:1-2", '"1-2" is no port: write a number from 1 to 65535'),
        ("http://127.0.0.1:70000", "the port 70000 is out of bounds: write a number from 1 to 65535"),
        ("http://:9007", "names no address: write http://127.0.0.1:9007"),
        ("http://*:9007", "names no address: write http://127.0.0.1:9007"),
        ("http://", "names no address: write http://127.0.0.1:9007"),
        ("http://::1:9007", "an IPv6 address stands in brackets, and one port follows: write [ADDRESS]:PORT"),
        ("http://127.0.0.1:9007 ", "holds white space: write it without"),
        ("http://" + "1" * 100, "has 107 characters: write http://127.0.0.1:9007"),
    ],
)
def test_what_is_no_endpoint_is_refused_with_what_to_write(text: str, message: str) -> None:
    """One sentence, which an operator can act on."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the sentence is what the test asserts
        parse_endpoint(text)
    assert str(caught.value) == message


def test_an_echo_on_the_port_of_an_endpoint_is_found_at_its_place() -> None:
    """One endpoint stands at the key, those of a list at their indices."""
    here, there = parse_endpoint("http://127.0.0.1:8"), parse_endpoint("http://127.0.0.1:9")
    listeners = [parse_listener(text).first for text in ("udp://127.0.0.1:9", "tcp://127.0.0.1:7", "tcp://0.0.0.0:9")]
    one, several = (read(f"metrics: {{listen: {text}}}".encode()) for text in (there, f"[{here}, {there}]"))
    assert places([there], one) == {("metrics", "listen"): there}
    assert places([here, there], several) == {("metrics", "listen", 0): here, ("metrics", "listen", 1): there}
    message = "tcp://0.0.0.0:9 has that port: write another"
    for endpoints, document, column, path in (
        ([there], one, 19, "metrics.listen"),
        ([here, there], several, 40, "metrics.listen[1]"),
    ):
        assert list(find_clash(endpoints, listeners, document)) == [
            Mistake(line=1, column=column, path=path, message=message)
        ]
    assert list(find_clash([], listeners, one)) == []
