"""Sockets leave echod.linux.sockets set up as the facts ask, and what stands in the way is reported with a way out."""

import errno
import os
import resource
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.loopback import (
    ANY,
    BUFFERS,
    add_link,
    as_nobody,
    at,
    listener,
    needs_root,
    queued_bytes,
    udp_client,
    udp_server,
)
from support.waiting import wait_until

from echod.errors import AddressUnavailableError, ExitCode, NotPermittedError
from echod.linux.sockets import (
    Buffers,
    _bind_error,
    find_absence,
    got_buffers,
    grant,
    kernel_drops,
    open_probe,
    open_socket,
    set_buffers,
)
from echod.linux.sockopt import (
    IP_FREEBIND,
    IP_MTU_DISCOVER,
    IP_PKTINFO,
    IPV6_FREEBIND,
    IPV6_MTU_DISCOVER,
    PMTUDISC_OMIT,
    SO_RCVBUFFORCE,
    UDP_GRO,
)
from echod.net.listener import Protocol
from echod.supervisor.adoption import adopt_socket

IP_RECVERR, IPV6_RECVERR = 11, 25
NETLINK_KOBJECT_UEVENT = 15
SO_TIMESTAMP, SO_TIMESTAMPNS, SO_RXQ_OVFL = 29, 35, 40
RMEM_MAX = Path("/proc/sys/net/core/rmem_max")
FIRST_FREE_PORT = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
NOT_OURS = "198.51.100.1"  # TEST-NET-2, RFC 5737


def is_set(sock: socket.socket, level: int, *options: int) -> list[int]:
    """Return what these options of a socket are."""
    return [sock.getsockopt(level, option) for option in options]


def assert_set_up(sock: socket.socket) -> None:
    """Compare every option with what the facts say of it."""
    assert not sock.getblocking()
    assert not sock.get_inheritable()
    if sock.type == socket.SOCK_STREAM:
        assert is_set(sock, socket.IPPROTO_TCP, socket.TCP_NODELAY) == [1]
        return
    if sock.family == socket.AF_INET:
        assert is_set(sock, socket.IPPROTO_IP, IP_PKTINFO, IP_MTU_DISCOVER, IP_RECVERR) == [1, PMTUDISC_OMIT, 0]
    else:
        options = (socket.IPV6_V6ONLY, socket.IPV6_RECVPKTINFO, IPV6_MTU_DISCOVER, IPV6_RECVERR)
        assert is_set(sock, socket.IPPROTO_IPV6, *options) == [1, 1, PMTUDISC_OMIT, 0]
    assert is_set(sock, socket.IPPROTO_UDP, UDP_GRO) == [1]
    unwanted = (socket.SO_BROADCAST, SO_TIMESTAMP, SO_TIMESTAMPNS, SO_RXQ_OVFL)
    assert is_set(sock, socket.SOL_SOCKET, *unwanted) == [0, 0, 0, 0]


# -- options


