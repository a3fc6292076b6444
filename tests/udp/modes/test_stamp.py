"""echod.udp.modes.stamp: a test packet is reflected as RFC 8762 has it, with the TLVs of RFC 8972."""

import hashlib
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
    needs_root,
    udp_client,
    udp_server,
)
from support.udp_worker import UdpWorker, send, send_as_train

from echod.linux.arrival import report_arrivals
from echod.linux.clock import read_clock
from echod.linux.mmsg_layout import SLOTS
from echod.linux.sockopt import IP_RECVTOS, IP_RECVTTL, IPV6_RECVHOPLIMIT, IPV6_RECVTCLASS
from echod.net.mode import ListenerOptions, Mode
from echod.stats.counters import UdpField
from echod.stats.refusals import Tally
from echod.udp.modes.stamp import Stamp
from echod.udp.service import Reply
from echod.udp.sock import UdpSocket

KEY = b"secret of both"
EPOCH = 2_208_988_800
"""Seconds from 1900 to 1970."""
each_family = pytest.mark.parametrize("host", [ANY, "::"])
TTL, TOS = 9, 0xB9
"""Of requests: DSCP 46, ECN 1."""


def serve(sock: socket.socket, key: bytes = b"", **options: object) -> UdpWorker:
    """Serve a socket in this mode."""
    chosen = ListenerOptions(mode=Mode.STAMP, **options)  # type: ignore[arg-type]
    port = sock.getsockname()[1]
    return UdpWorker(
        sock, options=chosen, mode=lambda _, row, tally: Stamp(row, tally, options=chosen, key=key, port=port).reply
    )


@pytest.fixture
def server(host: str) -> Iterator[socket.socket]:
    """Open a wildcard socket."""
    with udp_server(host) as sock:
        yield sock


@pytest.fixture
def client(host: str) -> Iterator[socket.socket]:
    """Open a client that marks what it sends, and sees how replies arrive."""
    with measured_client(host) as sock:
        yield sock


def measured_client(host: str = ANY) -> socket.socket:
    """Open a client that marks what it sends, and sees how replies arrive."""
    sock = udp_client("::1" if ":" in host else "127.0.0.1")
    if ":" in host:
        level, options = socket.IPPROTO_IPV6, (socket.IPV6_UNICAST_HOPS, socket.IPV6_TCLASS)
        reported: tuple[int, ...] = (IPV6_RECVHOPLIMIT, IPV6_RECVTCLASS)
    else:
        level, options, reported = socket.IPPROTO_IP, (socket.IP_TTL, socket.IP_TOS), (IP_RECVTTL, IP_RECVTOS)
    for option, value in (*zip(options, (TTL, TOS), strict=True), *((option, 1) for option in reported)):
        sock.setsockopt(level, option, value)
    return sock


def receive(client: socket.socket) -> tuple[bytes, int, int]:
    """Receive a reply; return it with its TTL and TOS."""
    data, messages, _, _ = client.recvmsg(65_536, 256)
    ttls, toses = (socket.IP_TTL, socket.IPV6_HOPLIMIT), (socket.IP_TOS, socket.IPV6_TCLASS)
    numbers = {kind: value[0] for level, kind, value in messages if level in (socket.IPPROTO_IP, socket.IPPROTO_IPV6)}
    [ttl] = [value for kind, value in numbers.items() if kind in ttls]
    [tos] = [value for kind, value in numbers.items() if kind in toses]
    return data, ttl, tos


def request(sequence: int, tlvs: bytes = b"", *, ssid: int = 0) -> bytes:
    """Make an unauthenticated request, whose zeros are not zero."""
    return struct.pack(">I8sHH28s", sequence, b"senders!", 0x4123, ssid, b"\xff" * 28) + tlvs


def digest(data: bytes, key: bytes = KEY) -> bytes:
    """Return HMAC-SHA-256 by the definition of RFC 2104, cut to 128 bits."""
    padded = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded) + data).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in padded) + inner).digest()[:16]


def authentic(sequence: int, tlvs: bytes = b"", key: bytes = KEY) -> bytes:
    """Make an authenticated request, whose zeros are not zero."""
    base = struct.pack(">I12s8sHH68s", sequence, b"\xff" * 12, b"senders!", 0x4123, 0, b"\xff" * 68)
    return base + digest(base, key) + tlvs


