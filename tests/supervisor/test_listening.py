"""ListeningSockets open before they close, and give nothing up before the commit."""

import os
import socket

import pytest
from structlog.typing import EventDict
from support.loopback import (
    ANY,
    BUFFERS,
    add_link,
    at,
    ip,
    listener,
    namespace,
    needs_root,
    netlink,
    queue,
    tcp_client,
    udp_client,
)
from support.ports import free_port
from support.waiting import wait_until

from echod.config.socket_unit import units_of
from echod.errors import AddressUnavailableError, EchodError
from echod.linux.sockets import Buffers, got_buffers, kernel_drops, open_socket
from echod.linux.sockopt import IP_RECVTOS, IP_RECVTTL, SO_TIMESTAMPNS
from echod.net.listener import Listener, Protocol
from echod.net.mode import REFLECT, ListenerOptions, Mode
from echod.supervisor.listening import Acquisition, ListeningSockets

UDP, TCP = Protocol.UDP, Protocol.TCP
ARRIVAL = (
    (socket.SOL_SOCKET, SO_TIMESTAMPNS),
    (socket.IPPROTO_IP, IP_RECVTTL),
    (socket.IPPROTO_IP, IP_RECVTOS),
)


def listeners(*hosts: str, protocol: Protocol = UDP) -> tuple[Listener, ...]:
    """Make listeners on ports that are free."""
    return tuple(listener(host, free_port(), protocol) for host in hosts or ("127.0.0.1",))


def hold(
    listening: ListeningSockets,
    wanted: tuple[Listener, ...],
    *,
    workers: int = 1,
    buffers: Buffers = BUFFERS,
) -> Acquisition:
    """Acquire and commit."""
    acquisition = listening.acquire(wanted, workers=workers, buffers=buffers)
    listening.commit(acquisition)
    return acquisition


def held(listening: ListeningSockets) -> dict[Listener, list[tuple[int, object]]]:
    """Return what is held, each socket as its descriptor and name; a closed one raises."""
    return {
        listener: [(sock.fileno(), sock.getsockname()) for sock in sockets]
        for listener, sockets in listening.sockets.items()
    }


def overflow(server: socket.socket) -> None:
    """Send to a server until the kernel has dropped something before it."""
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    with udp_client() as client:
        for _ in range(50):
            client.sendto(bytes(1000), at(server))
    wait_until(lambda: kernel_drops(server) > 0, "a drop")


@pytest.mark.parametrize(("protocol", "count"), [(UDP, 3), (TCP, 1)])
def test_udp_has_a_socket_for_each_worker_and_tcp_one(
    listening: ListeningSockets, protocol: Protocol, count: int
) -> None:
    """Three workers get three siblings on one UDP port, and share one TCP socket."""
    wanted = listeners(protocol=protocol)
    acquisition = hold(listening, wanted, workers=3)
    assert acquisition.plan.open == wanted
    names = [sock.getsockname() for sock in acquisition.sockets[wanted[0]]]
    assert names == [("127.0.0.1", wanted[0].port)] * count


def test_acquire_changes_nothing_and_abandon_closes_only_what_was_opened(listening: ListeningSockets) -> None:
    """With listeners kept, opened, closed and workers added, all held sockets are as they were, and still receive."""
    kept, closed, opened = listeners("127.0.0.1", "127.0.0.1", "127.0.0.1")
    hold(listening, (kept, closed), buffers=Buffers(receive=65_536, send=65_536))
    before, smallest = held(listening), listening.smallest_buffers()
    acquisition = listening.acquire((kept, opened), workers=2, buffers=BUFFERS)
    assert (held(listening), listening.smallest_buffers()) == (before, smallest)
    plan, (old, *fresh) = acquisition.plan, [*acquisition.sockets[kept], *acquisition.sockets[opened]]
    assert (plan.keep, plan.open, plan.close) == ((kept,), (opened,), (closed,))
    listening.abandon(acquisition)
    assert (held(listening), listening.smallest_buffers()) == (before, smallest)
    assert [sock.fileno() for sock in fresh] == [-1] * 3
    with udp_client(port=opened.port) as client:
        queue(client, old, b"still there")
        assert old.recv(16) == b"still there"


