"""Whether this host is one for `echod accelerate`: the warnings of `echod check` where `kernel.interfaces` is set.

Owns the sentences. It loads no program and changes nothing. Invariant: of what this user may not know, only that is
said.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from echod.config.document import Path as KeyPath
from echod.config.schema import Config
from echod.linux import firewall, links

_KINDS: Final = (links.ETHERNET, links.LOOPBACK, links.NONE)
_FORWARDING: Final = {
    "net.ipv4.ip_forward": Path("/proc/sys/net/ipv4/ip_forward"),
    "net.ipv6.conf.all.forwarding": Path("/proc/sys/net/ipv6/conf/all/forwarding"),
}
_KEY: Final = ("kernel", "interfaces")


def find_unfit(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Find why the kernel would not reply here, and what does not see its replies: key and text of each warning."""
    if not config.kernel.interfaces:
        return
    release = os.uname().release
    if not links.has_tcx(release):
        yield _KEY, f"this kernel ({release}) is older than Linux 6.6: echod accelerate would not start here"
    for index, name in enumerate(config.kernel.interfaces):
        link = links.find_link(name)
        if link is None:
            text = "this host has no such interface; `ip link` lists them: the sockets alone reply there until it has"
            yield (*_KEY, index), text
        elif link.hardware not in _KINDS:
            yield (*_KEY, index), "is of a kind that the kernel cannot reply at: the sockets alone reply there"
    for text in (*_find_rules(), *_find_forwarding()):
        yield _KEY, text


def _find_rules() -> Iterator[str]:
    """Find the rules that what the kernel replies to does not pass."""
    rules, policies = firewall.has_rules(), firewall.has_policies()
    if rules:
        yield (
            "this host has firewall rules (nftables or iptables): what the kernel replies to passes none of them, "
            "and is in no counter of them and in no connection tracking: they see what goes to the daemon alone"
        )
    if policies:
        yield (
            "this host has IPsec policies: what the kernel replies to is not held to them, but what goes to the "
            "daemon alone; leave out the interfaces of peers that they protect"
        )
    if rules is None or policies is None:
        yield (
            "what the kernel replies to passes no firewall rule, connection tracking and IPsec policy of this host, if "
            "it has any: as root, `echod check` says whether it does"
        )


def _find_forwarding() -> Iterator[str]:
    for name, path in _FORWARDING.items():
        try:
            is_router = path.read_text(encoding="ascii").strip() not in ("", "0")
        except OSError:  # hidden, or this host has no IPv6
            continue
        if is_router:
            yield (
                f"this host is a router ({name}): the programs look at what it forwards too, and each change of a "
                "route, as by a routing protocol, has all paths forgotten"
            )
            return
