"""echod.measurement.payload: what a probe carries, and what a reply that differs is called."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.measurement.payload import (
    HEADER_BYTES,
    IDENTICAL,
    MAX_SIZE,
    Damage,
    Difference,
    Header,
    Payloads,
    compare,
    may_match,
    most_similar,
    sent_time,
)

RUN = 0xDEAD_BEEF
SENT = 1_700_000_000_123_456_789


def test_the_layout_is_the_one_that_is_written_down() -> None:
    """24 bytes: number, run, CRC-32 of the whole with itself zero, magic, size, time; then each byte its own offset."""
    payload = Payloads(RUN).encode(7, SENT, 56)
    assert HEADER_BYTES == 24
    assert payload[:8] == b"\0\0\0\x07\xde\xad\xbe\xef"
    assert payload[12:24] == b"\xec\x40\x00\x38" + SENT.to_bytes(8, "big")
    assert payload[24:] == bytes(range(24, 56))
    assert int.from_bytes(payload[8:12], "big") == zlib.crc32(payload[:8] + bytes(4) + payload[12:])


def test_a_pattern_fills_what_the_header_leaves() -> None:
    """The pattern is laid over the whole payload and the header over its beginning."""
    assert Payloads(RUN, b"\xff\x00").encode(1, SENT, 29)[24:] == b"\xff\x00\xff\x00\xff"


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 11, 12, 23, 24, 25, 1472, MAX_SIZE])
def test_a_payload_has_its_size_and_begins_with_its_number(size: int) -> None:
    """Whatever the room, a payload is as long as asked; below four bytes it has the low end of the number."""
    payload = Payloads(RUN).encode(0x0102_0304, SENT, size)
    assert len(payload) == size
    number = b"\x01\x02\x03\x04"
    assert payload[:4] == (number if size >= 4 else number[4 - size :])


def test_from_twelve_bytes_on_there_is_a_checksum() -> None:
    """A checksum over as much as is there tells two runs, and two numbers, apart."""
    payload = Payloads(RUN).encode(7, SENT, 14)
    assert int.from_bytes(payload[8:12], "big") == zlib.crc32(payload[:8] + bytes(4) + payload[12:])


@given(size=st.integers(HEADER_BYTES, 2000), sequence=st.integers(0, 2**32 - 1), sent=st.integers(0, 2**64 - 1))
def test_a_whole_payload_says_its_number_and_time(size: int, sequence: int, sent: int) -> None:
    """What was written is read back."""
    payloads = Payloads(RUN)
    assert payloads.read(payloads.encode(sequence, sent, size)) == Header(sequence=sequence, sent=sent)


@given(size=st.integers(HEADER_BYTES, 200), offset=st.integers(0, 199), flip=st.integers(1, 255))
def test_a_payload_with_one_wrong_byte_says_nothing(size: int, offset: int, flip: int) -> None:
    """Whichever byte was changed, it is not taken for a whole payload."""
    payload = bytearray(Payloads(RUN).encode(7, SENT, size))
    payload[offset % size] ^= flip
    assert Payloads(RUN).read(bytes(payload)) is None


@given(size=st.integers(0, 60), sent=st.integers(0, 2**64 - 1))
def test_the_send_time_is_read_from_what_is_damaged_too(size: int, sent: int) -> None:
    """Wherever there is room for it, whatever else is wrong."""
    payload = bytes(16) + Payloads(7).encode(1, sent, max(24, size))[16:]
    assert sent_time(payload[:size]) == (sent if size >= 24 else None)


def test_what_is_short_or_of_another_run_says_nothing() -> None:
    """A payload needs a full header, and the run's own number."""
    assert Payloads(RUN).read(Payloads(RUN).encode(7, SENT, 23)) is None
    assert Payloads(RUN + 1).read(Payloads(RUN).encode(7, SENT, 56)) is None


@pytest.mark.parametrize(
    ("data", "difference"),
    [
        (b"abcdef", IDENTICAL),
        (b"abc", Difference(damage=Damage.TRUNCATED, offset=3, count=3)),
        (b"", Difference(damage=Damage.TRUNCATED, offset=0, count=6)),
        (b"abcdef!!", Difference(damage=Damage.EXTENDED, offset=6, count=2)),
        (b"abXdeX", Difference(damage=Damage.CORRUPT, offset=2, count=2)),
        (b"Xb", Difference(damage=Damage.CORRUPT, offset=0, count=1)),
    ],
)
def test_what_differs_is_named_with_its_place(data: bytes, difference: Difference) -> None:
    """Wrong bytes are corruption, whatever the length; else it is too short or too long."""
    assert compare(data, b"abcdef") == difference


@pytest.mark.parametrize(
    ("offsets", "expected"), [((), True), ((0, 9), True), ((5,), True), ((0, 5), False), ((5, 9), False)]
)
def test_damage_leaves_either_the_run_or_number_and_checksum(offsets: tuple[int, ...], expected: bool) -> None:  # noqa: FBT001
    """Else it is somebody else's: all patterns are alike."""
    payload = Payloads(RUN).encode(7, SENT, 56)
    damaged = bytes(byte ^ (offset in offsets) for offset, byte in enumerate(payload))
    assert may_match(damaged, payload) is expected
    assert may_match(damaged[:11], payload)


