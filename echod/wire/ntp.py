"""Time stamps of NTP and PTP, and the error estimate that goes with them.

Owns the conversion to and from nanoseconds since 1970. Never reads a clock. Invariant: a time that is converted to
either stamp and back is the same time, to the nanosecond, from 1970 until 2104 (NTP) and 2106 (PTP).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from echod.wire.lanes import LANES, Lanes

NS: Final = 1_000_000_000
SECONDS_TO_1970: Final = 2_208_988_800
"""From the beginning of NTP's first era, 1900, to 1970 (RFC 5905, 6)."""

_WRAP: Final = 2**32
_HALF: Final = 2**31
_FRACTION_SHIFT: Final = 31
_FRACTION: Final = -(-(2**32 << _FRACTION_SHIFT) // NS)
"""Times ns and divided by 2**31 it is a fraction of a second in units of 2**-32 s."""

MOST_SCALE: Final = 63
MOST_MULTIPLIER: Final = 255
_SYNCHRONIZED: Final = 0x8000
_PTP: Final = 0x4000


def to_ntp(time: int) -> int:
    """Return the 64-bit NTP stamp of a time in ns since 1970 (RFC 5905, 6): seconds since 1900, and their fraction."""
    seconds, rest = divmod(time, NS)
    return (seconds + SECONDS_TO_1970) % _WRAP << 32 | (rest << 32) // NS


def pack_ntp(second: int, offsets: Sequence[int]) -> bytes:
    """Return the 64-bit NTP stamps of times in ns after a whole second, itself in ns since 1970, one after another.

    A fraction may be one unit, a quarter of a ns, larger than that of `to_ntp`; it is the same to the nanosecond.
    """
    if max(offsets) < NS and len(offsets) <= LANES:
        lanes = Lanes(offsets)
        lanes.scale(_FRACTION, _FRACTION_SHIFT)
        return lanes.pack(high=(second // NS + SECONDS_TO_1970) % _WRAP)
    return b"".join(to_ntp(second + offset).to_bytes(8, "big") for offset in offsets)


def from_ntp(stamp: int) -> int:
    """Return the time of a 64-bit NTP stamp in ns since 1970.

    Seconds below 2**31 belong to the second era, which begins on 7 February 2036 (RFC 4330, 3).
    """
    seconds, fraction = divmod(stamp, _WRAP)
    era = 0 if seconds >= _HALF else _WRAP
    return (seconds + era - SECONDS_TO_1970) * NS + (fraction * NS + _HALF >> 32)


def to_ptp(time: int) -> int:
    """Return the truncated PTPv2 stamp of a time in ns since 1970: 32 bits of seconds, 32 of ns (RFC 8186, 2.1)."""
    seconds, rest = divmod(time, NS)
    return seconds % _WRAP << 32 | rest


def from_ptp(stamp: int) -> int:
    """Return the time of a truncated PTPv2 stamp in ns since 1970.

    PTP counts the leap seconds, 37 s since 2017, if its clock is set to TAI. The stamp does not say whether it is, and
    nothing is corrected here.
    """
    seconds, rest = divmod(stamp, _WRAP)
    return seconds * NS + rest


def from_stamp(stamp: int, *, ptp: bool) -> int:
    """Return the time of a stamp of either format in ns since 1970."""
    return from_ptp(stamp) if ptp else from_ntp(stamp)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorEstimate:
    """How far a clock may be off, and of which format its stamps are (RFC 4656, 4.1.2; RFC 8186, 2.1)."""

    synchronized: bool = False
    """S: the clock is synchronized to UTC by an external source."""
    ptp: bool = False
    """Z: the stamps are truncated PTPv2, not NTP."""
    scale: int = 0
    multiplier: int = 1
    """The error is `multiplier` * 2**(`scale` - 32) seconds. A multiplier of 0 is not valid."""

    @staticmethod
    def of(error: int, *, synchronized: bool, ptp: bool = False) -> "ErrorEstimate":
        """Return the smallest estimate that is not below an error in ns."""
        fraction = max(1, -(-(error << 32) // NS))
        scale = max(0, (fraction - 1).bit_length() - 8)
        if (multiplier := -(-fraction >> scale)) > MOST_MULTIPLIER:
            scale, multiplier = scale + 1, -(-fraction >> scale + 1)
        return ErrorEstimate(synchronized=synchronized, ptp=ptp, scale=scale, multiplier=multiplier)

    @staticmethod
    def read(field: int) -> "ErrorEstimate":
        """Read the 16-bit field."""
        return ErrorEstimate(
            synchronized=bool(field & _SYNCHRONIZED),
            ptp=bool(field & _PTP),
            scale=field >> 8 & MOST_SCALE,
            multiplier=field & MOST_MULTIPLIER,
        )

    @property
    def field(self) -> int:
        """The 16-bit field."""
        return _SYNCHRONIZED * self.synchronized | _PTP * self.ptp | self.scale << 8 | self.multiplier

    @property
    def error(self) -> float:
        """The error in ns; 0 if the estimate is not valid."""
        return self.multiplier * 2.0 ** (self.scale - 32) * NS
