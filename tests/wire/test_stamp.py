"""echod.wire.stamp: packets worked by hand from RFC 8762, 4.2 and 4.3, and RFC 8972, 3."""

import hashlib
import hmac

import pytest

from echod.wire import tlv
from echod.wire.ntp import ErrorEstimate
from echod.wire.stamp import AUTHENTICATED, UNAUTHENTICATED, Layout, Reply, identity, layout, read_reply, request

QUARTER = 1_700_000_000_250_000_000
"""In ns since 1970; as NTP stamp E8FE6F80 40000000."""
KEY = b"secret of both"
SYNCHRONIZED = ErrorEstimate(synchronized=True, scale=16, multiplier=128)


def digest(data: bytes) -> bytes:
    """Return HMAC-SHA-256 with KEY by the definition of RFC 2104, cut to 128 bits."""
    key = KEY.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key) + data).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in key) + inner).digest()[:16]


def test_the_digest_of_these_tests_is_that_of_the_standard_library() -> None:
    """It was written from the RFC alone."""
    assert digest(b"text") == hmac.digest(KEY, b"text", "sha256")[:16]


def test_an_unauthenticated_request_has_44_octets() -> None:
    """Sequence number, NTP stamp, error estimate, SSID, and zeros."""
    packet = request(0x01020304, QUARTER, error_estimate=SYNCHRONIZED, ssid=0xABCD)
    assert packet == bytes.fromhex("01020304 e8fe6f80 40000000 9080 abcd" + "00" * 28)


def test_an_authenticated_request_has_112_octets() -> None:
    """Zeros follow the sequence number, and the HMAC of 96 octets ends the packet."""
    packet = request(5, QUARTER, error_estimate=SYNCHRONIZED, ssid=2, key=KEY)
    base = bytes.fromhex("00000005" + "00" * 12 + "e8fe6f80 40000000 9080 0002" + "00" * 68)
    assert packet == base + digest(base)


def test_a_sender_that_does_not_know_its_clock_says_so() -> None:
    """Not synchronized, and off by up to 16 s; numbers wrap."""
    assert request(2**32 + 1, QUARTER, ssid=2**16) == bytes.fromhex("00000001 e8fe6f80 40000000 2010 0000" + "00" * 28)


def test_a_stamp_of_ptp_is_sent_where_the_estimate_says_it() -> None:
    """Z is set, and the stamp is seconds since 1970 and ns."""
    packet = request(0, QUARTER, error_estimate=ErrorEstimate(ptp=True))
    assert packet == bytes.fromhex("00000000 6553f100 0ee6b280 4001 0000" + "00" * 28)


def test_tlvs_follow_the_packet() -> None:
    """As they are; with a key the HMAC of sequence number and TLVs follows them."""
    tlvs = tlv.encode(tlv.Type.EXTRA_PADDING, b"xyz")
    assert request(9, QUARTER, tlvs=tlvs)[44:] == bytes.fromhex("80010003") + b"xyz"
    assert request(9, QUARTER, tlvs=tlvs, key=KEY)[112:] == (
        bytes.fromhex("80010003") + b"xyz" + bytes.fromhex("80080010") + digest(bytes.fromhex("00000009") + tlvs)
    )


REPLY = bytes.fromhex(
    "00000007"  # sequence number of the reflector
    "e8fe6f80 80000000"  # sent: half a second
    "9080 abcd"  # error estimate of the reflector, SSID
    "e8fe6f80 40000000"  # received: a quarter
    "00000009"  # sequence number of the sender
    "e8fe6f80 00000000"  # stamp of the sender
    "0001 0000"  # error estimate of the sender
    "3f 000000"  # TTL 63
)
READ = Reply(
    sequence=7,
    sent=1_700_000_000_500_000_000,
    received=QUARTER,
    error_estimate=SYNCHRONIZED,
    ssid=0xABCD,
    sender_sequence=9,
    sender_stamp=1_700_000_000_000_000_000,
    sender_error_estimate=ErrorEstimate(),
    ttl=63,
    tlvs=b"",
)


def test_an_unauthenticated_reply_is_read() -> None:
    """Each field, and what follows the packet."""
    assert read_reply(REPLY) == READ
    assert read_reply(REPLY + b"rest").tlvs == b"rest"


def test_41_octets_of_a_reply_are_enough() -> None:
    """TWAMP-Light ends behind the TTL; one octet less is no reply."""
    assert read_reply(REPLY[:41]) == READ
    with pytest.raises(ValueError, match="not 40"):
        read_reply(REPLY[:40])


AUTHENTIC = bytes.fromhex(
    "00000007" + "00" * 12 + "e8fe6f80 80000000 9080 abcd 00000000"
    "e8fe6f80 40000000" + "00" * 8 + "00000009" + "00" * 12 + "e8fe6f80 00000000 0001 000000000000" + "3f" + "00" * 15
)


def test_an_authenticated_reply_is_read() -> None:
    """It says the same."""
    assert read_reply(AUTHENTIC + digest(AUTHENTIC), KEY) == READ


def test_a_reply_that_does_not_verify_is_none() -> None:
    """Another key, a changed octet, and a reply that is too short for an HMAC."""
    packet = AUTHENTIC + digest(AUTHENTIC)
    with pytest.raises(ValueError, match="does not verify"):
        read_reply(packet, b"another")
    with pytest.raises(ValueError, match="does not verify"):
        read_reply(b"\1" + packet[1:], KEY)
    with pytest.raises(ValueError, match="112 octets, not 111"):
        read_reply(packet[:111], KEY)