def ntp(stamp: bytes) -> float:
    """Return the time of a stamp in seconds since 1970."""
    seconds, fraction = struct.unpack(">II", stamp)
    return seconds - EPOCH + fraction / 2**32


def check(reply: bytes, sequence: int, asked: int, *, before: float, ssid: int = 0) -> None:
    """Hold an unauthenticated reply to RFC 8762, 4.3.1: what it copies, what is zero, and what the reflector writes."""
    assert struct.unpack_from(">I", reply) == (sequence,)
    sent, received = ntp(reply[4:12]), ntp(reply[16:24])
    assert before - 0.001 <= received <= sent + 0.001
    assert sent <= time.time() + 0.001
    clock = read_clock()
    [estimate] = struct.unpack_from(">H", reply, 12)
    assert bool(estimate & 0x8000) is clock.synchronized
    assert not estimate & 0x4000
    assert estimate & 0xFF
    assert reply[14:16] == ssid.to_bytes(2, "big")
    assert reply[24:40] == struct.pack(">I8sHH", asked, b"senders!", 0x4123, 0)
    assert reply[40:44] == bytes([TTL, 0, 0, 0])


@each_family
def test_a_stateless_reflector_copies_the_sequence_number(server: socket.socket, client: socket.socket) -> None:
    """All fields are those of RFC 8762, and the reply leaves with a TTL of 255."""
    served, before = serve(server), time.time()
    for sequence in (5, 6, 6):
        send(served, client, request(sequence, ssid=0xABCD if sequence == 5 else 0) + b"")
        served.turn()
        reply, ttl, tos = receive(client)
        assert (len(reply), ttl, tos) == (44, 255, 0)
        check(reply, sequence, sequence, before=before, ssid=0xABCD if sequence == 5 else 0)


@each_family
def test_a_stateful_reflector_counts_the_replies_of_each_session(server: socket.socket, client: socket.socket) -> None:
    """From zero, for each peer, and for each SSID of it."""
    served, before = serve(server, stateful=True), time.time()
    with measured_client(server.getsockname()[0]) as other:
        for sequence in (70, 71, 75):
            send(served, client, request(sequence), request(sequence, ssid=9))
            send(served, other, request(sequence))
            served.turn()
        for number, sequence in enumerate((70, 71, 75)):
            check(receive(client)[0], number, sequence, before=before)
            check(receive(client)[0], number, sequence, before=before, ssid=9)
            check(receive(other)[0], number, sequence, before=before)


@each_family
@pytest.mark.parametrize("stateful", [False, True])
def test_64_clients_share_a_batch(server: socket.socket, host: str, *, stateful: bool) -> None:
    """One slot each, and each has its own reply."""
    served, before = serve(server, stateful=stateful), time.time()
    clients = [measured_client(host) for _ in range(SLOTS)]
    for turn in range(2):
        for number, client in enumerate(clients):
            send(served, client, request(1000 * turn + number))
        assert served.turn()["replied"] == (turn + 1) * SLOTS
        for number, client in enumerate(clients):
            sequence = 1000 * turn + number
            check(receive(client)[0], turn if stateful else sequence, sequence, before=before)
    for client in clients:
        client.close()


@each_family
@pytest.mark.parametrize("stateful", [False, True])
@pytest.mark.parametrize("size", [44, 45, 46, 48, 1000])
def test_a_train_is_reflected_packet_by_packet(
    server: socket.socket, client: socket.socket, size: int, *, stateful: bool
) -> None:
    """A last one that is too short is refused, alone."""
    served, before = serve(server, stateful=stateful), time.time()
    packets = [request(100 + number, bytes(size - 44)) for number in range(8)]
    send_as_train(served, client, b"".join(packets) + request(1)[:43], size)
    counted = served.turn()
    assert (counted["replied"], counted["dropped_malformed"]) == (8, 1)
    for number in range(8):
        reply, ttl, _ = receive(client)
        assert (len(reply), ttl) == (size, 255)
        check(reply, number if stateful else 100 + number, 100 + number, before=before)
        assert reply[44:] == bytes(size - 44)
    assert_nothing_more(client)


