"""Passed sockets are trusted in nothing: each is made as echod's own, or refused with what to change in its unit."""

import ctypes
import os
import socket
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import pytest
from support.daemon import REPOSITORY, run_echod
from support.loopback import ANY, BUFFERS, answer, as_nobody, at, listener, needs_root, netlink, udp_client
from support.netns.wire import SERVER, SERVER6, Wire
from support.socket_passing import pass_sockets
from support.system.network import entered

from echod.errors import ExitCode, PassedSocketError
from echod.linux.sockets import Buffers, ensure_option
from echod.linux.sockopt import SOL_SOCKET, Option, options
from echod.net.listener import Protocol
from echod.supervisor.adoption import METRICS, _refuse_kept, adopt_http_socket, adopt_socket
from echod.udp.batch import Batch
from echod.udp.sock import UdpSocket

NETLINK_KOBJECT_UEVENT: Final = 15
IPV6_HOPOPTS: Final = 54
SO_ATTACH_FILTER: Final = 26
SO_LOCK_FILTER: Final = 44
BPF_RETURN: Final = 6
UDP_HEADER_BYTES: Final = 8
RECEIVE_STAMPS: Final = 1 << 3 | 1 << 4  # SOF_TIMESTAMPING_RX_SOFTWARE, _SOFTWARE
PADDING: Final = bytes([0, 0, 1, 4, 0, 0, 0, 0])  # an extension header with nothing in it (RFC 8200, 4.2)
ROUTING: Final = bytes([0, 2, 4, 0, 0, 0, 0, 0]) + bytes(15) + b"\1"  # a segment routing header (RFC 8754, 2)
UNLIKE: Final = {
    "SO_LINGER": struct.pack("ii", 1, 0),
    "IP_OPTIONS": bytes([1, 1, 1, 0]),
    "IPV6_HOPOPTS": PADDING,
    "IPV6_RTHDRDSTOPTS": PADDING,
    "IPV6_DSTOPTS": PADDING,
    "IPV6_RTHDR": ROUTING,
    "SO_RCVLOWAT": struct.pack("i", 9),
    "UDP_ENCAP": struct.pack("i", 3),
    "IP_UNICAST_IF": struct.pack("!i", 1),
    "IPV6_UNICAST_IF": struct.pack("!i", 1),
}
"""What to write where 1 cannot be written, or is what echod wants."""


