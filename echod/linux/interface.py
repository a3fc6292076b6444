"""The network interface that a listener is bound to: whether its socket still is, and at which addresses to test it.

Owns the look at both, and keeps nothing. A VRF is an interface too: it has the addresses of those that are enslaved to
it. Invariant: what this host does not report is an error, not a guess.
"""

import errno
import fcntl
import os
import socket
import struct
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final

from echod.net.listener import Listener

_SIOCGIFADDR: Final = 0x8915
_NAME_BYTES: Final = 16
"""IFNAMSIZ (netdevice(7)). The address follows as a sockaddr_in in a struct ifreq of 40 bytes."""

_INTERFACES: Final = Path("/sys/class/net")
_ADDRESSES6: Final = Path("/proc/self/net/if_inet6")


def device_of(sock: socket.socket) -> str:
    """Return the interface that a socket is bound to, as one with a link-local address always is; empty if to none.

    Empty too if that interface was removed: the kernel binds to its number, and one that is made anew has another. The
    kernel names it also where PrivateNetwork= hides it.
    """
    try:
        name = sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, _NAME_BYTES)
    except OSError:
        return ""
    return os.fsdecode(name.rstrip(b"\0"))


def is_detached(listener: Listener, sock: socket.socket) -> bool:
    """Tell whether the socket of a listener is bound to another interface than the one of this name, or to none."""
    return bool(listener.zone) and device_of(sock) != listener.zone


def address_of(name: str, *, ipv6: bool) -> IPv4Address | IPv6Address:
    """Return an address of the interface, or of one that is enslaved to it. Raises OSError if there is none."""
    for each in (name, *_enslaved(name)):
        found = _address6(each) if ipv6 else _address4(each)
        if found is not None:
            return found
    raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))


def _enslaved(name: str) -> list[str]:
    return sorted(path.name.removeprefix("lower_") for path in (_INTERFACES / name).glob("lower_*"))


def _address4(name: str) -> IPv4Address | None:
    """Return the primary IPv4 address (netdevice(7))."""
    request = struct.pack(f"{_NAME_BYTES}s24x", os.fsencode(name))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            answer = fcntl.ioctl(sock.fileno(), _SIOCGIFADDR, request)
        except OSError:
            return None
    return IPv4Address(answer[_NAME_BYTES + 4 : _NAME_BYTES + 8])


def _address6(name: str) -> IPv6Address | None:
    """Return an IPv6 address that means the same everywhere, not a link-local one."""
    for line in _ADDRESSES6.read_text(encoding="utf-8").splitlines():
        digits, *_, found = line.split()
        address = IPv6Address(bytes.fromhex(digits))
        if found == name and not address.is_link_local:
            return address
    return None