def test_commit_keeps_opens_and_closes(listening: ListeningSockets) -> None:
    """After commit the kept socket is the very same, the closed listener's port is free, the new one is bound."""
    kept, closed, opened = listeners("127.0.0.1", "127.0.0.1", "127.0.0.1")
    before = hold(listening, (kept, closed)).sockets
    old_kept, old_closed = before[kept][0], before[closed][0]
    after = hold(listening, (opened, kept)).sockets
    assert list(after) == [opened, kept]
    assert after[kept] == [old_kept]
    assert old_closed.fileno() == -1
    assert after[opened][0].getsockname() == ("127.0.0.1", opened.port)
    udp_client(port=closed.port).close()


def test_one_failure_closes_all_that_was_opened(listening: ListeningSockets) -> None:
    """Where one listener cannot be had, none is, and what is held is as it was."""
    old, good, taken = listeners("127.0.0.1", "127.0.0.1", "127.0.0.1")
    hold(listening, (old,))
    before = held(listening)
    with udp_client(port=taken.port):
        with pytest.raises(AddressUnavailableError, match=f"{taken.port} is in use"):
            listening.acquire((old, good, taken), workers=2, buffers=BUFFERS)
        assert held(listening) == before
        udp_client(port=good.port).close()


def test_two_daemons_cannot_hold_one_port(listening: ListeningSockets) -> None:
    """A second daemon of the same user fails, however many workers it has."""
    wanted = listeners("127.0.0.1")
    hold(listening, wanted, workers=2)
    with pytest.raises(AddressUnavailableError, match="in use"):
        ListeningSockets(units_of("")).acquire(wanted, workers=2, buffers=BUFFERS)


def test_a_listener_that_no_unit_passes_is_named_in_the_error(listening: ListeningSockets) -> None:
    """Where sockets were passed, the sentence names the socket unit that lacks it, and the line that it needs."""
    with udp_client() as one:
        listening.adopt({os.dup(one.fileno()): ""}, BUFFERS)
    (wanted,) = listeners()
    with (
        udp_client(port=wanted.port),
        pytest.raises(
            AddressUnavailableError,
            match=rf"{wanted.port} is in use .*; `listeners` has it, but systemd does not pass it: "
            rf"add {wanted.unit_line} to echod@red\.socket \(systemctl edit echod@red\.socket\) and restart that and "
            r"echod@red\.service, or remove it from the file$",
        ),
    ):
        listening.acquire((wanted,), workers=1, buffers=BUFFERS)


def test_growing_binds_siblings_only_at_commit(listening: ListeningSockets) -> None:
    """Before commit no datagram can go to a socket that nobody reads; after it, both get their share."""
    (wanted,) = listeners()
    first = hold(listening, (wanted,)).sockets[wanted][0]
    acquisition = listening.acquire((wanted,), workers=2, buffers=BUFFERS)
    second = acquisition.sockets[wanted][1]
    assert acquisition.sockets[wanted][0] is first
    assert second.getsockname() == (ANY, 0)
    for _ in range(20):
        with udp_client() as client:
            queue(client, first, b"before")
    listening.commit(acquisition)
    assert second.getsockname() == first.getsockname()

    def both() -> bool:
        with udp_client() as client:
            client.sendto(b"after", at(first))
        try:
            return second.recv(16) == b"after"
        except BlockingIOError:
            return False

    wait_until(both, "a datagram at the sibling")
    assert [first.recv(16) for _ in range(20)] == [b"before"] * 20


def test_shrinking_keeps_the_sockets(listening: ListeningSockets) -> None:
    """With fewer workers every socket stays open: closing one would lose what is queued on it."""
    (wanted,) = listeners()
    before = hold(listening, (wanted,), workers=4).sockets[wanted]
    assert hold(listening, (wanted,), workers=1).sockets[wanted] == before
    assert all(sock.fileno() >= 0 for sock in before)
    assert hold(listening, (wanted,), workers=4).sockets[wanted] == before