def passed_socket(host: str, protocol: Protocol) -> socket.socket:
    """Make a socket as a service manager does: bound, blocking, inheritable, of one family."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    passed = socket.socket(family, socket.SOCK_DGRAM if protocol is Protocol.UDP else socket.SOCK_STREAM)
    if family == socket.AF_INET6:
        passed.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    passed.bind((host, 0))
    passed.set_inheritable(True)
    if protocol is Protocol.TCP:
        passed.listen()
    return passed


def spoil(sock: socket.socket, option: Option) -> None:
    """Make an option what it must not be."""
    value = UNLIKE.get(option.name, struct.pack("i", int(option.off)))
    sock.setsockopt(option.level, option.number, value)
    assert sock.getsockopt(option.level, option.number, 4) != option.value, option.name


# -- options


@needs_root
@pytest.mark.parametrize("name", ["", METRICS])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("protocol", Protocol)
def test_no_option_that_echod_relies_on_is_trusted(host: str, protocol: Protocol, name: str) -> None:
    """Each option, passed as it must not be, is as echod needs it afterwards: of listeners and http_sockets alike."""
    if name == METRICS and protocol is Protocol.UDP:
        protocol, host = Protocol.TCP, ANY
    wanted = options(protocol, ipv6=":" in host)
    wrong = []
    for option in wanted:
        passed = passed_socket(host, protocol)
        spoil(passed, option)
        fd = passed.detach()
        sock = adopt_http_socket(fd, BUFFERS) if name == METRICS else adopt_socket(fd, BUFFERS)[1]
        with sock:
            wrong += [each.name for each in wanted if sock.getsockopt(each.level, each.number, 4) != each.value]
    assert wrong == []


@needs_root
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_options_that_add_control_messages_cost_no_reply(host: str) -> None:
    """With all options left on that the kernel knows, a datagram that waits already is answered, and the next is."""
    passed = passed_socket(host, Protocol.UDP)
    for option in options(Protocol.UDP, ipv6=":" in host):
        if option.off and option.name not in UNLIKE and option.name not in ("SO_DONTROUTE", "UDP_CORK"):
            spoil(passed, option)
    with udp_client(host) as client:
        client.sendto(b"waits", passed.getsockname()[:2])
        _, sock = adopt_socket(passed.detach(), BUFFERS)
        with sock:
            batch, port = Batch(), UdpSocket(sock)
            for payload in (b"waits", b"comes"):
                if payload == b"comes":
                    client.sendto(payload, at(sock))
                while not answer(batch, port):
                    pass
                assert (batch.truncated, batch.failures) == (set(), {})
                assert client.recvfrom(64) == (payload, sock.getsockname())


@needs_root
def test_an_option_that_cannot_be_set_is_refused_by_name() -> None:
    """An ordinary user cannot take a hop-by-hop header off the replies: the refusal names the option, and exits 78."""
    with passed_socket("::1", Protocol.UDP) as passed:
        passed.setsockopt(socket.IPPROTO_IPV6, IPV6_HOPOPTS, PADDING)

        def adopt() -> list[object]:
            try:
                adopt_socket(os.dup(passed.fileno()), BUFFERS)
            except PassedSocketError as error:
                return [str(error), error.exit_code]
            return []

        message, code = as_nobody(adopt)
        name = f"udp://[::1]:{passed.getsockname()[1]}"
    assert message == (
        f"passed socket {name} came with IPV6_HOPOPTS, which the kernel does not change for echod: the program that "
        "opened it must leave the option out"
    )
    assert code == ExitCode.CONFIG


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("SO_BROADCAST", "take Broadcast= out of the .socket unit"),
        ("SO_TIMESTAMP", "take Timestamping= out of the .socket unit"),
        ("IP_TRANSPARENT", "take Transparent= out of the .socket unit"),
        ("IP_PKTINFO", "write PassPacketInfo=yes into the .socket unit"),
        ("IP_RECVTOS", "the program that opened it must leave the option out"),
        ("IP_MTU_DISCOVER", "the program that opened it must set 5"),
    ],
)
def test_a_refusal_says_which_line_of_the_unit_to_change(name: str, remedy: str) -> None:
    """Where the unit has a line for the option it is named; else who opened the socket has to change."""
    kept = tuple(each for each in options(Protocol.UDP, ipv6=False) if each.name == name)
    with pytest.raises(PassedSocketError, match=f"^passed socket 3 came with {name}, .*: {remedy}$"):
        _refuse_kept("passed socket 3", kept)


def test_an_option_that_the_kernel_does_not_know_is_off() -> None:
    """What an old kernel lacks (ENOPROTOOPT) is no reason not to serve if it is to be off, or can be done without."""
    unknown = Option(level=SOL_SOCKET, number=30_000, name="SO_OF_THE_FUTURE")
    needed = Option(level=SOL_SOCKET, number=30_000, name="SO_OF_THE_FUTURE", value=struct.pack("i", 1))
    useful = Option(level=SOL_SOCKET, number=30_000, name="SO_OF_THE_FUTURE", value=struct.pack("i", 1), optional=True)
    with udp_client() as sock:
        with pytest.raises(OSError, match="Protocol not available"):
            sock.getsockopt(SOL_SOCKET, unknown.number)
        assert [ensure_option(sock, each) for each in (unknown, needed, useful)] == [True, False, True]


def hold_to_an_echo(sock: socket.socket, client: socket.socket, host: str) -> None:
    """Ask an adopted socket, answer as a worker does, and hold what the client receives to what it sent."""
    batch, port = Batch(), UdpSocket(sock)
    client.sendto(b"0123456789", (host, at(sock)[1]))
    while not answer(batch, port):
        pass
    assert (batch.truncated, batch.failures) == (set(), {})
    assert client.recv(64) == b"0123456789"


def hold_adopted_to_an_echo(passed: socket.socket, host: str) -> None:
    """Adopt a socket, and hold it to an echo."""
    _, sock = adopt_socket(passed.detach(), BUFFERS)
    with sock, udp_client(host) as client:
        hold_to_an_echo(sock, client, host)


@pytest.mark.parametrize("number", [29, 35, 37, 63, 64, 65])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_no_kind_of_timestamp_mutes_a_passed_socket(host: str, number: int) -> None:
    """Of 32 bits or of 64 (SO_TIMESTAMP_NEW and its kin, linux/socket.h), which read as off under the old numbers."""
    passed = passed_socket(host, Protocol.UDP)
    passed.setsockopt(SOL_SOCKET, number, RECEIVE_STAMPS if number in (37, 65) else 1)
    hold_adopted_to_an_echo(passed, host)


@needs_root
@pytest.mark.parametrize("host", [SERVER, SERVER6])
def test_a_reply_leaves_by_the_interface_of_its_peer(host: str) -> None:
    """Though the passed socket came with another interface for what it sends (IP_UNICAST_IF in ip(7))."""
    with Wire() as wire:
        with entered(wire.server):
            passed = passed_socket("::" if ":" in host else ANY, Protocol.UDP)
            level, number = (socket.IPPROTO_IPV6, 76) if ":" in host else (socket.IPPROTO_IP, 50)
            passed.setsockopt(level, number, struct.pack("!i", socket.if_nametoindex("lo")))
            _, sock = adopt_socket(passed.detach(), BUFFERS)
        with sock, entered(wire.client), udp_client("::" if ":" in host else ANY) as client:
            hold_to_an_echo(sock, client, host)


def attach_filter(sock: socket.socket, length: int) -> None:
    """Attach a packet filter that leaves of each packet so many bytes (SO_ATTACH_FILTER in socket(7))."""
    program = ctypes.create_string_buffer(struct.pack("HBBI", BPF_RETURN, 0, 0, length), 8)
    sock.setsockopt(SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program)))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_passed_filter_shortens_no_datagram(host: str) -> None:
    """The echo has every byte that was sent, though the socket came with a filter that cuts datagrams short."""
    passed = passed_socket(host, Protocol.UDP)
    attach_filter(passed, UDP_HEADER_BYTES + 4)
    hold_adopted_to_an_echo(passed, host)


@pytest.mark.parametrize("name", ["", METRICS])
def test_a_filter_that_is_locked_is_refused(name: str) -> None:
    """Nobody can detach it, so the program that attached it has to change, and echod exits 78."""
    with passed_socket(ANY, Protocol.TCP) as passed:
        attach_filter(passed, 0xFFFF)
        passed.setsockopt(SOL_SOCKET, SO_LOCK_FILTER, 1)
        with pytest.raises(PassedSocketError) as refused:
            (adopt_http_socket if name else adopt_socket)(os.dup(passed.fileno()), BUFFERS)
    assert str(refused.value).endswith(
        " came with a locked packet filter (SO_LOCK_FILTER), which may cut datagrams short: the program that opened it "
        "must leave the filter out"
    )


# -- what is passed


def test_a_passed_dual_stack_socket_is_a_mistake_in_the_unit() -> None:
    """`echod run` reports it in one sentence and exits 78, which the service unit does not try again."""
    done = run_echod("run", prefix=pass_sockets([("::", 0)], ipv6_only=False))
    assert done.returncode == ExitCode.CONFIG
    last = done.stderr.splitlines()[-1]
    assert "takes IPv4 too" in last
    assert "set BindIPv6Only=ipv6-only in the .socket unit" in last
    for unit in (REPOSITORY / "packaging/systemd").glob("*.service"):
        (prevented,) = [line for line in unit.read_text().splitlines() if line.startswith("RestartPreventExitStatus=")]
        assert str(int(ExitCode.CONFIG)) in prevented.partition("=")[2].split()


@pytest.mark.parametrize("host", ["127.0.0.1", ANY, "::1", "::"])
@pytest.mark.parametrize("protocol", Protocol)
def test_a_passed_socket_is_identified_and_set_up(host: str, protocol: Protocol) -> None:
    """Blocking and inheritable as the service manager leaves it, it becomes as if we had opened it."""
    passed = passed_socket(host, protocol)
    assert passed.get_inheritable()
    name, fd = passed.getsockname(), passed.detach()
    found, sock = adopt_socket(fd, BUFFERS)
    with sock:
        assert found == listener(host, name[1], protocol)
        assert (sock.fileno(), sock.getsockname()) == (fd, name)
        assert not sock.getblocking()
        assert not sock.get_inheritable()


def test_a_passed_netlink_socket_of_routes_is_no_listener() -> None:
    """ListenNetlink=route is taken over, to ask for the host's addresses: non-blocking and not inheritable."""
    with netlink() as passed:
        passed.set_inheritable(True)
        fd = passed.detach()
    found, sock = adopt_socket(fd, BUFFERS)
    with sock:
        assert (found, sock.fileno(), sock.getblocking(), sock.get_inheritable()) == (None, fd, False, False)


