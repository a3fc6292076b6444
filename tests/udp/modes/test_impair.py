"""echod.udp.modes.impair: an echo behind a path that misbehaves, on real sockets, counted to the last datagram."""

import socket
from collections.abc import Callable, Iterator
from itertools import pairwise
from random import Random
from time import monotonic_ns

import pytest
from support.loopback import (
    ANY,
    add_link,
    assert_got,
    assert_nothing_more,
    at,
    deliver,
    inject,
    let_trains_fail,
    needs_root,
    take_without_checksum,
    udp_client,
    udp_server,
)
from support.udp_worker import UdpWorker, send, send_as_train

from echod.admission.selftest import SelfTest
from echod.linux.arrival import report_arrivals
from echod.linux.poll import Poll
from echod.linux.sockopt import UDP_SEGMENT
from echod.net.mode import PLAIN, REFLECT, Impairment, ListenerOptions
from echod.stats.counters import UdpField
from echod.stats.outcomes import Drop
from echod.stats.refusals import Tally
from echod.udp.modes.impair import ImpairedEcho
from echod.udp.service import Reply
from echod.udp.sock import UdpSocket

MS = 1_000_000
HOUR = 3600 * 1000 * MS
LOST, TWICE, BEHIND, FLIPPED = (
    UdpField.DROPPED + Drop.IMPAIRED,
    UdpField.DUPLICATED,
    UdpField.REORDERED,
    UdpField.CORRUPTED,
)


class Impaired:
    """A served socket with impairment, whose timer a real poll waits for."""

    def __init__(
        self,
        sock: socket.socket,
        impairment: Impairment,
        self_test: SelfTest | None = None,
        options: ListenerOptions = PLAIN,
    ) -> None:
        """Serve on this socket."""
        made: list[ImpairedEcho] = []
        self.poll = Poll()

        def mode(sock: UdpSocket, row: memoryview, tally: Tally) -> Reply:
            made.append(ImpairedEcho(impairment, sock, row, tally, poll=self.poll))
            return made[0].reply

        self.served = UdpWorker(sock, self_test=self_test, mode=mode, loop_breaker=False, options=options)
        self.echo, self.row = made[0], self.served.row

    def close(self) -> None:
        """Close what is not the socket."""
        self.poll.close()

    def counted(self) -> dict[str, int]:
        """Return what is not zero of what matters here. Asserts the balance."""
        self.served.balance()
        assert self.row[UdpField.HELD] == len(self.echo)
        fields = {
            "replied": UdpField.REPLIED,
            "held": UdpField.HELD,
            "lost": LOST,
            "full": UdpField.DROPPED + Drop.IMPAIR_QUEUE,
            "twice": TWICE,
            "behind": BEHIND,
            "flipped": FLIPPED,
        }
        return {name: self.row[field] for name, field in fields.items() if self.row[field]}

    def wait(self) -> int:
        """Wait until something is due, and send it; return how many are left."""
        for on_due in self.poll.wait(15):
            on_due(0.0)
        self.served.balance()
        return len(self.echo)


Serve = Callable[..., Impaired]


@pytest.fixture(params=["127.0.0.1", "::1"])
def serve(request: pytest.FixtureRequest) -> Iterator[Serve]:
    """Serve over IPv4 and over IPv6."""
    made: list[Impaired] = []

    def start(**values: float) -> Impaired:
        made.append(Impaired(udp_server(request.param), Impairment(**values)))  # type: ignore[arg-type]
        return made[-1]

    yield start
    for each in made:
        each.close()
        each.served.sock.close()


