"""echod.probes.frames: packets that carry probes, worked by hand from TR-143 (A.1), RFC 8762 and RFC 8972."""

import hmac
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from echod.errors import UsageError
from echod.measurement.responder import Report
from echod.net.mode import Mode
from echod.probes.frames import Frame, PlusFrame, StampFrame

QUARTER = 1_700_000_000_250_000_000
"""In ns since 1970; as NTP stamp E8FE6F80 40000000."""
BODY = b"payload of a probe"
KEY = b"secret of both"
PLUS_WRAPS = 4_294_967_296_000
STAMP_WRAPS = 4_294_967_296_000_000_000


def code(data: bytes) -> bytes:
    """Return the first 128 bits of HMAC-SHA-256."""
    return hmac.digest(KEY, data, "sha256")[:16]


def hexadecimal(text: str) -> bytes:
    """Return bytes."""
    return bytes.fromhex(text)


def test_a_request_of_udpechoplus_has_its_number_twice() -> None:
    """TestGenSN and TestIterationNumber; what the server writes is zero."""
    assert PlusFrame().request(0x01020304, QUARTER, 42, BODY) == hexadecimal("01020304" + "00" * 16 + "01020304") + BODY
    assert (PlusFrame().start, PlusFrame().mode) == (24, Mode.UDPECHO_PLUS)


def test_a_reply_of_udpechoplus_is_the_request_and_a_report() -> None:
    """Its clock is in microseconds; what it could not reply to had arrived too."""
    reply = hexadecimal("01020304 00000007 000003e8 000007d0 00000002 01020304") + BODY
    data, report = PlusFrame().open(reply)
    assert data == PlusFrame().request(0x01020304, 0, 42, BODY)
    assert report == Report(received=1_000_000, replied=2_000_000, wraps=PLUS_WRAPS, count=9, failures=2)


@pytest.mark.parametrize(
    ("fields", "report"),
    [
        ("00000001 00000000 00000000 00000000", Report(received=0, replied=0, wraps=PLUS_WRAPS, count=1)),
        ("00000000 00000000 00000000 00000002", Report(received=0, replied=0, wraps=PLUS_WRAPS, count=2, failures=2)),
    ],
)
def test_any_field_that_is_not_zero_is_of_a_server_of_udpechoplus(fields: str, report: Report) -> None:
    """The first, or the last; and a packet of 24 bytes carries nothing else."""
    reply = hexadecimal(f"00000009 {fields} 00000009")
    assert PlusFrame().open(reply) == (hexadecimal("00000009" + "00" * 16 + "00000009"), report)


@pytest.mark.parametrize("data", [b"", b"short", bytes(23), hexadecimal("01020304" + "00" * 16 + "01020304") + BODY])
def test_a_plain_echo_reports_nothing_for_udpechoplus(data: bytes) -> None:
    """The reply is what it is."""
    assert PlusFrame().open(data) == (data, None)


STAMP_REQUEST = (
    "00000005 e8fe6f80 40000000 2010 0007" + "00" * 28 + "80040004 b8000000 80010012"
)  # DSCP 46 is wanted: 101110 and ten zeros
STAMP_REPLY = (
    "00000003 e8fe6f80 80000000 8001 0007 e8fe6f80 60000000 00000005 e8fe6f80 40000000 2010 0000 3d 000000"
    "00040004 {service} 00010012"
)


def test_a_request_of_stamp_has_its_tlvs_and_the_payload_is_padding() -> None:
    """Number, time, an error estimate of 16 s, SSID; the DSCP that is wanted; the flag U on each TLV."""
    frame = StampFrame(ssid=7, dscp=46)
    assert frame.request(5, QUARTER, 74, BODY) == hexadecimal(STAMP_REQUEST) + BODY
    assert (frame.start, frame.mode) == (56, Mode.STAMP)


def test_a_session_may_begin_with_any_number() -> None:
    """It is added to that of the probe, and wraps."""
    frame = StampFrame(ssid=7, dscp=46, offset=0xFFFFFFFE)
    assert frame.request(5, QUARTER, 74, BODY) == hexadecimal("00000003" + STAMP_REQUEST[8:]) + BODY
    assert frame.request(5, QUARTER, 44, b"") == hexadecimal("00000003" + STAMP_REQUEST[8:])[:44]
    assert (StampFrame().offset, PlusFrame().offset) == (0, 0)


def test_a_request_of_44_bytes_is_the_base_packet() -> None:
    """For reflectors that take no other."""
    assert StampFrame(ssid=7, dscp=46).request(5, QUARTER, 44, b"") == hexadecimal(STAMP_REQUEST)[:44]


