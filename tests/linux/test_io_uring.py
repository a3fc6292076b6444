"""One call receives from many streams, and one sends to them, as recv(2) and send(2) of each would."""

import errno
import fcntl
import os
import select
import signal
import socket
import sys
import termios
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from support.loopback import reset
from support.waiting import wait_until

from echod.linux.io_uring import SLOT_BYTES, SLOTS, IoUring

pytestmark = pytest.mark.timeout(60)  # a ring that waits where it must not waits for ever

DECLINED = -errno.EAGAIN
DEADLINE = 10

Pair = tuple[socket.socket, socket.socket]
MakePairs = Callable[[int], list[Pair]]


@pytest.fixture
def ring() -> Iterator[IoUring]:
    """Make one, and give it back."""
    made = IoUring()
    yield made
    made.close()


@pytest.fixture
def pairs() -> Iterator[MakePairs]:
    """Make connected pairs: ours, which never blocks, and theirs. They are closed at the end."""
    with ExitStack() as stack, socket.create_server(("127.0.0.1", 0), backlog=SLOTS) as server:

        def make(count: int) -> list[Pair]:
            made = []
            for _ in range(count):
                theirs = stack.enter_context(socket.create_connection(server.getsockname()))
                ours = stack.enter_context(server.accept()[0])
                ours.setblocking(False)
                made.append((ours, theirs))
            return made

        yield make


def of(pairs: list[Pair]) -> memoryview:
    """Return our descriptors."""
    return memoryview(array("i", [ours.fileno() for ours, _ in pairs]))


def lengths(*each: int) -> memoryview:
    """Return lengths as the ring takes them."""
    return memoryview(array("i", each))


