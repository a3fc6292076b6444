"""A generation receives what its real workers send, sends them what they need, and outlives them."""

import ctypes
import os
import resource
import signal
from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv6Network
from pathlib import Path

import pytest
from structlog.typing import EventDict
from support.counter_pages import summed
from support.daemon import children
from support.limited_poll import LimitedPoll
from support.loopback import BUFFERS, as_nobody, listener, needs_root
from support.ports import free_port
from support.waiting import wait_until

from echod.config.schema import Config
from echod.config.socket_unit import units_of
from echod.linux.netlink import MAX_OWN
from echod.net.listener import Protocol
from echod.stats.counters import TcpField, UdpField
from echod.stats.totals import Totals
from echod.supervisor.generation import Generation
from echod.supervisor.listening import ListeningSockets
from echod.supervisor.observer import Observer
from echod.supervisor.refusal_log import RefusalLog
from echod.supervisor.timers import Timers
from echod.supervisor.worker_process import WorkerExit
from echod.worker.worker import Worker


class GenerationByHand:
    """A generation whose loop is turned by hand."""

    def __init__(self) -> None:
        """Give it two workers and a listener of each protocol; none is started."""
        self.poll = LimitedPoll()
        self.listening = ListeningSockets(units_of(""))
        wanted = (
            listener(port=free_port()),
            listener(port=free_port(), protocol=Protocol.TCP),
        )
        self.listening.commit(self.listening.acquire(wanted, workers=2, buffers=BUFFERS))
        self.timers, self.restarts = Timers(), Counter[int]()
        self.observer = Observer(self.listening, Totals(), RefusalLog(), self.restarts, 0.0)
        self.generation = Generation(
            1,
            Config(),
            self.listening.sockets,
            workers=2,
            poll=self.poll,
            timers=self.timers,
            observer=self.observer,
            restarts=self.restarts,
            self_test=None,
            account=None,
            keys={},
            began=0,
        )
        self.now = 100.0
        """The time at which workers start and are reaped."""

    def turn(self) -> None:
        """Do one turn of the supervisor's loop."""
        for on_ready in self.poll.wait(0.01):
            on_ready(0.0)

    def serve(self) -> None:
        """Have both workers serve."""
        self.generation.start_workers(self.now)
        self.turn_until_ready()
        self.generation.serve()

    def turn_until_ready(self) -> None:
        """Wait until both workers have reported ready."""
        wait_until(lambda: (self.turn(), self.generation.ready)[1], "the workers ready")

    def exits(self) -> list[WorkerExit]:
        """Reap who has exited."""
        return self.generation.reap(self.now, stopping=False)

    def reap(self) -> str:
        """Wait for an exit; return its reason."""
        return wait_until(lambda: (self.turn(), self.exits())[1], "an exit")[0].reason


@pytest.fixture
def by_hand() -> Iterator[GenerationByHand]:
    """Make a generation; end what is left of it."""
    by_hand = GenerationByHand()
    yield by_hand
    by_hand.generation.kill()
    wait_until(lambda: (by_hand.exits(), by_hand.generation.gone)[1], "its workers gone")
    by_hand.listening.commit(by_hand.listening.acquire((), workers=1, buffers=BUFFERS))
    by_hand.poll.close()


@pytest.mark.parametrize(
    "message",
    [
        b"nonsense",
        b"\xff",
        b"{}",
        b'[99,1,1,{"192.0.2.1":1},false]',
        b'[-1,1,1,{"192.0.2.1":1},false]',
        b'[0,250,1,{"192.0.2.1":1},false]',
        b"[0,1,1,{},false]",
        b'[0,1,1,{"a\\nb":1},false]',
        b'[0,1,1,{"192.0.2.1":"x"},false]',
        b"t[1]",
        b"t",
    ],
)
def test_a_worker_that_sends_nonsense_is_ended_and_nothing_else(
    by_hand: GenerationByHand, log: list[EventDict], monkeypatch: pytest.MonkeyPatch, message: bytes
) -> None:
    """Whatever it sends, it is killed, that is logged once, and another can take its place."""

    def babble(self: Worker, now: float) -> float:
        for _ in range(3):
            self._channel.send(message)
        return now + 100.0

    monkeypatch.setattr(Worker, "_on_deadline", babble)
    slot, *_ = by_hand.generation.workers
    by_hand.generation.start_worker(slot, 0.0)
    assert by_hand.reap() == "killed by SIGKILL"
    assert [entry["event"] for entry in log] == ["worker_started", "worker_protocol_error", "worker_exited"]
    monkeypatch.undo()
    by_hand.serve()