@pytest.mark.parametrize("host", [ANY, "127.0.0.1", "::", "::1"])
@pytest.mark.parametrize("protocol", Protocol)
def test_an_opened_socket_has_every_option(host: str, protocol: Protocol) -> None:
    """Each option is as the facts say, and siblings may come."""
    with open_socket(listener(host, protocol=protocol), BUFFERS, sibling=False) as sock:
        assert_set_up(sock)
        assert is_set(sock, socket.SOL_SOCKET, socket.SO_REUSEPORT) == [1]
        assert sock.getsockname()[0] == host
        if host == "::":
            assert is_set(sock, socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == [1]
        if protocol is Protocol.TCP:
            assert is_set(sock, socket.SOL_SOCKET, socket.SO_ACCEPTCONN, socket.SO_REUSEADDR) == [1, 1]


@pytest.mark.parametrize("protocol", Protocol)
def test_an_unbound_socket_has_no_port_yet(protocol: Protocol) -> None:
    """With `bind=False` everything but the address is there."""
    with open_socket(listener(port=9, protocol=protocol), BUFFERS, sibling=True, bind=False) as sock:
        assert_set_up(sock)
        assert sock.getsockname() == (ANY, 0)


# -- who may have a port


@pytest.mark.parametrize("protocol", Protocol)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_first_socket_of_a_port_is_alone_on_it(stack: ExitStack, host: str, protocol: Protocol) -> None:
    """Another echod of the same user fails, although the first socket lets siblings in; a sibling comes in."""
    first = stack.enter_context(open_socket(listener(host, protocol=protocol), BUFFERS, sibling=False))
    taken = listener(host, first.getsockname()[1], protocol)
    with pytest.raises(AddressUnavailableError, match=f"{taken.port} is in use .*`ss -lnp{protocol.value[0]}"):
        open_socket(taken, BUFFERS, sibling=False)
    sibling = stack.enter_context(open_socket(taken, BUFFERS, sibling=True))
    assert sibling.getsockname() == first.getsockname()
    assert_set_up(sibling)


def test_a_port_beside_a_foreign_socket_is_in_use(stack: ExitStack) -> None:
    """A socket of somebody who lets no siblings in keeps even a sibling out."""
    foreign = stack.enter_context(udp_client())
    with pytest.raises(AddressUnavailableError, match="in use"):
        open_socket(listener(port=foreign.getsockname()[1]), BUFFERS, sibling=True)


@needs_root
@pytest.mark.skipif(int(FIRST_FREE_PORT.read_text()) <= 7, reason="on this host any user may bind port 7")
@pytest.mark.parametrize("protocol", Protocol)
def test_a_privileged_port_names_the_three_ways_out(protocol: Protocol) -> None:
    """The message names the capability, the .socket unit and higher ports."""

    def open_port_7() -> list[object]:
        try:
            open_socket(listener(port=7, protocol=protocol), BUFFERS, sibling=False).close()
        except NotPermittedError as error:
            return [str(error), error.exit_code]
        return []

    message, code = as_nobody(open_port_7)
    for way_out in (f"{protocol.value}://127.0.0.1:7", "AmbientCapabilities=", ".socket unit", "port above 1023"):
        assert way_out in message
    assert code == ExitCode.NO_PERMISSION


@pytest.mark.parametrize("host", [NOT_OURS, "2001:db8::77"])
@pytest.mark.parametrize("protocol", Protocol)
def test_an_address_that_comes_later_is_bound_all_the_same(host: str, protocol: Protocol) -> None:
    """IP_FREEBIND is on for the bind alone; that the address is absent is found by a bind without it."""
    with open_socket(listener(host, protocol=protocol), BUFFERS, sibling=False) as sock:
        assert sock.getsockname()[0] == host
        level, option = (socket.IPPROTO_IPV6, IPV6_FREEBIND) if ":" in host else (socket.IPPROTO_IP, IP_FREEBIND)
        assert is_set(sock, level, option) == [0]
    assert find_absence(listener(host)) == "is no address of this host; `ip address` lists them"
    assert find_absence(listener(host), early=True) == ""
    assert find_absence(listener("127.0.0.1")) == ""


@needs_root
@pytest.mark.usefixtures("network")
def test_a_link_local_address_is_bound_and_adopted_with_its_interface(stack: ExitStack) -> None:
    """The zone of a listener becomes the scope of the socket, and the other way round.

    It names the interface, which has to be there, even where the address comes later.
    """
    add_link("fe80::5/64")
    wanted, later, nowhere = (
        listener(host, 9999, zone=zone) for host, zone in (("fe80::5", "near"), ("fe80::6", "near"), ("fe80::6", "no0"))
    )
    sock = open_socket(wanted, BUFFERS, sibling=False)
    assert sock.getsockname()[1:] == (9999, 0, socket.if_nametoindex("near"))
    found, sock = adopt_socket(sock.detach(), BUFFERS)
    stack.enter_context(sock)
    assert found == wanted
    open_socket(later, BUFFERS, sibling=False).close()
    assert find_absence(later) == "is no address of this host; `ip address` lists them"
    why = "names an interface that this host does not have; `ip link` lists them"
    assert find_absence(nowhere, early=True) == why
    with pytest.raises(AddressUnavailableError, match=f"{why}$"):
        open_socket(nowhere, BUFFERS, sibling=False)


# -- buffers


@needs_root
def test_root_gets_the_buffers_it_asks_for() -> None:
    """With CAP_NET_ADMIN the limit of the host does not hold, up or down."""
    limit = int(RMEM_MAX.read_text())
    for asked in (Buffers(receive=4 * limit, send=4 * limit), Buffers(receive=64 * 1024, send=32 * 1024)):
        with udp_server(buffers=asked) as sock:
            assert got_buffers(sock) == asked


@needs_root
def test_an_ordinary_user_gets_as_much_as_the_host_allows() -> None:
    """Beyond rmem_max and wmem_max the kernel caps without an error; `grant` returns in advance what a socket gets."""
    limits = [int(Path(f"/proc/sys/net/core/{name}").read_text()) for name in ("rmem_max", "wmem_max")]

    def ask(receive: int, send: int) -> list[list[int]]:
        buffers = Buffers(receive=receive, send=send)
        with udp_server(buffers=buffers) as sock:
            return [[got.receive, got.send] for got in (got_buffers(sock), grant(buffers))]

    assert as_nobody(lambda: ask(4 * limits[0], 4 * limits[1])) == [limits] * 2
    half = min(limits) // 2
    assert as_nobody(lambda: ask(half, half)) == [[half, half]] * 2


@needs_root
def test_a_bigger_inherited_buffer_is_not_shrunk() -> None:
    """What ReceiveBuffer= of the unit gave, beyond what we may ask for ourselves, stays."""
    big = 4 * int(RMEM_MAX.read_text())
    with udp_server() as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, big)

        def ask() -> int:
            set_buffers(sock, grant(Buffers(receive=2 * big, send=64 * 1024)))
            return got_buffers(sock).receive

        assert as_nobody(ask) == big