@pytest.mark.parametrize(
    ("service", "dscp", "reply_dscp"), [("b8 a0 0000", 10, 46), ("b8 a1 0000", 10, None), ("b8 ac 0000", 10, 46)]
)
def test_a_reply_of_stamp_is_the_request_and_a_report(service: str, dscp: int, reply_dscp: int | None) -> None:
    """TTL and DSCP of the request as it arrived; the DSCP of the reply unless the reflector refused it (RP)."""
    frame = StampFrame(ssid=7, dscp=46)
    reply = hexadecimal(STAMP_REPLY.format(service=service)) + BODY
    data, report = frame.open(reply)
    assert data == hexadecimal(STAMP_REQUEST) + BODY
    assert report == Report(
        received=1_700_000_000_375_000_000,
        replied=1_700_000_000_500_000_000,
        wraps=STAMP_WRAPS,
        count=4,
        ttl=61,
        dscp=dscp,
        request_dscp=46,
        reply_dscp=reply_dscp,
    )
    assert report.held == 125_000_000


def test_a_stateless_reflector_copies_the_number() -> None:
    """So it may be no count."""
    reply = bytearray(hexadecimal(STAMP_REPLY.format(service="b8 a0 0000")) + BODY)
    reply[3] = 5
    data, report = StampFrame(ssid=7, dscp=46).open(bytes(reply))
    assert data == hexadecimal(STAMP_REQUEST) + BODY
    assert report is not None
    assert (report.count, report.copied) == (6, True)


def test_a_reflector_without_tlvs_copies_them() -> None:
    """Then nothing is known of the class of service; a base packet has none either."""
    copied = hexadecimal(STAMP_REPLY.format(service="b8000000"))[:44] + hexadecimal(STAMP_REQUEST)[44:] + BODY
    data, report = StampFrame(ssid=7, dscp=46).open(copied)
    assert data == hexadecimal(STAMP_REQUEST) + BODY
    assert report is not None
    assert (report.ttl, report.dscp, report.request_dscp, report.reply_dscp) == (61, None, None, None)
    assert StampFrame(ssid=7, dscp=46).open(copied[:44]) == (hexadecimal(STAMP_REQUEST)[:44], report)


def test_a_reply_of_twamp_light_may_be_short() -> None:
    """Of 41 octets, which stand for the base packet; what is shorter is left as it is, or lacks what it lacks."""
    reply = hexadecimal(STAMP_REPLY.format(service="b8000000"))
    data, report = StampFrame(ssid=7, dscp=46).open(reply[:41])
    assert (data, report is None) == (hexadecimal(STAMP_REQUEST)[:44], False)
    assert StampFrame(ssid=7, dscp=46).open(reply[:42])[0] == hexadecimal(STAMP_REQUEST)[:42]
    assert StampFrame(ssid=7).open(reply[:40]) == (reply[:40], None)


def test_zeros_of_the_reply_are_no_damage() -> None:
    """A sender has to ignore what a reflector wrote where zeros must be (RFC 8762, 4.3.1)."""
    reply = bytearray(hexadecimal(STAMP_REPLY.format(service="b8 a0 0000")) + BODY)
    reply[38:40], reply[41:44] = b"\xff\xff", b"\xff\xff\xff"
    assert StampFrame(ssid=7, dscp=46).open(bytes(reply))[0] == hexadecimal(STAMP_REQUEST) + BODY


@pytest.mark.parametrize("at", [24, 27, 28, 35, 36, 14, 48, 54, 56, 73])
def test_any_other_byte_that_has_changed_is_damage(at: int) -> None:
    """Number, time and error estimate that are returned, SSID, the DSCP wanted, lengths, and the payload."""
    reply = bytearray(hexadecimal(STAMP_REPLY.format(service="b8 a0 0000")) + BODY)
    reply[at] ^= 0x04
    assert StampFrame(ssid=7, dscp=46).open(bytes(reply))[0] != hexadecimal(STAMP_REQUEST) + BODY


def test_a_plain_echo_reports_nothing_for_stamp() -> None:
    """The time of arrival is zero."""
    request = hexadecimal(STAMP_REQUEST) + BODY
    assert StampFrame(ssid=7, dscp=46).open(request) == (request, None)


def authenticated(number: str, rest: str) -> bytes:
    """Return a base packet of 112 octets with its HMAC."""
    packet = hexadecimal(number + "00" * 12 + rest).ljust(96, b"\0")
    return packet + code(packet)


