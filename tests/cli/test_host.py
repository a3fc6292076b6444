"""echod.cli.host: `echod check` warns of what this host makes of a config that is legal."""

import socket
from pathlib import Path

import pytest
from support.config_mistakes import Found, rows
from support.daemon import run_echod
from support.loopback import ip, namespace, needs_root

from echod.cli.host import warnings
from echod.config.parse import parse_config
from echod.config.schema import Config

CORE = Path("/proc/sys/net/core")
MOST = 1024**3
NO_START = "echod would not start here"
EARLY = "echod binds it anyway, and serves it as soon as this host has it"
CLOSED = "access: {allow: [private]}\n"
OPEN = "access:\n  allow: [loopback, any, 8.8.8.8]\nlimits: {datagrams_per_second: 1000}\n"


def warned(text: str) -> Found:
    """Return what this host warns of in a config."""
    return rows(warnings(parse_config(text.encode())[0], text.encode()))


def cap(sysctl: str) -> int:
    """Return a limit of this host, where a config may exceed it."""
    try:
        limit = int((CORE / sysctl).read_text())
    except FileNotFoundError:
        pytest.skip("this network namespace hides net.core")
    if limit >= MOST:
        pytest.skip("this host allows more than a config may ask for")
    return limit


def neighbour_queues() -> list[Path]:
    """Return the sysctl of each neighbour queue of the namespace that we are in."""
    return sorted(Path("/proc/sys/net").glob("ipv[46]/neigh/*/unres_qlen_bytes"))


@pytest.mark.parametrize(
    ("key", "sysctl", "directive"),
    [("receive_buffer", "rmem_max", "ReceiveBuffer="), ("send_buffer", "wmem_max", "SendBuffer=")],
)
def test_a_buffer_above_the_limit_of_this_host_is_warned_of(key: str, sysctl: str, directive: str) -> None:
    """The warning points at the key, and has the limit, what lifts it, and the sysctl as it is typed."""
    limit = cap(sysctl)
    message = (
        f"the kernel caps it at {limit:,} bytes, unless echod has CAP_NET_ADMIN or the .socket unit sets {directive}: "
        f"set sysctl net.core.{sysctl}={MOST}"
    )
    assert warned(f"udp:\n  {key}: 1 GiB\n") == [(2, 3, f"udp.{key}", message)]


@pytest.mark.parametrize(("key", "sysctl"), [("receive_buffer", "rmem_max"), ("send_buffer", "wmem_max")])
def test_a_buffer_that_the_host_allows_is_not_warned_of(key: str, sysctl: str) -> None:
    """The limit itself is allowed."""
    assert warned(f"udp:\n  {key}: {cap(sysctl)}\n") == []


def test_the_default_buffers_are_not_warned_of() -> None:
    """Most hosts cap them, nobody asked for them, and the log has it: written out or not, `check` stays silent."""
    default = Config().udp
    assert warned(f"udp: {{receive_buffer: {default.receive_buffer}, send_buffer: {default.send_buffer}}}") == []
    assert warned("workers: 1") == []


@needs_root
def test_what_this_host_does_not_have_is_warned_of_where_it_stands() -> None:
    """An address and an interface, once for a range; what is here, in use or not, and what a key left out is, not."""
    with namespace(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 9007))
        assert warned("workers: 1") == []
        assert warned(
            "listeners:\n"
            "  - udp://127.0.0.1:9007\n"
            "  - tcp://198.51.100.7:9008-9010\n"
            "  - udp://[fe80::1%nope0]:7\n"
            "  - udp://[::1]:7\n"
            "metrics: {listen: 'http://192.0.2.1:9'}\n"
        ) == [
            (3, 5, "listeners[1]", f"is no address of this host; `ip address` lists them: {EARLY}"),
            (
                4,
                5,
                "listeners[2]",
                f"names an interface that this host does not have; `ip link` lists them: {NO_START}",
            ),
            (6, 11, "metrics.listen", f"is no address of this host; `ip address` lists them: {EARLY}"),
        ]


