"""`echod ping` whose output nobody reads: signals end it, and rows do not wait for lines."""

import fcntl
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.loopback import needs_root
from support.ping.pinging import ended, read_lines, start
from support.waiting import wait_until

PAGE = 4096


@pytest.fixture
def unread() -> Iterator[tuple[int, int]]:
    """Make a pipe that holds a page; return its end for reading, and that for writing."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, PAGE)
    yield read, write
    os.close(read)
    os.close(write)


def wait_until_blocked(pid: int, *calls: str) -> None:
    """Wait until a process sleeps in one of these functions of the kernel; of a write to a pipe by default."""
    calls = calls or ("pipe_write", "pipe_wait", "pipe_wait_writable", "anon_pipe_write")
    wait_until(lambda: Path(f"/proc/{pid}/wchan").read_text() in calls, f"process {pid} sleeps in {calls}")


@needs_root
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("words", [("-i", "1ms"), ("--json", "-i", "1ms"), ("--mtu",)], ids=["text", "json", "mtu"])
def test_a_second_signal_ends_a_run_whose_output_nobody_reads(
    port: int, unread: tuple[int, int], words: tuple[str, ...], number: signal.Signals
) -> None:
    """The first asks for the statistics, which cannot be written; the second has its default action."""
    os.write(unread[1], bytes(PAGE))
    with start(*words, f"127.0.0.1:{port}", stdout=unread[1]) as process:
        wait_until_blocked(process.pid)

        def signalled() -> bool:
            process.send_signal(number)
            return process.poll() is not None

        wait_until(signalled, "it ended")
        assert (process.returncode, ended(process)[1]) == (-number, "")


@needs_root
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_wait_for_a_reader_of_the_rows(port: int, tmp_path: Path, number: signal.Signals) -> None:
    """A FIFO is opened when it has a reader; nothing is measured before, so one signal ends the run at once."""
    os.mkfifo(tmp_path / "rows")
    with start("--csv", tmp_path / "rows", f"127.0.0.1:{port}") as process:
        wait_until_blocked(process.pid, "wait_for_partner")
        process.send_signal(number)
        assert ended(process) == ("", "")
    assert process.returncode == -number


def test_several_signals_at_once_are_one(port: int) -> None:
    """As of timeout(1), which signals its child and then its group: the statistics are printed."""
    with start("-i", "1ms", f"127.0.0.1:{port}") as process:
        assert read_lines(process, 2)[0].startswith("PING ")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            process.send_signal(number)
        out, err = ended(process)
    assert (process.returncode, err) == (0, "")
    assert " packets transmitted, " in out  # the last may be lost: its reply is too slow beside other tests


@needs_root
def test_rows_do_not_wait_for_a_reader_of_the_lines(port: int, unread: tuple[int, int], tmp_path: Path) -> None:
    """Each reply with a line in the pipe that nobody reads has its row in the file."""
    rows = tmp_path / "rows"
    with start("--csv", rows, "-i", "1ms", f"127.0.0.1:{port}", stdout=unread[1]) as process:
        wait_until_blocked(process.pid)
        written = rows.read_text(encoding="utf-8")
        process.kill()
    shown = re.findall(r"^\d.* seq=(\d+) ", os.read(unread[0], PAGE).decode(), re.MULTILINE)
    assert shown
    assert written.count("\nreply,") > int(shown[-1])