@pytest.mark.parametrize("protocol", Protocol)
@pytest.mark.parametrize(("old_host", "new_host"), [("127.0.0.1", ANY), (ANY, "127.0.0.1"), ("::1", "::")])
def test_a_listener_can_widen_and_narrow_on_its_port(
    listening: ListeningSockets, protocol: Protocol, old_host: str, new_host: str
) -> None:
    """The new socket is bound while the old one is still held, and after commit answers alone."""
    port = free_port()
    old, new = listener(old_host, port, protocol), listener(new_host, port, protocol)
    before = hold(listening, (old,), workers=2).sockets[old]
    acquisition = listening.acquire((new,), workers=2, buffers=BUFFERS)
    assert all(sock.fileno() >= 0 for sock in before)
    listening.commit(acquisition)
    assert [sock.fileno() for sock in before] == [-1] * len(before)
    assert list(held(listening)) == [new]
    server = acquisition.sockets[new][0]
    if protocol is TCP:
        with tcp_client(server) as client, server.accept()[0] as accepted:
            assert accepted.getpeername() == client.getsockname()


def test_kept_sockets_get_the_new_buffers_at_commit(listening: ListeningSockets) -> None:
    """A reload changes the buffers of sockets that stay, and the smallest is returned."""
    wanted = listeners("127.0.0.1", "::1") + listeners(protocol=TCP)
    small, smaller = Buffers(receive=128 * 1024, send=128 * 1024), Buffers(receive=64 * 1024, send=32 * 1024)
    assert listening.smallest_buffers() is None
    hold(listening, wanted, buffers=small)
    assert listening.smallest_buffers() == small
    sockets = hold(listening, wanted, buffers=BUFFERS).sockets[wanted[0]]
    grown = got_buffers(sockets[0])
    assert grown.receive > small.receive
    assert listening.smallest_buffers() == grown
    sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, smaller.receive)
    assert listening.smallest_buffers() == Buffers(receive=smaller.receive, send=grown.send)


def test_kernel_drops_only_grow_where_the_kernel_begins_again(listening: ListeningSockets) -> None:
    """After 2**32 drops the kernel counts from 0 again; with 2**32 - 1 seen before, few drops make the total larger."""
    (wanted,) = listeners()
    server = hold(listening, (wanted,)).sockets[wanted][0]
    assert listening.kernel_drops(wanted) == 0
    overflow(server)
    listening._dropped[server] = 2**32 - 1
    assert listening.kernel_drops(wanted) == 2**32 + kernel_drops(server)
    hold(listening, ())
    assert listening.kernel_drops(wanted) > 2**32
    assert listening._dropped == {}


def test_kernel_drops_outlive_a_listener(listening: ListeningSockets) -> None:
    """What the kernel dropped is summed over siblings, and still known when the listener is closed and reopened."""
    (wanted,) = listeners()
    (other,) = listeners(protocol=TCP)
    for round_ in (1, 2):
        overflow(hold(listening, (wanted,)).sockets[wanted][0])
        before_close = listening.kernel_drops(wanted)
        hold(listening, (other,))
        assert listening.kernel_drops(wanted) == before_close
        assert before_close > round_ - 1
    assert listening.kernel_drops(other) == 0


def test_adopted_sockets_are_kept_as_they_came(listening: ListeningSockets) -> None:
    """A passed listener is served without being configured, gets no siblings, and is never closed."""
    with udp_client() as one, udp_client("::1") as two:
        two_name = two.getsockname()
        passed = [one.detach(), two.detach()]
    listening.adopt(dict.fromkeys(passed, ""), BUFFERS)
    first, second = listening.adopted
    assert second.port == two_name[1]
    (wanted,) = listeners()
    acquisition = hold(listening, (wanted, first), workers=2)
    assert list(acquisition.sockets) == [wanted, *listening.adopted]
    assert [len(sockets) for sockets in acquisition.sockets.values()] == [2, 1, 1]
    assert [sock.fileno() for found in listening.adopted for sock in hold(listening, ()).sockets[found]] == passed