@each_family
def test_the_sessions_in_a_train_are_told_apart(server: socket.socket, client: socket.socket) -> None:
    """By their SSID."""
    served = serve(server, stateful=True)
    send_as_train(served, client, b"".join(request(number, ssid=number % 3) for number in range(9)), 44)
    send_as_train(served, client, b"".join(request(number, ssid=2) for number in range(3)), 44)
    served.turn()
    numbers = [struct.unpack_from(">I", receive(client)[0])[0] for _ in range(12)]
    assert numbers == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 4, 5]


@each_family
def test_a_request_that_is_too_short_has_no_reply(server: socket.socket, client: socket.socket) -> None:
    """Of 43 octets, and of 14, which TWAMP-Light would answer with 41; its neighbours have theirs."""
    served = serve(server)
    send(served, client, request(1)[:43], request(2), request(3)[:14], b"", request(4))
    assert served.turn()["dropped_malformed"] == 3
    assert [receive(client)[0][:4] for _ in range(2)] == [b"\0\0\0\2", b"\0\0\0\4"]
    assert_nothing_more(client)


@each_family
def test_a_sender_of_twamp_light_may_be_answered(server: socket.socket, client: socket.socket) -> None:
    """With `short_packets: pad` 41 octets get the 41 that RFC 5357 has; never more than they were, and 40 get none."""
    served, before = serve(server, short_packets="pad"), time.time()
    send(served, client, *(request(size)[:size] for size in (40, 41, 42, 43, 44, 14)))
    assert served.turn()["dropped_malformed"] == 2
    for size in (41, 42, 43, 44):
        reply = receive(client)[0]
        assert len(reply) == size
        check(reply.ljust(44, b"\0"), size, size, before=before)
    assert_nothing_more(client)


@each_family
@pytest.mark.parametrize("size", [41, 42, 43])
@pytest.mark.parametrize("stateful", [False, True])
def test_a_train_of_twamp_light_is_reflected(
    server: socket.socket, client: socket.socket, size: int, *, stateful: bool
) -> None:
    """No packet of it is written beyond its end."""
    served, before, first = serve(server, short_packets="pad", stateful=stateful), time.time(), 0x01020304
    packets = [request(first + number)[:size] for number in range(5)]
    send_as_train(served, client, b"".join(packets) + request(5)[:40], size)
    assert served.turn()["dropped_malformed"] == 1
    for number in range(5):
        reply = receive(client)[0]
        assert len(reply) == size
        check(reply.ljust(44, b"\0"), number if stateful else first + number, first + number, before=before)


def test_a_short_packet_is_never_authentic() -> None:
    """With a key `short_packets: pad` permits nothing."""
    with udp_server() as server, udp_client() as client:
        served = serve(server, KEY, short_packets="pad")
        send(served, client, request(1), authentic(2)[:111], authentic(3))
        assert served.turn()["dropped_malformed"] == 2
        assert client.recv(200)[48:52] == b"\0\0\0\3"


def test_the_clock_is_asked_for_again() -> None:
    """A second later the error estimate is that of then."""
    chosen, made = ListenerOptions(mode=Mode.STAMP), []

    def mode(_: UdpSocket, row: memoryview, tally: Tally) -> Reply:
        made.append(Stamp(row, tally, options=chosen, key=b"", port=1))
        return made[0].reply

    with udp_server() as server, udp_client() as client:
        served = UdpWorker(server, options=chosen, mode=mode)
        send(served, client, request(1))
        served.turn()
        made[0]._estimate = b"ab"
        made[0]._look_at = time.monotonic() + 1000
        send(served, client, request(2))
        served.turn()
        made[0]._look_at = 0.0
        send(served, client, request(3))
        served.turn()
        estimates = [client.recv(100)[12:14] for _ in range(3)]
        assert estimates[1] == b"ab"
        assert b"ab" not in (estimates[0], estimates[2])


@each_family
def test_a_request_that_was_not_measured_is_answered(server: socket.socket, client: socket.socket) -> None:
    """The socket reports nothing yet: TTL 255 and DSCP 0 stand for that, and the reply is not marked."""
    served, before = serve(server, dscp="reflect"), time.time()
    report_arrivals(server, report=False)
    send(served, client, request(1, COS_EF))
    served.turn()
    reply, ttl, tos = receive(client)
    assert (ttl, tos) == (64, 0)
    assert reply[40] == 255
    assert reply[44:] == bytes.fromhex("00040004 b8000000")
    assert before - 0.001 <= ntp(reply[16:24]) <= ntp(reply[4:12]) + 0.001


