"""What the kernel takes for this host's own is known, as it comes and goes, and nothing that is not the host's."""

import errno
import os
import resource
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

import pytest
from support.loopback import add_link, as_nobody, ip, ip_batch, namespace, needs_root, udp_client
from support.waiting import wait_until

from echod.linux import netlink
from echod.linux.netlink import MAX_OWN, LocalAddresses
from echod.net.networks import Network

LOOPBACK = {ip_network(text) for text in ("127.0.0.0/8", "127.0.0.1/32", "::1/128")}
MANY = 5000
LOOKS, ROUNDS = 10, 50
SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NETLINK_PKTINFO, NETLINK_GET_STRICT_CHK = 270, 1, 3, 12
RTNLGRP_IPV4_ROUTE = 7
NLMSG_ERROR, NLMSG_DONE, DUMP_INTR = 2, 3, 0x10
UNKNOWN = "the addresses of this host are not known, so datagrams that forge them are not recognised"

Open = Callable[..., LocalAddresses]


@pytest.fixture
def local() -> Iterator[Open]:
    """Make LocalAddresses where the test is when it asks; close their sockets at the end."""
    made: list[LocalAddresses] = []

    def make(passed: socket.socket | None = None) -> LocalAddresses:
        made.append(LocalAddresses(passed))
        return made[-1]

    yield make
    for each in made:
        if each._sock is not None:
            each._sock.close()


@pytest.fixture
def known(network: None, local: Open) -> LocalAddresses:
    """Make LocalAddresses in a network namespace whose every address is the test's own."""
    return local()


def own(local: LocalAddresses) -> set[Network]:
    """Return what is known after a look that had news."""
    found = local.read()
    assert found is not None, local.problem
    assert list(found) == sorted(set(found), key=lambda network: (network.version, network))
    return set(found)


def await_own(local: LocalAddresses, wanted: set[Network]) -> None:
    """Look until this is what is known: an IPv6 address is the host's a moment after ip(8) has ended."""

    def known() -> bool:
        local.read()
        return set(local._known or ()) == wanted

    wait_until(known, "these are the host's own")


def networks(*texts: str) -> set[Network]:
    """Return the networks that these texts are."""
    return {ip_network(text) for text in texts}


def on_lo(verb: str, each: object) -> str:
    """Return the line that adds an address to loopback or deletes it, at once."""
    return f"address {verb} {each} dev lo {'nodad' if ':' in str(each) and verb == 'add' else ''}"


def address(number: int) -> str:
    """Return one of 65,536 addresses."""
    return f"10.200.{number >> 8}.{number & 255}/32"


def netlink_socket() -> socket.socket:
    """Open a socket as the service manager passes it: blocking."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)


def message(kind: int, sequence: int, *, flags: int = 0, code: int = 0) -> bytes:
    """Return a netlink message with a code, as the kernel writes it."""
    return struct.pack("=IHHIIi", 20, kind, flags, sequence, 0, -code)


# -- what is the host's own


def test_any_user_is_told(local: Open) -> None:
    """Without any privilege the loopback network is known at the first look, and unchanged at the second."""
    known = local()
    assert IPv4Network("127.0.0.0/8") in own(known)
    assert (known.read(), known.problem) == (None, "")


def test_addresses_are_known_as_they_come_and_go(known: LocalAddresses) -> None:
    """Each look after a change has all that is the host's own then; each look without one reports nothing."""
    assert own(known) == LOOPBACK
    add_link("10.0.0.1/24")
    assert own(known) == LOOPBACK | networks("10.0.0.1/32")
    ip("address", "add", "fd00::1/64", "dev", "near", "nodad")
    await_own(known, LOOPBACK | networks("10.0.0.1/32", "fd00::1/128"))
    assert known.read() is None
    ip("address", "delete", "10.0.0.1/24", "dev", "near")
    assert own(known) == LOOPBACK | networks("fd00::1/128")
    ip("link", "delete", "near")
    assert own(known) == LOOPBACK
    assert (known.read(), known.problem) == (None, "")


