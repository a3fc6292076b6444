"""echod.udp.modes.udpecho_plus: each request comes back with the counters and time stamps of its session (TR-143)."""

import socket
import struct
import time
from collections.abc import Iterator

import pytest
from support.loopback import (
    ANY,
    assert_nothing_more,
    deliver,
    inject,
    ip,
    let_trains_fail,
    needs_root,
    queued_bytes,
    take_without_checksum,
    udp_client,
    udp_server,
)
from support.udp_worker import UdpWorker, send, send_as_train
from support.waiting import wait_until

from echod.admission.selftest import SelfTest
from echod.linux.arrival import report_arrivals
from echod.linux.mmsg_layout import SLOTS
from echod.net.mode import ListenerOptions, Mode
from echod.stats.counters import UdpField
from echod.stats.refusals import Tally
from echod.udp.modes.udpecho_plus import UdpEchoPlus, _microseconds
from echod.udp.service import Reply
from echod.udp.sock import UdpSocket

OPTIONS = ListenerOptions(mode=Mode.UDPECHO_PLUS)
each_family = pytest.mark.parametrize("host", [ANY, "::"])
MOST = 2**32
IP_MTU_DISCOVER, IP_PMTUDISC_DO = 10, 2
BEGAN = time.monotonic_ns()
"""When the daemon of these tests started."""


def serve(sock: socket.socket, began: int = BEGAN, allow: str = "0.0.0.0/0") -> UdpWorker:
    """Serve a socket in this mode; the daemon started at this time of the monotonic clock, in ns."""
    return UdpWorker(sock, allow=allow, options=OPTIONS, mode=lambda _, row, __: UdpEchoPlus(row, began=began).reply)


@pytest.fixture
def served(host: str) -> Iterator[UdpWorker]:
    """Serve a wildcard socket."""
    with udp_server(host) as sock:
        yield serve(sock)


@pytest.fixture
def client(host: str) -> Iterator[socket.socket]:
    """Open a client."""
    with udp_client("::1" if ":" in host else "127.0.0.1") as sock:
        yield sock


def request(number: int, data: bytes = b"") -> bytes:
    """Make a request whose fields of the server are not zero."""
    return struct.pack(">6I", number, 0xAAAAAAAA, 0xBBBBBBBB, 0xCCCCCCCC, 0xDDDDDDDD, 77) + data


def fields(reply: bytes) -> tuple[int, ...]:
    """Return the six numbers of a reply."""
    return struct.unpack(">6I", reply[:24])


def now_us() -> int:
    """Return the clock of the daemon, in microseconds."""
    return (time.monotonic_ns() - BEGAN) // 1000


@each_family
def test_a_request_comes_back_with_counters_and_time_stamps(served: UdpWorker, client: socket.socket) -> None:
    """The numbers of the client and its data stay; the time stamps lie in order between asking and receiving."""
    for number in (1, 2, 3):
        asked = now_us()
        send(served, client, request(number, b"data"))
        served.turn()
        reply = client.recv(100)
        generated, responded, received, replied, failures, iteration = fields(reply)
        assert (generated, responded, failures, iteration, reply[24:]) == (number, number, 0, 77, b"data")
        # Between the wall clock, which stamped the arrival, and this one, a step is possible, and an adjustment is not.
        assert asked - 100 <= received
        assert received <= replied + 100
        assert replied <= now_us()


@each_family
def test_a_datagram_without_room_for_the_fields_is_echoed(served: UdpWorker, client: socket.socket) -> None:
    """23 bytes come back as they were, and count for no session; 24 do not."""
    send(served, client, bytes(range(23)), b"", request(1))
    assert served.turn()["replied"] == 3
    assert client.recv(100) == bytes(range(23))
    assert client.recv(100) == b""
    assert fields(client.recv(100))[:2] == (1, 1)


@each_family
def test_each_client_has_its_own_numbers(served: UdpWorker, host: str) -> None:
    """64 clients in one batch, each of which has asked as often as its number says, and one slot each."""
    clients = [udp_client("::1" if ":" in host else "127.0.0.1") for _ in range(SLOTS)]
    for turn in range(3):
        for number, client in enumerate(clients):
            send(served, client, *(request(turn) for _ in range(1 + number % 3)))
            if number % 20 == 19:
                served.turn()
        served.turn()
    for number, client in enumerate(clients):
        counts = [fields(client.recv(100))[1] for _ in range(3 * (1 + number % 3))]
        assert counts == list(range(1, len(counts) + 1))
        client.close()
    assert served.row[UdpField.RECEIVED] == served.row[UdpField.REPLIED]


