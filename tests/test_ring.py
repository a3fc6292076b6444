"""One call receives from many streams, and one sends to them, as recv(2) and send(2) of each would."""

import errno
import gc
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from faults.injection import needs_strace

from echod.ring import SLOT_BYTES, STREAMS, Ring

RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds
DECLINED = -errno.EAGAIN

Pair = tuple[socket.socket, socket.socket]
MakePairs = Callable[[int], list[Pair]]


@pytest.fixture
def ring() -> Iterator[Ring]:
    """Make one, and give it back."""
    made = Ring()
    yield made
    made.close()


@pytest.fixture
def pairs() -> Iterator[MakePairs]:
    """Make connected pairs: ours, which never blocks, and theirs. They are closed at the end."""
    with ExitStack() as stack, socket.create_server(("127.0.0.1", 0), backlog=STREAMS) as server:

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


def read(sock: socket.socket, length: int) -> bytes:
    """Read so many bytes, which are there."""
    return sock.recv(length, socket.MSG_WAITALL)


# -- receiving


def test_what_each_sent_lies_in_its_own_slot(ring: Ring, pairs: MakePairs) -> None:
    """In the order that was asked for, with its length; who sent nothing holds up nobody."""
    made = pairs(5)
    for number, (_, theirs) in enumerate(made):
        theirs.sendall(word(number, 100 * number))
    asked = [made[index] for index in (3, 0, 4, 1)]
    assert ring.receive(of(asked)).tolist() == [300, DECLINED, 400, 100]
    assert [bytes(ring.slot(place)[:length]) for place, length in ((0, 300), (2, 400), (3, 100))] == [
        word(3, 300),
        word(4, 400),
        word(1, 100),
    ]
    assert ring.receive(of(made)).tolist() == [DECLINED, DECLINED, 200, DECLINED, DECLINED]


@pytest.mark.parametrize("length", [1, SLOT_BYTES - 1, SLOT_BYTES, SLOT_BYTES + 1, 3 * SLOT_BYTES])
def test_what_has_no_room_stays_in_the_socket(ring: Ring, pairs: MakePairs, length: int) -> None:
    """A receive takes what a slot holds, and no byte is lost or doubled."""
    made = pairs(3)
    for number, (_, theirs) in enumerate(made):
        theirs.sendall(word(number, length))
    got = [b""] * 3
    while any(len(part) < length for part in got):
        received = ring.receive(of(made)).tolist()
        assert received == [min(SLOT_BYTES, length - len(part)) for part in got]
        got = [part + bytes(ring.slot(place)[: received[place]]) for place, part in enumerate(got)]
    assert got == [word(number, length) for number in range(3)]


def test_ends_and_errors_are_their_own(ring: Ring, pairs: MakePairs) -> None:
    """The end is 0, a reset its error, no descriptor another; whoever is beside them is served."""
    made = pairs(5)
    made[0][1].shutdown(socket.SHUT_WR)
    made[1][1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    made[1][1].close()
    descriptors = of(made)
    made[2][0].close()
    for index in (3, 4):
        made[index][1].sendall(b"here")
    assert ring.receive(descriptors).tolist() == [0, -errno.ECONNRESET, -errno.EBADF, 4, 4]
    assert bytes(ring.slot(3)[:4]) == bytes(ring.slot(4)[:4]) == b"here"


def test_nothing_outlives_the_call(ring: Ring, pairs: MakePairs) -> None:
    """What comes after a receive that found nothing is for whoever receives next, by whatever call."""
    made = pairs(2)
    ring.slot(0)[:4] = b"????"
    assert ring.receive(of(made)).tolist() == [DECLINED, DECLINED]
    for _, theirs in made:
        theirs.sendall(b"late")
    assert made[0][0].recv(16) == b"late"
    assert bytes(ring.slot(0)[:4]) == b"????"
    assert ring.receive(of(made[1:])).tolist() == [4]


# -- sending


def test_each_gets_so_many_bytes_of_its_own_slot(ring: Ring, pairs: MakePairs) -> None:
    """To whom nothing is to be sent nothing comes."""
    made = pairs(4)
    for number, (_, theirs) in enumerate(made):
        theirs.sendall(word(number, SLOT_BYTES))
    assert ring.receive(of(made)).tolist() == [SLOT_BYTES] * 4
    assert ring.send(lengths(1, 0, 4096, SLOT_BYTES)).tolist() == [1, 0, 4096, SLOT_BYTES]
    for number, length in ((0, 1), (2, 4096), (3, SLOT_BYTES)):
        assert read(made[number][1], length) == word(number, length)
    for _, theirs in made:
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)


def test_a_peer_that_does_not_read_gets_what_the_kernel_takes(ring: Ring, pairs: MakePairs) -> None:
    """A send may be short, and is declined where nothing goes any more; nobody else waits."""
    (stuck, silent), (_, theirs) = made = pairs(2)
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    silent.sendall(b"s" * SLOT_BYTES)
    theirs.sendall(b"t")
    assert ring.receive(of(made)).tolist() == [SLOT_BYTES, 1]
    said = [0, 0]
    taken = []
    while said[0] != DECLINED:
        said = ring.send(lengths(SLOT_BYTES, 1)).tolist()
        assert said[1] == 1
        assert theirs.recv(2) == b"t"
        taken.append(max(0, said[0]))
    assert any(0 < length < SLOT_BYTES for length in taken)
    assert read(silent, sum(taken)) == b"".join(b"s" * length for length in taken)


