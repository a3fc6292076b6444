"""Why a datagram is dropped, why a send fails, and why a connection ends: each reason with its number.

Owns the reasons. It decides nothing and counts nothing. Invariant: the numbers are fixed. The counters page and the
reports of workers are indexed by them, so a number never gets another meaning, and a new reason takes the next number.
"""

import errno
from enum import IntEnum
from typing import Final

from echod.net.listener import Protocol


class Drop(IntEnum):
    """Why a datagram is not replied to. `admission.rules` has the order of the rules."""

    DESTINATION_NOT_UNICAST = 1
    """Sent to a broadcast or multicast address: an answer would make this host an amplifier for its LAN."""
    SOURCE_PORT_ZERO = 2
    """No answer can reach port 0 (RFC 768: zero stands for "not used")."""
    SOURCE_PORT_OWN = 3
    """From a port that echod itself answers on: two echo servers would answer each other for ever (CERT CA-1996-01)."""
    SOURCE_PORT_LOW = 4
    """From a port below `guard.min_source_port`, which services use and clients do not (CVE-2024-2169)."""
    SOURCE_PORT_REFUSED = 5
    """From a port in `guard.refuse_source_ports`: services above port 1023 that answer or amplify."""
    SOURCE_INVALID = 6
    """From an address that is not a valid source on the interface it came in on (RFC 1122, 3.2.1.3; RFC 6890)."""
    SOURCE_IS_SELF = 7
    """From an address of this host, but not received on loopback: forged, or reflected."""
    ACCESS = 8
    """`access.deny` names the source, or `access.allow` does not."""
    TRUNCATED = 9
    """The kernel could not deliver the datagram, or its destination address, whole: no exact answer exists."""
    RATE = 10
    """Its source, or all sources together, exceed their limit."""
    LOOP = 11
    """It equals an earlier sample from the same peer: it circulates."""
    MALFORMED = 12
    """It is not what the mode of its listener replies to: too short, or impossible."""
    UNAUTHENTICATED = 13
    """Its HMAC is not that of the key (RFC 8762, 4.4)."""
    DISCARDED = 14
    """The mode of its listener is discard (RFC 863)."""
    IMPAIRED = 15
    """Lost, as `impair.loss` demands."""
    IMPAIR_QUEUE = 16
    """As many datagrams as `impair.queue` allows were held already."""


SEND_ERRORS: Final = {
    errno.EAGAIN: 0,
    errno.EINVAL: 1,
    errno.EACCES: 2,
    errno.EPERM: 3,
    errno.ENETUNREACH: 4,
    errno.EHOSTUNREACH: 5,
    errno.EMSGSIZE: 6,
    errno.ENOBUFS: 7,
    errno.ENODEV: 8,
}
"""The errors of a send that are counted separately, by errno."""

OTHER_SEND_ERROR: Final = 9
"""The number of all other errors of a send."""


class Close(IntEnum):
    """Why a TCP connection ended."""

    FINISHED = 1
    """The peer half-closed and was sent the echo of all its data."""
    RESET = 2
    """The peer or the network broke it."""
    IDLE = 3
    """Nothing arrived for `idle_timeout_seconds`."""
    STALLED = 4
    """The peer took no byte for `stall_timeout_seconds` while data was due to it."""
    DRAINED = 5
    """echod stopped or reloaded."""
    OVER_LIMIT = 6
    """There were `max_connections` already: closed at once."""
    OVER_SOURCE_LIMIT = 7
    """There were `max_connections_per_source` from its source already: closed at once."""
    INTERRUPTED = 8
    """The worker that held it died."""
    ACCESS = 9
    """Its source may not be answered (`access`): closed at once."""
    NO_MEANS = 10
    """The host had no memory or epoll watch left for it: closed at once."""
    SELF_TEST = 11
    """It was a self test, however it ended; a refused self test counts under the reason of the refusal."""


def reason_name(protocol: Protocol, number: int) -> str:
    """Return the name of a `Drop` (UDP) or `Close` (TCP) as operators see it. Raises ValueError if it has none."""
    return (Drop if protocol is Protocol.UDP else Close)(number).name.lower()