# -- authenticated


@each_family
def test_an_authenticated_request_has_an_authenticated_reply(server: socket.socket, client: socket.socket) -> None:
    """The fields of RFC 8762, 4.3.2, zeros between them, and the HMAC of 96 octets."""
    served, before = serve(server, KEY, stateful=True), time.time()
    send(served, client, authentic(8), authentic(9))
    served.turn()
    receive(client)
    reply, ttl, _ = receive(client)
    assert (len(reply), ttl) == (112, 255)
    assert reply[:16] == struct.pack(">I12x", 1)
    assert before - 0.001 <= ntp(reply[32:40]) <= ntp(reply[16:24]) + 0.001
    assert reply[26:32] == bytes(6)
    assert reply[40:64] == struct.pack(">8xI12x", 9)
    assert reply[64:80] == struct.pack(">8sH6x", b"senders!", 0x4123)
    assert reply[80:96] == bytes([TTL]) + bytes(15)
    assert reply[96:] == digest(reply[:96])


@each_family
def test_what_does_not_verify_has_no_reply(server: socket.socket, client: socket.socket) -> None:
    """Another key, a changed octet, no HMAC; a session does not count it. 111 octets are malformed."""
    served = serve(server, KEY, stateful=True)
    changed = authentic(3)[:20] + b"x" + authentic(3)[21:]
    send(
        served, client, authentic(1), authentic(2, key=b"x"), changed, request(4).ljust(112, b"\0"), authentic(5)[:111]
    )
    send(served, client, authentic(6))
    counted = served.turn()
    assert (counted["dropped_unauthenticated"], counted["dropped_malformed"], counted["replied"]) == (3, 1, 2)
    assert [receive(client)[0][:4] for _ in range(2)] == [bytes(4), b"\0\0\0\1"]
    assert_nothing_more(client)


@each_family
@pytest.mark.parametrize("forged", [{0}, {1}, {4}, {0, 2, 3}, {0, 1, 2, 3, 4}])
@pytest.mark.parametrize("last", [112, 130])
def test_what_does_not_verify_in_a_train_is_left_out(
    server: socket.socket, client: socket.socket, forged: set[int], last: int
) -> None:
    """The others of the train are answered, with their own length, in their order."""
    served = serve(server, KEY, stateful=True)
    sizes = [130, 130, 130, 130, last]
    packets = [
        authentic(number, bytes(size - 112), key=b"x" if number in forged else KEY) for number, size in enumerate(sizes)
    ]
    send_as_train(served, client, b"".join(packets), 130)
    send(served, client, authentic(9))
    assert served.turn()["dropped_unauthenticated"] == len(forged)
    kept = [number for number in range(5) if number not in forged]
    replies = [receive(client)[0] for _ in range(len(kept) + 1)]
    assert [struct.unpack_from(">I", reply, 48)[0] for reply in replies] == [*kept, 9]
    assert [len(reply) for reply in replies] == [*(sizes[number] for number in kept), 112]
    assert [struct.unpack_from(">I", reply)[0] for reply in replies] == list(range(len(kept) + 1))
    assert all(reply[96:112] == digest(reply[:96]) for reply in replies)
    assert_nothing_more(client)


# -- TLVs

COS_EF = bytes.fromhex("80040004 b8000000")
"""The reply should have DSCP 46."""


def reflected(served: UdpWorker, client: socket.socket, tlvs: bytes) -> tuple[bytes, int]:
    """Return the TLVs of the reply to a request, and the TOS of that reply."""
    send(served, client, request(77, tlvs))
    served.turn()
    reply, ttl, tos = receive(client)
    assert ttl == 255
    return reply[44:], tos


@each_family
@pytest.mark.parametrize(
    ("dscp", "answer", "tos"),
    [
        (None, "00040004 bae50000", 0xB8),
        (46, "00040004 bae40000", 0xB8),
        ("reflect", "00040004 bae40000", 0xB8),
    ],
)
def test_a_dscp_is_given_where_it_is_permitted(
    server: socket.socket, client: socket.socket, dscp: object, answer: str, tos: int
) -> None:
    """By `dscp`: 46 is refused unless that is the value, or reflected. What arrived was 46 with ECN 1."""
    assert reflected(serve(server, dscp=dscp), client, COS_EF) == (bytes.fromhex(answer), tos)


