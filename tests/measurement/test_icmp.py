"""echod.measurement.icmp: the kernel's extended error, by name."""

import errno
import socket
import struct

import pytest

from echod.measurement.icmp import NetworkError, is_stamp, local_error, read_error


def extended(origin: int, kind: int, code: int, *, info: int = 0, number: int = 0) -> bytes:
    """Pack a struct sock_extended_err; the offender's address stands behind it."""
    return struct.pack("=IBBBBII", number, origin, kind, code, 0, info, 0)


V4 = struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton("10.0.0.1"))
V6 = struct.pack("=HHI16sI", socket.AF_INET6, 0, 0, socket.inet_pton(socket.AF_INET6, "2001:db8::1"), 0)
NOBODY = struct.pack("=H14x", socket.AF_UNSPEC)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (extended(2, 3, 3) + V4, NetworkError(reason="port unreachable", address="10.0.0.1")),
        (extended(2, 3, 1) + V4, NetworkError(reason="host unreachable", address="10.0.0.1")),
        (
            extended(2, 3, 4, info=1280) + V4,
            NetworkError(reason="needs fragmentation", address="10.0.0.1", mtu=1280),
        ),
        (extended(2, 3, 13) + V4, NetworkError(reason="administratively prohibited", address="10.0.0.1")),
        (extended(2, 11, 0, info=7) + V4, NetworkError(reason="time to live exceeded", address="10.0.0.1")),
        (extended(2, 12, 9) + V4, NetworkError(reason="ICMP type 12 code 9", address="10.0.0.1")),
        (extended(3, 1, 4) + V6, NetworkError(reason="port unreachable", address="2001:db8::1")),
        (
            extended(3, 2, 0, info=1300) + V6,
            NetworkError(reason="needs fragmentation", address="2001:db8::1", mtu=1300),
        ),
        (extended(2, 3, 8) + V4, NetworkError(reason="source host isolated", address="10.0.0.1")),
        (extended(2, 12, 0) + V4, NetworkError(reason="parameter problem", address="10.0.0.1")),
        (extended(3, 4, 1) + V6, NetworkError(reason="unrecognized next header", address="2001:db8::1")),
        (extended(3, 4, 9) + V6, NetworkError(reason="ICMPv6 type 4 code 9", address="2001:db8::1")),
        (extended(2, 3, 0) + NOBODY, NetworkError(reason="network unreachable")),
        (extended(1, 0, 0, info=1400, number=errno.EMSGSIZE), NetworkError(reason="needs fragmentation", mtu=1400)),
    ],
)
def test_each_error_has_its_name_and_its_sender(data: bytes, error: NetworkError) -> None:
    """Types and codes of both families, the router's address, and the MTU where it matters."""
    assert read_error(data) == error


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENETUNREACH, "network unreachable"),
        (errno.ECONNREFUSED, "connection refused"),
        (errno.EADDRNOTAVAIL, "source port not available on this host"),
        (errno.EXDEV, "EXDEV"),
        (99999, "error 99999"),
    ],
)
def test_an_errno_of_this_host_has_a_name_too(number: int, reason: str) -> None:
    """Be it only the kernel's own."""
    assert local_error(number) == NetworkError(reason=reason)


def test_a_stamp_is_no_error() -> None:
    """What the queue says of when a datagram went is told from what it says of errors, local ones too."""
    assert is_stamp(extended(4, 1, 0, number=errno.ENOMSG) + NOBODY)
    for origin in (1, 2, 3):
        assert not is_stamp(extended(origin, 3, 3) + V4)