def word(number: int, length: int) -> bytes:
    """Return what differs from every other number's at every place."""
    return (b"%06d." % number * (length // 7 + 1))[:length]


def describe(pair: Pair, words: bytes) -> None:
    """Send to us, and wait until it is there."""
    ours, theirs = pair

    def pending() -> int:
        return int.from_bytes(fcntl.ioctl(ours, termios.FIONREAD, bytes(4)), sys.byteorder)

    expected = pending() + len(words)
    theirs.sendall(words)
    wait_until(lambda: pending() == expected, "what was sent had come")


def has_ended(sock: socket.socket) -> None:
    """Wait until the kernel knows that a peer is gone."""
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    assert poll.poll(1000 * DEADLINE)


def read(sock: socket.socket, length: int) -> bytes:
    """Read so many bytes, which come."""
    return sock.recv(length, socket.MSG_WAITALL)


# -- receiving


def test_what_each_sent_lies_in_its_own_slot(ring: IoUring, pairs: MakePairs) -> None:
    """In the order that was asked for, with its length; who sent nothing holds up nobody."""
    made = pairs(5)
    for number, pair in enumerate(made):
        describe(pair, word(number, 100 * number))
    asked = [made[index] for index in (3, 0, 4, 1)]
    assert ring.receive(of(asked)).tolist() == [300, DECLINED, 400, 100]
    assert [bytes(ring.slot(place)[:length]) for place, length in ((0, 300), (2, 400), (3, 100))] == [
        word(3, 300),
        word(4, 400),
        word(1, 100),
    ]
    assert ring.receive(of(made)).tolist() == [DECLINED, DECLINED, 200, DECLINED, DECLINED]


@pytest.mark.parametrize("length", [1, SLOT_BYTES - 1, SLOT_BYTES, SLOT_BYTES + 1, 3 * SLOT_BYTES])
def test_what_has_no_room_stays_in_the_socket(ring: IoUring, pairs: MakePairs, length: int) -> None:
    """A receive takes what a slot holds, and no byte is lost or doubled."""
    made = pairs(3)
    for number, pair in enumerate(made):
        describe(pair, word(number, length))
    got = [b""] * 3
    while any(len(part) < length for part in got):
        received = ring.receive(of(made)).tolist()
        assert received == [min(SLOT_BYTES, length - len(part)) for part in got]
        got = [part + bytes(ring.slot(place)[: received[place]]) for place, part in enumerate(got)]
    assert got == [word(number, length) for number in range(3)]


def test_ends_and_errors_are_their_own(ring: IoUring, pairs: MakePairs) -> None:
    """The end is 0, a reset its error, no descriptor another; whoever is beside them is served."""
    made = pairs(5)
    made[0][1].shutdown(socket.SHUT_WR)
    reset(made[1][1])
    for ours, _ in made[:2]:
        has_ended(ours)
    asked = of(made)
    made[2][0].close()
    for pair in made[3:]:
        describe(pair, b"here")
    assert ring.receive(asked).tolist() == [0, -errno.ECONNRESET, -errno.EBADF, 4, 4]
    assert bytes(ring.slot(3)[:4]) == bytes(ring.slot(4)[:4]) == b"here"


def test_a_descriptor_is_nobodys_after_the_call(ring: IoUring, pairs: MakePairs) -> None:
    """Closed, it ends for the peer at once, and its number may be that of another connection."""
    (ours, theirs), other = made = pairs(2)
    assert ring.receive(of(made)).tolist() == [DECLINED, DECLINED]
    number = ours.detach()
    os.close(number)
    assert theirs.recv(1) == b""
    with socket.socket(fileno=os.dup2(other[0].fileno(), number)) as again:
        describe(other, b"other")
        assert ring.receive(of([(again, other[1])])).tolist() == [5]
    assert bytes(ring.slot(0)[:5]) == b"other"


def test_what_came_stays_until_the_next_receive(ring: IoUring, pairs: MakePairs) -> None:
    """However much is sent of it, and whatever comes meanwhile; the results stay until the next call."""
    made = pairs(2)
    slots = [ring.slot(place) for place in range(2)]
    for pair, words in zip(made, (b"first", b"second"), strict=True):
        describe(pair, words)
    received = ring.receive(of(made))
    describe(made[0], b"third")
    for _ in range(2):
        assert received.tolist() == [5, 6]
        assert ring.send(received).tolist() == [5, 6]
    assert [read(made[0][1], 10), read(made[1][1], 12)] == [b"firstfirst", b"secondsecond"]
    assert [bytes(slot[:6]) for slot in slots] == [b"first\0", b"second"]
    assert ring.receive(of(made)).tolist() == [5, DECLINED]
    assert [bytes(slot[:6]) for slot in slots] == [b"third\0", b"second"]


# -- sending


def test_each_gets_so_many_bytes_of_its_own_slot(ring: IoUring, pairs: MakePairs) -> None:
    """To whom nothing is to be sent nothing comes."""
    made = pairs(4)
    for number, pair in enumerate(made):
        describe(pair, word(number, SLOT_BYTES))
    assert ring.receive(of(made)).tolist() == [SLOT_BYTES] * 4
    assert ring.send(lengths(1, 0, 4096, SLOT_BYTES)).tolist() == [1, 0, 4096, SLOT_BYTES]
    for number, length in ((0, 1), (2, 4096), (3, SLOT_BYTES)):
        assert read(made[number][1], length) == word(number, length)
    for _, theirs in made:
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)


def test_a_peer_that_does_not_read_gets_what_the_kernel_takes(ring: IoUring, pairs: MakePairs) -> None:
    """A send may be short, and is declined where nothing goes any more; nobody else waits."""
    (stuck, silent), (_, theirs) = made = pairs(2)
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    describe(made[0], b"s" * SLOT_BYTES)
    describe(made[1], b"t")
    assert ring.receive(of(made)).tolist() == [SLOT_BYTES, 1]
    printed = [0, 0]
    taken = []
    while printed[0] != DECLINED:
        printed = ring.send(lengths(SLOT_BYTES, 1)).tolist()
        assert printed[1] == 1
        assert theirs.recv(2) == b"t"
        taken.append(max(0, printed[0]))
    assert any(0 < length < SLOT_BYTES for length in taken)
    assert read(silent, sum(taken)) == b"".join(b"s" * length for length in taken)


def test_a_peer_that_is_gone_is_an_error_and_no_signal(ring: IoUring, pairs: MakePairs) -> None:
    """EPIPE is returned; SIGPIPE, which ends a process that does not ignore it, is not raised."""
    raised: list[int] = []
    before = signal.signal(signal.SIGPIPE, lambda number, _: raised.append(number))
    try:
        made = pairs(1)
        describe(made[0], b"word")
        assert ring.receive(of(made)).tolist() == [4]
        made[0][0].shutdown(socket.SHUT_WR)
        assert ring.send(lengths(4)).tolist() == [-errno.EPIPE]
    finally:
        signal.signal(signal.SIGPIPE, before)
    assert raised == []


# -- many, and often


def test_rounds_of_any_size_never_mix(ring: IoUring, pairs: MakePairs) -> None:
    """However often both rings have come round, and wherever in them a round begins."""
    made = pairs(SLOTS)
    for number in range(40):
        count = (1, 7, 100, SLOTS - 1, SLOTS)[number % 5]
        asked = made[-count:]
        for place, pair in enumerate(asked):
            describe(pair, word(1000 * number + place, 1 + (place + number) % 50))
        received = ring.receive(of(asked))
        due = [1 + (place + number) % 50 for place in range(count)]
        assert received.tolist() == due
        assert ring.send(received).tolist() == due
        for place, (_, theirs) in enumerate(asked):
            assert theirs.recv(64) == word(1000 * number + place, due[place])


def test_the_order_in_which_the_kernel_tells_is_of_no_matter(ring: IoUring, pairs: MakePairs) -> None:
    """Some report first those that failed; here the last is done first, and reported first."""
    made = pairs(SLOTS)
    ring._receives = memoryview(array("I", reversed(range(SLOTS))))
    for number, pair in enumerate(made[:-1]):
        describe(pair, word(number, 1 + number))
    assert ring.receive(of(made)).tolist() == [*range(1, SLOTS), DECLINED]
    assert all(bytes(ring.slot(number)[: 1 + number]) == word(number, 1 + number) for number in range(SLOTS - 1))


def test_what_the_kernel_stopped_at_is_left_for_the_next(ring: IoUring, pairs: MakePairs) -> None:
    """It begins none behind an entry that it has no sense for: those are declined, and not begun later."""
    made = pairs(5)
    for pair in made:
        describe(pair, b"one")
    third = 2 * 64  # bytes of an entry, of which the opcode is the first
    opcode, ring._entries[third] = ring._entries[third], 255
    assert ring.receive(of(made)).tolist() == [3, 3, -errno.EINVAL, DECLINED, DECLINED]
    ring._entries[third] = opcode
    assert ring.receive(of(made[:1])).tolist() == [DECLINED]
    assert ring.receive(of(made)).tolist() == [DECLINED, DECLINED, 3, 3, 3]
