"""Where log entries go, as far as it shows without a journal: JSON, the console, errors on stderr, and no harm done."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.daemon import ECHOD, REPOSITORY, Daemon, StartDaemon, connect_udp, environment, run_echod
from support.ports import free_port
from support.waiting import wait_until


def serve(echod: StartDaemon, log: Any = None, **options: Any) -> tuple[Daemon, int]:  # noqa: ANN401 - as Daemon has it
    """Start an echod whose log may not be JSON on stderr; return it with its port when it answers there."""
    port = free_port()
    config = {"listeners": [f"udp://127.0.0.1:{port}"], "workers": 1, "log": log or {}}
    daemon = echod(config, ready=False, **options)
    wait_until(lambda: is_answered(port), "it was ready")
    return daemon, port


def is_answered(port: int) -> bool:
    """Return whether a datagram is answered within a moment."""
    with connect_udp("127.0.0.1", port) as sock:
        sock.settimeout(0.1)
        try:
            sock.send(b"hi")
            return sock.recv(16) == b"hi"
        except (ConnectionRefusedError, TimeoutError):
            return False


def test_json_lines_hold_time_level_event_and_facts(echod: StartDaemon) -> None:
    """Without terminal or journal each entry is one JSON object: timestamp in UTC, level, event, and facts as keys."""
    port = free_port()
    daemon = echod({"listeners": [f"udp://127.0.0.1:{port}"], "workers": 1})
    entries = daemon.log()
    assert len(daemon.stderr.splitlines()) == len(entries)
    for entry in entries:
        assert list(entry)[:3] == ["timestamp", "level", "event"]
        assert abs((datetime.now(UTC) - datetime.fromisoformat(entry["timestamp"])).total_seconds()) < 60
    assert [entry["event"] for entry in entries] == ["starting", "worker_started", "listener_bound", "ready"]
    assert entries[2]["listener"] == f"udp://127.0.0.1:{port}"
    assert entries[1]["worker"] == 1


def test_console_lines_are_readable_on_their_own(echod: StartDaemon) -> None:
    """`console` writes time, level and a sentence, without colour where stderr is no terminal."""
    daemon, port = serve(echod, {"format": "console"})
    line = f" info    listener bound: listener udp://127.0.0.1:{port}\n"
    wait_until(lambda: line in daemon.stderr, "the line was written")  # the worker answers before it is told of
    assert daemon.stop() == 0
    assert "\x1b" not in daemon.stderr


def test_a_debug_line_needs_the_level_debug(echod: StartDaemon) -> None:
    """At `warning` a healthy start and stop log nothing."""
    daemon, _ = serve(echod, {"level": "warning"})
    assert daemon.stop() == 0
    assert daemon.stderr == ""


@pytest.fixture
def place() -> Iterator[tuple[str, Path]]:
    """Make a world with a /run of its own; return its mount namespace, and the place of the journal's socket in it."""
    script = "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && echo made && exec sleep 600"
    command = ["unshare", "--mount", "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as holder:
        assert holder.stdout is not None
        if holder.stdout.readline() != b"made\n":
            pytest.skip("no file system of our own")
        yield f"/proc/{holder.pid}/ns/mnt", Path(f"/proc/{holder.pid}/root/run/systemd/journal/socket")
        holder.kill()


def journal(path: Path) -> socket.socket:
    """Be the journal that listens there."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(path))
    sock.settimeout(15)
    return sock


def to_nowhere(namespace: str) -> list[str]:
    """Return the prefix of a command that runs there with /dev/null as stderr, as systemd has it without a journal."""
    return ["nsenter", f"--mount={namespace}", f"--wd={REPOSITORY}", "sh", "-c", 'exec "$@" 2>/dev/null', "sh"]


def receive(sock: socket.socket, event: str) -> bytes:
    """Return the next entry of this event."""
    while f"ECHOD_EVENT={event}\n".encode() not in (entry := sock.recv(65_536)):
        pass
    return entry


def test_a_journal_that_comes_after_the_start_is_found(echod: StartDaemon, place: tuple[str, Path]) -> None:
    """Entries go there as soon as it is there, and the first has how many are missing; a reload changes nothing."""
    namespace, path = place
    daemon, port = serve(echod, prefix=to_nowhere(namespace), variables={"INVOCATION_ID": "1"})
    with journal(path) as sock:
        daemon.signal(signal.SIGUSR1)
        while b"\nECHOD_LOST_ENTRIES=" not in sock.recv(65_536):
            pass
        daemon.signal(signal.SIGHUP)
        receive(sock, "reloaded")
        daemon.signal(signal.SIGUSR1)
        assert b"\nECHOD_LOST_ENTRIES=" not in receive(sock, "counters")
    path.unlink()
    daemon.signal(signal.SIGUSR1)
    wait_until(lambda: is_answered(port), "it serves without")
    with journal(path) as sock:
        assert daemon.stop() == 0
        receive(sock, "stopped")


def test_what_is_reported_goes_to_the_journal_if_nobody_reads_stderr(place: tuple[str, Path]) -> None:
    """The error that ends a daemon is a log entry if it was started without a journal, with /dev/null as stderr."""
    namespace, path = place
    script = (
        "from echod import logs\n"
        "logs.configure(level='info', destination='auto')\n"
        "print('configured', flush=True); input(); logs.report('the end')"
    )
    command = [*to_nowhere(namespace), sys.executable, "-c", script]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment(INVOCATION_ID="1"), stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"configured\n"
        with journal(path) as sock:
            process.communicate(b"\n", timeout=15)
            assert b"MESSAGE=the end\nPRIORITY=3\n" in receive(sock, "process_failed")


def test_a_stderr_that_is_null_by_intent_is_obeyed(echod: StartDaemon, place: tuple[str, Path]) -> None:
    """StandardError=null, and a command of a service with 2>/dev/null: the journal is there, and receives nothing."""
    namespace, path = place
    with journal(path) as sock:
        daemon, _ = serve(echod, prefix=to_nowhere(namespace), variables={"INVOCATION_ID": "1"})
        assert daemon.stop() == 0
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(1)


def test_a_journal_for_which_there_is_no_descriptor_is_done_without() -> None:
    """A reload to `journal` that finds none left raises nothing: entries are JSON on stderr."""
    script = (
        "import os, resource; from echod import logs; import structlog\n"
        "own = os.dup(2); resource.setrlimit(resource.RLIMIT_NOFILE, (own + 1, own + 1))\n"
        "logs.configure(level='info', destination='journal'); structlog.get_logger().info('still_here')"
    )
    finished = run_echod(command=(sys.executable, "-c", script))
    assert json.loads(finished.stderr)["event"] == "still_here"
    assert finished.returncode == 0


@pytest.mark.parametrize("ours", [True, False])
def test_what_is_reported_has_a_priority_if_stderr_is_the_journal(tmp_path: Path, ours: bool) -> None:  # noqa: FBT001
    """`<3>` begins each line only if JOURNAL_STREAM is stderr itself: the variable alone is inherited by anybody."""
    config, stderr = tmp_path / "echod.yaml", tmp_path / "stderr"
    config.write_text("worker: 1")
    with stderr.open("wb") as file:
        status = os.fstat(file.fileno())
        stream = f"{status.st_dev}:{status.st_ino if ours else status.st_ino + 1}"
        command = [*ECHOD, "run", "--config", str(config)]
        variables = environment(JOURNAL_STREAM=stream)
        finished = subprocess.run(command, cwd=REPOSITORY, env=variables, stderr=file, check=False)
    assert finished.returncode == 78
    lines = stderr.read_text().splitlines()
    assert len(lines) == 4
    assert [line.startswith("<3>") for line in lines] == [ours] * 4


def test_auto_is_the_journal_only_where_stderr_is_its_stream(tmp_path: Path, echod: StartDaemon) -> None:
    """A JOURNAL_STREAM that is not our stderr leaves the log on stderr."""
    port = free_port()
    daemon = echod({"listeners": [f"udp://127.0.0.1:{port}"]}, variables={"JOURNAL_STREAM": "8:1"})
    assert daemon.log("ready")


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_control_characters_of_a_config_do_not_reach_a_terminal(echod: StartDaemon, log_format: str) -> None:
    """What a rejected file holds is shown escaped, if at all: it cannot drive the terminal of who reads the log."""
    daemon, _ = serve(echod, {"format": log_format})
    texts = ("a: \x1b[31m", '"\\e[31mkey": 1', 'listeners: ["udp://\\e[31m\\u009b:7"]', "\x9b31m: 1")
    for count, text in enumerate(texts, start=1):
        daemon.write(text)
        daemon.signal(signal.SIGHUP)
        wait_until(partial(is_logged, daemon, f"rejected: {daemon.config_path}", count), "the file was rejected")
    assert not any(character in daemon.stderr for character in "\x1b\x9b")
    assert daemon.stop() == 0


def is_logged(daemon: Daemon, text: str, count: int) -> bool:
    """Return whether this text is in the log so often."""
    return daemon.stderr.count(text) >= count


def test_a_closed_stderr_ends_nothing(tmp_path: Path) -> None:
    """When the reader of its log has gone away, echod serves on."""
    port = free_port()
    config = tmp_path / "echod.yaml"
    config.write_text(f"listeners: [udp://127.0.0.1:{port}]")
    command = [*ECHOD, "run", "--config", str(config)]
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environment(), stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        process.stderr.close()
        wait_until(lambda: is_answered(port), "it was ready")
    finally:
        process.terminate()
        assert process.wait(15) == 0