def test_with_a_key_packet_and_tlvs_are_authenticated() -> None:
    """The HMAC TLV is before the padding, and covers number and class of service."""
    request = StampFrame(key=KEY, ssid=7, dscp=46).request(5, QUARTER, 162, BODY)
    base = authenticated("00000005", "e8fe6f80 40000000 2010 0007")
    service = hexadecimal("80040004 b8000000")
    tlvs = service + hexadecimal("80080010") + code(hexadecimal("00000005") + service)
    assert request == base + tlvs + hexadecimal("80010012") + BODY
    assert StampFrame(key=KEY).start == 112 + 8 + 20 + 4
    assert StampFrame(key=KEY, ssid=7).request(5, QUARTER, 112, b"") == base


def reply_with_key(key_of_tlvs: bytes = KEY) -> bytes:
    """Return the reply to that request by a stateful reflector."""
    base = authenticated(
        "00000003",
        "e8fe6f80 80000000 8001 0007 00000000 e8fe6f80 60000000 0000000000000000 00000005 000000000000000000000000"
        "e8fe6f80 40000000 2010 000000000000 3d",
    )
    service = hexadecimal("00040004 b8a00000")
    mac = hmac.digest(key_of_tlvs, hexadecimal("00000003") + service, "sha256")[:16]
    return base + service + hexadecimal("00080010") + mac + hexadecimal("00010012") + BODY


def test_a_reply_that_verifies_is_the_request_and_a_report() -> None:
    """As without a key; the HMACs are those of the request again."""
    frame = StampFrame(key=KEY, ssid=7, dscp=46)
    data, report = frame.open(reply_with_key())
    assert data == frame.request(5, QUARTER, 162, BODY)
    assert report is not None
    assert (report.count, report.copied, report.ttl, report.dscp, report.reply_dscp) == (4, False, 61, 10, 46)


def test_a_reply_that_does_not_verify_is_damaged() -> None:
    """In the packet it reports nothing; in the TLVs nothing of what they say."""
    frame = StampFrame(key=KEY, ssid=7, dscp=46)
    forged = bytearray(reply_with_key())
    forged[80] ^= 1
    assert frame.open(bytes(forged)) == (bytes(forged), None)
    data, report = frame.open(reply_with_key(b"another"))
    assert data != frame.request(5, QUARTER, 162, BODY)
    assert report is not None
    assert (report.ttl, report.dscp) == (61, None)


@example(data=bytes(5), at=36, key=False)
@given(data=st.binary(max_size=300), at=st.integers(0, 200), key=st.booleans())
def test_whatever_comes_is_read_and_stays_as_long_as_it_is(data: bytes, at: int, *, key: bool) -> None:
    """Any bytes, and any bytes in the midst of a reply, which may verify; only that of TWAMP-Light gets its zeros."""
    whole = reply_with_key() if key else hexadecimal(STAMP_REPLY.format(service="b8 a0 0000")) + BODY
    mixed = whole[:at] + data
    for frame in (PlusFrame(), StampFrame(ssid=7), StampFrame(key=KEY, ssid=7)):
        for reply in (data, mixed, mixed + whole[len(mixed) :]):
            opened, report = frame.open(reply)
            short = len(reply) == 41 and report is not None and frame == StampFrame(ssid=7)
            assert len(opened) == (44 if short else len(reply))


@pytest.mark.parametrize(
    ("frame", "good", "bad", "sentence"),
    [
        (PlusFrame(), (24, 25, 65_507), (0, 23), "a packet of UDPEchoPlus has 24 bytes or more"),
        (StampFrame(), (44, 56, 57), (0, 43, 45, 55), "a packet of STAMP has 44 bytes, or 56 or more with its TLVs"),
        (
            StampFrame(key=KEY),
            (112, 144),
            (44, 111, 113, 143),
            "an authenticated packet of STAMP has 112 bytes, or 144 or more with its TLVs",
        ),
    ],
)
def test_a_size_without_room_is_one_sentence(
    frame: Frame, good: tuple[int, ...], bad: tuple[int, ...], sentence: str
) -> None:
    """It states what there is room for."""
    for size in good:
        frame.check(size)
    for size in bad:
        with pytest.raises(UsageError) as caught:
            frame.check(size)
        assert str(caught.value) == f"ping: -s {size}: {sentence}"


def test_a_tlv_of_another_length_than_its_type_has_says_nothing() -> None:
    """A reflector that is wrong is not believed."""
    reply = hexadecimal(STAMP_REPLY.format(service="b8 a0 0000"))[:44] + hexadecimal("00040003 b8a000")
    _, report = StampFrame(ssid=7, dscp=46).open(reply)
    assert report is not None
    assert report == replace(report, dscp=None, request_dscp=None, reply_dscp=None)
