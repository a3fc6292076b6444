"""`echod status` shows to every user what the running echod does, and whether it replies."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.daemon import (
    AS_NOBODY,
    ECHOD,
    REPOSITORY,
    Daemon,
    Serve,
    StartDaemon,
    ask,
    children,
    environment,
    run_echod,
)
from support.loopback import NOBODY, namespace, needs_root
from support.ports import free_port
from support.scraping import answers, fetch, metered, status
from support.waiting import wait_until

from echod.errors import ExitCode
from echod.stats.snapshot import Snapshot
from echod.status import files

ALONE = ("unshare", "--pid", "--mount-proc", "--fork", "--kill-child")
ELSEWHERE = ("unshare", "--time", "--boottime", "100000", "--monotonic", "100000", "--fork", "--kill-child")


@pytest.fixture
def tmp_path(folder: Path) -> Path:
    """Give a folder that any user may enter: pytest's are root's alone."""
    return folder


def run_status(
    place: Path | None, *words: str, prefix: Sequence[str] = (), **variables: str
) -> "subprocess.CompletedProcess[str]":
    """Run `echod status` as an operator does."""
    where = {"RUNTIME_DIRECTORY": str(place)} if place is not None else {}
    return run_echod("status", *words, prefix=prefix, TZ="UTC", **where, **variables)


@pytest.fixture
def served(serve: Serve) -> tuple[Daemon, int]:
    """Run echod with a listener of each protocol."""
    return serve(workers=2)


def read_snapshot(daemon: Daemon) -> Snapshot:
    """Return what `--json` prints."""
    return Snapshot.unpack(run_status(daemon.status_path, "--json").stdout.encode())


@pytest.mark.sockets_only("it reads the status of the daemon, which has what the sockets received")
def test_the_overview_shows_traffic_and_sources(served: tuple[Daemon, int]) -> None:
    """Replies, drops by reason, top sources and refused sources; plain text in a pipe."""
    daemon, port = served
    for _ in range(3):
        ask(port)
    wait_until(lambda: read_snapshot(daemon).activity.top_sources, "the worker had reported its top sources")
    result = run_status(daemon.status_path)
    assert (result.returncode, result.stderr) == (ExitCode.OK, "")
    assert result.stdout.isascii()
    assert re.match(
        rf"echod \S+, process {daemon.pid}, up 00:00:\d\d, generation 1, 0 worker restarts\n", result.stdout
    )
    assert re.search(rf"\nconfig: {daemon.config_path}, read \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\n", result.stdout)
    assert f"\nudp://127.0.0.1:{port}         3        3        0            0           0\n" in result.stdout
    assert re.search(r"\ntop sources, last minute  datagrams\n127.0.0.1 +3\n", result.stdout)


@pytest.mark.sockets_only("it reads the status of the daemon, which has what the sockets received")
def test_json_is_the_snapshot_and_its_numbers_are_the_counters(served: tuple[Daemon, int]) -> None:
    """Number by number what the daemon logs on SIGUSR1."""
    daemon, port = served
    for _ in range(5):
        ask(port, b"12345")
    wait_until(lambda: read_snapshot(daemon).activity.udp[0].replied == 5, "the status has it")
    snapshot, row = read_snapshot(daemon), daemon.counters()[f"udp://127.0.0.1:{port}"]
    (udp,) = snapshot.activity.udp
    assert {name: getattr(udp, name) for name in row} == row
    assert (sum(udp.batches), udp.train_datagrams, udp.adopted) == (5, 0, False)
    assert [worker.pid for worker in snapshot.activity.workers] == daemon.workers()
    assert snapshot.pid == daemon.pid
    assert abs(snapshot.at - time.time()) < 60


def test_the_exit_code_is_3_if_echod_does_not_run(served: tuple[Daemon, int], tmp_path: Path) -> None:
    """The LSB has 3 for a program that is not running: one that was never started, and one that was killed."""
    daemon, _ = served
    assert run_status(tmp_path / "nowhere").returncode == ExitCode.NOT_RUNNING
    assert run_status(daemon.status_path).returncode == ExitCode.OK
    daemon.signal(signal.SIGKILL)
    daemon.wait()
    killed = run_status(daemon.status_path)
    assert killed.returncode == ExitCode.NOT_RUNNING
    assert killed.stderr.startswith(f"echod: no echod is running: process {daemon.pid}, which wrote ")
    assert killed.stdout == ""
    assert run_status(daemon.status_path, "--check").returncode == ExitCode.NOT_RUNNING
    assert run_status(daemon.status_path, "--json").returncode == ExitCode.NOT_RUNNING


def test_a_check_probes_each_listener(served: tuple[Daemon, int]) -> None:
    """The exit code is 0 if all passed, with text and with JSON; the daemon counts the probes separately."""
    daemon, port = served
    names = [f"udp://127.0.0.1:{port}", f"tcp://127.0.0.1:{port}"]
    result = run_status(daemon.status_path, "--check")
    assert (result.returncode, result.stderr) == (ExitCode.OK, "")
    *lines, summary = result.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [[name, "ok,"] for name in names]
    assert summary == "all 2 listeners replied"
    listed = json.loads(run_status(daemon.status_path, "--check", "--json").stdout)
    assert [(each["name"], each["problem"]) for each in listed] == [(name, "") for name in names]
    rows = daemon.counters()
    assert (rows[names[0]]["self_test"], rows[names[1]]["closed_self_test"]) == (2, 2)


def test_a_check_fails_for_a_stuck_worker_that_no_probe_reached(echod: StartDaemon) -> None:
    """Each worker has a socket of its own for a UDP listener, and the kernel chooses which one gets the probe."""
    config, http = metered(f"udp://127.0.0.1:{free_port()}", workers=8)
    daemon = echod(config)
    wait_until(lambda: answers(http, "/healthz"), "all was well")
    victim = daemon.workers()[0]
    os.kill(victim, signal.SIGSTOP)

    def aged() -> bool:
        workers = [one for each in (daemon.status(), status(http)) for one in each["activity"]["workers"]]
        return all(one["heartbeat_age_seconds"] for one in workers if one["pid"] == victim)

    wait_until(aged, "the status and the exporter have its age")
    daemon.signal(signal.SIGSTOP)  # it would soon replace that worker
    checked, listed = run_status(daemon.status_path, "--check"), run_status(daemon.status_path, "--check", "--json")
    health = fetch(http, "/healthz")
    daemon.signal(signal.SIGCONT)
    assert (checked.returncode, listed.returncode, health[0]) == (ExitCode.NO_ANSWER, ExitCode.NO_ANSWER, 503)
    assert re.search(r"\nworker \d  FAILED: heartbeat age \d+ s; sources", checked.stdout)
    problems = {each["name"]: each["problem"] for each in json.loads(listed.stdout)}
    assert any(name.startswith("worker ") and "heartbeat age" in problem for name, problem in problems.items())
    assert re.search(r"^failing\n(.*\n)*worker \d: heartbeat age \d+ s\n", health[2])


@needs_root
def test_any_user_may_read_the_status_and_only_root_probes_with_the_mark(serve: Serve) -> None:
    """Any user may read the status. The probes of a user who may not read the mark are like those of any client."""
    daemon, _ = serve(["udp"], workers=1, access={"deny": ["loopback"]})
    shown = run_status(daemon.status_path, prefix=AS_NOBODY)
    assert (shown.returncode, shown.stderr) == (ExitCode.OK, "")
    assert shown.stdout.startswith("echod ")
    checked = run_status(daemon.status_path, "--check", prefix=AS_NOBODY)
    assert checked.returncode == ExitCode.NO_ANSWER
    assert "cannot be read by this user, so the probes were sent as those of any client" in checked.stderr
    assert run_status(daemon.status_path, "--check").returncode == ExitCode.OK


def test_a_generation_without_a_source_port_for_self_tests_has_no_mark(served: tuple[Daemon, int]) -> None:
    """If every source port is refused, the mark of the previous generation is not used, and the check reports that."""
    daemon, port = served
    guard = {"min_source_port": 65_535, "refuse_source_ports": [65_535]}
    assert daemon.reload({"listeners": [f"udp://127.0.0.1:{port}"], "workers": 1, "guard": guard})["level"] == "info"
    assert files.read_self_test(daemon.status_path) is None
    checked = run_status(daemon.status_path, "--check")
    assert checked.returncode == ExitCode.NO_ANSWER
    assert "self-test.json does not exist or cannot be read by this user" in checked.stderr


def test_an_old_status_is_reported_as_old(served: tuple[Daemon, int]) -> None:
    """If the supervisor hangs, the status shows since when, and so does a check, although every listener replies."""
    daemon, _ = served
    before = daemon.status()["at"]
    wait_until(lambda: daemon.status()["at"] > before, "an idle echod had written its status again", seconds=30)
    assert run_status(daemon.status_path).returncode == ExitCode.OK
    daemon.signal(signal.SIGSTOP)
    wait_until(lambda: read_snapshot(daemon).stale, "the status was old", seconds=30)
    shown, packed = run_status(daemon.status_path), run_status(daemon.status_path, "--json")
    checked = run_status(daemon.status_path, "--check")
    daemon.signal(signal.SIGCONT)
    codes = [each.returncode for each in (shown, packed, checked)]
    assert codes == [ExitCode.STATUS_UNKNOWN] * 3
    assert shown.stdout.startswith("OLD, as it was at ")
    assert f"process {daemon.pid} has written no status since" in shown.stdout
    assert checked.stdout.endswith("all 2 listeners replied\n")
    assert checked.stderr.startswith("echod: these are the listeners as it was at ")
    wait_until(lambda: run_status(daemon.status_path).returncode == ExitCode.OK, "the status was fresh again")


def test_watch_prints_the_overview_again_and_again(served: tuple[Daemon, int]) -> None:
    """In a pipe one overview follows the other, until the reader has gone."""
    daemon, _ = served
    command = [*ECHOD, "status", "--watch"]
    variables = environment(RUNTIME_DIRECTORY=str(daemon.status_path))
    with subprocess.Popen(command, cwd=REPOSITORY, env=variables, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        heads = [line for line in (watching.stdout.readline() for _ in range(60)) if line.startswith("echod ")]
        watching.stdout.close()
    assert len(heads) >= 2
    assert watching.returncode == ExitCode.OK


def test_watch_with_json_prints_a_line_for_each_change(served: tuple[Daemon, int]) -> None:
    """The first line is the present snapshot; the next one follows when something has changed."""
    daemon, port = served
    command = ["env", "--default-signal=INT", *ECHOD, "status", "--watch", "--json"]
    variables = environment(RUNTIME_DIRECTORY=str(daemon.status_path))
    with subprocess.Popen(command, cwd=REPOSITORY, env=variables, stdout=subprocess.PIPE) as watching:
        assert watching.stdout is not None
        before = Snapshot.unpack(watching.stdout.readline())
        ask(port)
        after = Snapshot.unpack(watching.stdout.readline())
        watching.send_signal(signal.SIGINT)
    assert [each.activity.udp[0].received for each in (before, after)] == [0, 1]
    assert watching.returncode == ExitCode.OK


def test_watch_ends_with_the_daemon(served: tuple[Daemon, int]) -> None:
    """The exit code is that of an echod that does not run."""
    daemon, _ = served
    command = [*ECHOD, "status", "--watch"]
    variables = environment(RUNTIME_DIRECTORY=str(daemon.status_path))
    with subprocess.Popen(command, cwd=REPOSITORY, env=variables, stdout=subprocess.PIPE) as watching:
        assert watching.stdout is not None
        watching.stdout.readline()
        daemon.stop()
        watching.communicate(timeout=30)
    assert watching.returncode == ExitCode.NOT_RUNNING


def on_a_terminal(place: Path, *words: str, blocked: bool = False) -> str:
    """Run `echod status` on a terminal of 80 columns; return what stands on it."""
    leader, follower = pty.openpty()
    shield = "import sys; sys.modules['rich'] = None; " if blocked else ""
    program = f"{shield}import sys; from echod.cli import main; main.main(main.load(['status', *sys.argv[1:]]))"
    process = subprocess.Popen(
        # It receives SIGINT even if the tests run in the background, where that signal is ignored.
        ["env", "--default-signal=INT", sys.executable, "-c", program, *words],
        cwd=REPOSITORY,
        env=environment(RUNTIME_DIRECTORY=str(place), TERM="xterm", COLUMNS="80", LINES="50"),
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    shown, interrupted = b"", "--watch" not in words
    try:
        while chunk := os.read(leader, 65_536):
            shown += chunk
            if not interrupted and shown.count(b"UDP listener") >= 2:
                process.send_signal(signal.SIGINT)
                interrupted = True
    except OSError:
        pass  # the other end is closed: it has ended
    os.close(leader)
    assert process.wait(30) == ExitCode.OK
    return shown.decode()


def unstyled(text: str) -> str:
    """Take colours, and blanks at the ends of lines, away."""
    return "\n".join(line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines())


def test_on_a_terminal_the_overview_has_colours(served: tuple[Daemon, int]) -> None:
    """Restarts are red, headings bold, no number is cut off, and the words are those of a pipe."""
    daemon, _ = served
    os.kill(daemon.workers()[0], signal.SIGKILL)
    wait_until(lambda: read_snapshot(daemon).activity.worker_restarts == 1, "the status had the restart")
    shown = on_a_terminal(daemon.status_path)
    assert "\x1b[1mUDP listener" in shown
    assert re.search(r"\x1b\[31m +1\x1b\[0m", shown)
    assert "\u2026" not in shown
    words = {word for line in run_status(daemon.status_path).stdout.splitlines()[4:] for word in line.split()}
    volatile = {word for word in words if re.fullmatch(r"[\d.]+", word)}
    assert words - volatile <= set(unstyled(shown).split())


def test_on_a_terminal_without_rich_it_is_plain(served: tuple[Daemon, int]) -> None:
    """Aligned text, without a control sequence."""
    daemon, _ = served
    shown = on_a_terminal(daemon.status_path, blocked=True)
    assert "\x1b" not in shown
    assert shown.replace("\r\n", "\n").splitlines()[4:8] == run_status(daemon.status_path).stdout.splitlines()[4:8]


def test_on_a_terminal_watching_draws_in_one_place(served: tuple[Daemon, int]) -> None:
    """On a screen of its own, which is given back at the end."""
    daemon, _ = served
    shown = on_a_terminal(daemon.status_path, "--watch")
    assert "\x1b[?1049h" in shown
    assert "\x1b[?1049l" in shown


def test_another_time_namespace_sees_the_same_echod(served: tuple[Daemon, int]) -> None:
    """Its clocks since boot are others, and so would be the times of birth; a container may have one of its own."""
    daemon, _ = served
    shown = run_status(daemon.status_path, prefix=ELSEWHERE)
    assert (shown.returncode, shown.stderr) == (ExitCode.OK, "")
    assert f"process {daemon.pid}, up 00:0" in shown.stdout


def test_an_echod_in_another_time_namespace_is_seen(serve: Serve) -> None:
    """Its birth and its start are times of clocks that all namespaces share."""
    daemon, _ = serve(workers=1, prefix=ELSEWHERE)
    shown = run_status(daemon.status_path)
    assert (shown.returncode, shown.stderr) == (ExitCode.OK, "")
    assert ", up 00:0" in shown.stdout


def test_the_log_has_the_directory_of_the_status(echod: StartDaemon, tmp_path: Path) -> None:
    """If the config has another one since the start, the command refers to the log, whose first entry has it."""
    place = tmp_path / "before"
    config = {"listeners": [f"udp://127.0.0.1:{free_port()}"], "workers": 1, "status": {"directory": str(place)}}
    daemon = echod(config)
    daemon.write({**config, "status": {"directory": str(tmp_path / "since")}})
    result = run_status(None, "--config", str(daemon.config_path))
    assert result.returncode == ExitCode.STATUS_UNKNOWN
    assert 'its log says why, and where it is: look for "status" there (log.level: info)' in result.stderr
    (entry,) = (entry for entry in daemon.log() if "status" in json.dumps(entry))
    assert (entry["event"], entry["level"], entry["status"]) == ("starting", "info", str(place))


@needs_root
def test_an_echod_that_cannot_write_its_status_is_reported_as_running(serve: Serve, tmp_path: Path) -> None:
    """With a read-only status directory it serves; the command reports that, and the log has what to do."""
    place = tmp_path / "ro"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", place], check=True)
    try:
        daemon, _ = serve(workers=1, variables={"RUNTIME_DIRECTORY": str(place)})
        (entry,) = daemon.log("status_not_written")
        result = run_status(place, "--config", str(daemon.config_path))
    finally:
        subprocess.run(["umount", place], check=True)
    assert "Read-only file system; give echod a directory that is not read-only" in entry["message"]
    assert (result.returncode, result.stdout) == (ExitCode.STATUS_UNKNOWN, "")
    assert f"an echod runs with {daemon.config_path}, process {daemon.pid}, but its status is not in" in result.stderr


@needs_root
def test_a_user_finds_the_echod_of_the_same_session(serve: Serve, tmp_path: Path) -> None:
    """`echod run` and `echod status` use XDG_RUNTIME_DIR; without it, both report that there is no status."""
    session = tmp_path / "session"
    session.mkdir()
    os.chown(session, NOBODY, NOBODY)
    variables = {"RUNTIME_DIRECTORY": "", "XDG_RUNTIME_DIR": str(session)}
    daemon, _ = serve(workers=1, prefix=AS_NOBODY, variables=variables)
    shown = run_status(None, prefix=AS_NOBODY, **variables)
    assert (shown.returncode, shown.stderr) == (ExitCode.OK, "")
    assert f"process {daemon.pid}" in shown.stdout
    without, _ = serve(workers=1, prefix=AS_NOBODY, variables=variables | {"XDG_RUNTIME_DIR": ""})
    (entry,) = without.log("status_not_written")
    assert "no status is written, so `echod status` and `echod reload` do not find this echod" in entry["message"]
    shown = run_status(None, "--config", str(without.config_path), prefix=AS_NOBODY)
    assert shown.returncode == ExitCode.STATUS_UNKNOWN
    assert f"an echod runs with {without.config_path}, process {without.pid}, but its status is not in" in shown.stderr


@needs_root
@pytest.mark.skipif(Path("/etc/echod.yaml").exists(), reason="/etc/echod.yaml exists, so the defaults are not used")
def test_an_echod_without_a_config_file_is_its_users_and_runs_with_no_file(echod: StartDaemon, tmp_path: Path) -> None:
    """Its user learns that its status is not found (4); for others, and by the name of a file, no echod runs (3)."""
    nowhere = tmp_path / "nowhere"
    with namespace():
        variables = {"RUNTIME_DIRECTORY": "", "XDG_RUNTIME_DIR": ""}
        daemon = echod(prefix=(*ALONE, *AS_NOBODY), variables=variables)  # it is process 1 of a PID namespace
    beside = ("nsenter", f"--target={children(daemon.pid)[0]}", "--pid", "--mount")
    own = run_status(nowhere, prefix=(*beside, *AS_NOBODY))
    assert (own.returncode, own.stdout) == (4, "")
    assert own.stderr.startswith(
        f"echod: an echod runs without a config file, process 1, but its status is not in {nowhere} or /run/echod: "
    )
    others = (
        f"echod: no echod is running: there is no {nowhere}/status.json; an echod without a config file runs, process "
        "1: ask for it as its user, without --config\n"
    )
    asked = run_status(nowhere, prefix=beside)
    assert (asked.returncode, asked.stdout, asked.stderr) == (3, "", others)
    asked = run_status(nowhere, "--config", "/etc/echod.yaml", prefix=(*beside, *AS_NOBODY))
    absent = "echod: no echod is running with that config: cannot read /etc/echod.yaml: there is no such file\n"
    assert (asked.returncode, asked.stdout, asked.stderr) == (3, "", absent)
    assert run_echod("reload", prefix=beside, RUNTIME_DIRECTORY=str(nowhere)).returncode == 69


@needs_root
@pytest.mark.skipif(Path("/etc/echod.yaml").exists(), reason="/etc/echod.yaml exists, so the defaults are not used")
def test_the_status_of_an_echod_without_a_config_file_is_not_that_of_a_file(echod: StartDaemon) -> None:
    """It is shown to who names no file; to who names one, no echod runs."""
    with namespace():
        daemon = echod()
    shown = run_status(daemon.status_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "\nconfig: built-in defaults; there was no /etc/echod.yaml\n" in shown.stdout
    for command, code in (("status", 3), ("reload", 69)):
        where = {"RUNTIME_DIRECTORY": str(daemon.status_path)}
        named = run_echod(command, "--config", "/etc/echod.yaml", **where)
        assert (named.returncode, named.stdout) == (code, "")
        assert named.stderr == (
            f"echod: no echod is running with /etc/echod.yaml: the one that has its status in {daemon.status_path}, "
            f"process {daemon.pid}, runs without a config file; leave out --config\n"
        )