def test_a_peer_that_is_gone_is_an_error_and_no_signal(ring: Ring, pairs: MakePairs) -> None:
    """EPIPE is returned; SIGPIPE, which ends a process that does not ignore it, is not raised."""
    raised: list[int] = []
    before = signal.signal(signal.SIGPIPE, lambda number, _: raised.append(number))
    try:
        made = pairs(1)
        made[0][1].sendall(b"word")
        assert ring.receive(of(made)).tolist() == [4]
        made[0][0].shutdown(socket.SHUT_WR)
        assert ring.send(lengths(4)).tolist() == [-errno.EPIPE]
    finally:
        signal.signal(signal.SIGPIPE, before)
    assert raised == []


# -- many, and often


def test_rounds_of_any_size_never_mix(ring: Ring, pairs: MakePairs) -> None:
    """However often both rings have come round, and wherever in them a round begins."""
    made = pairs(STREAMS)
    for number in range(40):
        count = (1, 7, 100, STREAMS - 1, STREAMS)[number % 5]
        asked = made[-count:]
        for place, (_, theirs) in enumerate(asked):
            theirs.sendall(word(1000 * number + place, 1 + (place + number) % 50))
        received = ring.receive(of(asked)).tolist()
        assert received == [1 + (place + number) % 50 for place in range(count)]
        assert ring.send(lengths(*received)).tolist() == received
        for place, (_, theirs) in enumerate(asked):
            assert theirs.recv(64) == word(1000 * number + place, received[place])


def test_the_order_in_which_the_kernel_tells_is_of_no_matter(ring: Ring, pairs: MakePairs) -> None:
    """Some tell first of those that failed; here the last is done first, and told of first."""
    made = pairs(STREAMS)
    ring._receives = memoryview(array("I", reversed(range(STREAMS))))
    for number, (_, theirs) in enumerate(made[:-1]):
        theirs.sendall(word(number, 1 + number))
    assert ring.receive(of(made)).tolist() == [*range(1, STREAMS), DECLINED]
    assert all(bytes(ring.slot(number)[: 1 + number]) == word(number, 1 + number) for number in range(STREAMS - 1))


# -- means


def descriptors() -> int:
    """Return how many this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_it_gives_its_descriptors_back() -> None:
    """Those of its memory go with the memory."""
    gc.collect()
    before = descriptors()
    made = Ring()
    assert descriptors() > before
    made.close()
    del made
    gc.collect()
    assert descriptors() == before


SETS_UP = """
import gc, os
from echod.ring import Ring
gc.collect()
before = len(os.listdir("/proc/self/fd"))
try:
    Ring()
except OSError as error:
    said = error.errno
gc.collect()
assert len(os.listdir("/proc/self/fd")) == before, "a descriptor was left behind"
print(said)
"""

GOES_ON = """
import json, socket
from array import array
from echod.ring import Ring
ring = Ring()
ours, theirs = socket.socketpair()
ours.setblocking(False)
mine, length = memoryview(array("i", [ours.fileno()])), memoryview(array("i", [4]))

def receive():
    try:
        return ring.receive(mine)[0]
    except OSError as error:
        return -error.errno

theirs.sendall(b"word")
said = [receive()]
theirs.sendall(b"more")
said += [receive(), ring.send(length)[0], receive(), ring.send(length)[0]]
print(json.dumps(said), theirs.recv(64).decode())
"""


def run_with(inject: str, program: str, folder: Path) -> str:
    """Run a program with calls that fail as strace(1) is told; return what it printed."""
    command = ["strace", "-f", "-o", str(folder / "trace"), "-e", f"inject={inject}", sys.executable, "-c", program]
    repository = Path(__file__).parents[1]
    surroundings = {**os.environ, "PYTHONPATH": str(repository)}
    done = subprocess.run(command, cwd=repository, env=surroundings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@needs_strace
@pytest.mark.parametrize("call", ["io_uring_setup", "io_uring_enter"])
@pytest.mark.parametrize("error", ["ENOSYS", "EPERM", "ENOMEM"])
def test_a_host_without_it_says_so_and_keeps_nothing(tmp_path: Path, call: str, error: str) -> None:
    """An old kernel, a policy or a lack of memory is an OSError, and leaves no descriptor behind."""
    assert run_with(f"{call}:error={error}", SETS_UP, tmp_path) == str(getattr(errno, error))


@needs_strace
@pytest.mark.parametrize(
    ("failing", "said", "echoed"),
    [
        ("99", [4, 4, 4, DECLINED, 4], "moremore"),
        ("2", [-errno.ENOMEM, 8, 4, DECLINED, 4], "wordword"),
        ("4", [4, 4, DECLINED, DECLINED, 4], "more"),
    ],
    ids=["none", "the first receive", "the first send"],
)
def test_what_the_kernel_did_not_begin_is_never_begun(
    tmp_path: Path, failing: str, said: list[int], echoed: str
) -> None:
    """A receive without means is an error and a send is declined; no later call does what they were to do."""
    told = run_with(f"io_uring_enter:error=ENOMEM:when={failing}", GOES_ON, tmp_path)
    assert told == f"{json.dumps(said)} {echoed}"