@each_family
def test_a_reply_may_have_another_dscp_than_its_request(server: socket.socket, client: socket.socket) -> None:
    """10 is wanted, and permitted where each is; where none is the reply has that of the request."""
    asked = bytes.fromhex("80040004 28000000")
    assert reflected(serve(server, dscp="reflect"), client, asked) == (bytes.fromhex("00040004 2ae40000"), 0x28)
    assert reflected(serve(server), client, asked) == (bytes.fromhex("00040004 2ae50000"), 0xB8)
    assert reflected(serve(server), client, bytes.fromhex("80040004 00000000")) == (
        bytes.fromhex("00040004 02e40000"),
        0,
    )


@each_family
def test_a_train_has_the_dscp_of_its_first_class_of_service(server: socket.socket, client: socket.socket) -> None:
    """It is one message. A neighbour in the batch keeps its own."""
    served = serve(server, dscp="reflect")
    asked = [bytes.fromhex(f"80040004 {wanted}000000") for wanted in ("28", "28", "00")]
    send_as_train(served, client, b"".join(request(number, each) for number, each in enumerate(asked)), 52)
    send(served, client, request(4))
    served.turn()
    assert [receive(client)[2] for _ in range(4)] == [0x28, 0x28, 0x28, 0xB8]


@each_family
def test_requests_that_came_alone_have_each_the_dscp_that_they_want(
    server: socket.socket, client: socket.socket
) -> None:
    """In one batch."""
    served = serve(server, dscp="reflect")
    send(served, client, *(request(1, bytes.fromhex(f"80040004 {wanted}000000")) for wanted in ("28", "2c", "28")))
    served.turn()
    replies = [receive(client) for _ in range(3)]
    answers = [("00040004 2ae40000", 0x28), ("00040004 2ee40000", 0x2C), ("00040004 2ae40000", 0x28)]
    assert [(data[44:], tos) for data, _, tos in replies] == [(bytes.fromhex(each), tos) for each, tos in answers]


@each_family
def test_a_packet_of_a_train_that_wanted_another_dscp_is_told_so(server: socket.socket, client: socket.socket) -> None:
    """RP is set in its reply. The first asks for none, the second decides; of two trains each has its own."""
    served = serve(server, dscp="reflect")
    padding = "00010004 00000000"
    for values in (("28", "2c", "30", "28"), ("2c", "28", "2c", "2c")):
        asked = ["80010004 00000000", *(f"80040004 {wanted}000000" for wanted in values)]
        train = b"".join(request(number, bytes.fromhex(each)) for number, each in enumerate(asked))
        send_as_train(served, client, train, 52)
    served.turn()
    replies = [receive(client) for _ in range(10)]
    assert [tos for _, _, tos in replies] == [0x28] * 5 + [0x2C] * 5
    answers = [padding, "00040004 2ae40000", "00040004 2ee50000", "00040004 32e50000", "00040004 2ae40000"]
    answers += [padding, "00040004 2ee40000", "00040004 2ae50000", "00040004 2ee40000", "00040004 2ee40000"]
    assert [data[44:] for data, _, _ in replies] == list(map(bytes.fromhex, answers))


@each_family
def test_tlvs_of_all_kinds_are_answered(server: socket.socket, client: socket.socket) -> None:
    """Clock, counters and place are those of this reflector and this session."""
    served = serve(server, stateful=True)
    asked = bytes.fromhex(
        "80030004 00000000 8005000c 00000063 00000000 00000000 80010002 abcd 80020018 00000000 80070010" + "00" * 16
    )
    reflected(served, client, b"")
    port, own = client.getsockname()[1], server.getsockname()[1]
    source = 1 if read_clock().synchronized else 5
    address = "0008" if server.family == socket.AF_INET else "0009"
    packed = socket.inet_pton(server.family, client.getsockname()[0]).ljust(16, b"\0").hex()
    expected = f"00030004 {source:02x}02{source:02x}02 0005000c 00000063 00000002 00000002 00010002 abcd"
    expected += f"00020018 {own:04x} {port:04x} {address}0010 {packed}"
    assert reflected(served, client, asked)[0] == bytes.fromhex(expected)