def test_tlvs_that_do_not_verify_are_left_out() -> None:
    """Their HMAC is made with the sequence number of the reply."""
    packet, tlvs = AUTHENTIC + digest(AUTHENTIC), bytes.fromhex("00020004 035e1234")
    right = tlvs + bytes.fromhex("00080010") + digest(bytes.fromhex("00000007") + tlvs)
    wrong = tlvs + bytes.fromhex("00080010") + digest(bytes.fromhex("00000008") + tlvs)
    assert read_reply(packet + right, KEY).tlvs == right
    assert read_reply(packet + wrong, KEY).tlvs == b""
    assert read_reply(packet + tlvs, KEY).tlvs == b""


def test_stamps_of_ptp_are_read_where_an_estimate_says_it() -> None:
    """The reflector's Z is about its two stamps, the sender's about its own."""
    ptp = bytes.fromhex("6553f100 0ee6b280")
    packet = REPLY[:4] + ptp + bytes.fromhex("4001 0000") + ptp + REPLY[24:]
    reply = read_reply(packet)
    assert (reply.sent, reply.received, reply.sender_stamp) == (QUARTER, QUARTER, READ.sender_stamp)
    packet = REPLY[:28] + ptp + bytes.fromhex("4001") + REPLY[38:]
    reply = read_reply(packet)
    assert (reply.sent, reply.received, reply.sender_stamp) == (READ.sent, QUARTER, QUARTER)


@pytest.mark.parametrize(("places", "length", "code"), [(UNAUTHENTICATED, 44, 0), (AUTHENTICATED, 112, 16)])
def test_a_reflector_writes_every_octet_of_a_reply(places: Layout, length: int, code: int) -> None:
    """The fields and the zeros cover the packet without a gap or an overlap; the HMAC follows them."""
    fields = [
        (0, 4),
        (places.stamp, 8),
        (places.error_estimate, 2),
        (places.ssid, 2),
        (places.received, 8),
        (places.sender_sequence, 4),
        (places.sender_stamp, 8),
        (places.sender_error_estimate, 2),
        (places.ttl, 4),
        *places.zeros,
    ]
    octets = sorted(octet for at, size in fields for octet in range(at, at + size))
    assert octets == list(range(length - code))
    assert places.length == length


@pytest.mark.parametrize("places", [UNAUTHENTICATED, AUTHENTICATED])
def test_a_reflector_copies_what_the_sender_said(places: Layout) -> None:
    """Sequence number, stamp and error estimate, each from its place in a request to that in a reply."""
    copied = {at + octet: source + octet for source, at, size in places.copies for octet in range(size)}
    for source, at, size in (
        (0, places.sender_sequence, 4),
        (places.stamp, places.sender_stamp, 8),
        (places.error_estimate, places.sender_error_estimate, 2),
    ):
        assert [copied[at + octet] for octet in range(size)] == list(range(source, source + size))


def test_a_key_decides_the_layout() -> None:
    """With one, packets are authenticated."""
    assert layout(b"") is UNAUTHENTICATED
    assert layout(KEY) is AUTHENTICATED


NOW = 1_700_000_000 * 10**9
NOW_NTP = 1_700_000_000 + 2_208_988_800
"""The same time, in seconds since 1900."""


def packet(places: Layout, own: int, number: int, seconds: int) -> bytes:
    """Make a packet with its own number, that of a sender, and the time of a sender."""
    data = bytearray(bytes([0x5A]) * places.length)
    data[:4] = own.to_bytes(4, "big")
    data[places.sender_sequence : places.sender_sequence + 4] = number.to_bytes(4, "big")
    data[places.sender_stamp : places.sender_stamp + 8] = (seconds << 32).to_bytes(8, "big")
    return bytes(data)


@pytest.mark.parametrize(("places", "key"), [(UNAUTHENTICATED, b""), (AUTHENTICATED, b"key")])
def test_replies_that_circulate_are_the_same(places: Layout, key: bytes) -> None:
    """By the number of the sender, or that before it, or a time of the sender within a day; requests differ."""
    replies = [(7, 7, 1), (7, 6, 1), (0, 2**32 - 1, 1), (7, 99, NOW_NTP - 86_399), (7, 99, NOW_NTP + 86_399)]
    requests = [(7, 0, 0), (0, 0, 0), (1, 0, 0), (7, 5, 1), (7, 8, 1), (7, 99, NOW_NTP - 86_401)]
    for fields in replies:
        assert identity(packet(places, *fields), NOW, key) == b"reply", fields
    for fields in requests:
        assert identity(packet(places, *fields), NOW, key) == packet(places, *fields), fields
    assert identity(b'{"peer":"192.0.2.1"}', NOW, key) == b'{"pe'


def test_a_request_of_a_sender_is_never_taken_for_a_reply() -> None:
    """It has zeros where a reply has the number of a sender; that of TWAMP-Light may be short."""
    for number in (0, 1, 2, 2**32 - 1):
        assert identity(request(number, NOW), NOW) == request(number, NOW)
        assert identity(request(number, NOW)[:14], NOW) == request(number, NOW)[:14]
