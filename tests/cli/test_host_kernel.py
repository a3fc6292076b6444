"""echod.cli.host_kernel: `echod check` says what does not see the replies of the kernel, and where it makes none."""

import fcntl
import os
import struct
import subprocess
from pathlib import Path
from typing import Final

import pytest
from support.config_mistakes import rows
from support.daemon import AS_NOBODY, run_echod
from support.loopback import ip, namespace, needs_root

from echod.cli.host import warnings
from echod.config.parse import parse_config

CONFIG: Final = "kernel:\n  interfaces: [lo, eth9]\n"
FORWARDING: Final = (Path("/proc/sys/net/ipv4/ip_forward"), Path("/proc/sys/net/ipv6/conf/all/forwarding"))
ABSENT: Final = "this host has no such interface; `ip link` lists them: the sockets alone reply there until it has"
UNKNOWN: Final = (
    "what the kernel replies to passes no firewall rule, connection tracking and IPsec policy of this host, if it has "
    "any: as root, `echod check` says whether it does"
)


def warned(text: str) -> list[tuple[str, str]]:
    """Return key and message of each warning about the kernel, on a host that forwards nothing unless a test says."""
    found = rows(warnings(parse_config(text.encode())[0], text.encode()))
    return [(key, message) for _, _, key, message in found if key.startswith("kernel.") and "Linux 6.6" not in message]


def forward(*values: str) -> None:
    """Say whether the host is a router, over IPv4 and IPv6."""
    for path, value in zip(FORWARDING, values, strict=True):
        path.write_text(value)


@needs_root
def test_an_interface_that_is_not_there_or_of_another_kind_is_warned_of() -> None:
    """At its entry; of one that the kernel can reply at nothing is said, nor of a file that names none."""
    with namespace():
        forward("0", "0")
        assert warned(CONFIG) == [("kernel.interfaces[1]", ABSENT)]
        ip("link", "add", "eth9", "type", "veth", "peer", "name", "eth8")
        assert warned(CONFIG) == []
        ip("link", "delete", "eth9")
        device = os.open("/dev/net/tun", os.O_RDWR)
        try:
            fcntl.ioctl(device, 0x4004_54CA, struct.pack("16sH22x", b"eth9", 0x1001))  # TUNSETIFF, IFF_TUN | IFF_NO_PI
            assert warned(CONFIG) == []
            fcntl.ioctl(device, 0x4004_54CD, 24)  # TUNSETLINK, ARPHRD_IEEE1394
            assert warned(CONFIG) == [
                (
                    "kernel.interfaces[1]",
                    "is of a kind that the kernel cannot reply at: the sockets alone reply there",
                )
            ]
        finally:
            os.close(device)
        forward("1", "1")
        assert warned("workers: 1\n") == []


@needs_root
def test_rules_and_policies_are_warned_of_where_they_are() -> None:
    """Each in a sentence at the key."""
    with namespace():
        forward("0", "0")
        chain = "add chain t c { type filter hook input priority 0; }"
        subprocess.run(["nft", f"add table t; {chain}; add rule t c counter"], check=True)
        ((key, message),) = warned("kernel: {interfaces: [lo]}\n")
        assert key == "kernel.interfaces"
        assert message == (
            "this host has firewall rules (nftables or iptables): what the kernel replies to passes none of them, "
            "and is in no counter of them and in no connection tracking: they see what goes to the daemon alone"
        )
        ip("xfrm", "policy", "add", "dir", "out", "dst", "10.7.1.2", "action", "block")
        _, (_, message) = warned("kernel: {interfaces: [lo]}\n")
        assert message == (
            "this host has IPsec policies: what the kernel replies to is not held to them, but what goes to the "
            "daemon alone; leave out the interfaces of peers that they protect"
        )


@needs_root
@pytest.mark.parametrize(
    ("values", "name"),
    [
        (("1", "0"), "net.ipv4.ip_forward"),
        (("0", "1"), "net.ipv6.conf.all.forwarding"),
        (("1", "1"), "net.ipv4"),
    ],
)
def test_a_router_is_warned_of_once(values: tuple[str, str], name: str) -> None:
    """By the setting that makes it one."""
    with namespace():
        forward(*values)
        ((key, message),) = warned("kernel: {interfaces: [lo]}\n")
        assert key == "kernel.interfaces"
        assert message.startswith(f"this host is a router ({name}")
        assert message.endswith("each change of a route, as by a routing protocol, has all paths forgotten")


@needs_root
def test_who_may_not_know_is_told_so(folder: Path) -> None:
    """An ordinary user gets one general warning, and the exit code is that of a file without a mistake."""
    path = folder / "echod.yaml"
    path.write_text("kernel: {interfaces: [lo]}\n")
    with namespace():
        forward("0", "0")
        result = run_echod("check", "--config", path, prefix=AS_NOBODY)
    assert result.returncode == 0
    found = [line for line in result.stdout.splitlines() if "warning" in line and "Linux 6.6" not in line]
    assert found == [f"{path}:1:10: warning: kernel.interfaces: {UNKNOWN}"]
