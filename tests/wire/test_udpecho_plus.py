"""echod.wire.udpecho_plus: packets worked by hand from TR-143, A.1."""

import pytest

from echod.wire import udpecho_plus
from echod.wire.udpecho_plus import Reply, read, request


def test_a_request_leaves_the_fields_of_the_server_zero() -> None:
    """Only TestGenSN, TestIterationNumber and data are the client's."""
    packet = request(0x01020304, 7, b"data")
    assert packet == bytes.fromhex("01020304 00000000 00000000 00000000 00000000 00000007") + b"data"


def test_numbers_wrap() -> None:
    """They are 32 bits wide, and a client counts on."""
    assert request(2**32 + 5, 2**32) == bytes.fromhex("00000005" + "00" * 20)


def test_a_reply_is_read() -> None:
    """Each field, in the order of the packet."""
    packet = bytes.fromhex("00000009 00000008 fffffffe 00000003 00000001 00000002") + b"rest"
    assert read(packet) == Reply(
        sequence=9,
        response_sequence=8,
        received=0xFFFFFFFE,
        replied=3,
        failures=1,
        iteration=2,
        data=b"rest",
    )


def test_a_reply_without_the_header_is_none() -> None:
    """23 bytes are too few, 24 are enough."""
    with pytest.raises(ValueError, match="at least 24 bytes, not 23"):
        read(bytes(23))
    assert read(bytes(24)).data == b""


def test_the_fields_of_the_server_lie_where_the_standard_has_them() -> None:
    """A server writes bytes 4 to 19, and nothing else."""
    offsets = (
        udpecho_plus.RESPONSE_SEQUENCE_AT,
        udpecho_plus.RECEIVED_AT,
        udpecho_plus.REPLIED_AT,
        udpecho_plus.FAILURES_AT,
        udpecho_plus.HEADER_BYTES,
    )
    assert offsets == (4, 8, 12, 16, 24)


def test_a_packet_that_circulates_is_the_same_whatever_servers_write() -> None:
    """Bytes 4 to 19 are theirs; another number, iteration or datum makes another packet."""
    same = udpecho_plus.identity(bytes.fromhex("00000009" + "00" * 16 + "00000002") + b"rest")
    assert udpecho_plus.identity(bytes.fromhex("00000009" + "a5" * 16 + "00000002") + b"rest") == same
    for number, iteration, data in ((8, 2, b"rest"), (9, 3, b"rest"), (9, 2, b"rust"), (9, 2, b"res")):
        packet = number.to_bytes(4, "big") + bytes(16) + iteration.to_bytes(4, "big") + data
        assert udpecho_plus.identity(packet) != same
