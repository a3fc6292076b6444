"""echod.linux.clock: what the kernel says of the wall clock is read as strace(1) reads it, and nothing is set."""

import re
import subprocess
import sys
from pathlib import Path
from struct import pack

from support.faults.injection import needs_strace

from echod.linux.clock import UNKNOWN, Clock, read_clock

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
