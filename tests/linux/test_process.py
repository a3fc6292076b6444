"""A process that the supervisor forked, and the words for its end."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
from support.daemon import environment, title
from support.loopback import NOBODY, needs_root
from support.waiting import wait_until

from echod.errors import ConfigError, Mistake, NotPermittedError, StartFailedError
from echod.linux.process import Child, describe_exit, fork, kill


@pytest.mark.parametrize(
    ("number", "how"),
    [
        (0, "exit code 0"),
        (signal.SIGKILL, "killed by SIGKILL"),
        (signal.SIGRTMIN, "killed by SIGRTMIN"),
        (40, "killed by signal 40"),
    ],
)
def test_an_end_has_its_words(number: int, how: str) -> None:
    """By exit code or signal, also one that has no name."""
    pid = fork("test", [2], lambda: os.kill(os.getpid(), number), print)
    assert describe_exit(os.waitpid(pid, 0)[1]) == how


def test_a_child_answers_from_a_process_of_its_own() -> None:
    """With a value; the child is reaped."""
    (pid, parent), value = Child("reader", lambda: ((os.getpid(), os.getppid()), [1, "two"]), print).answer()
    assert (parent, value) == (os.getpid(), [1, "two"])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_child_raises_here_what_it_raised_there() -> None:
    """Mistakes of an operator are whole, with what they were found in."""
    mistake = Mistake(line=3, column=1, path="workers", message="is not a number")

    def answer() -> None:
        error = ConfigError((mistake,))
        error.text = b"workers: many"
        raise error

    with pytest.raises(ConfigError) as caught:
        Child("reader", answer, print).answer()
    assert (caught.value.mistakes, caught.value.text) == ((mistake,), b"workers: many")
    assert str(caught.value) == "line 3: workers: is not a number"
    with pytest.raises(NotPermittedError, match="not you"):
        Child("reader", raiser(NotPermittedError("not you")), print).answer()
    with pytest.raises(OSError, match="No space left") as full:
        Child("reader", raiser(OSError(errno.ENOSPC, "No space left")), print).answer()
    assert full.value.errno == errno.ENOSPC


def raiser(error: Exception) -> Callable[[], None]:
    """Return a function that raises it."""

    def answer() -> None:
        raise error

    return answer


@pytest.mark.parametrize(("number", "how"), [(signal.SIGKILL, "killed by SIGKILL"), (0, "exit code 70")])
def test_a_child_that_ends_without_an_answer_is_one_sentence(
    capfd: pytest.CaptureFixture[str], number: int, how: str
) -> None:
    """Killed, or with a fault of echod, which is reported whole."""

    def answer() -> None:
        if number:
            os.kill(os.getpid(), number)
        raise ZeroDivisionError

    with pytest.raises(StartFailedError, match=f"^the reader ended without an answer: {how}$"):
        Child("reader", answer, lambda text: os.write(2, text.encode()) and None).answer()
    assert ("ZeroDivisionError" in capfd.readouterr().err) == (number == 0)


def test_a_child_whose_answer_nobody_wants_ends_in_silence(capfd: pytest.CaptureFixture[str]) -> None:
    """Who asked may have ended meanwhile."""
    longer_than_a_pipe = bytes(1 << 20)
    child = Child("reader", lambda: longer_than_a_pipe, lambda text: os.write(2, text.encode()) and None)
    child._pipe.close()
    assert os.waitstatus_to_exitcode(os.waitpid(child._pid, 0)[1]) == 0
    assert capfd.readouterr().err == ""


ASKING = """
import os, time
from echod.linux.process import Child

def work():
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep(60)

Child("reader", work, print).answer()
"""


def test_a_child_ends_with_who_asked() -> None:
    """Killed, that process can end nobody any more."""
    with subprocess.Popen([sys.executable, "-c", ASKING], env=environment(), stdout=subprocess.PIPE) as asking:
        assert asking.stdout is not None
        child = int(asking.stdout.readline())
        assert title(child)
        asking.kill()
    wait_until(lambda: not title(child), "the child has ended, too")


@needs_root
def test_a_kill_that_is_forbidden_is_told_and_raises_nothing() -> None:
    """Else one child that may not be signalled would end the loop of all."""
    child = subprocess.Popen(["sleep", "60"])
    try:
        os.setresuid(NOBODY, NOBODY, 0)
        assert not kill(child.pid)
    finally:
        os.setresuid(0, 0, 0)
    assert child.poll() is None
    assert kill(child.pid)
    assert child.wait() == -signal.SIGKILL


UNCOLLECTED = """
import gc, mmap, os
from echod.linux.process import describe_exit, fork

SIZE = 4 << 20
gc.disable()

class Owner:
    def __init__(self):
        self.cycle = self
        self.memory = mmap.mmap(-1, SIZE)
        self.memory.madvise(mmap.MADV_DONTFORK)

for _ in range(8):
    Owner()

def life():
    mapped = [mmap.mmap(-1, SIZE) for _ in range(8)]  # in the gaps that the parent's mappings left
    gc.collect()
    for each in mapped:
        each[:1] = b"x"

print(describe_exit(os.waitpid(fork("test", [2], life, print), 0)[1]))
"""


def test_what_the_parent_left_to_be_collected_unmaps_nothing_of_the_child() -> None:
    """A mapping that the child does not have (MADV_DONTFORK) is not unmapped there, where its address is reused."""
    result = subprocess.run(
        [sys.executable, "-c", UNCOLLECTED], capture_output=True, text=True, check=True, env=environment(), timeout=60
    )
    assert result.stdout == "exit code 0\n"
