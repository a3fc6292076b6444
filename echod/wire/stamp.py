"""STAMP: the test packets of RFC 8762, with the session identifier and the TLVs of RFC 8972.

Owns the layout of both modes, and the authentication of packets. Never remembers, and never reads a clock. Numbers are
in network byte order; times are in ns since 1970.

A request and its reply are of the same length: what the reflector writes has a place in the request that the sender
leaves zero. TWAMP-Light (RFC 5357, appendix I) is the same format without TLVs, and 41 octets of it are enough.
"""

from dataclasses import dataclass
from typing import Final

from echod.wire import reveal, tlv
from echod.wire.authentication import CODE_BYTES, code_of, verifies
from echod.wire.ntp import ErrorEstimate, from_stamp, to_ntp, to_ptp

PORT: Final = 862
"""Where reflectors wait by default."""

HMAC_AT: Final = 96
"""Where the HMAC of an authenticated packet lies: that of all before it (RFC 8762, 4.4)."""

SHORT_BYTES: Final = 41
"""The packet of TWAMP-Light (RFC 5357, 4.2.1): that of STAMP without the three zeros at its end."""

WRAP: Final = 2**32
DAY: Final = 86_400 * 10**9
SSID_WRAP: Final = 2**16


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where the fields of a packet lie, in octets. The sequence number is at 0, the TLVs are at `length`."""

    length: int
    stamp: int
    error_estimate: int
    ssid: int
    received: int
    sender_sequence: int
    sender_stamp: int
    sender_error_estimate: int
    ttl: int
    """Three zeros follow it."""
    copies: tuple[tuple[int, int, int], ...]
    """What a reflector copies of the request: from where, to where, and how many octets. What is adjacent is one."""
    zeros: tuple[tuple[int, int], ...]
    """First octet and length of what else a reflector sets to zero, after that."""


UNAUTHENTICATED: Final = Layout(
    length=44,
    stamp=4,
    error_estimate=12,
    ssid=14,
    received=16,
    sender_sequence=24,
    sender_stamp=28,
    sender_error_estimate=36,
    ttl=40,
    copies=((0, 24, 16),),
    zeros=((38, 2),),
)
"""RFC 8762, 4.2.1 and 4.3.1; RFC 8972, 3."""

AUTHENTICATED: Final = Layout(
    length=112,
    stamp=16,
    error_estimate=24,
    ssid=26,
    received=32,
    sender_sequence=48,
    sender_stamp=64,
    sender_error_estimate=72,
    ttl=80,
    copies=((0, 48, 4), (16, 64, 8), (24, 72, 2)),
    zeros=((4, 12), (28, 4), (40, 8), (52, 12), (74, 6), (84, 12)),
)
"""RFC 8762, 4.2.2 and 4.3.2; RFC 8972, 3."""

UNSYNCHRONIZED: Final = ErrorEstimate(scale=32, multiplier=16)
"""Of a clock of which nothing is known: 16 s, as Linux says of a clock that nobody sets (NTP_PHASE_LIMIT)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the reply of a reflector says."""

    sequence: int
    """The sender's number, or the reflector's own count of its replies in this session (stateful mode)."""
    sent: int
    received: int
    """When the reply left, and when the request arrived, by the clock of the reflector."""
    error_estimate: ErrorEstimate
    """The reflector's, of both times."""
    ssid: int
    sender_sequence: int
    sender_stamp: int
    """When the request was sent, by the clock of the sender."""
    sender_error_estimate: ErrorEstimate
    ttl: int
    """The TTL or hop limit with which the request arrived."""
    tlvs: bytes
    """The TLVs, or padding. Empty if a key was given and they do not verify."""


def layout(key: bytes) -> Layout:
    """Return the layout of packets that are authenticated with this key; with an empty one, of those that are not."""
    return AUTHENTICATED if key else UNAUTHENTICATED


def request(  # noqa: PLR0913 - each is a field of the packet
    sequence: int,
    stamp_ns: int,
    *,
    error_estimate: ErrorEstimate = UNSYNCHRONIZED,
    ssid: int = 0,
    tlvs: bytes = b"",
    key: bytes = b"",
) -> bytes:
    """Return a request that is sent at this time, by a clock of this error.

    `tlvs` follow it; with a key an HMAC TLV is added to them. Sequence number and SSID wrap.
    """
    places = layout(key)
    packet = bytearray(places.length)
    stamp = to_ptp(stamp_ns) if error_estimate.ptp else to_ntp(stamp_ns)
    for at, length, value in (
        (0, 4, sequence % WRAP),
        (places.stamp, 8, stamp),
        (places.error_estimate, 2, error_estimate.field),
        (places.ssid, 2, ssid % SSID_WRAP),
    ):
        packet[at : at + length] = value.to_bytes(length, "big")
    if key:
        packet[HMAC_AT:] = code_of(key, bytes(packet[:HMAC_AT]))
        if tlvs:
            tlvs += tlv.authentication(key, bytes(packet[:4]), tlvs)
    return bytes(packet) + tlvs


def read_reply(data: bytes, key: bytes = b"") -> Reply:
    """Read a reply. Raises ValueError if it is too short, or if it does not verify with the key."""
    places = layout(key)
    if len(data) < (places.length if key else SHORT_BYTES):
        raise ValueError(f"a reply of STAMP has at least {places.length} octets, not {len(data)}")
    if key and not verifies(key, data[:HMAC_AT], data[HMAC_AT : HMAC_AT + CODE_BYTES]):
        raise ValueError("a reply of STAMP does not verify with the key")

    def number(at: int, length: int) -> int:
        return int.from_bytes(data[at : at + length], "big")

    own = ErrorEstimate.read(number(places.error_estimate, 2))
    sender = ErrorEstimate.read(number(places.sender_error_estimate, 2))
    tlvs = data[places.length :]
    return Reply(
        sequence=number(0, 4),
        sent=from_stamp(number(places.stamp, 8), ptp=own.ptp),
        received=from_stamp(number(places.received, 8), ptp=own.ptp),
        error_estimate=own,
        ssid=number(places.ssid, 2),
        sender_sequence=number(places.sender_sequence, 4),
        sender_stamp=from_stamp(number(places.sender_stamp, 8), ptp=sender.ptp),
        sender_error_estimate=sender,
        ttl=data[places.ttl],
        tlvs=tlvs if not key or tlv.are_authentic(key, data[:4], tlvs) else b"",
    )


def identity(data: bytes, now: int, key: bytes = b"") -> bytes:
    """Return the same for whatever looks like the reply of a reflector, as of one that circulates; else all of it.

    Where a sender leaves zeros, or padding (TWAMP-Light), a reply has the number of the packet or that before it, which
    a server of UDPEchoPlus does not change, or a time within a day of `now`, in ns since 1970. That of a listener with
    `mode: reveal` is a reply, too.
    """
    places = layout(key)
    own, number, stamp = (
        int.from_bytes(data[at : at + size], "big")
        for at, size in ((0, 4), (places.sender_sequence, 4), (places.sender_stamp, 8))
    )
    numbered = stamp != 0 and (own - number) % WRAP <= 1
    return b"reply" if numbered or abs(from_stamp(stamp, ptp=False) - now) < DAY else reveal.identity(data)
