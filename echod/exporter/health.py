"""Whether echod really answers: a test of each listener, at most once a second however often it is requested.

Owns the questioner, a separate process for each test, so that nothing else waits for an echo that does not come. If
this process is in another network namespace than the sockets (PrivateNetwork=), it cannot test them, and checks instead
that every worker's loop turns. Invariant: every request gets the result of a test that ended at most a second ago.
"""

import json
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from echod.admission.selftest import Result, SelfTest
from echod.exporter.metrics import Outcome
from echod.linux import process
from echod.linux.poll import READ, Poll
from echod.stats.counters import CounterPage, SlotField
from echod.status.selftest import TEST_SECONDS, run_self_test

FRESH_SECONDS: Final = 1.0
"""How long an outcome may be used again."""

TURN_SECONDS: Final = 3.0
"""Time in which every worker's loop must turn; normally it does so every second."""

PATIENCE_SECONDS: Final = 10.0
"""Time after which a questioner is given up."""

NOT_ASKED: Final = (
    "no listener was asked, for this process has a network of its own (PrivateNetwork=): on the host, "
    "`echod status --check` asks"
)

_LOOK_SECONDS: Final = 0.02
_READ_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The outcome of one test."""

    well: bool
    lines: Sequence[str]
    """The text to show: `ok` or `failing`, then one line for each listener or worker."""
    tests: Sequence[Outcome] = ()
    """The outcome of each listener; none if they could not be tested."""


Tell = Callable[[Report], None]


class Health:
    """Tests, one at a time, shared by all requests meanwhile."""

    def __init__(self, page: CounterPage, *, mark: SelfTest | None, reachable: bool, poll: Poll) -> None:
        """Take the page of the workers, their self-test mark, and whether the listeners are reachable from here."""
        self.reachable = reachable
        self._page = page
        self._poll = poll
        self._mark = mark
        self._waiting: dict[object, Tell] = {}
        self._last: tuple[float, Report] | None = None
        self._questioner: _Questioner | None = None

    def ask(self, now: float, tell: Tell) -> Callable[[], None]:
        """Call `tell` with the outcome, at once if there is a fresh one, else when the test is over.

        Returns a function that withdraws the request.
        """
        request = object()
        if self._last is not None and now - self._last[0] < FRESH_SECONDS:
            tell(self._last[1])
        else:
            self._waiting[request] = tell
            self._begin(now)

        def withdraw() -> None:
            self._waiting.pop(request, None)

        return withdraw

    def _begin(self, now: float) -> None:
        """Start a test, unless there is one."""
        if self._questioner is None:
            try:
                self._questioner = _Questioner(self._test, now)
            except OSError as error:
                self._finish(Report(well=False, lines=("failing", f"no test could be started: {error.strerror}")), now)
                return
            self._poll.register(self._questioner.fd, READ, self._on_report)

    def next_deadline(self) -> float | None:
        """Return when to call `on_deadline` next, or None."""
        return self._questioner.deadline if self._questioner is not None else None

    def on_deadline(self, now: float) -> None:
        """Give up a questioner that has not finished."""
        if self._questioner is not None and now >= self._questioner.deadline:
            self._on_report(now)

    def _on_report(self, now: float) -> None:
        questioner = self._questioner
        if questioner is not None and (questioner.hear() or now >= questioner.deadline):
            self._poll.unregister(questioner.fd)
            self._questioner = None
            self._finish(questioner.end(), now)

    def _finish(self, report: Report, now: float) -> None:
        self._last = (now, report)
        waiting, self._waiting = self._waiting, {}
        for tell in waiting.values():
            tell(report)

    def _test(self) -> Report:
        """Be the questioner."""
        if not self.reachable:
            return self._watch()
        tests = [_tested(result) for result in run_self_test(self._page.listeners, self._mark)]
        well = all(one.passed for one in tests)
        return Report(
            well=well, lines=(_verdict(well=well), *(f"{one.listener}: {one.said}" for one in tests)), tests=tests
        )

    def _watch(self) -> Report:
        """Wait until every worker's loop has turned."""
        beats = [self._page.header(slot) for slot in range(self._page.slots)]
        before = [beat[SlotField.HEARTBEAT] for beat in beats]
        deadline = time.monotonic() + TURN_SECONDS
        still = set(range(self._page.slots))
        while still and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
            still = {slot for slot in still if beats[slot][SlotField.HEARTBEAT] == before[slot]}
        lines = [
            f"worker {slot + 1}: {'heartbeat old' if slot in still else 'heartbeat fresh'}"
            for slot in range(self._page.slots)
        ]
        return Report(well=not still, lines=(_verdict(well=not still), NOT_ASKED, *lines))


class _Questioner:
    """A process that makes one report and ends."""

    def __init__(self, test: Callable[[], Report], now: float) -> None:
        """Fork it. Raises OSError if the host has no process or descriptor left."""
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        exporter = os.getpid()

        def life() -> None:
            if process.belong_to(exporter, "echod: self test", None):  # it is who the exporter is
                theirs.sendall(json.dumps(asdict(test())).encode())

        try:
            self._pid = process.fork("self test", [theirs.fileno()], life)
        except OSError:
            self._ours.close()
            raise
        finally:
            theirs.close()
        self._ours.setblocking(False)
        self._heard = b""
        self.deadline = now + PATIENCE_SECONDS

    @property
    def fd(self) -> int:
        """Readable when there is something to read from the process."""
        return self._ours.fileno()

    def hear(self) -> bool:
        """Read what it has written; tell whether that was all."""
        try:
            data = self._ours.recv(_READ_BYTES)
        except BlockingIOError:
            return False
        self._heard += data
        return not data

    def end(self) -> Report:
        """Kill and reap the process; return its report."""
        if process.kill(self._pid):
            os.waitpid(self._pid, 0)
        self._ours.close()
        try:
            told = json.loads(self._heard)
        except ValueError:
            return Report(well=False, lines=("failing", "the test did not come to its end"))
        return Report(well=told["well"], lines=told["lines"], tests=[Outcome(**test) for test in told["tests"]])


def _tested(result: Result) -> Outcome:
    if result.seconds is None:
        seconds, said = TEST_SECONDS, result.problem
    else:
        seconds, said = result.seconds, f"replied in {1000 * result.seconds:.2f} ms"
    listener = result.listener
    return Outcome(
        listener=str(listener),
        family=f"ipv{listener.address.version}",
        passed=result.passed,
        seconds=seconds,
        said=said,
    )


def _verdict(*, well: bool) -> str:
    return "ok" if well else "failing"