@pytest.fixture
def client(serve: Serve, request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """Ask as a client of the same family."""
    with udp_client(request.node.callspec.params["serve"]) as sock:
        yield sock


def numbered(count: int, length: int = 8) -> list[bytes]:
    """Return payloads that differ."""
    return [b"%d" % number + b"." * (length - len(b"%d" % number)) for number in range(count)]


def received(client: socket.socket, count: int) -> list[bytes]:
    """Receive so many datagrams, and prove that there are no more."""
    replies = [client.recv(65_536) for _ in range(count)]
    assert_nothing_more(client)
    return replies


# -- at once


def test_with_nothing_to_do_it_is_an_echo(serve: Serve, client: socket.socket) -> None:
    """Single datagrams, empty ones and trains, from the address that was asked."""
    impaired = serve()
    send(impaired.served, client, b"a", b"", b"ccc")
    send_as_train(impaired.served, client)
    impaired.served.turn()
    assert impaired.counted() == {"replied": 13}
    assert received(client, 13) == [b"a", b"", b"ccc", *(b"aa bb cc dd ee ff gg hh ii j".split())]


def test_what_is_lost_is_lost_and_counted(serve: Serve, client: socket.socket) -> None:
    """Also an empty datagram and a train. It is not reported as a refusal: the operator asked for it."""
    impaired = serve(loss=1)
    send(impaired.served, client, b"a", b"")
    send_as_train(impaired.served, client)
    impaired.served.turn()
    assert impaired.counted() == {"lost": 12}
    assert_nothing_more(client)
    assert list(impaired.served.tally.reports()) == []


def test_a_duplicate_leaves_right_behind_its_original(serve: Serve, client: socket.socket) -> None:
    """Also of an empty datagram and of those in a train. A duplicate is not counted as replied, nor are its bytes."""
    impaired = serve(duplicate=1)
    send(impaired.served, client, b"a", b"")
    send_as_train(impaired.served, client, b"bbccd", 2)
    assert impaired.served.turn()["replied_bytes"] == 6
    assert impaired.counted() == {"replied": 5, "twice": 5}
    assert received(client, 10) == [b"a", b"a", b"", b"", b"bb", b"bb", b"cc", b"cc", b"d", b"d"]


def test_one_bit_is_inverted(serve: Serve, client: socket.socket) -> None:
    """In each datagram, also in each of a train; an empty one has none. The same seed inverts the same."""
    first: list[bytes] = []
    for _ in range(2):
        impaired = serve(corrupt=1, seed=3)
        send(impaired.served, client, bytes(5), b"", bytes(300))
        send_as_train(impaired.served, client, bytes(9), 2)
        impaired.served.turn()
        assert impaired.counted() == {"replied": 8, "flipped": 7}
        replies = received(client, 8)
        assert [len(reply) for reply in replies] == [5, 0, 300, 2, 2, 2, 2, 1]
        assert [sum(octet.bit_count() for octet in reply) for reply in replies] == [1, 0, 1, 1, 1, 1, 1, 1]
        first = first or replies
        assert replies == first


def test_seed_7_has_these_fates(serve: Serve, client: socket.socket) -> None:
    """By hand from its numbers: twice and flipped, lost, behind, flipped, lost, flipped, unharmed, unharmed."""
    impaired = serve(loss=0.2, duplicate=0.2, reorder=0.2, corrupt=0.2, seed=7)
    send(impaired.served, client, *[bytes((number, 0)) for number in range(8)])
    impaired.served.turn()
    assert impaired.counted() == {"replied": 6, "lost": 2, "twice": 1, "behind": 1, "flipped": 3}
    # Bit 8 of 16 (0.536), and 13 (0.858), and 0 (0.060); the third leaves behind the fourth.
    expected = [b"\x00\x80", b"\x00\x80", b"\x03\x04", b"\x02\x00", b"\x85\x00", b"\x06\x00", b"\x07\x00"]
    assert received(client, 7) == expected


@pytest.mark.parametrize("train", [False, True])
def test_a_train_has_the_fates_of_single_datagrams(serve: Serve, client: socket.socket, *, train: bool) -> None:
    """One seed, 60 datagrams: what comes back is the same, whether they came as a train or one by one."""
    impaired = serve(loss=0.1, duplicate=0.1, reorder=0.1, corrupt=0.1, seed=11)
    if train:
        send_as_train(impaired.served, client, b"".join(numbered(60)), 8)
    else:
        send(impaired.served, client, *numbered(60))
    impaired.served.turn()
    assert impaired.counted() == {"replied": 55, "lost": 5, "twice": 5, "behind": 7, "flipped": 4}
    order = [0, 1, 3, 5, 4, 6, 7, 7, 11, 11, 8, 9, *range(12, 16), 17, 18, 19, 21, 22, 24, 25, 28, 26, 27, 29, 30, 31]
    order += [33, 32, 34, 34, *range(35, 40), 41, 40, 42, 42, *range(43, 56), *range(55, 60)]
    wrong = {
        number: reply
        for number, reply in zip(order, received(client, 60), strict=True)
        if reply != numbered(60)[number]
    }
    assert list(wrong) == [3, 25, 40, 52]


def test_one_that_is_reordered_waits_for_the_next_turn(serve: Serve, client: socket.socket) -> None:
    """The last of one turn leaves behind the first of the next, before the second. It is held meanwhile."""
    impaired = serve(reorder=0.5, seed=1)  # unharmed are the first, seventh and eighth
    send(impaired.served, client, b"0", b"1", b"2", b"3", b"4", b"5")
    impaired.served.turn()
    assert impaired.counted() == {"replied": 1, "held": 5}
    send(impaired.served, client, b"6", b"7")
    impaired.served.turn()
    assert impaired.counted() == {"replied": 8, "behind": 5}
    assert received(client, 8) == [b"0", b"6", b"1", b"2", b"3", b"4", b"5", b"7"]


def test_one_that_nobody_overtakes_leaves_in_the_end(serve: Serve, client: socket.socket) -> None:
    """After a second and a half, by the timer. It is not counted as one that was overtaken."""
    impaired = serve(reorder=1)
    began = monotonic_ns()
    send(impaired.served, client, b"a", b"b")
    impaired.served.turn()
    assert impaired.counted() == {"held": 2}
    assert_nothing_more(client)
    while impaired.wait():
        pass
    assert monotonic_ns() - began >= 1499 * MS
    assert impaired.counted() == {"replied": 2}
    assert received(client, 2) == [b"a", b"b"]


# -- later


def test_a_datagram_is_delayed(serve: Serve, client: socket.socket) -> None:
    """It leaves when it is due and not before, and is held until then. Its train is taken apart."""
    impaired = serve(delay=50 * MS)
    began = monotonic_ns()
    send(impaired.served, client, b"a")
    send_as_train(impaired.served, client)
    impaired.served.turn()
    assert impaired.counted() == {"held": 11}
    assert_nothing_more(client)
    while impaired.wait():
        pass
    assert monotonic_ns() - began >= 49 * MS
    assert impaired.counted() == {"replied": 11}
    assert received(client, 11) == [b"a", *(b"aa bb cc dd ee ff gg hh ii j".split())]


def test_jitter_gives_each_its_own_delay(serve: Serve, client: socket.socket) -> None:
    """They leave in the order of their delays, which the seed draws."""
    impaired = serve(delay=HOUR, jitter=HOUR // 2, seed=5)
    draw = Random(5).random  # noqa: S311 - no secret
    delays = [[draw() for _ in range(6)][5] for _ in range(10)]
    send(impaired.served, client, *numbered(10))
    impaired.served.turn()
    impaired.echo.flush()
    assert received(client, 10) == [numbered(10)[n] for n in sorted(range(10), key=delays.__getitem__)]


def test_a_link_takes_its_time(serve: Serve, client: socket.socket) -> None:
    """At 80,000 bit/s a byte takes 0.1 ms; with headers of 28 or 48 bytes 72 or 52 bytes take 10 ms, and twice 20."""
    impaired = serve(rate=80_000, duplicate=1)
    began = monotonic_ns()
    payloads = numbered(3, 52 if client.family == socket.AF_INET6 else 72)
    send(impaired.served, client, *payloads)
    impaired.served.turn()
    assert impaired.counted()["held"] == 3
    while impaired.wait():
        pass
    assert monotonic_ns() - began >= 49 * MS
    assert received(client, 6) == [payload for payload in payloads for _ in range(2)]


def test_what_finds_the_queue_full_is_dropped(serve: Serve, client: socket.socket) -> None:
    """Four are held; of what comes then nothing is, and that is reported. Those that leave make room."""
    impaired = serve(delay=HOUR, queue=4)
    send(impaired.served, client, *numbered(3))
    send_as_train(impaired.served, client)
    impaired.served.turn()
    assert impaired.counted() == {"held": 4, "full": 9}
    assert [(each.reason, each.refused) for each in impaired.served.tally.reports()] == [(Drop.IMPAIR_QUEUE, 9)]
    impaired.echo.flush()
    assert received(client, 4) == [*numbered(3), b"aa"]
    send(impaired.served, client, b"x")
    impaired.served.turn()
    assert impaired.counted() == {"replied": 4, "held": 1, "full": 9}


def test_more_is_due_than_one_turn_sends(serve: Serve, client: socket.socket) -> None:
    """A turn sends at most eight vectors of 64, as many as it may receive; the next turn comes at once."""
    impaired = serve(delay=1, duplicate=1)
    payloads = numbered(384)
    for first in range(0, 384, 64):
        send_as_train(impaired.served, client, b"".join(payloads[first : first + 64]), 8)
    impaired.served.turn()
    left = [384, impaired.wait()]
    while left[-1]:
        left.append(impaired.wait())
    assert max(before - after for before, after in pairwise(left)) == 8 * 64 // 2
    assert impaired.counted() == {"replied": 384, "twice": 384}
    assert received(client, 768) == [payload for payload in payloads for _ in range(2)]


# -- the end


def test_in_the_end_what_is_held_leaves_at_once(serve: Serve, client: socket.socket) -> None:
    """In the order in which it is due; the socket closes with the last."""
    impaired = serve(delay=HOUR)
    send(impaired.served, client, *numbered(100))
    impaired.served.turn()
    impaired.echo.drain()
    assert impaired.served.sock.fileno() >= 0
    impaired.echo.flush()
    assert impaired.counted() == {"replied": 100}
    assert received(client, 100) == numbered(100)
    assert impaired.served.sock.fileno() < 0


def test_without_anything_held_a_drain_closes_the_socket(serve: Serve) -> None:
    """At once."""
    impaired = serve(delay=HOUR)
    impaired.echo.drain()
    assert impaired.served.sock.fileno() < 0


def test_while_draining_what_is_held_leaves_when_it_is_due(serve: Serve, client: socket.socket) -> None:
    """And no earlier."""
    impaired = serve(delay=100 * MS)
    began = monotonic_ns()
    send(impaired.served, client, b"a")
    impaired.served.turn()
    impaired.echo.drain()
    while impaired.wait():
        pass
    assert monotonic_ns() - began >= 99 * MS
    assert received(client, 1) == [b"a"]
    assert impaired.served.sock.fileno() < 0


# -- others


@pytest.mark.parametrize("values", [{"loss": 1}, {"delay": HOUR}, {"corrupt": 1, "duplicate": 1, "reorder": 1}])
def test_self_tests_pass(values: dict[str, float]) -> None:
    """They are replied to at once, unchanged, once."""
    with udp_server() as sock, udp_client() as tester, udp_client() as client:
        mark = SelfTest(port=tester.getsockname()[1], secret=bytes(range(32)))
        impaired = Impaired(sock, Impairment(**values), mark)  # type: ignore[arg-type]
        send(impaired.served, client, b"a")
        send(impaired.served, tester, mark.secret)
        send(impaired.served, client, b"b")
        counters = impaired.served.turn()
        assert (counters["replied"], counters["self_test"]) == (1, 1)
        assert_got(tester, bytes(range(32)))
        impaired.close()


@pytest.mark.parametrize("delay", [0, MS])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_what_is_held_keeps_its_control_messages(host: str, delay: int) -> None:
    """A reply reflects DSCP 46 without the ECN that it came with, from the address that was asked; so does a train."""
    level, tos, report = (41, 67, 66) if ":" in host else (0, 1, 13)
    with udp_server("::" if ":" in host else ANY) as sock, udp_client(host) as client:
        report_arrivals(sock, report=True)
        options = ListenerOptions(dscp=REFLECT)
        impaired = Impaired(sock, Impairment(delay=delay, duplicate=1), options=options)
        client.setsockopt(level, tos, 0xB9)
        client.setsockopt(level, report, 1)
        client.connect(impaired.served.address)
        deliver(sock, client.send, b"a")
        deliver(sock, client.sendmsg, [b"bbccd"], [(socket.IPPROTO_UDP, UDP_SEGMENT, (2).to_bytes(2, "little"))])
        impaired.served.turn()
        while len(impaired.echo):
            impaired.wait()
        came = [client.recvmsg(100, 100)[:2] for _ in range(8)]
        assert [data for data, _ in came] == [b"a", b"a", b"bb", b"bb", b"cc", b"cc", b"d", b"d"]
        assert {messages[0][2][0] for _, messages in came} == {0xB8}
        impaired.close()


def test_a_train_is_taken_apart_where_none_can_be_sent(serve: Serve, client: socket.socket) -> None:
    """Its datagrams are single ones when they leave, without a word of a train (else EINVAL)."""
    impaired = serve(delay=1)
    let_trains_fail(impaired.served.sock)
    take_without_checksum(client)
    send_as_train(impaired.served, client)
    impaired.served.turn()
    while len(impaired.echo):
        impaired.wait()
    assert impaired.counted() == {"replied": 10}
    assert received(client, 10) == b"aa bb cc dd ee ff gg hh ii j".split()


@needs_root
def test_one_that_cannot_be_sent_costs_no_other_its_reply(network: None) -> None:
    """There is no route to it (ENETUNREACH). Neither it nor its duplicate is counted as sent."""
    with udp_server() as sock, udp_client() as client:
        impaired = Impaired(sock, Impairment(delay=1, duplicate=1))
        send(impaired.served, client, b"a")
        deliver(sock, inject, impaired.served.address, b"n", source="198.51.100.1", source_port=40_000)
        send(impaired.served, client, b"b")
        impaired.served.turn()
        while impaired.wait():
            pass
        assert impaired.counted() == {"replied": 2, "twice": 2}
        assert impaired.row[UdpField.SEND_FAILED + 4] == 1
        assert received(client, 4) == [b"a", b"a", b"b", b"b"]
        impaired.close()


@needs_root
def test_a_full_send_buffer_fails_all_that_is_due(network: None) -> None:
    """EAGAIN is counted for each datagram, and nothing is sent late. The neighbour never answers ARP."""
    add_link("10.0.0.1/24")
    with udp_server("10.0.0.1") as sock:
        impaired = Impaired(sock, Impairment(delay=1))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        for number in range(30):
            payload = bytes(1000 + number)
            deliver(sock, inject, at(sock), payload, source="10.0.0.77", source_port=40_000)
        impaired.served.turn()
        while impaired.wait():
            pass
        replied = impaired.counted()["replied"]
        assert 0 < replied < 30
        assert impaired.row[UdpField.SEND_FAILED] == 30 - replied
        impaired.close()
