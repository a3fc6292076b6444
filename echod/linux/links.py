"""The interfaces of this host by their names (netdevice(7)).

Owns one socket to ask through, of a family that every sandbox of echod allows. It keeps nothing of what it found.
Invariant: an interface that is not there is None, not an error.
"""

import errno
import fcntl
import socket
import struct
from dataclasses import dataclass
from typing import Final

ETHERNET: Final = 1
LOOPBACK: Final = 772
NONE: Final = 65_534
"""Types of hardware (linux/if_arp.h); frames of the last have no link header."""

_SIOCGIFHWADDR, _SIOCGIFINDEX = 0x8927, 0x8933
_NAME_BYTES, _REQUEST_BYTES = 16, 40  # struct ifreq: the name, and a union
_ABSENT: Final = (errno.ENODEV, errno.ENXIO)


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """An interface that is there."""

    ifindex: int
    hardware: int
    """Its type, as in linux/if_arp.h."""


def find_link(name: str) -> Link | None:
    """Return the interface that has this name. Raises OSError, but not where there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            (ifindex,) = struct.unpack_from("=i", _ask(sock, _SIOCGIFINDEX, name))
            (hardware,) = struct.unpack_from("=H", _ask(sock, _SIOCGIFHWADDR, name))
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise
    return Link(ifindex=ifindex, hardware=hardware)


def _ask(sock: socket.socket, request: int, name: str) -> bytes:
    """Return the union of `struct ifreq`."""
    return fcntl.ioctl(sock, request, name.encode().ljust(_REQUEST_BYTES, b"\0"))[_NAME_BYTES:]
