"""echod.linux.clock: what the kernel says of the wall clock is read as strace(1) reads it; two are read together."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import pack
from types import FrameType

from support.faults.injection import needs_strace

from echod.linux.clock import UNKNOWN, Clock, read_clock, read_together

PROGRAM = "from echod.linux.clock import read_clock; print(read_clock())"


def trace(folder: Path, *inject: str) -> tuple[str, str]:
    """Run the call under strace; return what the program printed, and the trace."""
    command = ["strace", "-o", str(folder / "trace"), "-e", "trace=adjtimex,clock_adjtime"]
    for each in inject:
        command += ["-e", f"inject=adjtimex,clock_adjtime:{each}"]
    done = subprocess.run([*command, sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
    return done.stdout.strip(), (folder / "trace").read_text()


@needs_strace
def test_the_clock_is_read_as_strace_reads_it(tmp_path: Path) -> None:
    """One call that sets nothing; the same error and the same bit."""
    printed, calls = trace(tmp_path)
    [(modes, error, status)] = re.findall(r"modes=(\w+).*maxerror=(\d+).*status=([\w|]+)", calls)
    assert modes == "0"
    assert printed == repr(Clock(synchronized="STA_UNSYNC" not in status, error=int(error) * 1000))


@needs_strace
def test_a_clock_that_is_synchronized_says_how_far_it_may_be_off(tmp_path: Path) -> None:
    """The kernel's answer is replaced: 1.5 ms at most, STA_PLL without STA_UNSYNC."""
    answer = pack("<24xqqi", 1500, 20, 0x1).hex()
    printed, _ = trace(tmp_path, f"poke_exit=@arg2={answer}")
    assert printed == repr(Clock(synchronized=True, error=1_500_000))


@needs_strace
def test_a_sandbox_that_forbids_the_question_leaves_nothing_known(tmp_path: Path) -> None:
    """ProtectClock= of systemd, for one."""
    printed, calls = trace(tmp_path, "error=EPERM")
    assert "EPERM" in calls
    assert printed == repr(UNKNOWN)
    assert Clock(synchronized=False, error=16_000_000_000) == UNKNOWN


def test_this_host_has_a_clock() -> None:
    """An error is never negative."""
    assert read_clock().error >= 0


MILLISECOND = 1_000_000


@contextmanager
def interrupted(times: int) -> Iterator[list[int]]:
    """Interrupt this thread for 1 ms before it reads the wall clock, so many times; yield when each of them ended."""
    ended: list[int] = []

    def interrupt(_: FrameType, event: str, called: object) -> None:
        if event == "c_call" and called is time.time_ns and len(ended) < times:
            end = time.monotonic_ns() + MILLISECOND
            while time.monotonic_ns() < end:
                pass
            ended.append(time.monotonic_ns())

    before = sys.getprofile()
    sys.setprofile(interrupt)
    try:
        yield ended
    finally:
        sys.setprofile(before)


def test_clocks_whose_reading_was_interrupted_are_read_again() -> None:
    """The time that is returned is later than the interruptions."""
    with interrupted(2) as ended:
        monotonic, _ = read_together()
    assert len(ended) == 2
    assert monotonic > ended[1]


def test_clocks_are_read_three_times_at_most() -> None:
    """Interrupted each time, by 1 ms, the reading is the middle of the last."""
    begun = time.monotonic_ns()
    with interrupted(100) as ended:
        monotonic, _ = read_together()
    assert len(ended) == 3
    assert begun + 2.5 * MILLISECOND <= monotonic <= time.monotonic_ns() - 0.5 * MILLISECOND


def test_clocks_that_are_read_together_are_those_of_the_host() -> None:
    """The monotonic clock is between what it was before and after that, and the wall clock that of this minute."""
    earlier = time.monotonic_ns()
    monotonic, wall = read_together()
    assert earlier <= monotonic <= time.monotonic_ns()
    assert abs(wall - time.time_ns()) < 60_000 * MILLISECOND
