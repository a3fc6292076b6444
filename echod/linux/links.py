"""The interfaces of this host by their names (rtnetlink(7)).

Owns a socket for each question. It keeps nothing of what it found. The kernel writes into one buffer by its address,
which lives until the call returns. Invariant: an interface that is not there is None, not an error.
"""

import array
import errno
import fcntl
import os
import re
import socket
import struct
import sys
from dataclasses import dataclass
from typing import Final

from echod.linux.netlink import ATTRIBUTE, BUFFER_BYTES, HEADER, NLM_F_REQUEST, aligned, attributes, messages

ETHERNET: Final = 1
LOOPBACK: Final = 772
NONE: Final = 65_534
"""Types of hardware (linux/if_arp.h); frames of the last have no link header."""

_FIRST_WITH_TCX: Final = (6, 6)

_RTM_NEWLINK, _RTM_GETLINK = 16, 18
_INTERFACE: Final = struct.Struct("=BxHiII")  # ifinfomsg: family, type of hardware, index, flags, change
_ADDRESS, _NAME, _PARENT = 1, 3, 56  # IFLA_ADDRESS, IFLA_IFNAME, IFLA_PARENT_DEV_NAME
_LOWER_UP: Final = 1 << 16  # IFF_LOWER_UP of netdevice(7)

# linux/sockios.h and linux/ethtool.h
_SIOCETHTOOL, _GET_FLAGS, _FLAG_VLAN = 0x8946, 0x25, 1 << 8
_REQUEST: Final = struct.Struct("=16sQ16x")  # ifreq: the name, and a union that has an address here


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """An interface that is there."""

    ifindex: int
    hardware: int
    """Its type, as in linux/if_arp.h."""
    station: bytes
    """Its own address on the link; none where there is no link header."""
    is_device: bool
    """It belongs to a device with a driver, as a network card does, and is not made by software alone."""
    has_carrier: bool
    """It is up, and the other end of its cable is."""


def find_link(name: str) -> Link | None:
    """Return the interface that has this name. Raises OSError, but not where there is none."""
    text = name.encode() + b"\0"
    attribute = ATTRIBUTE.pack(ATTRIBUTE.size + len(text), _NAME) + text
    body = _INTERFACE.pack(0, 0, 0, 0, 0) + attribute.ljust(aligned(len(attribute)), b"\0")
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.sendto(HEADER.pack(HEADER.size + len(body), _RTM_GETLINK, NLM_F_REQUEST, 0, 0) + body, (0, 0))
        kind, _, _, answer = next(messages(sock.recv(BUFFER_BYTES)))
    if kind != _RTM_NEWLINK:
        number = -int.from_bytes(answer[:4], sys.byteorder, signed=True)
        if number == errno.ENODEV:
            return None
        raise OSError(number, os.strerror(number))
    _, hardware, ifindex, flags, _ = _INTERFACE.unpack_from(answer)
    known = attributes(answer, _INTERFACE.size)
    return Link(
        ifindex=ifindex,
        hardware=hardware,
        station=known.get(_ADDRESS, b""),
        is_device=_PARENT in known,
        has_carrier=bool(flags & _LOWER_UP),
    )


def strips_vlan_tags(name: str) -> bool:
    """Tell whether an interface takes the tags of VLANs off frames before XDP sees them (ethtool(8), rxvlan).

    Raises OSError where the driver does not tell, or there is no such interface.
    """
    answer = array.array("I", (_GET_FLAGS, 0))  # struct ethtool_value
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCETHTOOL, _REQUEST.pack(name.encode(), answer.buffer_info()[0]))
    return bool(answer[1] & _FLAG_VLAN)


def has_tcx(release: str) -> bool:
    """Tell whether a kernel, by its release (uname(2)), has tcx, where programs see the packets of an interface."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return found is None or (int(found[1]), int(found[2])) >= _FIRST_WITH_TCX