@pytest.mark.parametrize("strict", [1, 0])
def test_nothing_else_is_the_hosts_own(known: LocalAddresses, strict: int) -> None:
    """Neighbours, broadcasts, routes and other tables are not, nor what ip_nonlocal_bind lets a socket have.

    That holds where the kernel filters and where, before 4.20, it hands over every route.
    """
    add_link("10.0.0.1/24")
    ip("route", "add", "10.9.0.0/16", "via", "10.0.0.9")
    ip("route", "add", "blackhole", "10.10.0.0/16")
    ip("route", "add", "local", "10.11.0.0/16", "dev", "lo", "table", "100")
    ip("-6", "route", "add", "fd09::/64", "dev", "near")
    for family in ("ipv4", "ipv6"):
        Path(f"/proc/sys/net/{family}/ip_nonlocal_bind").write_text("1")
    assert known._sock is not None
    known._sock.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, strict)
    assert own(known) == LOOPBACK | networks("10.0.0.1/32")
    with udp_client("10.9.0.1"):  # so it was bindable
        assert known.read() is None


def test_ipv6_addresses_are_the_hosts_own_once_they_are_its_own(known: LocalAddresses) -> None:
    """A link-local address is; one that is tentative, which might be another host's, is not yet."""
    add_link("fe80::5/64")
    Path("/proc/sys/net/ipv6/conf/near/dad_transmits").write_text("100")  # a second each
    ip("address", "add", "fd00::5/64", "dev", "near")
    await_own(known, LOOPBACK | networks("fe80::5/128"))
    assert "tentative" in ip("address", "show", "dev", "near")
    Path("/proc/sys/net/ipv6/conf/near/dad_transmits").write_text("0")
    ip("address", "delete", "fd00::5/64", "dev", "near")
    ip("address", "add", "fd00::5/64", "dev", "near")
    await_own(known, LOOPBACK | networks("fe80::5/128", "fd00::5/128"))


def test_the_anycast_addresses_of_a_router_are_its_own(known: LocalAddresses) -> None:
    """What is sent to the subnet-router anycast address (RFC 4291 2.6.1) arrives at the host's own sockets."""
    Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")
    add_link("fd00::5/64")
    await_own(known, LOOPBACK | networks("fd00::5/128", "fd00::/128"))
    with udp_client("::") as server, udp_client("fd00::5") as client:
        client.sendto(b"to myself", ("fd00::", server.getsockname()[1]))
        assert server.recv(16) == b"to myself"


@needs_root
def test_a_host_without_any_address_has_none() -> None:
    """Where even loopback is down there is no table of local routes at all, which is no problem."""
    program = "from echod.linux.netlink import LocalAddresses as L; l = L(); print(l.read(), l.read(), [l.problem])"
    command = ["unshare", "--net", sys.executable, "-c", program]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "() None ['']\n"


# -- many


def test_thousands_of_addresses_are_known(known: LocalAddresses) -> None:
    """5,000 of each family are all reported, then nothing until one goes; then all the others are reported."""
    four = [address(number) for number in range(MANY)]
    six = [f"fd00::{number:x}/128" for number in range(MANY)]
    ip_batch(*(on_lo("add", each) for each in four + six))
    await_own(known, LOOPBACK | networks(*four, *six))
    assert (known.read(), known.read(), known.problem) == (None, None, "")
    ip("address", "delete", six[1234], "dev", "lo")
    await_own(known, LOOPBACK | networks(*four, *six) - networks(six[1234]))


def test_more_than_can_be_known_is_a_problem(known: LocalAddresses) -> None:
    """Of a host with more networks the first are reported, in order, and the operator how many there are."""
    mine = [address(number) for number in range(MAX_OWN)]
    ip_batch(*(f"route add local {each} dev lo" for each in mine))
    assert own(known) == networks(*mine)  # 10/8 is before 127/8 and ::1
    assert known.problem == (
        f"this host has 16,387 local addresses and networks, of which echod knows the first {MAX_OWN:,}: datagrams "
        "that forge the others are not recognised"
    )
    ip_batch(*(f"route delete local {each} dev lo" for each in mine[:3]))
    assert own(known) == LOOPBACK | networks(*mine[3:])
    assert known.problem == ""


