"""`echod reload` returns the outcome of a reload that read the file after it was asked."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from running import ECHOD, REPOSITORY, Daemon, ask, environment, free_port

from echod import status
from echod.core.errors import ExitCode

EchodFactory = Callable[..., Daemon]


def ask_for_reload(directory: Path) -> "subprocess.CompletedProcess[str]":
    """Run `echod reload` as the service manager does."""
    return subprocess.run(
        [*ECHOD, "reload"],
        cwd=REPOSITORY,
        env=environment(RUNTIME_DIRECTORY=str(directory)),
        capture_output=True,
        text=True,
        check=False,
        timeout=40,
    )


@pytest.fixture
def served(echod: EchodFactory, tmp_path: Path) -> tuple[Daemon, Path, int]:
    """Run echod with a status file; give it with the directory of that and its port."""
    directory = tmp_path / "run"
    directory.mkdir()
    port = free_port()
    config = {"listeners": [f"udp://127.0.0.1:{port}"], "workers": 1}
    return echod(config, variables={"RUNTIME_DIRECTORY": str(directory)}), directory, port


def test_a_good_config_serves_when_the_command_returns(served: tuple[Daemon, Path, int]) -> None:
    """A listener that was added answers as soon as the command has returned with 0."""
    daemon, directory, port = served
    more = free_port()
    daemon.write({"listeners": [f"udp://127.0.0.1:{port}", f"udp://127.0.0.1:{more}"], "workers": 1})
    result = ask_for_reload(directory)
    assert (result.returncode, result.stderr) == (ExitCode.OK, "")
    assert result.stdout == f"reloaded; changed: +udp://127.0.0.1:{more}\n"
    assert ask(more) == b"hi"


def test_a_bad_config_fails_with_every_mistake(served: tuple[Daemon, Path, int]) -> None:
    """The exit code is that of a config with mistakes, each is a line, and the old config goes on."""
    daemon, directory, port = served
    daemon.write("workers: 0\nlistenrs: []\n")
    result = ask_for_reload(directory)
    assert result.returncode == ExitCode.CONFIG
    assert result.stdout.splitlines() == [
        f"{daemon.config_path}:1:10: error: workers: 0 is out of bounds: write auto or a whole number from 1 to 64",
        f'{daemon.config_path}:2:1: error: listenrs: unknown key; did you mean "listeners"?',
    ]
    assert ask(port) == b"hi"


def test_a_port_that_is_taken_fails_with_its_own_code(served: tuple[Daemon, Path, int], echod: EchodFactory) -> None:
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


def test_without_a_running_echod_it_says_so(tmp_path: Path) -> None:
    """No status file: nobody to signal."""
    result = ask_for_reload(tmp_path)
    assert result.returncode == ExitCode.UNAVAILABLE
    assert result.stderr == f"echod: no echod is running with its status in {tmp_path}: is the unit active?\n"


def test_a_status_file_that_outlived_its_echod_is_no_echod(served: tuple[Daemon, Path, int]) -> None:
    """After kill -9 the file is still there; its process is not."""
    daemon, directory, _ = served
    os.kill(daemon.pid, signal.SIGKILL)
    daemon.wait()
    result = ask_for_reload(directory)
    assert result.returncode == ExitCode.UNAVAILABLE
    assert "does not exist" in result.stderr


def test_the_status_file_goes_with_its_echod(served: tuple[Daemon, Path, int]) -> None:
    """While it serves the file tells its process; once it has stopped there is none."""
    daemon, directory, _ = served
    told = status.read(directory)
    assert told is not None
    assert told["pid"] == daemon.pid
    assert daemon.stop() == ExitCode.OK
    assert list(directory.iterdir()) == []