def make(  # noqa: PLR0913 - what can be wrong with a socket
    family: socket.AddressFamily,
    kind: socket.SocketKind,
    protocol: int = 0,
    *,
    bound: tuple[str | int, ...] | str = (),
    connected: tuple[str, int] | None = None,
    both: bool = False,
    listens: bool = False,
) -> int:
    """Make a socket that cannot be served; return its descriptor."""
    sock = socket.socket(family, kind, protocol)
    if both:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    if bound:
        sock.bind(bound)
    if connected is not None:
        sock.connect(connected)
    if listens:
        sock.listen()
    return sock.detach()


INET, INET6, UNIX = socket.AF_INET, socket.AF_INET6, socket.AF_UNIX
DGRAM, STREAM, RAW = socket.SOCK_DGRAM, socket.SOCK_STREAM, socket.SOCK_RAW
ONE_PEER: Final = "is connected to {}, and nobody else would have replies"
NO_HOST: Final = "is bound to an address of no single host"
BOTH: Final = r"takes IPv4 too, .* set BindIPv6Only=ipv6-only in the \.socket unit"
NEITHER: Final = r"neither UDP nor TCP: .* but no SocketProtocol="
UDP_LITE, MPTCP = 136, 262


@pytest.mark.parametrize(
    ("passed", "refusal"),
    [
        *((partial(make, INET6, DGRAM, bound=(host, 0), both=True), BOTH) for host in ("::", "::ffff:127.0.0.1")),
        (partial(make, INET6, STREAM, bound=("::", 0), both=True, listens=True), BOTH),
        (partial(make, INET, DGRAM, connected=("127.0.0.1", 9)), ONE_PEER.format("127.0.0.1")),
        (partial(make, INET6, DGRAM, connected=("::1", 9)), ONE_PEER.format("::1")),
        (partial(make, INET, STREAM, bound=("127.0.0.1", 0)), r"is a connection: the \.socket unit needs Accept=no"),
        (partial(make, INET, DGRAM), "is not bound"),
        (partial(make, INET, DGRAM, bound=("224.0.0.1", 0)), NO_HOST),
        (partial(make, INET, DGRAM, bound=("255.255.255.255", 0)), NO_HOST),
        (partial(make, INET6, DGRAM, bound=("ff02::1", 0, 0, 1)), NO_HOST),
        *((partial(make, UNIX, kind), NEITHER) for kind in (DGRAM, STREAM, socket.SOCK_SEQPACKET)),
        (partial(make, INET, DGRAM, UDP_LITE, bound=("127.0.0.1", 0)), NEITHER),
        (partial(make, INET, STREAM, MPTCP, bound=("127.0.0.1", 0), listens=True), NEITHER),
        (partial(make, INET, RAW, socket.IPPROTO_UDP, bound=("127.0.0.1", 0)), NEITHER),
        (
            partial(make, socket.AF_NETLINK, RAW, NETLINK_KOBJECT_UEVENT),
            r"not of routes: the \.socket unit .* but ListenNetlink=route",
        ),
    ],
)
def test_a_passed_socket_that_cannot_be_served_is_refused_and_closed(passed: Callable[[], int], refusal: str) -> None:
    """The message names what to change, in the .socket unit where that can be."""
    try:
        fd = passed()
    except OSError as error:
        pytest.skip(f"no socket of this protocol: {error.strerror}")
    with pytest.raises(PassedSocketError, match=refusal):
        adopt_socket(fd, BUFFERS)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@pytest.mark.parametrize(
    "passed",
    [
        partial(make, INET, DGRAM),
        partial(make, INET, STREAM),
        partial(make, UNIX, STREAM, bound=f"\0echod-{os.getpid()}", listens=True),
    ],
)
def test_what_takes_no_connections_is_no_http_socket(passed: Callable[[], int]) -> None:
    """The message names what its .socket unit may have, and leaves no descriptor open."""
    fd = passed()
    with pytest.raises(PassedSocketError, match=r"is named metrics but takes no TCP .*: its \.socket unit may only"):
        adopt_http_socket(fd, BUFFERS)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@pytest.mark.parametrize("adopt", [adopt_socket, adopt_http_socket])
def test_a_passed_file_is_refused(adopt: Callable[[int, Buffers], object]) -> None:
    """The message reports that the descriptor is no socket."""
    with Path(os.devnull).open("rb") as file, pytest.raises(PassedSocketError, match="is no socket"):
        adopt(file.fileno(), BUFFERS)