def test_a_table_that_changes_while_it_is_read_misleads_nobody(known: LocalAddresses, tmp_path: Path) -> None:
    """While addresses come and go, no look loses one that stays or has one that never was; the last look is exact."""
    stay, come = set[Network](), set[Network]()
    for number in range(300):
        stay |= networks(address(2 * number), f"fd00::{2 * number:x}")
        come |= networks(address(2 * number + 1), f"fd00::{2 * number + 1:x}")
    ip_batch(*(on_lo("add", each) for each in stay))
    await_own(known, LOOPBACK | stay)
    file = tmp_path / "churn"
    file.write_text("\n".join(on_lo(verb, each) for verb in ("add", "delete") for each in come))
    looks = 0
    for _ in range(ROUNDS):
        if looks >= LOOKS:
            break
        # In bursts, with rests in which a table can be read.
        with subprocess.Popen(["sh", "-c", 'for _ in $(seq 10); do ip -batch "$0"; sleep 0.05; done', file]) as churn:
            while churn.poll() is None:
                if (found := known.read()) is not None:
                    looks += 1
                    assert LOOPBACK | stay <= set(found) <= LOOPBACK | stay | come
        assert churn.returncode == 0
    assert looks >= LOOKS, f"{looks} looks in {ROUNDS} rounds"
    await_own(known, LOOPBACK | stay)


# -- the socket


@needs_root
def test_a_passed_socket_tells_of_the_namespace_it_was_made_in(local: Open) -> None:
    """Wherever echod itself is; a UDP socket belongs to it if it was made there, too."""
    with namespace():
        add_link("10.0.0.1/24")
        passed, there = netlink_socket(), udp_client("10.0.0.1")
    outside = local()
    with there, udp_client() as here:
        known = local(passed)
        assert own(known) == LOOPBACK | networks("10.0.0.1/32")
        assert (known.belongs_to(there), known.belongs_to(here)) == (True, False)
        assert (outside.belongs_to(there), outside.belongs_to(here)) == (False, True)
    assert "ListenNetlink=route" in netlink.OTHER_NAMESPACE


def test_a_passed_socket_never_blocks_whatever_is_switched_on(local: Open) -> None:
    """Blocking, with a pending answer to somebody else's question and with options of the .socket unit, it works."""
    passed = netlink_socket()
    passed.setsockopt(SOL_NETLINK, NETLINK_PKTINFO, 1)  # PassPacketInfo=yes
    known = local(passed)
    assert not passed.getblocking()
    passed.send(netlink._request(socket.AF_INET6))
    assert networks("127.0.0.0/8", "127.0.0.1/32") <= own(known)
    assert known.read() is None


def test_what_a_look_left_behind_does_not_disturb_the_next(known: LocalAddresses) -> None:
    """A long answer that nobody read to its end, even by a process that died, is thrown away before the next question.

    The kernel refuses a second question while it answers the first (EBUSY).
    """
    mine = [address(number) for number in range(MANY)]
    ip_batch(*(on_lo("add", each) for each in mine))
    assert known._sock is not None
    known._sock.send(netlink._request(socket.AF_INET))
    assert len(known._sock.recv(65_536)) > 20
    assert own(known) == LOOPBACK | networks(*mine)


@pytest.mark.usefixtures("network")
def test_notifications_are_no_answers(local: Open) -> None:
    """A socket that hears of every route, and has overflowed (ENOBUFS), still reports what is there, and no more."""
    passed = netlink_socket()
    passed.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, RTNLGRP_IPV4_ROUTE)
    passed.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    known = local(passed)
    mine = [address(number) for number in range(100)]
    ip_batch(*(on_lo("add", each) for each in mine))
    assert own(known) == LOOPBACK | networks(*mine)
    ip_batch(*(on_lo("delete", each) for each in mine))
    assert own(known) == LOOPBACK
    assert known.problem == ""


def test_only_what_may_concern_own_addresses_is_news(known: LocalAddresses) -> None:
    """A router changes its other routes all the time; each notification is heard once, and holds until the look."""
    assert own(known) == LOOPBACK
    assert not known.receive()
    for line in ("route add 203.0.113.0/24 dev lo", "-6 route add fd09::/64 dev lo", "route del 203.0.113.0/24"):
        ip(*line.split())
        assert not known.receive()
    for line in (
        "route add local 203.0.113.0/24 dev lo",
        "-6 route add local fd09:1::/64 dev lo",
        "address add 192.0.2.7/32 dev lo",
        "-6 address add fd09:2::1/128 dev lo nodad",
        "link set lo down",
    ):
        ip(*line.split())
        assert known.receive()
        known.read()
        assert not known.receive()