@needs_root
def test_a_passed_socket_whose_interface_was_made_anew_is_kept_and_warned_of_once(
    listening: ListeningSockets, log: list[EventDict]
) -> None:
    """Only its unit can bind it anew, also where the config has the listener; each reload logs it again."""
    with namespace():
        add_link("10.0.0.1/24")
        wanted = listener(ANY, free_port(), zone="near")
        passed = open_socket(wanted, BUFFERS, sibling=False).detach()
        listening.adopt({passed: ""}, BUFFERS)
        assert [(entry["event"], entry["listener"]) for entry in log] == [("listener_adopted", str(wanted))]
        log.clear()
        listening.log_detached()
        assert log == []
        ip("link", "delete", "near")
        add_link("10.0.0.1/24")
        for _ in range(2):
            (kept,) = hold(listening, (wanted,)).sockets[wanted]
            assert kept.fileno() == passed
            listening.log_detached()
            listening.log_detached()
        message = (
            f"{wanted} receives nothing any more: its interface was removed or renamed; restart the .socket unit that "
            "passes it, and echod@red.service, when this host has the interface near again"
        )
        logged = {"event": "listener_detached", "log_level": "warning", "message": message, "listener": str(wanted)}
        assert log == [logged, logged]


def test_one_netlink_socket_is_held_beside_the_listeners(listening: ListeningSockets) -> None:
    """It is no listener, outlives every commit, and a second one is refused and closed."""
    with udp_client() as one:
        passed = [netlink().detach(), one.detach()]
    listening.adopt(dict.fromkeys(passed, ""), BUFFERS)
    assert listening.netlink is not None
    with listening.netlink:
        assert (listening.netlink.fileno(), len(listening.adopted)) == (passed[0], 1)
        hold(listening, listeners())
        assert set(held(listening)) > set(listening.adopted)
        second = netlink().detach()
        with pytest.raises(EchodError, match=r"is a second ListenNetlink=route: the \.socket unit may have one only"):
            listening.adopt({second: ""}, BUFFERS)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(second)
        assert listening.netlink.fileno() == passed[0]


@needs_root
def test_commit_cannot_fail_where_an_address_has_gone(listening: ListeningSockets) -> None:
    """A kept listener whose interface left the host serves on with what it has, and grows when that is back."""
    with namespace():
        add_link("fe80::5/64")
        wanted = listener("fe80::5", 9999, zone="near")
        before = hold(listening, (wanted,)).sockets[wanted]
        ip("link", "set", "near", "name", "away")
        assert hold(listening, (wanted,), workers=2).sockets[wanted] == before
        assert before[0].getsockname()[:2] == ("fe80::5", 9999)
        ip("link", "set", "away", "name", "near")
        after = hold(listening, (wanted,), workers=2).sockets[wanted]
        assert [sock.getsockname()[:2] for sock in after] == [("fe80::5", 9999)] * 2


def suited(sock: socket.socket) -> tuple[bool, int]:
    """Return whether a socket reports arrivals, and its TOS."""
    reports = {bool(sock.getsockopt(*option)) for option in ARRIVAL}
    assert len(reports) == 1
    return reports.pop(), sock.getsockopt(socket.IPPROTO_IP, socket.IP_TOS)


def test_sockets_suit_the_options_of_their_listener_while_they_are_kept(listening: ListeningSockets) -> None:
    """From the commit on, new ones and old; and without options they are as they were, also if another set the TOS."""
    (one, other), steps = listeners("127.0.0.1", "127.0.0.2"), []
    for options in (
        {one: ListenerOptions(mode=Mode.STAMP)},
        {one: ListenerOptions(dscp=46)},
        {one: ListenerOptions(dscp=REFLECT), other: ListenerOptions(mode=Mode.REVEAL)},
        {},
    ):
        listening.commit(listening.acquire((one, other), workers=2, buffers=BUFFERS), options)
        steps.append([[suited(sock) for sock in listening.sockets[each]] for each in (one, other)])
    plain, measured = [(False, 0)] * 2, [(True, 0)] * 2
    assert steps == [[measured, plain], [[(False, 0xB8)] * 2, plain], [measured, measured], [plain, plain]]
    (sock, _) = listening.sockets[one]
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 4)
    listening.commit(listening.acquire((one, other), workers=2, buffers=BUFFERS), {one: ListenerOptions(dscp=REFLECT)})
    listening.commit(listening.acquire((one, other), workers=2, buffers=BUFFERS))
    assert suited(sock) == (False, 4)


def test_a_tcp_listener_has_its_dscp(listening: ListeningSockets) -> None:
    """Its connections inherit it."""
    (one,) = listeners(protocol=TCP)
    listening.commit(listening.acquire((one,), workers=1, buffers=BUFFERS), {one: ListenerOptions(dscp=10)})
    (sock,) = listening.sockets[one]
    assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == 40
