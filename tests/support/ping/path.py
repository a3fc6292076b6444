"""A path of one's own: a client, a node between and a server, each in a network namespace, joined by veth pairs.

Owns the three namespaces. The node is a router, or a bridge whose frames somebody else carries. Nothing of it touches
a network of the machine. Invariant: the client reaches the server through the node alone.
"""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path as File
from typing import Final

from support.beside import daemon_in
from support.loopback import ip
from support.ping.pinging import Pinged, ping
from support.system.network import entered, namespaces, set_kernel
from support.waiting import wait_until

SERVER: Final = {4: "10.6.2.2", 6: "fd06:0:0:2::2"}
CLIENT: Final = {4: "10.6.1.2", 6: "fd06:0:0:1::2"}
ROUTER: Final = {4: "10.6.1.1", 6: "fd06:0:0:1::1"}
"""The router's address towards the client."""

_ROUTER_FAR: Final = {4: "10.6.2.1", 6: "fd06:0:0:2::1"}
_ROUTED: Final = {4: 24, 6: 64}
_BRIDGED: Final = {4: 16, 6: 48}


class Path:
    """Client, node and server; the links of the node are called `near` and `far`, those of the hosts `eth0`."""

    def __init__(self, names: Sequence[str], *, routed: bool) -> None:
        """Lay it between three namespaces, of these names."""
        self.client, self.node, self.server = names
        self._routed = routed
        self._lay()

    def ping(self, *words: object) -> Pinged:
        """Run `echod ping` on the client."""
        with entered(self.client):
            return ping(*words)

    def wait(self, scheme: str = "tcp") -> None:
        """Wait until both families reach the server: neighbours are known, and nothing waits for them any more."""
        for address in SERVER.values():

            def answers(address: str = address) -> bool:
                return self.ping("-c", 1, "-W", 3, f"{scheme}://[{address}]").code == 0

            wait_until(answers, f"{address} answers over {scheme}")

    def filter(self, rules: str, host: str = "") -> None:
        """Put these rules of nft(8) on the node, or a host, in the place of those it has: `HOOK: RULE` a line."""
        chains = [line.partition(":") for line in rules.splitlines()]
        script = "flush ruleset\n" + "".join(
            f"table inet t{i} {{\nchain c {{\ntype filter hook {hook} priority 0\n{rule.strip()}\n}}\n}}\n"
            for i, (hook, _, rule) in enumerate(chains)
        )
        command = ["ip", "netns", "exec", host or self.node, "nft", "-f", "-"]
        subprocess.run(command, input=script, text=True, check=True, timeout=15)

    def narrow(self, mtu: int) -> None:
        """Let the link between node and server have this MTU, and the client forget what it knew of the path."""
        for name, link in ((self.node, "far"), (self.server, "eth0")):
            ip("-n", name, "link", "set", link, "mtu", str(mtu))
        for family in ("-4", "-6"):
            ip("-n", self.client, family, "route", "flush", "cache")

    def _lay(self) -> None:
        for host, link, addresses, gateways in (
            (self.client, "near", CLIENT, ROUTER),
            (self.server, "far", SERVER, _ROUTER_FAR),
        ):
            # Link-local addresses too are to be usable at once: routers look for their neighbours from them.
            for name in (host, self.node):
                set_kernel(name, "ipv6/conf/default/accept_dad", 0)
            ip("-n", host, "link", "add", "eth0", "type", "veth", "peer", "name", link, "netns", self.node)
            # One datagram a frame leaves each end, as on a cable; left to itself a veth carries trains as they are.
            for name, end in ((host, "eth0"), (self.node, link)):
                ip("-n", name, "link", "set", end, "gso_max_segs", "1", "up")
            _address(host, "eth0", addresses, _ROUTED if self._routed else _BRIDGED)
            if self._routed:
                _address(self.node, link, gateways, _ROUTED)
                for gateway in gateways.values():
                    ip("-n", host, "route", "add", "default", "via", gateway)
            else:
                set_kernel(self.node, f"ipv6/conf/{link}/disable_ipv6", 1)
        for name in (self.node, self.server):  # each error is sent, however soon it follows another
            set_kernel(name, "ipv4/icmp_ratelimit", 0)
            set_kernel(name, "ipv6/icmp/ratelimit", 0)
        if self._routed:
            set_kernel(self.node, "ipv4/ip_forward", 1)
            set_kernel(self.node, "ipv6/conf/all/forwarding", 1)
            # A neighbour that is not there is known to be missing after three tries: in less than a second.
            for version in ("ipv4", "ipv6"):
                set_kernel(self.client, f"{version}/neigh/eth0/retrans_time_ms", 200)
                set_kernel(self.node, f"{version}/neigh/far/retrans_time_ms", 200)


@contextmanager
def laid(folder: File, *, routed: bool, options: dict[str, object] | None = None) -> Iterator[Path]:
    """Lay a path with echod at its end, on port 7 of UDP and TCP; the listeners of UDP have these options."""
    hosts = ("0.0.0.0", "[::]")  # noqa: S104
    config = {
        "listeners": [
            *({"address": f"udp://{host}:7", **(options or {})} for host in hosts),
            *(f"tcp://{host}:7" for host in hosts),
        ]
    }
    with namespaces("client", "node", "server") as names:
        path = Path(names, routed=routed)
        with daemon_in(path.server, folder, config | {"workers": 1}):
            yield path


def _address(name: str, link: str, addresses: dict[int, str], prefixes: dict[int, int]) -> None:
    for family, address in addresses.items():
        ip("-n", name, "address", "add", f"{address}/{prefixes[family]}", "dev", link, *(["nodad"] * (family == 6)))
