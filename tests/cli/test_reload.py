"""`echod reload` returns the outcome of a reload that read the file after it was asked."""

import dataclasses
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import ECHOD, REPOSITORY, Daemon, StartDaemon, ask, environment, fill, run_echod
from support.loopback import NOBODY, needs_root
from support.ports import free_port
from support.snapshots import make_snapshot
from support.waiting import wait_until

from echod.errors import ExitCode
from echod.stats.snapshot import Snapshot
from echod.status import instances, writing

Process = subprocess.Popen[bytes]


def ask_for_reload(directory: Path, *words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run `echod reload` as the service manager does."""
    return run_echod("reload", *words, RUNTIME_DIRECTORY=str(directory), **variables)


@pytest.fixture
def served(echod: StartDaemon) -> tuple[Daemon, Path, int]:
    """Run echod with a status file; give it with the directory of that and its port."""
    port = free_port()
    daemon = echod({"listeners": [f"udp://127.0.0.1:{port}"], "workers": 1})
    return daemon, daemon.status_path, port


@pytest.fixture
def bystander() -> Iterator[Process]:
    """Start a process, in a group of its own, that nobody may signal."""
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        yield process
        alive = process.poll() is None
        process.kill()
    assert alive


def test_a_good_config_serves_when_the_command_returns(served: tuple[Daemon, Path, int]) -> None:
    """A listener that was added answers as soon as the command has returned with 0."""
    daemon, directory, port = served
    more = free_port()
    daemon.write({"listeners": [f"udp://127.0.0.1:{port}", f"udp://127.0.0.1:{more}"], "workers": 1})
    result = ask_for_reload(directory)
    assert (result.returncode, result.stderr) == (ExitCode.OK, "")
    assert result.stdout == f"reloaded; changed: +udp://127.0.0.1:{more}\n"
    assert ask(more) == b"hi"


def test_changes_stand_apart_from_the_options_of_one(served: tuple[Daemon, Path, int]) -> None:
    """Options have commas between them, changes have semicolons."""
    daemon, directory, port = served
    address = f"udp://127.0.0.1:{port}"
    daemon.write({"listeners": [{"address": address, "mode": "stamp", "stateful": True}], "workers": 2})
    result = ask_for_reload(directory)
    assert result.stdout == f"reloaded; changed: {address}: echo -> stamp, stateful: true; workers: 1 -> 2\n"


def test_a_bad_config_fails_with_every_mistake(served: tuple[Daemon, Path, int]) -> None:
    """The exit code is that of a config with mistakes, each is a line, and the previous config stays in force."""
    daemon, directory, port = served
    daemon.write("workers: 0\nlistenrs: []\n")
    result = ask_for_reload(directory)
    assert result.returncode == ExitCode.CONFIG
    assert result.stdout.splitlines() == [
        "REJECTED; the previous config stays in force",
        f"{daemon.config_path}:1:10: error: workers: 0 is out of bounds: write auto or a whole number from 1 to 64",
        f'{daemon.config_path}:2:1: error: listenrs: unknown key; did you mean "listeners"?',
    ]
    assert ask(port) == b"hi"


def test_a_port_that_is_taken_fails_with_its_own_code(served: tuple[Daemon, Path, int], echod: StartDaemon) -> None:
    """What stands in the way of a new listener is the outcome, not that the file was read."""
    daemon, directory, port = served
    taken = free_port()
    echod({"listeners": [f"udp://127.0.0.1:{taken}"], "workers": 1})
    daemon.write({"listeners": [f"udp://127.0.0.1:{port}", f"udp://127.0.0.1:{taken}"], "workers": 1})
    result = ask_for_reload(directory)
    assert result.returncode == ExitCode.UNAVAILABLE
    assert f"udp://127.0.0.1:{taken} is in use" in result.stdout
    assert ask(port) == b"hi"


def test_each_of_many_reloads_has_its_own_outcome(served: tuple[Daemon, Path, int]) -> None:
    """Good and bad in turn, no outcome is that of the reload before."""
    daemon, directory, port = served
    good = {"listeners": [f"udp://127.0.0.1:{port}"], "workers": 1}
    codes = []
    for number in range(6):
        daemon.write("workers: 0\n" if number % 2 else good)
        codes.append(ask_for_reload(directory).returncode)
    assert codes == [ExitCode.OK, ExitCode.CONFIG] * 3


def test_without_a_running_echod_it_fails(tmp_path: Path) -> None:
    """No status file: nobody to signal."""
    result = ask_for_reload(tmp_path)
    assert result.returncode == ExitCode.UNAVAILABLE
    assert result.stderr.startswith(f"echod: no echod is running: there is no {tmp_path}/status.json; ")


@pytest.mark.parametrize("text", ["{}", "[]", "nonsense", "", '{"pid": "all"}'])
def test_a_status_file_of_something_else_is_one_sentence(tmp_path: Path, text: str) -> None:
    """Whatever stands there, it names nobody to signal."""
    (tmp_path / writing.NAME).write_text(text)
    result = ask_for_reload(tmp_path)
    assert result.returncode == ExitCode.STATUS_UNKNOWN
    assert result.stderr == (
        f"echod: {tmp_path}/status.json is not valid: it was written by another version of echod\n"
    )


def test_nobody_but_the_echod_that_wrote_it_is_signalled(served: tuple[Daemon, Path, int], bystander: Process) -> None:
    """After kill -9 its number may be another's, and what stands for all processes of a kind is no number at all."""
    daemon, directory, _ = served
    os.kill(daemon.pid, signal.SIGKILL)
    daemon.wait()
    result = ask_for_reload(directory)
    assert result.returncode == ExitCode.UNAVAILABLE
    assert f"process {daemon.pid}, which wrote {directory}/status.json, is gone" in result.stderr
    path = directory / writing.NAME
    reported = json.loads(path.read_text())
    for pid in (bystander.pid, -bystander.pid, 2**40):
        path.write_text(json.dumps({**reported, "pid": pid}))
        result = ask_for_reload(directory)
        if pid == bystander.pid:
            assert (result.returncode, result.stdout) == (ExitCode.UNAVAILABLE, "")
            assert result.stderr.startswith(f"echod: no echod is running: process {pid}")
        else:
            assert (result.returncode, result.stdout) == (ExitCode.STATUS_UNKNOWN, "")


@needs_root
def test_root_signals_no_process_of_another_user_than_who_wrote_the_file(tmp_path: Path, bystander: Process) -> None:
    """The user of echod may name any process with the time of its birth, which everybody can see."""
    path = tmp_path / writing.NAME
    path.write_bytes(make_snapshot(pid=bystander.pid, born=instances.birth(bystander.pid)).pack())
    os.chown(path, NOBODY, NOBODY)
    result = ask_for_reload(tmp_path)
    assert result.returncode == ExitCode.UNAVAILABLE
    assert f"process {bystander.pid} is not the one that wrote {path}" in result.stderr


@needs_root
def test_root_follows_no_link_in_the_place_of_the_file(tmp_path: Path, bystander: Process) -> None:
    """Who owns the directory could point it at a file of root between two looks: there is one look, at one file."""
    place = tmp_path / "run"
    place.mkdir()
    named = make_snapshot(pid=bystander.pid, born=instances.birth(bystander.pid))
    (tmp_path / "roots").write_bytes(named.pack())
    (place / writing.NAME).symlink_to(tmp_path / "roots")
    result = ask_for_reload(place)
    assert (result.returncode, result.stdout) == (ExitCode.STATUS_UNKNOWN, "")
    assert result.stderr == f"echod: {place}/status.json cannot be read: it is a symbolic link\n"


def test_a_stop_ends_the_wait(served: tuple[Daemon, Path, int]) -> None:
    """The command for a reload that will never be done reports so at once, with a code of its own."""
    daemon, directory, _ = served
    os.kill(daemon.pid, signal.SIGSTOP)  # so that the stop comes before the reload has any end
    variables = environment(RUNTIME_DIRECTORY=str(directory))
    command = [*ECHOD, "reload"]
    with subprocess.Popen(command, cwd=REPOSITORY, env=variables, stderr=subprocess.PIPE, text=True) as asking:
        pending = Path(f"/proc/{daemon.pid}/status")
        wait_until(lambda: "ShdPnd:\t0000000000000001\n" in pending.read_text(), "SIGHUP was sent")
        os.kill(daemon.pid, signal.SIGTERM)
        os.kill(daemon.pid, signal.SIGCONT)
        _, printed = asking.communicate(timeout=25)
    assert asking.returncode == ExitCode.STOPPED
    assert printed == "echod: echod stopped before the reload was done; its log says why\n"
    assert daemon.wait() == ExitCode.OK


def test_a_reload_that_echod_cannot_report_is_not_waited_for(echod: StartDaemon, small: Path) -> None:
    """Where the status is old, for its file system is full, only the log has the outcome of the reload."""
    config = {"listeners": [f"udp://127.0.0.1:{free_port()}"], "workers": 1}
    daemon = echod(config, variables={"RUNTIME_DIRECTORY": str(small)})
    fill(small)
    with (small / writing.NAME).open("r+b") as file:  # in place, where there is room
        reported = dataclasses.replace(Snapshot.unpack(file.read()), at_monotonic=1.0).pack()
        file.seek(0)
        file.write(reported)
        file.truncate()
    finished = ask_for_reload(small)
    assert (finished.returncode, finished.stderr) == (
        ExitCode.SOFTWARE,
        f"echod: the outcome of the reload is unknown: echod's status in {small} is old; see its log\n",
    )
    daemon.wait_for("reloaded")
    (small / "fill").unlink()
    assert ask_for_reload(small).returncode == ExitCode.OK


def test_it_is_found_where_its_config_has_or_had_it(served: tuple[Daemon, Path, int], tmp_path: Path) -> None:
    """Another `status.directory` comes with the next start, as outcome and log report; until then all goes on."""
    daemon, directory, port = served
    config = {"listeners": [f"udp://127.0.0.1:{port}"], "workers": 1}
    daemon.write({**config, "status": {"directory": str(tmp_path / "other")}})
    for changed in (f"status.directory: auto -> {tmp_path}/other at the next start", "nothing"):
        result = ask_for_reload(directory, "--config", str(daemon.config_path))
        assert (result.returncode, result.stdout) == (ExitCode.OK, f"reloaded; changed: {changed}\n")
    for entry in daemon.log("status_directory_ignored"):
        assert entry["message"].startswith(f"{daemon.config_path}: status.directory: {tmp_path}/other is read only at")
        assert entry["message"].endswith(f"until then the status is in {directory}")
    assert len(daemon.log("status_directory_ignored")) == 2
    daemon.write({**config, "status": {"directory": str(directory)}})
    assert ask_for_reload(tmp_path / "nowhere", "--config", str(daemon.config_path)).returncode == ExitCode.OK
    assert len(daemon.log("status_directory_ignored")) == 2


def test_of_two_echods_the_one_is_reloaded_whose_config_was_named(
    served: tuple[Daemon, Path, int], echod: StartDaemon
) -> None:
    """The second has no place for its status, for the first is there: an error, and the first does not reload."""
    first, directory, _ = served
    config = {"listeners": [f"udp://127.0.0.1:{free_port()}"], "workers": 1}
    second = echod(config, variables={"RUNTIME_DIRECTORY": str(directory)})
    result = ask_for_reload(directory, "--config", str(second.config_path))
    assert (result.returncode, result.stdout) == (ExitCode.STATUS_UNKNOWN, "")
    assert f"an echod runs with {second.config_path}, process {second.pid}, but its status is not in" in result.stderr
    second.stop()
    result = ask_for_reload(directory, "--config", str(second.config_path))
    assert (result.returncode, result.stdout) == (ExitCode.UNAVAILABLE, "")
    assert (
        f"process {first.pid}, runs with {first.config_path}; name that with --config {first.config_path}"
        in result.stderr
    )
    assert (first.log("reloading"), second.log("reloading")) == ([], [])
    assert ask_for_reload(directory, "--config", str(first.config_path)).returncode == ExitCode.OK


def test_the_process_that_the_service_manager_names_is_enough(served: tuple[Daemon, Path, int]) -> None:
    """As it does to ExecReload=: where somebody has removed the status, that is soon there again."""
    daemon, directory, _ = served
    (directory / writing.NAME).unlink()
    result = ask_for_reload(directory, MAINPID=str(daemon.pid))
    assert (result.returncode, result.stdout, result.stderr) == (ExitCode.OK, "reloaded; changed: nothing\n", "")


def test_of_two_with_one_config_the_process_of_the_unit_is_reloaded(echod: StartDaemon, tmp_path: Path) -> None:
    """Wherever its status is: the config may name another directory now, where there is another echod."""
    named, usual = tmp_path / "named", tmp_path / "usual"
    first = echod({"listeners": [f"udp://127.0.0.1:{free_port()}"], "status": {"directory": str(named)}})
    config = first.config_path.read_text()
    first.write({"listeners": [f"udp://127.0.0.1:{free_port()}"]})
    command = ("run", "--config", str(first.config_path))
    second = echod(None, command=command, variables={"RUNTIME_DIRECTORY": str(usual)})
    first.write(config)
    for daemon, code in ((first, ExitCode.OK), (second, ExitCode.UNAVAILABLE)):  # whose port the first one has
        result = ask_for_reload(usual, "--config", str(first.config_path), MAINPID=str(daemon.pid))
        assert result.returncode == code
    assert [len(first.log(event)) for event in ("reloaded", "reload_rejected")] == [1, 0]
    assert [len(second.log(event)) for event in ("reloaded", "reload_rejected")] == [0, 1]


def test_the_process_of_the_unit_is_reloaded_and_no_other(served: tuple[Daemon, Path, int], echod: StartDaemon) -> None:
    """Also where it has no status; then the outcome is unknown. What is no echod is not asked."""
    first, directory, _ = served
    config = {"listeners": [f"udp://127.0.0.1:{free_port()}"], "workers": 1}
    second = echod(config, variables={"RUNTIME_DIRECTORY": str(directory)})
    result = ask_for_reload(directory, MAINPID=str(second.pid))
    assert (result.returncode, result.stdout) == (ExitCode.STATUS_UNKNOWN, "")
    assert result.stderr.startswith(f"echod: process {second.pid} was signalled to reload, but the outcome is unknown")
    second.wait_for("reloaded")
    assert first.log("reloading") == []
    for other in (str(os.getpid()), "0", "", "-1", "\u0663", "9" * 30):
        assert ask_for_reload(directory, MAINPID=other).returncode == ExitCode.OK
    assert len(first.log("reloaded")) == 6
