"""What a reflector makes of the TLVs of a request: RFC 8972, 4.

Owns the rules for each type. Never looks at the packet before them. Invariant: the TLVs of the reply are as long as
those of the request, and every octet that the reflector has nothing to say about is copied.

Types: extra padding, location, time stamp information, class of service, direct measurement, HMAC. All others, and
those for which the reflector lacks what they ask for, come back with the flag U. The TLV that is malformed comes back
with the flag M, and what follows it as it was.
"""

from dataclasses import dataclass
from typing import Final

from echod.wire.authentication import code_of
from echod.wire.tlv import (
    HEADER_BYTES,
    INTEGRITY,
    LENGTHS,
    MALFORMED,
    UNRECOGNIZED,
    ClassOfService,
    DirectMeasurement,
    Location,
    Method,
    Source,
    Tlv,
    Type,
    are_authentic,
    decode,
    encode,
)

PORTS_BYTES: Final = 4
ADDRESS_BYTES: Final = 16
MAC_BYTES: Final = 8
"""The octets in the values of a location and its parts (RFC 8972, 4.2)."""

IPV4_BYTES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a reflector saw of a request, and knows of its session."""

    source: bytes
    """The address, of 4 or 16 octets."""
    source_port: int
    destination: bytes
    destination_port: int
    dscp: int
    ecn: int
    permitted: frozenset[int]
    """Each DSCP that the sender may ask for in the reply."""
    given: int | None = None
    """The DSCP that the reply has whatever the request asks for: another in the same train did."""
    synchronized: bool
    """The clock of the reflector is."""
    counted: tuple[int, int] | None
    """Requests received and replied to in this session, this one included; None if nobody counts."""
    sequence: bytes
    """The first 4 octets of the reply."""
    key: bytes = b""
    """Of the session; empty without authentication."""


@dataclass(frozen=True, slots=True)
class Reflected:
    """The TLVs of the reply, and the DSCP that the reply must have; None if nothing asks for one."""

    tlvs: bytes
    dscp: int | None = None


def reflect(tlvs: bytes, sequence: bytes, seen: Seen) -> Reflected:
    """Return what follows the reply to a request with these TLVs, whose first 4 octets are `sequence`."""
    if seen.key and not are_authentic(seen.key, sequence, tlvs):
        return Reflected(_flag_all(tlvs))
    reply, dscp = bytearray(), seen.given
    for each in decode(tlvs):
        if _is_malformed(each):
            return Reflected(_with(reply, tlvs, MALFORMED), dscp)
        if each.type == Type.CLASS_OF_SERVICE and dscp is None:
            wanted = ClassOfService.read(each.value).wanted
            dscp = wanted if wanted in seen.permitted else seen.dscp
        if (value := _answer(each, reply, seen, dscp)) is None:
            reply += encode(each.type, each.value, UNRECOGNIZED)
        else:
            reply += encode(each.type, value, 0)
    return Reflected(_with(reply, tlvs), dscp)


def _is_malformed(each: Tlv) -> bool:
    """Tell whether the length of a TLV fits neither the packet nor its type."""
    length = len(each.value)
    if each.type == Type.LOCATION and length < PORTS_BYTES:
        return True
    return not each.whole or LENGTHS.get(each.type, length) != length


def _answer(each: Tlv, before: bytearray, seen: Seen, dscp: int | None) -> bytes | None:
    """Return the value of a TLV in a reply with this DSCP, of the same length; None if its type is not known here."""
    value: bytes | None = None
    match each.type:
        case Type.EXTRA_PADDING:
            value = each.value
        case Type.LOCATION:
            value = _location(each.value, seen)
        case Type.TIMESTAMP_INFORMATION:
            source = Source.NTP if seen.synchronized else Source.LOCAL
            value = bytes([source, Method.SOFTWARE, source, Method.SOFTWARE])
        case Type.CLASS_OF_SERVICE:
            wanted = ClassOfService.read(each.value).wanted
            refused = wanted not in seen.permitted or wanted != dscp
            value = ClassOfService(wanted=wanted, dscp=seen.dscp, ecn=seen.ecn, refused=refused).value
        case Type.DIRECT_MEASUREMENT if seen.counted is not None:
            received, replied = seen.counted
            sent = DirectMeasurement.read(each.value).sent
            value = DirectMeasurement(sent=sent, received=received, replied=replied).value
        case Type.HMAC if seen.key:
            value = code_of(seen.key, seen.sequence + before)
    return value


def _location(value: bytes, seen: Seen) -> bytes:
    """Return the ports and, for each part that asks for an address, that address."""
    reply = bytearray(seen.destination_port.to_bytes(2, "big") + seen.source_port.to_bytes(2, "big"))
    for each in decode(value[PORTS_BYTES:]):
        room = MAC_BYTES if each.type < Location.DESTINATION else ADDRESS_BYTES
        if not each.whole or (each.type <= max(Location) and len(each.value) != room):
            return _with(reply, value, MALFORMED)
        if each.type in (Location.DESTINATION, Location.SOURCE):
            address = seen.destination if each.type == Location.DESTINATION else seen.source
            kind = each.type + (1 if len(address) == IPV4_BYTES else 2)
            reply += encode(kind, address.ljust(ADDRESS_BYTES, b"\0"), 0)
        else:
            reply += encode(each.type, each.value, UNRECOGNIZED)
    return _with(reply, value)


def _with(reply: bytearray, tlvs: bytes, flags: int | None = None) -> bytes:
    """Return these TLVs from where the reply ends behind it; the first of them gets these flags, if any are given."""
    rest = tlvs[len(reply) :]
    return bytes(reply) + (rest if flags is None else bytes([flags]) + rest[1:])


def _flag_all(tlvs: bytes) -> bytes:
    """Return TLVs that do not verify: all with the flag I, otherwise as they were."""
    reply, at = bytearray(tlvs), 0
    for each in decode(tlvs):
        reply[at] = INTEGRITY if each.whole else INTEGRITY | MALFORMED
        at += HEADER_BYTES + len(each.value)
    return bytes(reply)
