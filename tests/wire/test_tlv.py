"""echod.wire.tlv: TLVs worked by hand from RFC 8972, 4."""

from hypothesis import given
from hypothesis import strategies as st

from echod.wire.authentication import code_of
from echod.wire.tlv import (
    MOST,
    ClassOfService,
    DirectMeasurement,
    Tlv,
    Type,
    are_authentic,
    authentication,
    decode,
    encode,
)

KEY = b"key"
SEQUENCE = bytes.fromhex("00000009")
PORTS = bytes.fromhex("80020004 00000000")
PADDING = bytes.fromhex("80010002 0000")


def test_a_tlv_is_flags_type_length_and_value() -> None:
    """A sender sets the flag U, which a reflector that knows the type clears."""
    assert encode(Type.EXTRA_PADDING, b"abc") == bytes.fromhex("80010003") + b"abc"
    assert encode(99, flags=0x20) == bytes.fromhex("20630000")


def test_tlvs_are_read_one_after_another() -> None:
    """With their flags; a value may be empty, and a type unknown."""
    data = bytes.fromhex("80010000 20ff0002 abcd 00040004 b8000000")
    assert list(decode(data)) == [Tlv(0x80, 1, b""), Tlv(0x20, 255, b"\xab\xcd"), Tlv(0, 4, b"\xb8\0\0\0")]


def test_tlvs_end_where_padding_begins() -> None:
    """Type 0 is reserved: that is a sender without TLVs. Fewer than four octets are no TLV either."""
    assert list(decode(bytes(100))) == []
    assert list(decode(PADDING + bytes(10))) == [Tlv(0x80, 1, b"\0\0")]
    assert list(decode(PADDING + b"\x80\x01\0")) == [Tlv(0x80, 1, b"\0\0")]


def test_the_last_tlv_may_be_cut_short() -> None:
    """Its length exceeds the packet."""
    assert list(decode(bytes.fromhex("80010005 aabb"))) == [Tlv(0x80, 1, b"\xaa\xbb", whole=False)]


def test_no_more_are_read_than_a_packet_needs() -> None:
    """16 of 17: a peer cannot have 16,000 of them looked at."""
    assert MOST == 16
    assert len(list(decode(bytes.fromhex("80010000") * 17))) == 16


@given(st.binary(max_size=200))
def test_any_bytes_are_read(data: bytes) -> None:
    """What is read is where it says that it is."""
    at = 0
    for each in decode(data):
        assert data[at + 4 : at + 4 + len(each.value)] == each.value
        assert (data[at], data[at + 1]) == (each.flags, each.type)
        at += 4 + len(each.value)
    assert at <= len(data)


def test_a_class_of_service_is_dscp_dscp_ecn_and_rp() -> None:
    """Six bits, six bits, two bits, two bits, and 16 reserved."""
    both = ClassOfService(wanted=46, dscp=10, ecn=1, refused=True)
    assert both.value == bytes.fromhex("b8a50000")
    assert ClassOfService.read(bytes.fromhex("b8a50000")) == both
    assert ClassOfService(wanted=63).value == bytes.fromhex("fc000000")
    assert ClassOfService.read(bytes.fromhex("03f8ffff")) == ClassOfService(wanted=0, dscp=63, ecn=2)


def test_a_direct_measurement_is_three_counters() -> None:
    """They wrap."""
    counted = DirectMeasurement(sent=2**32 + 1, received=2, replied=3)
    assert counted.value == bytes.fromhex("00000001 00000002 00000003")
    assert DirectMeasurement.read(counted.value) == DirectMeasurement(sent=1, received=2, replied=3)


def test_tlvs_are_authenticated_with_the_sequence_number() -> None:
    """The HMAC TLV follows them."""
    added = authentication(KEY, SEQUENCE, PORTS)
    assert added == bytes.fromhex("80080010") + code_of(KEY, SEQUENCE + PORTS)
    assert are_authentic(KEY, SEQUENCE, PORTS + added)
    assert not are_authentic(KEY, bytes(4), PORTS + added)
    assert not are_authentic(b"another", SEQUENCE, PORTS + added)
    assert not are_authentic(KEY, SEQUENCE, PORTS)


def test_only_extra_padding_may_follow_the_hmac() -> None:
    """Anything else has not been authenticated."""
    added = authentication(KEY, SEQUENCE, PORTS)
    assert are_authentic(KEY, SEQUENCE, PORTS + added + PADDING)
    assert not are_authentic(KEY, SEQUENCE, PORTS + added + PORTS)
    assert not are_authentic(KEY, SEQUENCE, PORTS + added + added)


def test_extra_padding_alone_needs_no_hmac() -> None:
    """Nor does a packet without TLVs, or with padding that is none; two of them do."""
    assert are_authentic(KEY, SEQUENCE, b"")
    assert are_authentic(KEY, SEQUENCE, bytes(20))
    assert are_authentic(KEY, SEQUENCE, PADDING)
    assert not are_authentic(KEY, SEQUENCE, PADDING * 2)
