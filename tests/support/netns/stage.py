"""echod behind a wire, with a bystander: what becomes of datagrams, asked on the wire, of the counters and of memory.

Owns the bystander, an ordinary client that must never notice anything. Invariant, asserted whatever a test is about:
each answer on the wire is the exact answer to one datagram that was sent, no datagram has two, and the wire, the
counters and the bystander agree on their number.
"""

import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

from support.beside import daemon_in
from support.daemon import Daemon
from support.netns.datagrams import OTHER_PORT, PORT, SERVER, SERVER6, Datagram, as_train
from support.netns.wire import Wire
from support.processes import is_stopped, resident_bytes
from support.waiting import wait_until

from echod.linux.mmsg_layout import SLOTS

WILDCARDS: Final = ("0.0.0.0", "[::]")  # noqa: S104 - in a namespace of the test's own
LISTENERS: Final = tuple(f"udp://{host}:{port}" for port in (PORT, OTHER_PORT) for host in WILDCARDS)

MAX_GROWTH_BYTES: Final = 4 << 20
"""What a worker may grow by: a few slots of its batch, which are mapped when they are first used, and no table."""

_ENDS: Final = ("dropped_", "send_failed_", "interrupted", "kernel_drops")


def config(**more: Any) -> dict[str, Any]:  # noqa: ANN401 - as YAML is
    """Return a config with all listeners, and with one worker, so that what comes first is answered first."""
    return {"listeners": list(LISTENERS), "workers": 1} | more


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of datagrams sent by hand; by default none reached echod, and none was answered."""

    received: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    """By counter: drops, send failures, and what the kernel dropped at the socket."""
    answers: list[Datagram] = field(default_factory=list)
    """Seen on the wire, in order."""
    whispers: list[Datagram] = field(default_factory=list)
    """Seen on the server's own loopback interface."""


def refused(number: int, reason: str) -> Outcome:
    """Return the outcome of datagrams that echod received and refused, all for one reason."""
    return Outcome(received=number, refused={reason: number})


def answered(datagrams: Sequence[Datagram]) -> Outcome:
    """Return the outcome of datagrams that were all answered."""
    return Outcome(received=len(datagrams), answers=[datagram.answer for datagram in datagrams])


def totals(daemon: Daemon) -> Counter[str]:
    """Return the counters of all listeners, summed up, once they are balanced."""
    total: Counter[str] = Counter()
    for row in daemon.counters().values():
        total.update(row)
    return total


