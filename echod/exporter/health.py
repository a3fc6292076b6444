"""Whether echod really replies: a test of each listener, at most once a second however often it is requested.

Owns the test process, one for each test, so that nothing else waits for an echo that does not come. If this process is
in another network namespace than the sockets (PrivateNetwork=), it cannot test them, and checks instead that the loop
of every worker runs. Invariant: every request gets the result of a test that ended at most a second ago.
"""

import json
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from echod import logs
from echod.admission.selftest import Result, SelfTest
from echod.linux import process
from echod.linux.poll import READ, Poll
from echod.stats.counters import CounterPage, SlotField
from echod.status.selftest import run_self_test

FRESH_SECONDS: Final = 1.0
"""How long a report may be used again."""

HEARTBEAT_SECONDS: Final = 3.0
"""Time in which the heartbeat of every worker must advance; normally it does so every second."""

TIMEOUT_SECONDS: Final = 10.0
"""Time after which a test process is killed."""

NOT_TESTED: Final = (
    "no listener was tested, because this process has its own network namespace (PrivateNetwork=): "
    "`echod status --check` on the host tests them"
)

_INTERVAL_SECONDS: Final = 0.02
_READ_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthReport:
    """The outcome of one test."""

    healthy: bool
    lines: Sequence[str]
    """One line of text for each listener or worker."""
    results: Sequence[Result] = ()
    """The result of each listener; none if they could not be tested."""


OnReport = Callable[[HealthReport], None]


class Health:
    """Tests, one at a time, shared by all requests meanwhile."""

    def __init__(self, page: CounterPage, *, mark: SelfTest | None, reachable: bool, poll: Poll) -> None:
        """Take the page of the workers, their self-test mark, and whether the listeners are reachable from here."""
        self.reachable = reachable
        self._page = page
        self._poll = poll
        self._mark = mark
        self._waiting: dict[object, OnReport] = {}
        self._last: tuple[float, HealthReport] | None = None
        self._process: _TestProcess | None = None

    def request(self, now: float, on_report: OnReport) -> Callable[[], None]:
        """Call `on_report`: at once if there is a fresh report, else when the test is over.

        Returns a function that withdraws the request.
        """
        key = object()
        if self._last is not None and now - self._last[0] < FRESH_SECONDS:
            on_report(self._last[1])
        else:
            self._waiting[key] = on_report
            self._start(now)

        def withdraw() -> None:
            self._waiting.pop(key, None)

        return withdraw

    def _start(self, now: float) -> None:
        """Start a test, unless there is one."""
        if self._process is None:
            try:
                self._process = _TestProcess(self._measure, now)
            except OSError as error:
                line = f"no test could be started: {error.strerror}"
                self._finish(HealthReport(healthy=False, lines=(line,)), now)
                return
            self._poll.register(self._process.fd, READ, self._on_readable)

    def next_deadline(self) -> float | None:
        """Return when to call `on_deadline` next, or None."""
        return self._process.deadline if self._process is not None else None

    def on_deadline(self, now: float) -> None:
        """Kill a test process that has not finished in time."""
        if self._process is not None and now >= self._process.deadline:
            self._on_readable(now)

    def _on_readable(self, now: float) -> None:
        tested = self._process
        if tested is not None and (tested.receive() or now >= tested.deadline):
            self._poll.unregister(tested.fd)
            self._process = None
            self._finish(self._report(tested.stop()), now)

    def _finish(self, report: HealthReport, now: float) -> None:
        self._last = (now, report)
        waiting, self._waiting = self._waiting, {}
        for on_report in waiting.values():
            on_report(report)

    def _measure(self) -> list[Any]:
        """Test, in the test process: seconds and problem of each listener, or whether each heartbeat is fresh."""
        if self.reachable:
            results = run_self_test(self._page.listeners, self._mark)
            return [(each.seconds, each.problem) for each in results]
        headers = [self._page.header(slot) for slot in range(self._page.slots)]
        before = [header[SlotField.HEARTBEAT] for header in headers]
        deadline = time.monotonic() + HEARTBEAT_SECONDS
        fresh = [False] * len(headers)
        while not all(fresh) and time.monotonic() < deadline:
            time.sleep(_INTERVAL_SECONDS)
            fresh = [header[SlotField.HEARTBEAT] != beat for header, beat in zip(headers, before, strict=True)]
        return fresh

    def _report(self, measured: list[Any] | None) -> HealthReport:
        if measured is None:
            return HealthReport(healthy=False, lines=("the test did not finish",))
        if self.reachable:
            pairs = zip(self._page.listeners, measured, strict=True)
            results = [Result(listener=one, seconds=seconds, problem=problem) for one, (seconds, problem) in pairs]
            return HealthReport(
                healthy=all(each.passed for each in results), lines=[_line(each) for each in results], results=results
            )
        lines = [f"worker {slot}: heartbeat {'fresh' if ok else 'old'}" for slot, ok in enumerate(measured, 1)]
        return HealthReport(healthy=all(measured), lines=(NOT_TESTED, *lines))


def _line(result: Result) -> str:
    outcome = result.problem if result.seconds is None else f"replied in {1000 * result.seconds:.2f} ms"
    return f"{result.listener}: {outcome}"


class _TestProcess:
    """A process that makes one test and exits."""

    def __init__(self, measure: Callable[[], list[Any]], now: float) -> None:
        """Fork it. Raises OSError if the host has no process or descriptor left."""
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        exporter = os.getpid()

        def run() -> None:
            if process.set_up_child(exporter, "echod: self test", None):  # it keeps the user of the exporter
                theirs.sendall(json.dumps(measure()).encode())

        try:
            self._pid = process.fork("self test", [*logs.descriptors(), theirs.fileno()], run, logs.report)
        except OSError:
            self._ours.close()
            raise
        finally:
            theirs.close()
        self._ours.setblocking(False)
        self.fd = self._ours.fileno()  # readable when there is something to read from the process
        self._received = b""
        self.deadline = now + TIMEOUT_SECONDS

    def receive(self) -> bool:
        """Read what the process has written; tell whether that was all."""
        try:
            data = self._ours.recv(_READ_BYTES)
        except BlockingIOError:
            return False
        self._received += data
        return not data

    def stop(self) -> list[Any] | None:
        """Kill and reap the process; return what it measured, or None if it did not finish."""
        if process.kill(self._pid):
            os.waitpid(self._pid, 0)
        self._ours.close()
        try:
            measured: list[Any] = json.loads(self._received)
        except ValueError:
            return None
        return measured