@pytest.mark.parametrize("place", [UdpField.REPLIED, UdpField.INTERRUPTED, UdpField.RECEIVED_BYTES])
def test_a_worker_that_scribbles_on_its_counters_is_ended_and_nothing_else(
    by_hand: GenerationByHand, log: list[EventDict], place: UdpField
) -> None:
    """The supervisor goes on: it keeps the last good numbers, logs one entry, and another worker takes the place."""
    by_hand.serve()
    page, observer, number = by_hand.generation.page, by_hand.observer, 1
    (udp,) = (each for each in page.listeners if each.protocol is Protocol.UDP)
    page.row(number, udp)[UdpField.RECEIVED] = page.row(number, udp)[UdpField.REPLIED] = 9
    observer.look(page.listeners, [page], (), 1.0)
    page.row(number, udp)[place] = 2**64 - 1
    observer.look(page.listeners, [page], (), 2.0)
    assert summed(page)[udp][UdpField.REPLIED] == 9
    by_hand.generation.catch_up()
    assert by_hand.reap() == "killed by SIGKILL"
    (entry,) = [entry for entry in log if entry["event"] == "worker_miscounted"]
    assert entry["worker"] == number + 1
    assert summed(page)[udp][:5] == [9, 0, 9, 0, 0]
    by_hand.generation.start_worker(by_hand.generation.workers[number], 3.0)
    by_hand.turn_until_ready()


def test_a_worker_that_scribbled_just_before_its_death_is_settled(
    by_hand: GenerationByHand, log: list[EventDict]
) -> None:
    """Nobody had looked in between; its numbers are those of the last look all the same."""
    by_hand.serve()
    page, slot = by_hand.generation.page, by_hand.generation.workers[0]
    for each in page.listeners:
        page.row(0, each)[UdpField.SEND_FAILED] = page.row(0, each)[TcpField.CLOSED + 1] = 5
    slot.kill()
    assert by_hand.reap() == "killed by SIGKILL"
    assert [entry["event"] for entry in log].count("worker_miscounted") == 1
    assert not any(map(sum, summed(page).values()))


def test_a_worker_has_the_vector_of_no_other(by_hand: GenerationByHand) -> None:
    """The mappings of others are not in its address space: it can break its own batches alone."""
    by_hand.serve()
    starts = [ctypes.addressof(ctypes.c_char.from_buffer(worker.vector)) for worker in by_hand.generation.workers]
    inodes = [shared_mappings("self")[start] for start in starts]  # an address may be another mapping's elsewhere
    for slot in by_hand.generation.workers:
        mapped = shared_mappings(str(slot.pid)).values()
        assert [inode in mapped for inode in inodes] == [number == slot.number for number in range(2)]


def shared_mappings(process: str) -> dict[int, int]:
    """Return the inodes of the shared mappings of a process, by their first address (proc_pid_maps(5))."""
    lines = Path(f"/proc/{process}/maps").read_text().splitlines()
    return {int(line.partition("-")[0], 16): int(line.split()[4]) for line in lines if " rw-s " in line}


def test_the_batch_memory_of_a_drained_worker_is_given_back(by_hand: GenerationByHand) -> None:
    """At its exit, and not when the generation is collected: it may have 4 MiB."""
    by_hand.serve()
    by_hand.generation.drain()
    wait_until(lambda: (by_hand.turn(), by_hand.exits(), by_hand.generation.gone)[2], "its workers gone")
    assert [worker.vector.closed for worker in by_hand.generation.workers] == [True, True]