@each_family
@pytest.mark.parametrize("size", [24, 25, 26, 28, 32, 1000])
def test_a_train_is_rewritten_datagram_by_datagram(served: UdpWorker, client: socket.socket, size: int) -> None:
    """All have one receive time; a last one that is too short is echoed. The train goes on counting."""
    send(served, client, request(0))
    train = [request(number, bytes(size - 24)) for number in range(1, 8)]
    send_as_train(served, client, b"".join(train) + b"short", size)
    served.turn()
    assert served.row[UdpField.TRAIN_DATAGRAMS] == 8
    replies = [client.recv(2000) for _ in range(9)]
    read = [fields(reply) for reply in replies[:8]]
    assert [each[0] for each in read] == list(range(8))
    assert [each[1] for each in read] == list(range(1, 9))
    assert len({each[2] for each in read[1:]}) == 1
    assert {each[4:] for each in read} == {(0, 77)}
    assert [len(reply) for reply in replies] == [24, *[size] * 7, 5]
    assert replies[8] == b"short"


@each_family
def test_a_train_of_short_datagrams_is_echoed(served: UdpWorker, client: socket.socket) -> None:
    """Whatever their number."""
    send_as_train(served, client, bytes(range(100)), 20)
    served.turn()
    assert b"".join(client.recv(100) for _ in range(5)) == bytes(range(100))


@each_family
def test_trains_and_single_datagrams_share_a_batch(served: UdpWorker, client: socket.socket, host: str) -> None:
    """Each is counted for its own client, in the order of arrival."""
    with udp_client("::1" if ":" in host else "127.0.0.1") as other:
        send(served, client, request(1))
        send_as_train(served, other, request(1) + request(2), 24)
        send(served, client, b"short", request(2))
        send(served, other, request(3))
        served.turn()
        replies = [client.recv(100) for _ in range(3)]
        assert [fields(replies[0])[1], replies[1], fields(replies[2])[1]] == [1, b"short", 2]
        assert [fields(other.recv(100))[1] for _ in range(3)] == [1, 2, 3]


@each_family
def test_the_counts_wrap(host: str) -> None:
    """They are 32 bits wide, as is the clock: here the daemon started 2**32 us before half a second from now."""
    began = time.monotonic_ns() + 500_000_000 - MOST * 1000
    with udp_server(host) as sock, udp_client("::1" if ":" in host else "127.0.0.1") as client:
        served = serve(sock, began)
        seen = []
        while len(seen) < 2 or seen[-2][3] <= seen[-1][3]:
            send(served, client, request(len(seen)))
            served.turn()
            seen.append(fields(client.recv(100)))
        assert (seen[-1][3] - seen[-2][3]) % MOST < 60_000_000
        assert [each[1] for each in seen] == list(range(1, len(seen) + 1))


def test_the_numbers_of_a_session_wrap() -> None:
    """After four milliards of requests they begin anew."""
    made = []

    def mode(_: UdpSocket, row: memoryview, __: Tally) -> Reply:
        made.append(UdpEchoPlus(row, began=BEGAN))
        return made[0].reply

    with udp_server() as sock, udp_client() as client:
        served = UdpWorker(sock, options=OPTIONS, mode=mode)
        send(served, client, request(1))
        served.turn()
        [session] = made[0]._sessions._recent.values()
        session.received, session.failed = 2 * MOST - 1, MOST + 1
        made[0]._failed = True
        send(served, client, request(2))
        served.turn()
        assert [fields(client.recv(100))[1::3] for _ in range(2)] == [(1, 0), (MOST - 1, 1)]


@needs_root
def test_what_could_not_be_sent_is_a_failure_of_its_session(network: None) -> None:
    """It does not count as responded to. The others of the batch do, and their sessions know nothing of it."""
    lost = "198.51.100.1"
    with udp_server(ANY) as sock, udp_client() as client:
        served = serve(sock)
        for number in (1, 2):
            deliver(sock, inject, served.address, request(number), source=lost, source_port=40_000)
            send(served, client, request(number))
        deliver(sock, inject, served.address, request(9), source=lost, source_port=53)
        assert served.turn()["send_failed_enetunreach"] == 2
        assert served.row[UdpField.FAILED_BYTES] == 48
        ip("address", "add", f"{lost}/32", "dev", "lo")
        with udp_client(lost, 40_000) as other:
            send(served, other, request(3))
            send(served, client, request(3))
            served.turn()
            assert fields(other.recv(100))[1::3] == (1, 2)
        assert [fields(client.recv(100))[1::3] for _ in range(3)] == [(1, 0), (2, 0), (3, 0)]


@needs_root
def test_a_train_that_could_not_be_sent_is_as_many_failures(network: None) -> None:
    """Each of its datagrams is one."""
    lost = "198.51.100.1"
    ip("address", "add", f"{lost}/32", "dev", "lo")
    with udp_server(ANY) as sock, udp_client(lost, 40_000) as client:
        served = serve(sock)
        send_as_train(served, client, b"".join(map(request, range(5))) + b"short", 24)
        ip("address", "del", f"{lost}/32", "dev", "lo")
        assert served.turn()["send_failed_enetunreach"] == 6
        assert served.row[UdpField.FAILED_BYTES] == 125
        ip("address", "add", f"{lost}/32", "dev", "lo")
        send(served, client, request(5))
        served.turn()
        assert fields(client.recv(100))[:5:4] == (5, 5)
        assert served.row[UdpField.REPLIED] == 1


