"""echod.probes.loop: who is called, and when."""

import os
from itertools import pairwise
from time import monotonic_ns

from support.probing import MILLISECOND, SECOND

from echod.probes.loop import Loop


class Session:
    """A session that is due each `interval` ns, `count` times."""

    def __init__(self, interval: int, count: int) -> None:
        """Take the interval and the number of times."""
        self.interval, self.count = interval, count
        self.begun = monotonic_ns()
        self.calls: list[int] = []
        """When it was called, in ns since its start."""

    def run_due(self, now: int) -> int | None:
        """Note the call."""
        self.calls.append(now - self.begun)
        return self.begun + len(self.calls) * self.interval if len(self.calls) < self.count else None


def refresh(now: int) -> int:
    """Want nothing for a second."""
    return now + SECOND


def test_only_the_session_that_is_due_is_called(loop: Loop) -> None:
    """Of 200 sessions one is due fifty times: the others are called at the start, and not again before their time."""
    often, rare = Session(MILLISECOND, 50), [Session(100 * MILLISECOND, 2) for _ in range(199)]
    loop.run([*rare[:100], often, *rare[100:]], refresh, print)
    assert len(often.calls) == 50
    assert all(time >= number * MILLISECOND for number, time in enumerate(often.calls))
    assert {len(each.calls) for each in rare} == {2}
    assert min(each.calls[1] for each in rare) >= 100 * MILLISECOND


def test_a_session_that_receives_is_called_at_once(loop: Loop) -> None:
    """It alone, and not when its own time comes; one that is done is not called again."""
    woken, other, done = Session(3600 * SECOND, 2), Session(150 * MILLISECOND, 2), Session(0, 1)
    read, write = os.pipe()

    def receive() -> None:
        os.read(read, 1)
        loop.wake(woken)
        loop.wake(done)

    loop.register(read, receive)
    os.write(write, b"x")
    loop.run([woken, other, done], refresh, print)
    os.close(read)
    os.close(write)
    assert (len(woken.calls), len(other.calls), len(done.calls)) == (2, 2, 1)
    assert woken.calls[1] <= other.calls[1]


def test_what_is_shown_is_refreshed_at_its_own_time(loop: Loop) -> None:
    """Also where no session is due for long: five times before the first one that is."""
    session, other, refreshed = Session(3600 * SECOND, 2), Session(SECOND, 2), [0]

    def refresh_each_ten(now: int) -> int:
        refreshed.append(now - session.begun)
        if len(refreshed) == 6:
            loop.wake(session)
        return now + 10 * MILLISECOND

    loop.run([session, other], refresh_each_ten, print)
    assert session.calls[1] <= other.calls[1]
    assert all(later - earlier >= 10 * MILLISECOND for earlier, later in pairwise(refreshed[1:6]))
