"""echod.wire.ntp: stamps and error estimates worked by hand from RFC 5905, 8186 and 4656."""

from struct import unpack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.wire.ntp import ErrorEstimate, from_ntp, from_ptp, from_stamp, pack_ntp, to_ntp, to_ptp

SECOND = 1_000_000_000
LAST = 4_233_462_144 * SECOND - 1
"""On 26 February 2104: the last that a stamp of NTP can say without an era."""


@pytest.mark.parametrize(
    ("time", "stamp"),
    [
        (0, 0x83AA7E80_00000000),
        (SECOND // 2, 0x83AA7E80_80000000),
        (1, 0x83AA7E80_00000004),
        (999_999_999, 0x83AA7E80_FFFFFFFB),
        (1_700_000_000 * SECOND + SECOND // 4, 0xE8FE6F80_40000000),
        (2_085_978_495 * SECOND, 0xFFFFFFFF_00000000),
        (2_085_978_496 * SECOND, 0x00000000_00000000),
    ],
)
def test_ntp_counts_seconds_since_1900_and_their_fraction(time: int, stamp: int) -> None:
    """The second era begins on 7 February 2036; a fraction is a multiple of 2**-32."""
    assert to_ntp(time) == stamp
    assert from_ntp(stamp) == time


@pytest.mark.parametrize(
    ("time", "stamp"),
    [
        (0, 0),
        (999_999_999, 0x00000000_3B9AC9FF),
        (1_700_000_000 * SECOND + 5, 0x6553F100_00000005),
    ],
)
def test_ptp_counts_seconds_since_1970_and_nanoseconds(time: int, stamp: int) -> None:
    """The truncated form: the low 32 bits of the seconds."""
    assert to_ptp(time) == stamp
    assert from_ptp(stamp) == time


def test_a_stamp_is_read_in_the_format_that_is_named() -> None:
    """The same 64 bits are different times."""
    assert from_stamp(0x83AA7E80_80000000, ptp=False) == SECOND // 2
    assert from_stamp(0x00000001_00000002, ptp=True) == SECOND + 2


@given(st.integers(0, LAST // SECOND), st.lists(st.integers(0, SECOND - 1), min_size=1, max_size=70))
def test_times_of_a_second_are_converted_at_once(second: int, offsets: list[int]) -> None:
    """Each is within a quarter of a ns of what it would be alone, and is read as the same nanosecond."""
    packed = unpack(f">{len(offsets)}Q", pack_ntp(second * SECOND, offsets))
    for stamp, offset in zip(packed, offsets, strict=True):
        assert 0 <= stamp - to_ntp(second * SECOND + offset) <= 1
        assert from_ntp(stamp) == second * SECOND + offset


@given(st.lists(st.integers(0, LAST), min_size=2, max_size=5))
def test_many_times_are_converted_at_once(times: list[int]) -> None:
    """Whatever lies between them, in their order."""
    second = min(times) // SECOND * SECOND
    packed = unpack(f">{len(times)}Q", pack_ntp(second, [time - second for time in times]))
    assert [from_ntp(stamp) for stamp in packed] == times


def test_stamps_that_are_packed_begin_anew_with_the_era() -> None:
    """The last second of the first era, and the first of the second."""
    last = 2_085_978_495 * SECOND
    assert pack_ntp(last, [0, SECOND + SECOND // 2]) == bytes.fromhex("ffffffff 00000000 00000000 80000000")
    assert pack_ntp(last + SECOND, [0, SECOND // 2]) == bytes.fromhex("00000000 00000000 00000000 80000000")


@given(st.integers(0, LAST))
def test_no_nanosecond_is_lost(time: int) -> None:
    """To either stamp and back it is the same time."""
    assert from_ntp(to_ntp(time)) == time
    assert from_ptp(to_ptp(time)) == time


@pytest.mark.parametrize(
    ("field", "estimate"),
    [
        (0x0001, ErrorEstimate()),
        (0x8001, ErrorEstimate(synchronized=True)),
        (0x4001, ErrorEstimate(ptp=True)),
        (0xFFFF, ErrorEstimate(synchronized=True, ptp=True, scale=63, multiplier=255)),
        (0x9080, ErrorEstimate(synchronized=True, scale=16, multiplier=128)),
        (0x0000, ErrorEstimate(multiplier=0)),
    ],
)
def test_an_estimate_is_s_z_scale_and_multiplier(field: int, estimate: ErrorEstimate) -> None:
    """One bit, one bit, six bits, eight bits."""
    assert ErrorEstimate.read(field) == estimate
    assert estimate.field == field


def test_the_error_is_a_multiple_of_a_power_of_two_seconds() -> None:
    """1 s is 1 * 2**(32 - 32), and 128 * 2**(25 - 32)."""
    assert ErrorEstimate(scale=32, multiplier=1).error == 1e9
    assert ErrorEstimate(scale=25, multiplier=128).error == 1e9


@pytest.mark.parametrize(
    ("error", "scale", "multiplier"),
    [
        (0, 0, 1),  # the multiplier is never 0
        (1, 0, 5),  # 4.29 of 2**-32 s
        (59, 0, 254),  # 253.4
        (60, 1, 129),  # 257.7 is above 255
        (SECOND, 25, 128),
        (16 * SECOND, 29, 128),
        (118, 1, 254),  # 506.8
        (119, 2, 128),  # 511.1 of 2**-32 s would be 256 of 2**-31 s
    ],
)
def test_an_estimate_is_never_below_the_error(error: int, scale: int, multiplier: int) -> None:
    """It is the next larger one, with the smallest scale that has room for it."""
    estimate = ErrorEstimate.of(error, synchronized=True)
    assert (estimate.scale, estimate.multiplier, estimate.synchronized, estimate.ptp) == (
        scale,
        multiplier,
        True,
        False,
    )
    assert estimate.error >= error


@given(st.integers(0, 2**62))
def test_an_estimate_of_any_error_is_valid(error: int) -> None:
    """Its multiplier is 1 to 255, and it exceeds the error by less than one part in 127, or one unit of 2**-32 s."""
    estimate = ErrorEstimate.of(error, synchronized=False)
    assert 1 <= estimate.multiplier <= 255
    assert error <= estimate.error <= error + max(error / 127, 0.25)
