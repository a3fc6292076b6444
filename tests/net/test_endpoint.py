"""echod.net.endpoint: where metrics are served, as an operator writes it."""

from ipaddress import IPv4Address, IPv6Address

import pytest

from echod.net.endpoint import parse_endpoint
from echod.net.listener import Listener, Protocol


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