@each_family
def test_a_destination_is_the_address_that_was_asked(server: socket.socket, client: socket.socket) -> None:
    """Not the wildcard that the socket is bound to."""
    asked = bytes.fromhex("80020018 00000000 80040010" + "00" * 16)
    answer, _ = reflected(serve(server), client, asked)
    assert answer[12:] == socket.inet_pton(server.family, client.getsockname()[0]).ljust(16, b"\0")


@each_family
def test_each_packet_of_a_train_has_its_own_counters(server: socket.socket, client: socket.socket) -> None:
    """Received and replied to, up to that packet."""
    served = serve(server, stateful=True)
    asked = bytes.fromhex("8005000c 00000000 00000000 00000000")
    send_as_train(served, client, b"".join(request(number, asked) for number in range(3)), 60)
    served.turn()
    counters = [struct.unpack(">II", receive(client)[0][52:]) for _ in range(3)]
    assert counters == [(1, 1), (2, 2), (3, 3)]


@each_family
def test_requests_with_tlvs_and_without_share_a_batch(server: socket.socket, client: socket.socket) -> None:
    """What lay in a slot before is no TLV of a shorter request."""
    served = serve(server)
    unknown = bytes.fromhex("00c80002 abcd")
    send(served, client, request(1, unknown), request(2, unknown))
    served.turn()
    send(served, client, request(3), request(4, unknown), request(5, b"\x80\x01\0"), request(6, bytes(6)))
    served.turn()
    answers = [receive(client)[0][44:] for _ in range(6)]
    flagged = bytes.fromhex("80c80002 abcd")
    assert answers == [flagged, flagged, b"", flagged, b"\x80\x01\0", bytes(6)]


@each_family
def test_authenticated_tlvs_are_answered(server: socket.socket, client: socket.socket) -> None:
    """Behind an HMAC of sequence number and TLVs; the reply has one of its own. Without it they are flagged."""
    served = serve(server, KEY, stateful=True)
    asked = bytes.fromhex("80030004 00000000")
    code = digest(struct.pack(">I", 50) + asked)
    send(served, client, authentic(50, asked + bytes.fromhex("80080010") + code), authentic(51, asked))
    served.turn()
    answer = receive(client)[0][112:]
    source = 1 if read_clock().synchronized else 5
    base = bytes.fromhex(f"00030004 {source:02x}02{source:02x}02")
    assert answer == base + bytes.fromhex("00080010") + digest(bytes(4) + base)
    assert receive(client)[0][112:] == bytes.fromhex("20030004 00000000")


@needs_root
def test_what_could_not_be_sent_is_counted_by_its_session(network: None) -> None:
    """Direct measurement tells of it: three requests were received, and the second was replied to."""
    lost, asked = "198.51.100.1", bytes.fromhex("8005000c 00000000 00000000 00000000")
    with udp_server(ANY) as server:
        served = serve(server, stateful=True)
        for number in (1, 2):
            deliver(server, inject, served.address, request(number), source=lost, source_port=40_000)
        assert served.turn()["send_failed_enetunreach"] == 2
        ip("address", "add", f"{lost}/32", "dev", "lo")
        with udp_client(lost, 40_000) as client:
            send(served, client, request(3, asked))
            served.turn()
            assert struct.unpack_from(">II", client.recv(100), 52) == (3, 1)


def test_sessions_wrap() -> None:
    """After four milliards of requests they are numbered from zero again."""
    chosen = ListenerOptions(mode=Mode.STAMP, stateful=True)
    with udp_server() as server, udp_client() as client:
        made = []

        def mode(_: UdpSocket, row: memoryview, tally: Tally) -> Reply:
            made.append(Stamp(row, tally, options=chosen, key=b"", port=1))
            return made[0].reply

        served = UdpWorker(server, options=chosen, mode=mode)
        send(served, client, request(0))
        served.turn()
        [session] = made[0]._sessions._recent.values()
        session.received = 2**32 - 1
        send(served, client, request(1), request(2))
        served.turn()
        assert [client.recv(100)[:4].hex() for _ in range(3)] == ["00000000", "ffffffff", "00000000"]
        assert served.row[UdpField.REPLIED] == 3
