"""echod.wire.reveal: the JSON object that tells a client what the server saw."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.wire.reveal import ENOUGH_BYTES, Seen, decode, encode, identity

OBJECT = (
    b'{"peer":"192.0.2.7","peer_port":40000,"local":"198.51.100.1","local_port":7073,"ttl":63,"dscp":46,"ecn":1,'
    b'"length":200,"interface":"eth0","received_ns":1764540000123456789,"train":2}'
)
PAYLOAD = OBJECT + b" " * (200 - len(OBJECT))
SEEN = Seen(
    peer="192.0.2.7",
    peer_port=40000,
    local="198.51.100.1",
    local_port=7073,
    ttl=63,
    dscp=46,
    ecn=1,
    length=200,
    interface="eth0",
    received_ns=1764540000123456789,
    train=2,
)
LONGEST = {
    "peer": "2001:db8:1111:2222:3333:4444:5555:6666",
    "peer_port": 65535,
    "local": "2001:db8:ffff:eeee:dddd:cccc:bbbb:aaaa",
    "local_port": 65535,
    "ttl": 255,
    "dscp": 63,
    "ecn": 3,
    "length": ENOUGH_BYTES,
    "interface": "enp130s0f1np1.4",
    "received_ns": 9223372036854775807,
    "train": 65535,
}


def test_the_object_is_padded_with_spaces_to_the_length_of_the_request() -> None:
    """Byte for byte, as it is on the wire."""
    assert encode(SEEN) == PAYLOAD
    assert len(PAYLOAD) == 200


def test_what_was_made_is_read() -> None:
    """Also what another JSON parser sees is the same."""
    assert decode(PAYLOAD) == SEEN
    assert json.loads(PAYLOAD)["peer_port"] == 40000


def test_a_request_that_is_too_short_gets_no_object() -> None:
    """One byte less than the object has is too short; exactly as many are enough."""
    fits = OBJECT.replace(b'"length":200', b'"length":182')
    assert len(fits) == 182
    values = json.loads(fits)
    assert encode(Seen(**values)) == fits
    assert encode(Seen(**{**values, "length": 181})) is None


def test_enough_bytes_are_enough() -> None:
    """The longest of all values fit."""
    payload = encode(Seen(**LONGEST))
    assert payload is not None
    assert len(payload) == ENOUGH_BYTES
    assert decode(payload) == Seen(**LONGEST)


def test_an_interface_may_have_any_name_that_the_kernel_takes() -> None:
    """A quote, a backslash and a letter that is not ASCII are escaped, and come back."""
    values = {**LONGEST, "interface": '"\\ü'}
    payload = encode(Seen(**values))
    assert payload is not None
    assert b'"interface":"\\"\\\\\\u00fc"' in payload
    assert decode(payload) == Seen(**values)


@pytest.mark.parametrize(
    ("was", "wrong"),
    [
        (b'"peer":"192.0.2.7"', b'"peer":"192.0.2.777"'),
        (b'"peer":"192.0.2.7"', b'"peer":1234567890123'),
        (b'"peer":"192.0.2.7"', b'"peer":"fe80::1%\\u001b["'),
        (b'"local":"198.51.100.1"', b'"local":"::ffff:0:0:0:0"'),
        (b'"peer_port":40000', b'"peer_port":65536'),
        (b'"peer_port":40000', b'"peer_port":-1'),
        (b'"local_port":7073', b'"local_port":65536'),
        (b'"ttl":63', b'"ttl":256'),
        (b'"ttl":63', b'"ttl":"6"'),
        (b'"ttl":63', b'"ttl":6.5'),
        (b'"ecn":1', b'"ecn":true'),
        (b'"dscp":46', b'"dscp":64'),
        (b'"ecn":1', b'"ecn":4'),
        (b'"length":200', b'"length":199'),
        (b'"train":2', b'"train":65536'),
        (b'"train":2', b'"trains":2'),
        (b'"received_ns":1764540000123456789', b'"received_ns":9223372036854775808'),
        (b'"interface":"eth0"', b'"interface":"\\u001b[2J"'),
        (b'"interface":"eth0"', b'"interface":"an interface"'),
        (b'"interface":"eth0"', b'"interface":"sixteen_letters_"'),
        (b'"interface":"eth0"', b'"interface":null'),
        (b'"peer":"192.0.2.7"', b'"peer":"\xff"'),
    ],
)
def test_what_no_server_of_this_mode_sends_is_not_read(was: bytes, wrong: bytes) -> None:
    """A wrong type, a value out of its range, and what a terminal would obey."""
    assert was in OBJECT
    assert decode(OBJECT.replace(was, wrong).ljust(200)) is None


@pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b"{" * 200, b"[" * 65_000, b"1" * 5000, b"\x00" * 64])
def test_other_payloads_are_not_read(payload: bytes) -> None:
    """Also those that a parser of JSON has trouble with."""
    assert decode(payload) is None


@given(st.binary(max_size=300))
def test_any_bytes_are_read_without_an_error(payload: bytes) -> None:
    """None of these is an object with all its keys."""
    assert decode(payload) is None


def test_replies_that_circulate_are_the_same() -> None:
    """Each tells another time; a request is compared as a whole."""
    assert identity(b'{"peer":"192.0.2.1"}') == identity(b'{"pe' + bytes(80)) == b'{"pe'
    assert identity(b"a request") == b"a request"