@pytest.mark.usefixtures("network")
@pytest.mark.parametrize("room", [1 << 17, 1])
def test_after_a_change_amid_a_look_another_one_is_due(local: Open, room: int) -> None:
    """Its notification is gone with the dump that it came in, or lost (ENOBUFS) where the queue has no room for it."""
    asked: list[bytes] = []

    class Interrupted(socket.socket):
        """A socket on whose fourth question an address is added: the last of a look, and of the other family."""

        def send(self, question: bytes, /) -> int:  # type: ignore[override]
            sent = super().send(question)
            asked.append(question)
            if len(asked) == 4:
                ip("address", "add", "192.0.2.7/32", "dev", "lo")
            return sent

    passed = Interrupted(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    passed.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    known = local(passed)
    assert own(known) == LOOPBACK
    assert len(asked) == 4
    assert known.is_due
    assert own(known) == LOOPBACK | networks("192.0.2.7/32")
    assert not known.is_due
    assert not known.receive()


def test_another_process_cannot_answer_for_the_kernel(known: LocalAddresses) -> None:
    """A message to the same socket that claims to be the end of the dump is passed over."""
    assert own(known) == LOOPBACK
    assert known._sock is not None
    with netlink_socket() as other:
        for family in (socket.AF_INET, socket.AF_INET6):
            other.sendto(message(NLMSG_DONE, family), known._sock.getsockname())
            parts = known._dump(known._sock, family)
            assert parts == known._dumps[family]


# -- what stands in the way


def test_an_answer_that_cannot_be_read_whole_changes_nothing(local: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was known stays known; after some failed reads it is reported, until a read succeeds."""
    known = local()
    before = own(known)
    monkeypatch.setattr(netlink, "BUFFER_BYTES", 64)
    assert (known.read(), known.problem) == (None, "")
    for _ in range(7):
        assert known.read() is None
    assert known.failures == 8
    assert known.problem == f"{UNKNOWN}: the kernel's answer is larger than can be read"
    monkeypatch.undo()
    assert (known.read(), known.problem) == (None, "")
    assert set(known._known or ()) == before


@pytest.mark.parametrize("kind", [NLMSG_ERROR, NLMSG_DONE])
def test_a_dump_that_failed_is_told_from_one_that_ended(kind: int) -> None:
    """An error, wherever the kernel puts it, spoils the dump, and so does a change meanwhile; no table is no error."""
    family = socket.AF_INET
    for code in (0, errno.ENOENT, errno.EOPNOTSUPP):
        assert netlink._ends(message(kind, family, code=code), family)
    for code in (errno.EBUSY, errno.ENOMEM, errno.EPERM):
        with pytest.raises(OSError, match=os.strerror(code)):
            netlink._ends(message(kind, family, code=code), family)
    with pytest.raises(OSError, match="changes too often"):
        netlink._ends(message(kind, family, flags=DUMP_INTR), family)
    assert not netlink._ends(message(kind, family + 1, code=errno.EPERM), family)


@pytest.mark.parametrize("rubbish", [b"", b"\0" * 15, b"\0" * 64, b"\xff" * 64])
def test_rubbish_has_no_end_and_no_networks(rubbish: bytes) -> None:
    """What is no message is passed over, and reading it ends."""
    assert not netlink._ends(rubbish, socket.AF_INET)
    assert list(netlink._networks(rubbish, socket.AF_INET)) == []


@needs_root
def test_without_a_socket_the_operator_is_told_why() -> None:
    """If none can be opened nothing is raised: reads return nothing, no namespace is wrong, and it is reported."""

    def look() -> list[object]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
            known = LocalAddresses()
            return [known.read(), known.belongs_to(sock), known.problem]

    assert as_nobody(look) == [None, True, f"{UNKNOWN}: {os.strerror(errno.EMFILE)}"]


def test_a_route_to_everywhere_is_everything() -> None:
    """A local default route has no destination in its message; it is the whole of its family."""
    for family, everything in ((socket.AF_INET, IPv4Network("0.0.0.0/0")), (socket.AF_INET6, IPv6Network("::/0"))):
        route = struct.pack("=IHHII", 28, 24, 2, family, 0) + struct.pack(
            "=BBBBBBBBI", family, *[0] * 3, 255, 0, 0, 2, 0
        )
        assert list(netlink._networks(route, family)) == [everything]