class Stage:
    """One echod on the server's side of a wire, and the bystander on the other."""

    def __init__(self, wire: Wire, daemon: Daemon) -> None:
        """Take an echod that is ready and has the config of `config`."""
        self.wire = wire
        self.daemon = daemon
        self._bystanders = {False: wire.client_of(SERVER, PORT), True: wire.client_of(SERVER6, PORT)}
        self._numbers = count()  # it never asks the same twice: echod may take that for a loop
        self._questions: list[Datagram] = []
        self._settle()

    def close(self) -> None:
        """Send the bystander home. The daemon is whoever's started it."""
        for sock in self._bystanders.values():
            sock.close()

    def ask(self, *, is_ipv6: bool) -> None:
        """Have the bystander ask, and get its answer."""
        sock = self._bystanders[is_ipv6]
        (source, source_port), (to, to_port) = sock.getsockname()[:2], sock.getpeername()[:2]
        payload = b"bystander %d" % next(self._numbers)
        question = Datagram(source=source, source_port=source_port, to=to, to_port=to_port, payload=payload)
        self._questions.append(question)
        sock.send(payload)
        assert sock.recv(65_536) == payload

    def meet(self, datagrams: Sequence[Datagram], *, burst: int = 1, train: int = 1) -> Outcome:
        """Send datagrams of one family, with the bystander asking before, between and after; say what became of them.

        So many as `burst` says reach echod at once, in trains of so many as `train` says. What is not answered when
        the bystander's last question is, and all is counted, will not be: echod answers in order.
        """
        is_ipv6 = datagrams[0].is_ipv6
        self._forget()
        before, resident = totals(self.daemon), self.resident_bytes()
        self.ask(is_ipv6=is_ipv6)
        for some in _in_pieces(datagrams, burst):
            self._send(some, train)
            self.ask(is_ipv6=is_ipv6)
        counted = self._await(before, len(datagrams) + len(self._questions))
        outcome = self._judge(datagrams, counted)
        assert self.resident_bytes() - resident < MAX_GROWTH_BYTES, "a worker's memory grew"
        return outcome

    def reload(self, **sections: Any) -> None:  # noqa: ANN401 - as YAML is
        """Give echod another config, of these sections."""
        assert self.daemon.reload(config(**sections))["event"] == "reloaded"
        self._settle()

    def resident_bytes(self) -> int:
        """Return the memory that the workers have mapped, shared or not."""
        return sum(map(resident_bytes, self.daemon.workers()))

    @contextmanager
    def halted(self) -> Iterator[None]:
        """Stop the workers, so that what comes meanwhile is one batch."""
        workers = self.daemon.workers()
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
            wait_until(lambda pid=pid: is_stopped(pid), "the worker stopped")  # type: ignore[misc]
        try:
            yield
        finally:
            for pid in workers:
                os.kill(pid, signal.SIGCONT)

    def _settle(self) -> None:
        """Let a new worker map what it will use for good: its first datagrams are no measure of its memory."""
        for is_ipv6 in self._bystanders:
            for _ in range(SLOTS):
                self.ask(is_ipv6=is_ipv6)

    def _forget(self) -> None:
        """Begin anew: what was seen and asked before is another's."""
        self.wire.replies()
        self.wire.whispers()
        self._questions.clear()

    def _send(self, datagrams: Sequence[Datagram], train: int) -> None:
        """Send what reaches echod at once."""
        whole = [as_train(some) if train > 1 else (some[0].frame(),) for some in _in_pieces(datagrams, train)]
        with self.halted() if len(whole) > 1 else nullcontext():
            for each in whole:
                self.wire.inject(*each)

    def _await(self, before: Counter[str], received: int) -> Counter[str]:
        """Wait until so many datagrams are counted; return what was counted."""
        counted: Counter[str] = Counter()

        def all_there() -> bool:
            counted.clear()
            counted.update(totals(self.daemon))
            counted.subtract(before)
            return counted["received"] >= received

        wait_until(all_there, f"{received} datagrams were received")
        return counted

    def _judge(self, datagrams: Sequence[Datagram], counted: Counter[str]) -> Outcome:
        """Hold what was seen to the invariant, and take the bystander's part out of it."""
        answers, whispers = self.wire.replies(), self.wire.whispers()
        sent = Counter(datagram.answer for datagram in (*datagrams, *self._questions))
        assert not Counter(answers) - sent, "on the wire is an answer to nothing, or a second one"
        assert counted["replied"] == len(answers) + len(whispers), "what is counted as replied is not what was seen"
        mine = {question.answer for question in self._questions}
        assert mine <= set(answers), "the bystander has answers that were not seen"
        return Outcome(
            received=counted["received"] - len(mine),
            refused={name: number for name, number in counted.items() if number and name.startswith(_ENDS)},
            answers=[answer for answer in answers if answer not in mine],
            whispers=whispers,
        )


def _in_pieces(datagrams: Sequence[Datagram], length: int) -> Iterator[Sequence[Datagram]]:
    """Cut a sequence in pieces of so many, the last of what is left."""
    return (datagrams[start : start + length] for start in range(0, len(datagrams), length))


@contextmanager
def raised(folder: Path, **sections: Any) -> Iterator[Stage]:  # noqa: ANN401 - as YAML is
    """Lay a wire and start echod behind it, ready; end it, and remove the wire."""
    with (
        Wire() as wire,
        daemon_in(wire.server, folder, config(**sections)) as daemon,
        closing(Stage(wire, daemon)) as stage,
    ):
        yield stage