@given(data=st.binary(max_size=80), expected=st.binary(max_size=80))
def test_the_comparison_is_that_of_each_byte(data: bytes, expected: bytes) -> None:
    """Which is first, and how many there are, is what a plain look at one byte after the other finds."""
    wrong = [at for at, (one, other) in enumerate(zip(data, expected, strict=False)) if one != other]
    found = compare(data, expected)
    assert (found.damage is Damage.CORRUPT) is bool(wrong)
    assert not wrong or (found.offset, found.count) == (wrong[0], len(wrong))


def test_the_closest_is_the_first_that_differs_least() -> None:
    """Judged by the header, and only where the rest of it says that it may be ours."""
    payloads = [Payloads(RUN).encode(number, SENT + number, 56) for number in (1, 2, 3)]

    def closest(data: bytes, *probes: int) -> tuple[int, Difference] | None:
        return most_similar(data, probes, lambda probe: payloads[probe][:24], payloads.__getitem__)

    damaged = b"\xff" + payloads[1][1:]
    assert closest(damaged, 0, 1, 2) == (1, Difference(damage=Damage.CORRUPT, offset=0, count=1))
    assert closest(b"\xff" * 56, 0, 1, 2) is None
    assert closest(b"", 2, 0) == (2, Difference(damage=Damage.TRUNCATED, offset=0, count=56))
    assert closest(damaged) is None


@pytest.mark.parametrize(("wrong", "found"), [(27, True), (28, False)])
def test_more_than_half_of_the_bytes_must_be_right(wrong: int, *, found: bool) -> None:
    """Of 56 at most 27 are wrong, although the header is right; what is cut off or added is not wrong."""
    payload = Payloads(RUN).encode(7, SENT, 56)
    damaged = payload[:-wrong] + bytes(byte ^ 0xFF for byte in payload[-wrong:])
    similar = most_similar(damaged, [payload], lambda head: head[:24], bytes)
    assert similar == ((payload, Difference(damage=Damage.CORRUPT, offset=56 - wrong, count=wrong)) if found else None)
    assert most_similar(payload[:24], [payload], lambda head: head[:24], bytes) is not None


def test_a_payload_may_be_ours_unless_it_names_another_run() -> None:
    """What is too short to carry a checksum may be anybody's."""
    payload = Payloads(RUN).encode(7, SENT, 56)
    assert [Payloads(RUN).may_be_ours(data) for data in (payload, payload[:11], b"\xff" * 11)] == [True] * 3
    assert not Payloads(RUN + 1).may_be_ours(payload)


class Frame:
    """A frame of eight bytes: the number, and the last four digits of the send time."""

    start = 8
    offset = 0xFFFFFFFE

    def request(self, sequence: int, sent: int, size: int, payload: bytes) -> bytes:
        """Return the frame and what it carries."""
        assert len(payload) == max(0, size - 8)
        return b"%04d%04d" % (sequence % 10_000, sent % 10_000) + payload


FRAMED = Payloads(RUN, frame=Frame())


@pytest.mark.parametrize("size", [8, 9, 31, 32, 64])
def test_a_frame_carries_the_payload_that_has_what_room_it_leaves(size: int) -> None:
    """The size is that of both."""
    assert FRAMED.encode(7, SENT, size) == b"0007%04d" % (SENT % 10_000) + Payloads(RUN).encode(7, SENT, size - 8)


def test_a_frame_has_to_be_whole_too() -> None:
    """No checksum is over it, so it is compared: whichever byte was changed, the payload says nothing."""
    payload = FRAMED.encode(7, SENT, 64)
    assert FRAMED.read(payload) == Header(sequence=7, sent=SENT)
    for offset in (0, 3, 4, 7, 8, 30, 63):
        assert FRAMED.read(payload[:offset] + bytes([payload[offset] ^ 1]) + payload[offset + 1 :]) is None
    assert FRAMED.read(payload[:31]) is None


def test_in_a_frame_the_header_lies_behind_it() -> None:
    """The send time, the run, and what a damaged reply is compared by."""
    payload = FRAMED.encode(7, SENT, 64)
    assert (sent_time(payload, 8), sent_time(payload[:31], 8)) == (SENT, None)
    assert FRAMED.head(payload) == payload[:32]
    assert FRAMED.may_be_ours(payload)
    assert not Payloads(RUN + 1, frame=Frame()).may_be_ours(payload)
    assert Payloads(RUN + 1, frame=Frame()).may_be_ours(payload[:19])


def test_the_number_of_a_probe_is_in_its_first_bytes_with_what_its_frame_adds() -> None:
    """It wraps."""
    assert Payloads(RUN).number(bytes.fromhex("0000010000")) == 256
    assert [FRAMED.number(bytes.fromhex(data)) for data in ("ffffffff", "0000000399")] == [1, 5]


def test_the_closest_is_found_by_the_frame_too() -> None:
    """Where the payload within says nothing, the number in the frame does."""
    payloads = [FRAMED.encode(number, SENT, 64) for number in (1, 2, 3)]
    damaged = payloads[1][:8] + bytes([payloads[1][8] ^ 0xFF]) + payloads[1][9:]
    found = most_similar(damaged, (0, 1, 2), lambda probe: payloads[probe][:32], payloads.__getitem__, 8)
    assert found == (1, Difference(damage=Damage.CORRUPT, offset=8, count=1))
    strange = payloads[1][:8] + b"\xff" * 56
    assert most_similar(strange, (0, 1, 2), lambda probe: payloads[probe][:32], payloads.__getitem__, 8) is None
