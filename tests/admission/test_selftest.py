"""echod.admission.selftest: the mark survives its file, and its port is one that the rules would let in."""

from ipaddress import IPv4Address

import pytest

from echod.admission.selftest import SECRET_BYTES, Result, SelfTest, choose_port
from echod.net.listener import Listener, Protocol

LISTENER = Listener(protocol=Protocol.UDP, address=IPv4Address("127.0.0.1"), port=7)
SECRET = bytes(range(SECRET_BYTES)).hex().encode()


def test_what_is_packed_is_unpacked() -> None:
    """Port and secret, to the byte."""
    mark = SelfTest(port=61_000, secret=bytes(range(SECRET_BYTES)))
    assert SelfTest.unpack(mark.pack()) == mark


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 200_000,
        b'{"port": 20000}',
        b'{"port": 20000, "secret": 2}',
        b'{"port": "x", "secret": "%s"}' % SECRET,
        b'{"port": Infinity, "secret": "%s"}' % SECRET,
        b'{"port": 53, "secret": "%s"}' % SECRET,
        b'{"port": 65536, "secret": "%s"}' % SECRET,
        b'{"port": 20000, "secret": "%s00"}' % SECRET,
        b'{"port": 20000, "secret": ""}',
    ],
)
def test_what_is_no_mark_is_refused(text: bytes) -> None:
    """Half a file, or one of another form, in one sentence; also what no echod writes: others may own the directory."""
    with pytest.raises(ValueError, match=r"^it was written by another version of echod"):
        SelfTest.unpack(text)


def test_the_port_is_free_and_below_those_of_clients() -> None:
    """None that a listener has, that the config refuses, or below the lowest that it lets in."""
    offered: list[int] = []

    def first(ports: list[int]) -> int:
        offered[:] = ports
        return ports[0]

    assert choose_port(first, taken={16_384, 16_386, 7}, lowest=1024) == 16_385
    assert (offered[:2], offered[-1]) == ([16_385, 16_387], 32_767)
    assert choose_port(first, taken={32_768}, lowest=32_768) == 32_769
    assert choose_port(first, taken={65_534}, lowest=65_534) == 65_535


def test_where_no_port_is_left_there_is_none() -> None:
    """Then nothing is marked, and self tests ask as any client does."""
    assert choose_port(lambda ports: ports[0], taken={65_535}, lowest=65_535) is None


def test_a_probe_passed_if_it_came_back() -> None:
    """At once, too."""
    assert Result(listener=LISTENER, seconds=0.0).passed
    assert not Result(listener=LISTENER, seconds=None, problem="no answer").passed
