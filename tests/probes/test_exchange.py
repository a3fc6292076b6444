"""echod.probes.exchange, detection and reveal: one request, and what its reply means."""

import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from support.loopback import at, udp_client, udp_server
from support.ports import free_port
from support.probing import MILLISECOND, SECOND, settings, target_at

from echod.net.mode import Mode
from echod.probes.detection import detect, recognize
from echod.probes.exchange import TRIES, Answer, exchange
from echod.probes.reveal import Revealed, reveal
from echod.probes.settings import SocketSettings
from echod.probes.sockets import open_probe_socket
from echod.probes.udp import UdpTransport

REQUEST = bytes.fromhex("01020304 e8fe6f80 40000000 2010 0000" + "00" * 28)
PLUS = bytes.fromhex("01020304 00000001 00000002 00000003 00000000" + "00" * 24)
STAMP = bytes.fromhex(
    "00000000 e8fe6f80 80000000 8001 0000 e8fe6f80 60000000 01020304 e8fe6f80 40000000 2010 0000 40000000"
)


@pytest.mark.parametrize(
    ("reply", "mode"),
    [
        (REQUEST, Mode.ECHO),
        (PLUS, Mode.UDPECHO_PLUS),
        (STAMP, Mode.STAMP),
        (STAMP[:41], Mode.STAMP),
        (b"", None),
        (REQUEST[:43], None),
        (PLUS[:43], None),
        (STAMP[:24], None),
        (b"\1" + PLUS[1:-1] + b"\1", None),
        (b'{"peer":"192.0.2.1"}'.ljust(44), None),
    ],
)
def test_each_responder_changes_a_stamp_packet_in_its_own_way(reply: bytes, mode: Mode | None) -> None:
    """An echo does not; UDPEchoPlus writes at 4 to 19; a reflector returns number and time at 24 to 35."""
    assert recognize(REQUEST, reply) is mode


@contextmanager
def transports(port: int, count: int = 1) -> Iterator[list[UdpTransport]]:
    """Open transports to a port of 127.0.0.1."""
    target = target_at(f"127.0.0.1:{port}")
    with ExitStack() as stack:
        socks = [stack.enter_context(open_probe_socket(target, SocketSettings())) for _ in range(count)]
        yield [UdpTransport(sock, target, index) for index, sock in enumerate(socks)]


@contextmanager
def serving(replies: Callable[[bytes, int], list[bytes]]) -> Iterator[tuple[socket.socket, list[bytes]]]:
    """Serve a port in a thread: each request, and its number, has these replies. Return what came too."""
    came: list[bytes] = []
    with udp_server() as server, udp_client() as other:
        ends, end = socket.socketpair()

        def serve() -> None:
            while server in select.select([server, ends], [], [])[0]:
                data, peer = server.recvfrom(2048)
                came.append(data)
                other.sendto(b"of another", peer)
                for reply in replies(data, len(came)):
                    server.sendto(reply, peer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server, came
        finally:
            end.close()
            thread.join()
            ends.close()


def test_a_request_is_sent_again_until_a_reply_means_something() -> None:
    """To each source port; what comes from another port is no reply."""
    with serving(lambda data, number: [b"nothing"] if number < 3 else [data]) as (server, came):
        with transports(at(server)[1], 2) as asked:
            found = exchange(asked, b"what", lambda reply: reply if reply != b"nothing" else None, timeout=SECOND)
        assert found == [Answer(b"what", ""), Answer(b"what", "")]
        assert set(came) == {b"what"}
        assert 4 <= len(came) <= 2 * TRIES


def test_without_a_reply_the_reason_is_known() -> None:
    """Silence is after so many tries; an error ends them."""
    with udp_server() as silent, transports(at(silent)[1]) as asked:
        assert exchange(asked, b"what", bytes, timeout=20 * MILLISECOND) == [Answer(None, "no reply")]
        assert [silent.recv(10) for _ in range(TRIES)] == [b"what"] * 3
    with transports(free_port()) as asked:
        assert exchange(asked, b"what", bytes, timeout=SECOND) == [Answer(None, "port unreachable")]
    with transports(free_port()) as asked:
        assert exchange(asked, bytes(65_508), bytes, timeout=SECOND)[0].reason == "needs fragmentation"


def test_a_reply_that_means_nothing_is_told_from_none() -> None:
    """With the reason of the caller; an error that comes too is the better one."""
    with serving(lambda _data, _number: [b"nothing"]) as (server, came), transports(at(server)[1]) as asked:
        found = exchange(asked, b"what", lambda _: None, timeout=50 * MILLISECOND, unread="nothing of use")
        assert (found, came) == ([Answer(None, "nothing of use")], [b"what"] * TRIES)
    with udp_server() as silent, transports(at(silent)[1]) as asked:
        found = exchange(asked, b"what", lambda _: None, timeout=MILLISECOND, unread="nothing of use")
        assert found == [Answer(None, "no reply")]


def test_a_server_is_recognized_by_its_reply() -> None:
    """One that does not reply is not."""
    with serving(lambda data, _: [data]) as (server, _):
        assert detect(target_at(f"127.0.0.1:{at(server)[1]}"), settings()) is Mode.ECHO
    with serving(lambda data, _: [data[:4] + bytes(15) + b"\1" + data[20:]]) as (server, _):
        assert detect(target_at(f"127.0.0.1:{at(server)[1]}"), settings()) is Mode.UDPECHO_PLUS
    assert detect(target_at(f"127.0.0.1:{free_port()}"), settings(timeout=20 * MILLISECOND)) is None


def test_what_the_server_saw_is_compared_with_what_was_sent() -> None:
    """Another address or another port is a translation."""

    def saw(peer: str, port: int) -> list[bytes]:
        text = (
            f'{{"peer":"{peer}","peer_port":{port},"local":"127.0.0.1","local_port":7,"ttl":64,"dscp":0,"ecn":0,'
            '"length":384,"interface":"lo","received_ns":5,"train":1}'
        )
        return [text.encode().ljust(384)]

    with serving(lambda _, number: saw("192.0.2.1" if number == 1 else "127.0.0.1", 40_000 + number)) as (server, came):
        target = target_at(f"127.0.0.1:{at(server)[1]}")
        one = reveal(target, settings(source_ports=2))
    assert {len(data) for data in came} == {384}
    assert [each.address for each in one] == ["127.0.0.1"] * 2
    seen = [each.seen for each in one]
    assert {found.peer_port for found in seen if found} == {40_001, 40_002}
    assert [each.translated for each in one] == [True, True]
    assert not Revealed(address="127.0.0.1", port=7, seen=None, reason="no reply").translated