def test_a_worker_that_cannot_be_watched_is_not_started(by_hand: GenerationByHand) -> None:
    """Where the host watches no more descriptors nothing is left of the attempt, and the next one is as good as any."""
    slot, *_ = by_hand.generation.workers
    before = children(os.getpid()), len(list(Path("/proc/self/fd").iterdir()))
    by_hand.poll.left = 0
    with pytest.raises(OSError, match="No space left"):
        by_hand.generation.start_worker(slot, 0.0)
    assert (children(os.getpid()), len(list(Path("/proc/self/fd").iterdir()))) == before
    assert by_hand.generation.gone
    by_hand.poll.left = 2
    by_hand.serve()


@needs_root
def test_nothing_is_left_of_a_worker_that_cannot_be_forked() -> None:
    """On a host without a process to spare, both ends of the channel are closed, and nobody waits for one."""

    def attempt() -> list[bool]:
        by_hand = GenerationByHand()
        worker = by_hand.generation.workers[0]
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        before = len(list(Path("/proc/self/fd").iterdir()))
        with pytest.raises(OSError, match="temporarily unavailable"):
            by_hand.generation.start_worker(worker, 0.0)
        return [len(list(Path("/proc/self/fd").iterdir())) == before, worker.queue is None, worker.pid is None]

    assert as_nobody(attempt) == [True, True, True]


def test_what_a_full_channel_does_not_take_is_sent_later(by_hand: GenerationByHand) -> None:
    """A worker that did not read for a while receives the last addresses, and then the command to drain."""
    by_hand.serve()
    slot, other = by_hand.generation.workers
    assert slot.pid is not None
    os.kill(slot.pid, signal.SIGSTOP)
    most = [IPv6Network((number, 128)) for number in range(2**32, 2**32 + MAX_OWN)]
    assert slot.queue is not None
    while not slot.queue.pending:
        by_hand.generation.set_own_addresses(most)
    by_hand.generation.set_own_addresses(most[:1])
    by_hand.generation.drain()
    assert [len(message) for message in slot.queue.pending.values()] == [19, 1]
    wait_until(lambda: (by_hand.generation.catch_up(), by_hand.exits())[1], "the other one gone")
    assert other.pid is None
    os.kill(slot.pid, signal.SIGCONT)
    wait_until(lambda: (by_hand.generation.catch_up(), by_hand.exits())[1], "its exit")
    assert by_hand.generation.gone


def test_a_worker_that_exits_is_replaced_and_a_failed_start_is_repeated(
    by_hand: GenerationByHand, log: list[EventDict]
) -> None:
    """Each failure in a row doubles the delay; the replacement serves, and is counted as a restart."""
    by_hand.serve()
    worker = by_hand.generation.workers[1]
    worker.kill()
    by_hand.reap()
    assert by_hand.timers.seconds_left(by_hand.now) == pytest.approx(0.1)
    by_hand.poll.left = 0
    for now, delay in ((101.0, 0.2), (102.0, 0.4)):
        (replace,) = by_hand.timers.due(now)
        replace(now)
        assert by_hand.timers.seconds_left(now) == pytest.approx(delay)
    assert [entry["event"] for entry in log].count("worker_not_started") == 2
    by_hand.poll.left = 1
    (replace,) = by_hand.timers.due(103.0)
    replace(103.0)
    by_hand.turn_until_ready()
    assert by_hand.restarts == {1: 1}
    assert [state.restarts for state in by_hand.generation.states()] == [0, 1]


def test_a_service_without_any_worker_is_not_fresh(by_hand: GenerationByHand) -> None:
    """While it serves, one worker at least must be there; one that waits for its successor is no harm."""
    generation = by_hand.generation
    generation.start_workers(0.0)
    by_hand.turn_until_ready()
    assert generation.fresh
    generation.serve()
    first, second = generation.workers
    first.kill()
    assert by_hand.reap() == "killed by SIGKILL"
    assert generation.fresh
    second.kill()
    assert by_hand.reap() == "killed by SIGKILL"
    assert not generation.fresh
    generation.start_worker(second, 0.0)
    assert not generation.fresh
    wait_until(lambda: (by_hand.turn(), generation.fresh)[1], "it served again")
    generation.drain()
    assert by_hand.reap() == "exit code 0"
    assert generation.fresh
