"""The TLVs of STAMP: RFC 8972, 4.

Owns their format, and that of the values that a client reads. What a reflector makes of those in a request is in
`reflection`. Invariant: whatever bytes follow a packet, reading them as TLVs ends, and never raises.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Final

from echod.wire.authentication import CODE_BYTES, code_of, verifies

UNRECOGNIZED: Final = 0x80
"""U: set by a sender, and cleared by a reflector that knows the type."""
MALFORMED: Final = 0x40
"""M: the length does not fit the type or the packet."""
INTEGRITY: Final = 0x20
"""I: the TLVs did not verify with the key."""

HEADER_BYTES: Final = 4
"""Flags, type, length of the value (2)."""
MOST: Final = 16
"""TLVs of a packet that are looked at: twice as many as there are types. A peer could send 16,000 of them at once."""
PADDING: Final = 0
"""Not a type: where it stands, padding begins, of a sender that knows no TLVs."""

_HEADER: Final = Struct(">BBH")
_COUNTERS: Final = Struct(">III")


class Type(IntEnum):
    """What a value is (RFC 8972, 5.1)."""

    EXTRA_PADDING = 1
    LOCATION = 2
    TIMESTAMP_INFORMATION = 3
    CLASS_OF_SERVICE = 4
    DIRECT_MEASUREMENT = 5
    ACCESS_REPORT = 6
    FOLLOW_UP_TELEMETRY = 7
    HMAC = 8


class Location(IntEnum):
    """What follows the two ports of a location: a question of the sender, or the address that the reflector saw."""

    SOURCE_MAC = 1
    SOURCE_EUI48 = 2
    SOURCE_EUI64 = 3
    DESTINATION = 4
    DESTINATION_IPV4 = 5
    DESTINATION_IPV6 = 6
    SOURCE = 7
    SOURCE_IPV4 = 8
    SOURCE_IPV6 = 9


LENGTHS: Final[dict[int, int]] = {
    Type.TIMESTAMP_INFORMATION: 4,
    Type.CLASS_OF_SERVICE: 4,
    Type.DIRECT_MEASUREMENT: 12,
    Type.ACCESS_REPORT: 4,
    Type.FOLLOW_UP_TELEMETRY: 16,
    Type.HMAC: CODE_BYTES,
}
"""The octets in the value, where a type has only one length."""


class Source(IntEnum):
    """What keeps a clock (RFC 8972, 5.3)."""

    NTP = 1
    PTP = 2
    SSU_BITS = 3
    SATELLITE = 4
    LOCAL = 5


class Method(IntEnum):
    """How a time stamp was taken (RFC 8972, 5.4)."""

    HARDWARE = 1
    SOFTWARE = 2
    CONTROL_PLANE = 3


@dataclass(frozen=True, slots=True)
class Tlv:
    """One TLV."""

    flags: int
    type: int
    """One of `Type`, or another."""
    value: bytes
    whole: bool = True
    """Its value is not cut short by the end of the packet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassOfService:
    """The value of CLASS_OF_SERVICE: how packets were marked (RFC 8972, 4.4)."""

    wanted: int
    """DSCP1: the DSCP that the reply should have."""
    dscp: int = 0
    """DSCP2: that of the request, as it arrived."""
    ecn: int = 0
    """Likewise."""
    refused: bool = False
    """RP: the reply does not have the DSCP that was wanted."""

    @staticmethod
    def read(value: bytes) -> "ClassOfService":
        """Read the value, of 4 octets."""
        field = int.from_bytes(value, "big")
        return ClassOfService(
            wanted=field >> 26, dscp=field >> 20 & 0x3F, ecn=field >> 18 & 3, refused=bool(field >> 16 & 3)
        )

    @property
    def value(self) -> bytes:
        """The value."""
        return (self.wanted << 26 | self.dscp << 20 | self.ecn << 18 | self.refused << 16).to_bytes(4, "big")


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectMeasurement:
    """The value of DIRECT_MEASUREMENT: what both sides counted in this session (RFC 8972, 4.5)."""

    sent: int
    """By the sender."""
    received: int = 0
    """By the reflector."""
    replied: int = 0
    """By the reflector."""

    @staticmethod
    def read(value: bytes) -> "DirectMeasurement":
        """Read the value, of 12 octets."""
        sent, received, replied = _COUNTERS.unpack(value)
        return DirectMeasurement(sent=sent, received=received, replied=replied)

    @property
    def value(self) -> bytes:
        """The value; the counters wrap."""
        return _COUNTERS.pack(self.sent % 2**32, self.received % 2**32, self.replied % 2**32)


def encode(kind: int, value: bytes = b"", flags: int = UNRECOGNIZED) -> bytes:
    """Return a TLV, by default with the flags of a sender."""
    return _HEADER.pack(flags, kind, len(value)) + value


def decode(data: bytes) -> Iterator[Tlv]:
    """Return the first TLVs of a packet, up to MOST. They end where padding begins."""
    at = 0
    for _ in range(MOST):
        if len(data) - at < HEADER_BYTES:
            return
        flags, kind, length = _HEADER.unpack_from(data, at)
        if kind == PADDING:
            return
        value = data[at + HEADER_BYTES : at + HEADER_BYTES + length]
        yield Tlv(flags, kind, value, len(value) == length)
        at += HEADER_BYTES + length


def authentication(key: bytes, sequence: bytes, tlvs: bytes) -> bytes:
    """Return the HMAC TLV of a sender, which follows the others: of the first 4 octets of the packet, and of those."""
    return encode(Type.HMAC, code_of(key, sequence + tlvs))


def are_authentic(key: bytes, sequence: bytes, tlvs: bytes) -> bool:
    """Tell whether the TLVs behind an authenticated packet were made with this key (RFC 8972, 4.8).

    The HMAC TLV is the last but for extra padding. Extra padding alone needs none. Padding that is no TLV is none.
    """
    at, authentic = 0, False
    found = list(decode(tlvs))
    for each in found:
        if authentic and each.type != Type.EXTRA_PADDING:
            return False
        if each.type == Type.HMAC:
            authentic = verifies(key, sequence + tlvs[:at], each.value)
        at += HEADER_BYTES + len(each.value)
    return authentic or [each.type for each in found] in ([], [Type.EXTRA_PADDING])