@needs_root
@pytest.mark.parametrize("protocol", Protocol)
def test_without_a_descriptor_the_limit_is_named_and_buffers_are_set_all_the_same(protocol: Protocol) -> None:
    """EMFILE is a sentence that names LimitNOFILE=; what is open already gets its buffers without one more."""
    with udp_server() as sock:

        def starve() -> list[str]:
            own = os.open(os.devnull, os.O_RDONLY)
            resource.setrlimit(resource.RLIMIT_NOFILE, (own + 1, own + 1))
            set_buffers(sock, Buffers(receive=65_536, send=32_768))
            printed = []
            for ask in (
                lambda: open_socket(listener(protocol=protocol), BUFFERS, sibling=False),
                lambda: grant(BUFFERS),
            ):
                try:
                    ask()
                except AddressUnavailableError as error:
                    printed.append(str(error))
            return printed

        printed = as_nobody(starve)
    assert len(printed) == 2
    assert all(
        "needs one more file descriptor than the process may have: raise LimitNOFILE=" in each for each in printed
    )


@pytest.mark.parametrize(
    ("host", "begins"), [("127.0.0.1", "Restrict"), ("::1", "IPv6 is switched off on this host, so take it out")]
)
def test_a_family_that_is_forbidden_belongs_into_the_socket_unit(host: str, begins: str) -> None:
    """What RestrictAddressFamilies= makes of socket(2); only of IPv6 it may be that the host does not have it."""
    error = _bind_error(listener(host, 7), OSError(errno.EAFNOSUPPORT, ""))
    assert error.exit_code == ExitCode.CONFIG  # no restart mends it
    printed = str(error)
    assert f":7 may not be opened: {begins}" in printed
    assert printed.endswith("so it belongs into the .socket unit")


def test_an_interface_that_needs_a_privilege_is_said_to() -> None:
    """What an old kernel makes of SO_BINDTODEVICE (EPERM); a link-local address is bound otherwise."""
    error = OSError(errno.EPERM, "")
    assert "before Linux 5.7 that takes CAP_NET_RAW" in str(_bind_error(listener("127.0.0.1", 7, zone="lo"), error))
    assert "port above 1023" in str(_bind_error(listener("fe80::1", 7, zone="lo"), error))


def test_nobody_joins_two_probes_on_a_port() -> None:
    """They share it only while the second is bound: another socket of the same user could take their answers."""
    asked, device = listener(), listener(zone="lo")
    with open_probe(asked, 0) as first:
        port = at(first)[1]
        with open_probe(device, port, [first]) as second:
            assert at(second) == at(first)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                with pytest.raises(OSError, match="Address already in use"):
                    other.bind(at(first))


def test_kernel_drops_are_counted_exactly() -> None:
    """What was sent to a queue that is too small was either read or counted."""
    with udp_server() as server, udp_client() as client:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        assert kernel_drops(server) == 0
        for _ in range(500):
            client.sendto(bytes(100), at(server))
        read = 0

        def read_all() -> bool:
            nonlocal read
            while queued_bytes(server):
                server.recv(256)
                read += 1
            return read + kernel_drops(server) == 500

        wait_until(read_all, "all 500 read or counted")
        assert 0 < read < 500
