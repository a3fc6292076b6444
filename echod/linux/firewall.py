"""Whether datagrams of this host pass rules: those of nftables and iptables, and the policies of IPsec.

Owns the questions, each a dump over netlink of which the first entry is enough. It changes nothing. Invariant: what
this process may not know is None, never False.
"""

import errno
import socket
import sys
from pathlib import Path
from typing import Final

from echod.linux.netlink import (
    BUFFER_BYTES,
    HEADER,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    messages,
)

_NETFILTER, _GET_RULE, _NEW_RULE = 12, 0x0A07, 0x0A06
_XFRM, _GET_POLICY, _NEW_POLICY = 6, 0x15, 0x13
"""Protocols of netlink, and types of messages (linux/netfilter/nf_tables.h, linux/xfrm.h)."""

_ANY_FAMILY: Final = bytes(4)
"""struct nfgenmsg."""
_ANY_POLICY: Final = bytes(64)
"""struct xfrm_userpolicy_id."""

_FORBIDDEN: Final = (errno.EPERM, errno.EACCES, errno.EAFNOSUPPORT)
_LEGACY_TABLES: Final = (Path("/proc/self/net/ip_tables_names"), Path("/proc/self/net/ip6_tables_names"))
"""Tables of iptables-legacy. The files are there once one of its modules is."""


def has_rules() -> bool | None:
    """Tell whether there is a rule of nftables, of iptables-nft, or a table of iptables-legacy."""
    found = [_finds(_NETFILTER, _GET_RULE, _NEW_RULE, _ANY_FAMILY), *map(_is_filled, _LEGACY_TABLES)]
    return True if True in found else None if None in found else False


def has_policies() -> bool | None:
    """Tell whether there is a policy of IPsec (ip-xfrm(8))."""
    return _finds(_XFRM, _GET_POLICY, _NEW_POLICY, _ANY_POLICY)


def _finds(protocol: int, request: int, entry: int, body: bytes) -> bool | None:
    """Ask for a dump; tell whether it has an entry. The kernel has written its first part when the request is sent."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as sock:
            sock.setblocking(False)
            sock.send(HEADER.pack(HEADER.size + len(body), request, NLM_F_REQUEST | NLM_F_DUMP, 0, 0) + body)
            for kind, _, _, content in messages(sock.recv(BUFFER_BYTES)):
                if kind == entry:
                    return True
                if kind in (NLMSG_ERROR, NLMSG_DONE):
                    code = -int.from_bytes(content[:4], sys.byteorder, signed=True)
                    return None if code in _FORBIDDEN else False
    except OSError as error:
        return False if error.errno == errno.EPROTONOSUPPORT else None
    return False


def _is_filled(table: Path) -> bool | None:
    try:
        return bool(table.read_text(encoding="ascii"))
    except FileNotFoundError:
        return False
    except OSError:
        return None
