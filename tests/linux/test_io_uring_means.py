"""A host has what the ring needs, or reports what it lacks; what the kernel gave is given back, and the rest left."""

import errno
import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.faults.injection import needs_strace
from support.waiting import wait_until

from echod.linux.io_uring import IoUring

pytestmark = pytest.mark.timeout(60)  # a ring that waits where it must not waits for ever

DECLINED = -errno.EAGAIN


def descriptors() -> set[str]:
    """Return those of this process, without those of what is garbage."""
    gc.collect()
    names = os.listdir("/proc/self/fd")  # noqa: PTH208 - closed when it returns: its own is none of them
    return {name for name in names if Path("/proc/self/fd", name).is_symlink()}


def test_it_gives_its_descriptors_back() -> None:
    """Those of its memory go with the memory."""
    before = descriptors()
    made = IoUring()
    assert descriptors() > before
    made.close()
    del made
    wait_until(lambda: descriptors() <= before, "its descriptors were given back")


def test_a_kernel_that_cannot_receive_is_one_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """The set-up alone is not taken for more than it is, and is undone."""
    monkeypatch.setattr("echod.linux.io_uring._OP_RECV", 255)
    before = descriptors()
    with pytest.raises(OSError, match=os.strerror(errno.ENOSYS)):
        IoUring()
    wait_until(lambda: descriptors() <= before, "its descriptors were given back")


# -- calls that fail: each program reports what it saw


SETS_UP = """
import gc, os, signal
from echod.linux.io_uring import IoUring
signal.alarm(10)
gc.collect()
before = len(os.listdir("/proc/self/fd"))
try:
    IoUring()
except OSError as error:
    said = error.errno
gc.collect()
print(said, len(os.listdir("/proc/self/fd")) - before)
"""

GOES_ON = """
import json, signal, socket
from array import array
from echod.linux.io_uring import IoUring
signal.alarm(10)
ring, pairs = IoUring(), [socket.socketpair() for _ in range(3)]
mine, fours = memoryview(array("i", [ours.fileno() for ours, _ in pairs])), memoryview(array("i", [4, 4, 4]))

def receive():
    try:
        return ring.receive(mine).tolist()
    except OSError as error:
        return [-error.errno] * 3

def say(words):
    for _, theirs in pairs:
        theirs.sendall(words)

say(b"word")
said = [receive()]
say(b"more")
said += [receive(), ring.send(fours).tolist(), receive(), ring.send(fours).tolist()]
print(json.dumps([list(each) for each in zip(*said)]), *[theirs.recv(64).decode() for _, theirs in pairs])
"""


def run_with(inject: str, program: str, folder: Path) -> str:
    """Run a program with calls that fail as strace(1) is reported; return what it printed."""
    command = ["strace", "-f", "-o", str(folder / "trace"), "-e", f"inject={inject}", sys.executable, "-c", program]
    repository = Path(__file__).parents[2]
    surroundings = {**os.environ, "PYTHONPATH": str(repository)}
    done = subprocess.run(command, cwd=repository, env=surroundings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@needs_strace
@pytest.mark.parametrize("call", ["io_uring_setup", "io_uring_enter"])
@pytest.mark.parametrize("error", ["ENOSYS", "EPERM", "ENOMEM"])
def test_a_host_without_it_says_so_and_keeps_nothing(tmp_path: Path, call: str, error: str) -> None:
    """An old kernel, a policy or a lack of memory is an OSError, and leaves no descriptor behind."""
    assert run_with(f"{call}:error={error}", SETS_UP, tmp_path) == f"{getattr(errno, error)} 0"


@needs_strace
def test_a_kernel_without_what_is_needed_has_it_not(tmp_path: Path) -> None:
    """Here the features that it tells of, the last of six words, are none."""
    assert run_with(f"io_uring_setup:poke_exit=@arg2={bytes(24).hex()}", SETS_UP, tmp_path) == f"{errno.ENOSYS} 0"


@needs_strace
@pytest.mark.parametrize(
    ("failing", "printed", "echoed"),
    [
        ("99", [4, 4, 4, DECLINED, 4], "moremore"),
        ("2", [-errno.ENOMEM, 8, 4, DECLINED, 4], "wordword"),
        ("4", [4, 4, DECLINED, DECLINED, 4], "more"),
    ],
    ids=["none", "the first receive", "the first send"],
)
def test_what_the_kernel_did_not_begin_is_never_begun(
    tmp_path: Path, failing: str, printed: list[int], echoed: str
) -> None:
    """A receive without means is an error and a send is declined; no later call does what they were to do."""
    reported = run_with(f"io_uring_enter:error=ENOMEM:when={failing}", GOES_ON, tmp_path)
    assert reported == " ".join([json.dumps([printed] * 3), *[echoed] * 3])
