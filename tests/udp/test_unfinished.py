"""What a worker had received and not counted is read from its memory when it is gone."""

import os
import signal
import socket
from mmap import mmap
from random import Random

import pytest
from support.loopback import queue, udp_client, udp_server

from echod.linux.mmsg_layout import MEMORY_BYTES, SLOT_BYTES, SLOTS
from echod.udp import reply
from echod.udp.batch import Batch
from echod.udp.sock import UdpSocket
from echod.udp.unfinished import read_unfinished

HOSTS = ["127.0.0.1", "::1"]


def in_a_child(memory: mmap, server: socket.socket, *, replies: int = 0, row: int = 0, counted: int = 0) -> None:
    """Let a process of its own answer so many batches, receive one more, and be killed."""
    child = os.fork()
    if child == 0:
        try:
            batch, port = Batch(memory), UdpSocket(server, row)
            for _ in range(replies):
                batch.receive(port, counted)
                reply.send(batch, port)
            batch.receive(port, counted)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("sizes", [[0], [5], [0] * 3, [1, 0, 1400], [65_507], [8] * SLOTS, [8] * (SLOTS + 9)])
def test_single_datagrams_are_all_found(host: str, sizes: list[int]) -> None:
    """Of every size and number up to a whole vector; what is still queued is not among them."""
    memory = mmap(-1, MEMORY_BYTES)
    with udp_server(host) as server, udp_client(host) as client:
        for size in sizes:
            queue(client, server, bytes(size))
        in_a_child(memory, server, row=3, counted=77)
    found = read_unfinished(memory)
    assert (found.row, found.counted) == (3, 77)
    assert (found.datagrams, found.octets) == (min(len(sizes), SLOTS), sum(sizes[:SLOTS]))


@pytest.mark.parametrize("host", HOSTS)
def test_the_datagrams_of_trains_are_found_one_by_one(host: str) -> None:
    """A train of ten with a short last one, one of two, and a single datagram: thirteen."""
    memory = mmap(-1, MEMORY_BYTES)
    with udp_server(host) as server, udp_client(host) as client:
        queue(client, server, b"aabbccddeeffgghhiij", 2)
        queue(client, server, b"abcd", 2)
        queue(client, server, b"x")
        in_a_child(memory, server)
    found = read_unfinished(memory)
    assert (found.datagrams, found.octets) == (13, 24)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("replies", [1, 2, 5])
def test_nothing_of_an_earlier_batch_is_left(host: str, replies: int) -> None:
    """Neither behind batches that are alike nor behind others: a receive in vain leaves nothing unfinished."""
    memory = mmap(-1, MEMORY_BYTES)
    with udp_server(host) as server, udp_client(host) as client:
        for _ in range(replies * SLOTS):
            queue(client, server, b"alike")
        in_a_child(memory, server, replies=replies)
    assert read_unfinished(memory).datagrams == 0


def test_memory_of_a_worker_that_never_received_holds_nothing() -> None:
    """A worker that dies before its first receive has none, nor has one of which nothing was started."""
    memory = mmap(-1, MEMORY_BYTES)
    assert read_unfinished(memory).datagrams == 0
    Batch(memory)
    assert read_unfinished(memory).datagrams == 0


@pytest.mark.parametrize("seed", range(20))
def test_whatever_a_broken_worker_left_is_within_bounds(seed: int) -> None:
    """No slot holds more than 65,536 bytes, and as many datagrams."""
    memory = mmap(-1, MEMORY_BYTES)
    memory[:] = Random(seed).randbytes(MEMORY_BYTES) if seed else b"\xff" * MEMORY_BYTES  # noqa: S311
    found = read_unfinished(memory)
    assert 0 <= found.datagrams <= SLOTS * SLOT_BYTES
    assert 0 <= found.octets <= SLOTS * SLOT_BYTES
