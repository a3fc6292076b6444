"""echod.wire.reflection: what comes back of each TLV, worked by hand from RFC 8972, 4."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.wire.authentication import code_of
from echod.wire.reflection import Reflected, Seen, reflect

ASKED = bytes.fromhex("00000009")
SEEN = Seen(
    source=bytes([192, 0, 2, 1]),
    source_port=50_000,
    destination=bytes([198, 51, 100, 2]),
    destination_port=862,
    dscp=10,
    ecn=1,
    permitted=frozenset({0, 46}),
    synchronized=True,
    counted=(8, 7),
    sequence=bytes.fromhex("00000003"),
)
V6 = replace(SEEN, source=bytes.fromhex("20010db8" + "00" * 11 + "01"), destination=bytes.fromhex("fe80" + "00" * 14))
KEY = b"key"
SECRET = replace(SEEN, key=KEY)


def reflected(tlvs: str, seen: Seen = SEEN) -> str:
    """Return the TLVs of a reply, in hexadecimal digits."""
    return reflect(bytes.fromhex(tlvs), ASKED, seen).tlvs.hex()


def digits(text: str) -> str:
    """Return hexadecimal digits without spaces."""
    return text.replace(" ", "")


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("", ""),
        ("80010003 aabbcc", "00010003 aabbcc"),  # extra padding
        ("80020004 00000000", "00020004 035ec350"),  # location: 862 and 50,000
        ("80030004 00000000", "00030004 01020102"),  # NTP, software, at both ends
        ("80050c00", "40050c00"),  # longer than the packet
        ("8005000c 00000005 00000000 00000000", "0005000c 00000005 00000008 00000007"),  # sent, received, replied
        ("80060004 10010000", "80060004 10010000"),  # access report: not known
        ("80070010" + "00" * 16, "80070010" + "00" * 16),  # follow-up telemetry: not known
        ("00c80002 abcd", "80c80002 abcd"),  # 200: not known
        ("80080010" + "aa" * 16, "80080010" + "aa" * 16),  # HMAC, and there is no key
        ("00" * 60, "00" * 60),  # padding of RFC 8762
        ("80010000 0000 ffff", "00010000 0000 ffff"),  # padding behind a TLV
        ("80010000 80", "00010000 80"),  # too short for a TLV
    ],
)
def test_each_type_is_answered_by_its_rule(asked: str, answered: str) -> None:
    """The flag U stays where the type is not known, and is set where a sender forgot it."""
    assert reflected(asked) == digits(answered)


@pytest.mark.parametrize(
    "malformed",
    [
        "80010005 aabb",
        "80020003 000000",
        "80030003 000000",
        "80040005 0000000000",
        "8005000b" + "00" * 11,
        "80060003 000000",
        "80070011" + "00" * 17,
        "8008000f" + "00" * 15,
        "80ff0002 aa",
    ],
)
def test_a_malformed_tlv_is_flagged_and_ends_the_work(malformed: str) -> None:
    """What stands before it is answered, and what follows it is copied."""
    before, after = "80030004 00000000", "80030004 00000000" if len(malformed) > 14 else ""
    answer = reflected(before + malformed + after)
    assert answer == digits("00030004 01020102 40" + malformed[2:] + after)


def test_no_more_than_16_are_looked_at() -> None:
    """The rest is copied."""
    assert reflected("80010000" * 20) == "00010000" * 16 + "80010000" * 4


def test_a_clock_that_nobody_sets_runs_free() -> None:
    """The source is the fifth."""
    assert reflected("80030004 00000000", replace(SEEN, synchronized=False)) == digits("00030004 05020502")


def test_a_stateless_reflector_counts_nothing() -> None:
    """So it does not know direct measurement."""
    asked = "8005000c 00000005 00000000 00000000"
    assert reflected(asked, replace(SEEN, counted=None)) == digits(asked)


def test_a_permitted_dscp_is_that_of_the_reply() -> None:
    """The DSCP and ECN that arrived are reported beside it."""
    assert reflect(bytes.fromhex("80040004 b8000000"), ASKED, SEEN) == Reflected(bytes.fromhex("00040004 b8a40000"), 46)


def test_another_dscp_is_refused() -> None:
    """RP is set, and the reply is marked as the request was."""
    assert reflect(bytes.fromhex("80040004 88000000"), ASKED, SEEN) == Reflected(bytes.fromhex("00040004 88a50000"), 10)


def test_the_first_class_of_service_decides() -> None:
    """A second is refused, and does not mark the reply; nor does a malformed TLV that follows."""
    both = bytes.fromhex("80040004 00000000 80040004 b8000000 80010009")
    answer = bytes.fromhex("00040004 00a40000 00040004 b8a50000 40010009")
    assert reflect(both, ASKED, SEEN) == Reflected(answer, 0)


@pytest.mark.parametrize(
    ("wanted", "answered"),
    [("b8", "b8a4"), ("00", "00a5"), ("88", "88a5")],
    ids=["the one that is given", "another", "another that is not permitted"],
)
def test_a_reply_whose_dscp_is_given_says_whether_it_is_the_one_that_is_wanted(wanted: str, answered: str) -> None:
    """RP is set where it is not."""
    answer = reflect(bytes.fromhex(f"80040004 {wanted}000000"), ASKED, replace(SEEN, given=46))
    assert answer == Reflected(bytes.fromhex(f"00040004 {answered}0000"), 46)


def test_a_dscp_that_is_not_permitted_is_refused_though_the_reply_has_it() -> None:
    """It was that of the request, alone or in a train."""
    for seen in (SEEN, replace(SEEN, given=10)):
        answer = reflect(bytes.fromhex("80040004 28000000"), ASKED, seen)
        assert answer == Reflected(bytes.fromhex("00040004 28a50000"), 10)


def test_a_location_has_the_addresses_that_are_asked_for() -> None:
    """The two ports, then the destination, then the source, each of 16 octets."""
    asked = "8002002c 00000000 80040010" + "00" * 16 + "80070010" + "00" * 16
    assert reflected(asked) == digits(
        "0002002c 035ec350 00050010 c6336402" + "00" * 12 + "00080010 c0000201" + "00" * 12
    )
    assert reflected(asked, V6) == digits(
        "0002002c 035ec350 00060010 fe80" + "00" * 14 + "00090010 20010db8" + "00" * 11 + "01"
    )


def test_a_location_has_no_address_of_a_link() -> None:
    """The daemon never sees one. Nor is an answer, or an unknown part, a question."""
    parts = "80010008" + "00" * 8 + "80050010" + "00" * 16 + "80630002 abcd"
    assert reflected("8002002a 00000000" + parts) == digits("0002002a 035ec350" + parts)


@pytest.mark.parametrize(
    ("part", "flagged"),
    [
        ("80040008" + "00" * 8, "40040008" + "00" * 8),
        ("80010010" + "00" * 16, "40010010" + "00" * 16),
        ("80040010 00", "40040010 00"),
        ("80630010 00", "40630010 00"),
    ],
)
def test_a_malformed_part_of_a_location_is_flagged(part: str, flagged: str) -> None:
    """The location itself is well formed."""
    length = f"{4 + len(digits(part)) // 2:04x}"
    assert reflected("8002" + length + "00000000" + part) == digits("0002" + length + "035ec350" + flagged)


def test_what_verifies_is_answered_and_authenticated_again() -> None:
    """The code of the reply is that of its own sequence number and TLVs."""
    asked, answered = bytes.fromhex("80030004 00000000"), bytes.fromhex("00030004 01020102")
    tlvs = asked + bytes.fromhex("80080010") + code_of(KEY, ASKED + asked) + bytes.fromhex("80010001 77")
    expected = answered + bytes.fromhex("00080010") + code_of(KEY, bytes.fromhex("00000003") + answered)
    assert reflect(tlvs, ASKED, SECRET).tlvs == expected + bytes.fromhex("00010001 77")


def test_what_does_not_verify_is_flagged_and_copied() -> None:
    """Every TLV has the flag I, and none is answered; one that is malformed has M too."""
    assert reflected("80030004 00000000 80080010" + "aa" * 16, SECRET) == digits(
        "20030004 00000000 20080010" + "aa" * 16
    )
    assert reflected("80030004 00000000 80050c00", SECRET) == digits("20030004 00000000 60050c00")
    assert reflect(bytes.fromhex("80040004 b8000000"), ASKED, SECRET).dscp is None


@given(st.binary(max_size=120), st.sampled_from([SEEN, V6, SECRET]))
def test_any_bytes_come_back_as_long_as_they_were(tlvs: bytes, seen: Seen) -> None:
    """Whatever a peer sends."""
    assert len(reflect(tlvs, ASKED, seen).tlvs) == len(tlvs)
