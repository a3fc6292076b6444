"""UDPEchoPlus: the packet of TR-143, A.1.

Owns the layout. Never remembers, and never reads a clock. All fields are 32-bit numbers in network byte order, and they
wrap. Invariant: what a client wrote outside the four fields of the server comes back unchanged.

There is no magic number: a server of UDPEchoPlus rewrites every payload of at least `HEADER_BYTES`, and reflects a
shorter one.
"""

from dataclasses import dataclass
from struct import Struct
from typing import Final

HEADER_BYTES: Final = 24
"""TestGenSN, TestRespSN, TestRespRecvTimeStamp, TestRespReplyTimeStamp, TestRespReplyFailureCount,
TestIterationNumber."""

RESPONSE_SEQUENCE_AT: Final = 4
RECEIVED_AT: Final = 8
REPLIED_AT: Final = 12
FAILURES_AT: Final = 16
"""The offsets of the fields that the server writes, in bytes."""

WRAP: Final = 2**32
"""All fields count modulo this; the time stamps, in microseconds, wrap after 71.6 minutes."""

_HEADER: Final = Struct(">IIIIII")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the reply of a server says."""

    sequence: int
    """TestGenSN: the number that the client gave to the request."""
    response_sequence: int
    """TestRespSN: how many requests the server has replied to, this one included."""
    received: int
    """TestRespRecvTimeStamp: when the request arrived, in microseconds by a clock that begins with the server."""
    replied: int
    """TestRespReplyTimeStamp: when the reply was sent, by the same clock."""
    failures: int
    """TestRespReplyFailureCount: how many requests the server received and could not reply to."""
    iteration: int
    """TestIterationNumber: copied from the request."""
    data: bytes
    """What followed the header in the request."""


def request(sequence: int, iteration: int, data: bytes = b"") -> bytes:
    """Return a request. Its numbers wrap; the fields of the server are zero."""
    return _HEADER.pack(sequence % WRAP, 0, 0, 0, 0, iteration % WRAP) + data


def read(data: bytes) -> Reply:
    """Read a reply. Raises ValueError if it is shorter than the header.

    An echo without UDPEchoPlus returns the request as it was: all fields of the server are zero.
    """
    if len(data) < HEADER_BYTES:
        raise ValueError(f"a reply of UDPEchoPlus has at least {HEADER_BYTES} bytes, not {len(data)}")
    sequence, response_sequence, received, replied, failures, iteration = _HEADER.unpack_from(data)
    return Reply(
        sequence=sequence,
        response_sequence=response_sequence,
        received=received,
        replied=replied,
        failures=failures,
        iteration=iteration,
        data=data[HEADER_BYTES:],
    )


def identity(data: bytes) -> bytes:
    """Return what stays the same of a datagram that circulates: all but what a server writes."""
    return data[:RESPONSE_SEQUENCE_AT] + data[FAILURES_AT + 4 :]
