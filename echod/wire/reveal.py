"""The reply of a listener with `mode: reveal`: a JSON object of what the server saw of a datagram.

Owns the keys, and how a reply is made and read. The object is in ASCII, without spaces inside, and is followed by
spaces up to the length of the request, so that the reply is exactly as long. What a reply holds is a stranger's text:
`decode` takes nothing from it that is not of the form that `encode` makes.
"""

import json
from dataclasses import asdict, dataclass, fields
from ipaddress import ip_address
from typing import Final

ENOUGH_BYTES: Final = 384
"""A request of this length has room for each object: two IPv6 addresses, each number with all its digits, and a name of
an interface with every letter escaped."""

_MOST_IN_A_NAME: Final = 15
"""Characters in the name of an interface: IFNAMSIZ (netdevice(7)) without the final zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the server saw of a datagram. The names of the fields are the keys of the object, in this order."""

    peer: str
    """The address of the sender as it arrived: after NAT, if there is one on the way."""
    peer_port: int
    local: str
    """The address that the datagram was sent to."""
    local_port: int
    ttl: int
    """TTL (IPv4) or hop limit (IPv6) as it arrived; 255 if unknown."""
    dscp: int
    """0 to 63 (RFC 2474)."""
    ecn: int
    """0 to 3 (RFC 3168)."""
    length: int
    """Bytes of payload."""
    interface: str
    """The name of the interface on which it arrived; empty if unknown."""
    received_ns: int
    """When the kernel received it: nanoseconds since 1970 by the server's wall clock; 0 if unknown."""
    train: int
    """Datagrams in the train (UDP_GRO, udp(7)) in which the kernel delivered it; 1 for a single datagram."""


_BEGIN: Final = b'{"pe'
"""The first bytes of each object, which a server of UDPEchoPlus leaves as they are."""

_MOST: Final = {
    "peer_port": 65_535,
    "local_port": 65_535,
    "ttl": 255,
    "dscp": 63,
    "ecn": 3,
    "length": 65_535,
    "received_ns": 2**63 - 1,
    "train": 65_535,
}
"""The largest value of each number."""

_KEYS: Final = [field.name for field in fields(Seen)]


def encode(seen: Seen) -> bytes | None:
    """Return the payload of the reply, `seen.length` bytes; None if the object is longer."""
    text = json.dumps(asdict(seen), separators=(",", ":")).encode("ascii")
    return text.ljust(seen.length) if len(text) <= seen.length else None


def decode(payload: bytes) -> Seen | None:
    """Read the payload of a reply; None if `encode` made no such payload: what came is not a reply of this mode."""
    try:
        found = json.loads(payload.decode("ascii"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or list(found) != _KEYS:
        return None
    numbers = all(type(found[key]) is int and 0 <= found[key] <= most for key, most in _MOST.items())
    if not numbers or not all(_is_address(found[key]) for key in ("peer", "local")):
        return None
    return Seen(**found) if _is_name(found["interface"]) and found["length"] == len(payload) else None


def _is_address(value: object) -> bool:
    """Tell whether this is the text of an address, which may be shown as it is."""
    try:
        return isinstance(value, str) and value == str(ip_address(value)) and "%" not in value
    except ValueError:
        return False


def _is_name(value: object) -> bool:
    """Tell whether this can be the name of an interface, and may be shown as it is."""
    return isinstance(value, str) and len(value) <= _MOST_IN_A_NAME and (value.isprintable() and " " not in value)


def identity(data: bytes) -> bytes:
    """Return the same for each reply of such a listener, as of one that circulates; of anything else all of it."""
    return _BEGIN if data.startswith(_BEGIN) else data
