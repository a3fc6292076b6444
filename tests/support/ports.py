"""Ports that nobody has."""

import random
import socket
from typing import Final

_FIRST_PORT: Final = 15_000
_LAST_PORT: Final = 32_000  # below what the kernel gives to outgoing sockets


def free_port(count: int = 1) -> int:
    """Return the first of `count` ports in a row that nobody has."""
    for _ in range(1000):
        first = random.randrange(_FIRST_PORT, _LAST_PORT)  # noqa: S311 - not a secret
        if all(is_free(port) for port in range(first, first + count)):
            return first
    raise AssertionError("no free port found")


def is_free(port: int) -> bool:
    """Return whether nobody has a port, neither in UDP nor in TCP, IPv4 nor IPv6."""
    for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104 - nothing listens
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with socket.socket(family, kind) as sock:
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                try:
                    sock.bind((host, port))
                except OSError:
                    return False
    return True
