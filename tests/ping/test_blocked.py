"""`echod ping` whose output nobody takes: signals end it all the same, and rows do not wait for lines."""

import fcntl
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.loopback import needs_root
from support.ping.pinging import ended, start
from support.waiting import wait_until

PAGE = 4096


@pytest.fixture
def unread() -> Iterator[tuple[int, int]]:
    """Make a pipe that holds a page; return who could read it, and who writes to it."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, PAGE)
    yield read, write
    os.close(read)
    os.close(write)


def sleeps_in(pid: int, *calls: str) -> bool:
    """Tell whether a process sleeps in one of these functions of the kernel."""
    return Path(f"/proc/{pid}/wchan").read_text() in calls


def sleeps_in_a_write(pid: int) -> bool:
    """Tell whether a process waits for room in a pipe (before Linux 5.5 it was `pipe_wait`)."""
    return sleeps_in(pid, "pipe_write", "pipe_wait", "pipe_wait_writable", "anon_pipe_write")


def pressed_until_ended(process: "subprocess.Popen[str]", number: signal.Signals) -> None:
    """Send a signal again and again, as an operator does, until the process has ended."""

    def pressed() -> bool:
        process.send_signal(number)
        return process.poll() is not None

    wait_until(pressed, "it ended")


@needs_root
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("words", [("-i", "1ms"), ("--json", "-i", "1ms"), ("--mtu",)], ids=["text", "json", "mtu"])
def test_a_second_signal_ends_a_run_whose_output_nobody_reads(
    port: int, unread: tuple[int, int], words: tuple[str, ...], number: signal.Signals
) -> None:
    """The first asks for the statistics, which cannot be written; the second has its default action."""
    os.write(unread[1], bytes(PAGE))
    with start(*words, f"127.0.0.1:{port}", stdout=unread[1]) as process:
        wait_until(lambda: sleeps_in_a_write(process.pid), "it waits for who reads the pipe")
        pressed_until_ended(process, number)
        assert (process.returncode, ended(process)[1]) == (-number, "")


@needs_root
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_wait_for_who_reads_the_rows(port: int, tmp_path: Path, number: signal.Signals) -> None:
    """A FIFO is opened when somebody reads it; nothing is measured before, so one signal ends it at once."""
    os.mkfifo(tmp_path / "rows")
    with start("--csv", tmp_path / "rows", f"127.0.0.1:{port}") as process:
        wait_until(lambda: sleeps_in(process.pid, "wait_for_partner"), "it waits for who reads the FIFO")
        process.send_signal(number)
        assert ended(process) == ("", "")
    assert process.returncode == -number


def test_two_signals_at_once_are_one_wish(port: int) -> None:
    """As of timeout(1), which signals its child and then its group: the statistics are there."""
    with start("-i", "1ms", f"127.0.0.1:{port}") as process:
        assert process.stdout
        assert process.stdout.readline().startswith("PING ")
        process.stdout.readline()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            process.send_signal(number)
        out, err = ended(process)
    assert (process.returncode, err) == (0, "")
    assert "0% packet loss" in out


@needs_root
def test_rows_do_not_wait_for_who_reads_the_lines(port: int, unread: tuple[int, int], tmp_path: Path) -> None:
    """Each reply whose line is in the pipe that nobody reads has its row in the file."""
    rows = tmp_path / "rows"
    with start("--csv", rows, "-i", "1ms", f"127.0.0.1:{port}", stdout=unread[1]) as process:
        wait_until(lambda: sleeps_in_a_write(process.pid), "it waits for who reads the pipe")
        written = rows.read_text(encoding="utf-8")
        process.kill()
    shown = re.findall(r"^\d.* seq=(\d+) ", os.read(unread[0], PAGE).decode(), re.MULTILINE)
    assert shown
    assert written.count("\nreply,") > int(shown[-1])