@needs_root
def test_what_of_a_train_is_refused_one_by_one_is_a_failure_each(network: None) -> None:
    """The route takes neither the train nor a datagram of it: they are longer than it, and must not be in fragments."""
    with udp_server(ANY) as sock, udp_client() as client:
        served = serve(sock)
        send_as_train(served, client, b"".join(request(number, bytes(900)) for number in range(4)), 924)
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
        ip("link", "set", "lo", "mtu", "600")
        assert served.turn()["send_failed_emsgsize"] == 4
        send(served, client, request(4))
        served.turn()
        assert fields(client.recv(100))[1::3] == (1, 4)


@each_family
def test_a_train_that_the_kernel_refuses_goes_out_in_single_replies(served: UdpWorker, client: socket.socket) -> None:
    """With the numbers that it would have had; nothing has failed."""
    let_trains_fail(served.sock)
    take_without_checksum(client)
    send_as_train(served, client, b"".join(map(request, range(3))), 24)
    served.turn()
    send(served, client, request(3))
    served.turn()
    assert [fields(client.recv(100))[1::3] for _ in range(4)] == [(1, 0), (2, 0), (3, 0), (4, 0)]


@each_family
def test_the_first_and_the_last_arrival_are_noted(served: UdpWorker, client: socket.socket) -> None:
    """In ns since 1970: the first stays, and the last goes on."""
    row = served.row
    assert (row[UdpField.FIRST_AT], row[UdpField.LAST_AT]) == (0, 0)
    before = time.time_ns()
    send(served, client, request(1), b"short")
    served.turn()
    first, last = row[UdpField.FIRST_AT], row[UdpField.LAST_AT]
    assert before - 10**6 <= first <= last <= time.time_ns()
    send(served, client, request(2))
    served.turn()
    assert row[UdpField.FIRST_AT] == first
    assert last <= row[UdpField.LAST_AT] <= time.time_ns()


def test_a_self_test_is_no_arrival() -> None:
    """It comes back as it came, and is in no session; the times are those of others."""
    with udp_server() as sock, udp_client() as client, udp_client() as probe:
        mark = SelfTest(port=probe.getsockname()[1], secret=bytes(range(32)))
        served = UdpWorker(
            sock, options=OPTIONS, self_test=mark, mode=lambda _, row, __: UdpEchoPlus(row, began=BEGAN).reply
        )
        send(served, probe, mark.secret)
        assert served.turn()["self_test"] == 1
        assert probe.recv(100) == mark.secret
        assert served.row[UdpField.FIRST_AT] == 0
        send(served, client, request(1))
        send(served, probe, mark.secret)
        served.turn()
        assert served.row[UdpField.FIRST_AT] == served.row[UdpField.LAST_AT] > 0
        assert (probe.recv(100), fields(client.recv(100))[1]) == (mark.secret, 1)


def test_what_is_refused_is_not_counted() -> None:
    """A client that may not ask has no session and no time; the others of its batch are answered."""
    with udp_server() as sock, udp_client() as client, udp_client("127.0.0.2") as stranger:
        served = UdpWorker(
            sock, allow="127.0.0.1/32", options=OPTIONS, mode=lambda _, row, __: UdpEchoPlus(row, began=BEGAN).reply
        )
        send(served, stranger, request(1))
        assert served.turn()["dropped_access"] == 1
        assert served.row[UdpField.FIRST_AT] == 0
        send(served, stranger, request(2))
        send(served, client, request(1))
        send(served, stranger, request(3))
        send(served, client, request(2))
        assert served.turn()["dropped_access"] == 3
        assert [fields(client.recv(100))[1] for _ in range(2)] == [1, 2]
        assert_nothing_more(stranger)


def test_a_datagram_that_was_not_measured_is_answered() -> None:
    """What was queued before the socket reported arrivals has no receive time: it is the time of the reply."""
    with udp_server() as sock, udp_client() as client:
        client.sendto(request(1), sock.getsockname())
        wait_until(lambda: queued_bytes(sock) > 0, "the datagram in the queue")
        served = serve(sock)
        report_arrivals(sock, report=False)
        asked = now_us()
        served.turn()
        _, responded, received, replied, _, _ = fields(client.recv(100))
        assert responded == 1
        assert asked <= received <= replied <= now_us()


@pytest.mark.parametrize(
    ("offsets", "zero", "micros"),
    [
        ([0, 999, 1000, 999_999_999], 0, [0, 0, 1, 999_999]),
        ([0, 1, 999], 7_999, [7, 8, 8]),
        ([0, 500], -1, [MOST - 1, 0]),
        ([0, 5_000_000_000], 2_000, [2, 5_000_002]),
        ([0, 2**62], 0, [0, 2**62 // 1000 % MOST]),
    ],
)
def test_microseconds_are_whole_and_wrap(offsets: list[int], zero: int, micros: list[int]) -> None:
    """Rounded down, also where times lie seconds apart, or before the daemon started."""
    assert _microseconds(offsets, zero).pack() == b"".join(struct.pack(">II", each, 0) for each in micros)