@needs_root
def test_a_link_local_address_is_looked_for_on_its_interface() -> None:
    """That of another interface, or of another host, is none."""
    with namespace():
        ip("link", "add", "near", "type", "veth", "peer", "name", "far")
        ip("addr", "add", "fe80::7/64", "dev", "near", "nodad")
        ip("link", "set", "near", "up")
        assert warned("listeners: ['udp://[fe80::7%near]:7']") == []
        assert [path for *_, path, _ in warned("listeners: ['udp://[fe80::7%far]:7', 'udp://[fe80::8%near]:7']")] == [
            "listeners[0]",
            "listeners[1]",
        ]


@needs_root
def test_listeners_on_ports_of_clients_are_warned_of() -> None:
    """Those of UDP: a client that has such a port is refused. As many as of the range are counted, by its sysctl."""
    with namespace():
        Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("40000 49999")
        assert warned("listeners: ['udp://0.0.0.0:39999', 'udp://0.0.0.0:50000-50099', 'tcp://0.0.0.0:40000']") == []
        some, one = warned("listeners:\n  - udp://0.0.0.0:39901-40512\n  - tcp://0.0.0.0:7\n  - udp://[::]:49999\n")
        assert some[:3] == (2, 5, "listeners[0]")
        assert one[:3] == (4, 5, "listeners[2]")
        assert some[3] == (
            "ports 40000 to 40512 are in the range from which hosts choose the source ports of clients "
            "(net.ipv4.ip_local_port_range, 40000 to 49999), and datagrams from a port of echod are refused, because "
            "another echod may be there: 5.1% of the clients' ports get no reply; write ports below 40000"
        )
        assert one[3].startswith("port 49999 is in the range")
        assert "0.01% of the clients' ports" in one[3]


@needs_root
def test_long_neighbour_queues_are_warned_of_where_the_internet_may_ask() -> None:
    """One warning at the first public entry names one queue and counts the others; loopback has no neighbours."""
    with namespace():
        ip("link", "add", "near.7", "type", "veth", "peer", "name", "far")
        long = [path for path in neighbour_queues() if path.parent.name != "lo"]
        assert {path.parent.name for path in long} == {"near.7", "far"}
        for path in long:
            path.write_text("4097")
        ((line, column, path, message),) = warned(OPEN)
        assert (line, column, path) == (2, 21, "access.allow[1]")
        assert message.startswith("replies to forged sources that do not exist")
        assert message.endswith(": set sysctl net.ipv4.neigh.far.unres_qlen_bytes=4096, and 3 more likewise")
        assert warned(CLOSED) == []
        for path in long:
            path.write_text("4097" if path.parent.name == "near.7" and "ipv6" in path.parts else "4096")
        ((*_, message),) = warned(OPEN)
        assert message.endswith(": set sysctl net.ipv6.neigh.near/7.unres_qlen_bytes=4096")


@needs_root
def test_short_neighbour_queues_are_not_warned_of() -> None:
    """Whoever did what the warning names reads it no more; what loopback has does not matter."""
    with namespace():
        for path in neighbour_queues():
            path.write_text("100000" if path.parent.name == "lo" else "4096")
        assert warned(OPEN) == []


@needs_root
def test_what_this_host_hides_is_not_warned_of(tmp_path: Path) -> None:
    """In a sandbox without /proc/sys there is no warning, and no error."""
    path = tmp_path / "echod.yaml"
    path.write_text(f"{OPEN}udp: {{receive_buffer: 1 GiB}}\n")
    hidden = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc/sys && exec "$@"', "sh"]
    result = run_echod("check", "--config", path, prefix=hidden)
    if "unshare failed" in result.stderr or "mount:" in result.stderr:
        pytest.skip(f"no mount namespace: {result.stderr.strip()}")
    served = "udp://0.0.0.0:7, udp://[::]:7, tcp://0.0.0.0:7, tcp://[::]:7"
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{path}: ok; default listeners: {served}\n", "")


def test_a_user_that_this_host_lacks_is_warned_of_and_root_too() -> None:
    """At the key; any other user, and auto, are taken without a word."""
    assert warned("user: echod-nowhere\n") == [
        (1, 1, "user", f"this host has no user echod-nowhere: {NO_START}"),
    ]
    (found,) = warned("workers: 1\nuser: root\n")
    assert found[:3] == (2, 1, "user")
    assert "write another user, or auto" in found[3]
    assert warned("user: nobody\n") == warned("user: auto\n") == []
