"""Every datagram that a UDP socket receives ends in exactly one counter."""

import socket
from collections.abc import Callable, Iterator
from itertools import count

import pytest
from support.loopback import ANY, assert_got, at, deliver, inject, needs_root, poison, queue, udp_client, udp_server
from support.udp_worker import UdpWorker, send

from echod.linux.mmsg_layout import SLOTS
from echod.stats.counters import UdpField
from echod.udp.batch import Batch
from echod.udp.service import MAX_BATCHES_PER_WAKEUP, PASSED_OVER, WORTH_ANOTHER_LOOK
from echod.udp.sock import UdpSocket

CLIENT = 40_000

IP_RECVORIGDSTADDR = 20  # linux/in.h


@pytest.fixture
def served() -> Iterator[UdpWorker]:
    """Serve on a wildcard socket."""
    with udp_server(ANY) as sock:
        yield UdpWorker(sock)


@needs_root
def test_mixed_traffic_is_counted_to_the_last_datagram(network: None) -> None:
    """Each kind of datagram ends in its own number, and the numbers add up, to the byte."""
    with udp_server(ANY) as server, udp_client() as client:
        served = UdpWorker(server)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        to, own = served.address, served.address[1]
        for number in range(3):
            queue(client, server, b"goo%d" % number, host=to[0])
            queue(client, server, b"aabb%d" % number, 2, host=to[0])
            deliver(server, poison, to, b"zero")
            deliver(server, inject, to, b"own", source_port=own)
            queue(client, server, b"all", host="127.255.255.255")
            queue(client, server, b"ddeef", 2, host="127.255.255.255")
            deliver(server, inject, to, b"low", source_port=9)
            deliver(server, inject, to, b"listed", source_port=1900)
            deliver(server, inject, to, b"limite%d" % number, source="255.255.255.255", source_port=CLIENT)
            deliver(server, inject, to, b"directe%d" % number, source="127.255.255.255", source_port=CLIENT)
            deliver(server, inject, to, b"nowher%d" % number, source="198.51.100.1", source_port=CLIENT)
        assert served.turn() == {
            "received": 45,
            "received_bytes": 3 * (4 + 5 + 4 + 3 + 3 + 5 + 3 + 6 + 7 + 8 + 7),
            "replied": 12,
            "replied_bytes": 3 * (4 + 5),
            "dropped_destination_not_unicast": 12,
            "dropped_source_port_zero": 3,
            "dropped_source_port_own": 3,
            "dropped_source_port_low": 3,
            "dropped_source_port_refused": 3,
            "dropped_source_invalid": 3,
            "send_failed_eacces": 3,
            "send_failed_enetunreach": 3,
        }
        assert_got(client, *(data for n in (b"0", b"1", b"2") for data in (b"goo" + n, b"aa", b"bb", n)))


@needs_root
def test_what_is_truncated_is_dropped_as_such(network: None) -> None:
    """A datagram that came without its addresses is dropped, not answered, and the next is answered."""
    with udp_server(ANY) as server, udp_client() as client:
        served = UdpWorker(server)
        server.setsockopt(socket.IPPROTO_IP, IP_RECVORIGDSTADDR, 1)
        deliver(server, inject, served.address, b"odd", source="198.51.100.1", source_port=CLIENT)
        assert served.turn()["dropped_truncated"] == 1
        server.setsockopt(socket.IPPROTO_IP, IP_RECVORIGDSTADDR, 0)
        send(served, client, b"even")
        assert served.turn()["replied"] == 1
        assert_got(client, b"even")


@needs_root
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_datagram_from_our_own_address_and_port_is_not_answered(host: str) -> None:
    """Answered, it would come back for ever; dropped, nothing is queued after it."""
    with udp_server(host) as server:
        served = UdpWorker(server)
        deliver(server, inject, at(server), b"again and again", source_port=at(server)[1])
        assert served.turn()["dropped_source_port_own"] == 1
        assert served.turn()["received"] == 1


@needs_root
def test_one_turn_answers_at_most_so_many_batches(served: UdpWorker, client: socket.socket) -> None:
    """A flood on one socket leaves the loop after eight batches; the rest is answered in later turns."""
    most = MAX_BATCHES_PER_WAKEUP * SLOTS
    numbers = [b"%d" % number for number in range(most + 70)]
    send(served, client, *numbers)
    assert served.turn()["replied"] == most
    assert served.turn()["replied"] == most + 70
    assert_got(client, *numbers)


@pytest.mark.parametrize("count", [1, SLOTS - 1, SLOTS, SLOTS + 1, 3 * SLOTS])
def test_a_full_batch_is_followed_by_another(served: UdpWorker, client: socket.socket, count: int) -> None:
    """One turn answers all that is queued, also where it fills batches exactly."""
    send(served, client, *(b"%3d" % number for number in range(count)))
    octets = 3 * count
    row = {"received": count, "received_bytes": octets, "replied": count, "replied_bytes": octets}
    assert served.turn() == row


class Counted(Batch):
    """A batch that counts the receives, and has the client ask again before so many of those that follow an answer."""

    looks = 0
    again: list[Callable[[], object]]
    answered = False

    def receive(self, port: UdpSocket, counted: int = 0) -> int:
        """Count it, and let the next question come after the last one was answered."""
        self.looks += 1
        if self.answered and self.again:
            self.again.pop()()
        slots = super().receive(port, counted)
        self.answered = slots > 0
        return slots


def test_behind_few_there_is_another_look_where_the_last_one_paid(server: socket.socket, client: socket.socket) -> None:
    """One look in vain, and the next small batches have none; one that finds something is followed by another."""
    batch = Counted()
    batch.again = []
    served = UdpWorker(server, batch=batch)

    numbers = count()

    def ask() -> None:
        queue(client, server, b"%d" % next(numbers))

    def looks(*, again: int = 0, first: int = 1) -> int:
        before = batch.looks
        batch.again, batch.answered = [ask] * again, False
        for _ in range(first):
            ask()
        assert served.turn()["replied"] == served.row[UdpField.RECEIVED]
        assert len([client.recv(16) for _ in range(first + again)]) == first + again
        return batch.looks - before

    assert [looks() for _ in range(PASSED_OVER + 2)] == [2, *[1] * PASSED_OVER, 2]
    assert looks(first=WORTH_ANOTHER_LOOK) == 2
    for _ in range(PASSED_OVER):
        looks()
    assert looks(again=3) == 5


def test_a_turn_with_nothing_queued_counts_nothing(served: UdpWorker) -> None:
    """Another worker may have been faster at a shared socket."""
    assert sum(served.turn().values()) == 0
