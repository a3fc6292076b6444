"""`--daemonize`: into the background only once all is well, with a pidfile that never lies."""

import fcntl
import os
import pty
import pwd
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.daemon import ECHOD, REPOSITORY, ask, children, end_processes, environment, fill, title
from support.loopback import needs_root
from support.ports import free_port
from support.waiting import wait_until

Running = subprocess.Popen[bytes]


class Host:
    """A folder with a config, a pidfile and a log, and the daemon that is started from it."""

    def __init__(self, folder: Path) -> None:
        """Choose a port and write a config for it."""
        self.port = free_port()
        self.config, self.pidfile, self.stderr = (folder / name for name in ("echod.yaml", "echod.pid", "stderr"))
        self.configure(listeners=[f"udp://127.0.0.1:{self.port}", f"tcp://127.0.0.1:{self.port}"], workers=2)

    def configure(self, **config: object) -> None:
        """Write the config."""
        self.config.write_text(yaml.safe_dump(config))

    def start(self, **variables: str) -> tuple[int, str]:
        """Run the command until it returns, with a file as stdout and stderr; return exit code and what it printed."""
        with self.stderr.open("wb") as stderr:
            process = self.begin(variables=variables, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr)
        return process.wait(30), self.log

    def begin(self, *prefix: str, variables: Mapping[str, str] | None = None, **streams: Any) -> Running:  # noqa: ANN401
        """Run what a user types, behind the prefix of another command, with these standard streams."""
        command = [*ECHOD, "run", "--config", str(self.config), "--daemonize", "--pidfile", str(self.pidfile)]
        return subprocess.Popen([*prefix, *command], cwd=REPOSITORY, env=environment(**(variables or {})), **streams)

    def halt_as_it_starts(self, *prefix: str) -> Running:
        """Begin with so many listeners that the daemon can be halted before it serves; return the first process."""
        listeners = [f"udp://127.77.0.1:{port}" for port in range(15_000, 15_400)]
        self.configure(listeners=[f"udp://127.0.0.1:{self.port}", *listeners], workers=2)
        with self.stderr.open("wb") as stderr:
            process = self.begin(*prefix, stderr=stderr)
        wait_until(lambda: bool(self.pidfile.exists() and self.pidfile.read_text().strip()), "it was starting")
        self.signal(signal.SIGSTOP)
        assert '"ready"' not in self.log
        return process

    @property
    def pid(self) -> int:
        """Return the number in the pidfile."""
        return int(self.pidfile.read_text())

    @property
    def log(self) -> str:
        """Return what was written to the file that is stderr."""
        return self.stderr.read_text()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process of the pidfile."""
        os.kill(self.pid, number)

    def stop(self) -> None:
        """Stop the daemon, and wait until its pidfile is gone."""
        self.signal(signal.SIGTERM)
        wait_until(lambda: not self.pidfile.exists(), "it had stopped")

    def processes(self) -> list[int]:
        """Return every process that serves this host's config: the supervisor and its workers."""
        with suppress(FileNotFoundError, ValueError):
            if title(self.pid).startswith("echod: supervisor"):
                return [self.pid, *children(self.pid)]
        return []


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """Make a host; end what was started on it."""
    host = Host(tmp_path)
    yield host
    end_processes(reversed(host.processes()))


def test_the_command_returns_once_the_daemon_serves(host: Host) -> None:
    """Exit code 0 means that it answers; the pidfile names the supervisor, which is in a session of its own."""
    assert host.start()[0] == 0
    assert ask(host.port) == b"hi"
    assert title(host.pid) == f"echod: supervisor {host.config}"
    assert len(host.processes()) == 3
    assert os.getsid(host.pid) != os.getsid(0)
    assert Path(f"/proc/{host.pid}/stat").read_text().rpartition(")")[2].split()[4] == "0"  # no controlling terminal


@needs_root
def test_the_workers_of_a_daemon_of_root_are_nobody(host: Host) -> None:
    """Only the supervisor is root: python-daemon keeps its user, and no process that hears a peer has it."""
    assert host.start()[0] == 0
    supervisor, *workers = host.processes()
    users = [Path(f"/proc/{pid}/status").read_text().partition("Uid:\t")[2].split("\t")[0] for pid in workers]
    assert users == [str(pwd.getpwnam("nobody").pw_uid)] * 2
    assert Path(f"/proc/{supervisor}").stat().st_uid == 0
    assert ask(host.port) == b"hi"


def test_it_keeps_no_folder_busy_and_files_unwritable_by_others(host: Host) -> None:
    """Its working folder is / and its umask 022; relative paths were resolved before."""
    assert host.start()[0] == 0
    assert Path(f"/proc/{host.pid}/cwd").readlink() == Path("/")
    assert "Umask:\t0022" in Path(f"/proc/{host.pid}/status").read_text()
    assert host.pidfile.stat().st_mode & 0o777 == 0o644


def test_sigterm_by_the_pidfile_stops_it_and_removes_the_pidfile(host: Host) -> None:
    """`kill $(cat PIDFILE)` leaves neither process nor pidfile; SIGHUP before it reloads."""
    assert host.start()[0] == 0
    processes = host.processes()
    host.signal(signal.SIGHUP)
    wait_until(lambda: '"reloaded"' in host.log, "it had reloaded")
    host.stop()
    wait_until(lambda: not any(map(title, processes)), "its processes were gone")
    assert '"stopped"' in host.log


def test_its_log_can_be_rotated(host: Host, tmp_path: Path) -> None:
    """With the logrotate file of echod: what is logged later is the beginning of the file, however it was opened."""
    assert host.start()[0] == 0
    rules = (REPOSITORY / "packaging/logrotate/echod").read_text()
    (tmp_path / "rules").write_text(rules.replace("/var/log/echod.log", str(host.stderr)))
    (tmp_path / "rules").chmod(0o644)
    rotate = ["logrotate", "--force", "--state", str(tmp_path / "state"), str(tmp_path / "rules")]
    subprocess.run(rotate, check=True, capture_output=True)
    assert '"ready"' in (tmp_path / "stderr.1").read_text()
    assert host.log == ""
    host.signal(signal.SIGHUP)
    wait_until(lambda: '"reloaded"' in host.log, "it had reloaded")
    assert host.log.startswith("{")


def test_a_second_daemon_on_the_pidfile_is_refused(host: Host) -> None:
    """Exit code 69 and one line that names the process which holds it; the first one serves on."""
    assert host.start()[0] == 0
    first = host.pid
    assert host.start() == (69, f"echod: echod is running already: {host.pidfile} is locked by process {first}\n")
    assert host.pid == first
    assert ask(host.port) == b"hi"


def test_a_pidfile_left_by_a_killed_daemon_is_no_obstacle(host: Host) -> None:
    """After SIGKILL the pidfile stays behind, unlocked: the next daemon takes it over."""
    assert host.start()[0] == 0
    processes = host.processes()
    host.signal(signal.SIGKILL)
    wait_until(lambda: not any(map(title, processes)), "its processes were gone")
    assert host.pidfile.exists()
    assert host.start()[0] == 0
    assert title(host.pid) == f"echod: supervisor {host.config}"
    assert ask(host.port) == b"hi"


def test_a_start_up_error_is_reported_before_the_terminal_is_let_go(host: Host) -> None:
    """A port that is taken: the exit code and the sentence of the foreground, no process, no pidfile."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as owner:
        owner.bind(("127.0.0.1", host.port))
        code, printed = host.start()
    assert code == 69
    assert f"echod: udp://127.0.0.1:{host.port} is in use by another process" in printed
    assert not host.pidfile.exists()
    assert host.start()[0] == 0


@pytest.mark.parametrize("variable", ["INVOCATION_ID", "NOTIFY_SOCKET", "LISTEN_FDS"])
def test_it_is_refused_under_systemd(host: Host, variable: str) -> None:
    """Exit code 2 and a sentence that names the variable by which systemd was seen."""
    code, printed = host.start(**{variable: "1"})
    assert code == 2
    assert f"--daemonize cannot be used under systemd ({variable} is set)" in printed
    assert not host.pidfile.exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none/echod.pid", "No such file or directory"),
        ("link", "Too many levels of symbolic links"),
        ("second name", "it has more than one name (hard links)"),
        ("fifo", "it is not a regular file"),
    ],
)
def test_a_pidfile_that_cannot_be_written_is_refused(host: Host, tmp_path: Path, name: str, reason: str) -> None:
    """Exit code 2, and nothing is started. What another user, whose directory it may be, has put there stays as is."""
    precious, fifo = tmp_path / "precious", tmp_path / "fifo"
    precious.write_text("precious")
    (tmp_path / "link").symlink_to(precious)
    (tmp_path / "second name").hardlink_to(precious)
    os.mkfifo(fifo)
    host.pidfile = tmp_path / name
    assert host.start() == (2, f"echod: cannot write the pidfile {host.pidfile}: {reason}\n")
    assert (precious.read_text(), fifo.is_fifo()) == ("precious", True)
    fifo.unlink()  # the fixture reads it


def test_the_text_of_a_pidfile_cannot_control_the_terminal(host: Host) -> None:
    """Who holds its lock has written it, and it is shown only if it is a number."""
    host.pidfile.write_text("\x1b[2J1\n")
    with host.pidfile.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        finished = host.start()
    assert finished == (69, f"echod: echod is running already: {host.pidfile} is locked by process unknown\n")


def test_a_pidfile_for_which_there_is_no_room_is_refused(host: Host, small: Path) -> None:
    """Exit code 2 and one sentence, before anything is started; and no empty pidfile is left."""
    fill(small)
    host.pidfile = small / "echod.pid"
    assert host.start() == (2, f"echod: cannot write the pidfile {host.pidfile}: No space left on device\n")
    assert not host.pidfile.exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_the_daemon_goes_on_where_nobody_waits_for_it_any_more(host: Host, number: signal.Signals, code: int) -> None:
    """The first process is ended while the daemon starts: it serves all the same, and that is reported after Ctrl-C."""
    # Who runs the tests in the background ignores SIGINT, and so would it.
    process = host.halt_as_it_starts("env", "--default-signal=INT")
    process.send_signal(number)
    assert process.wait(30) == code
    host.signal(signal.SIGCONT)
    wait_until(lambda: '"ready"' in host.log, "it served")
    assert ask(host.port) == b"hi"
    sentence = f"echod: the daemon still starts in the background; to stop it: kill $(cat {host.pidfile})\n"
    assert (sentence in host.log) == (number == signal.SIGINT)
    host.stop()
    assert '"stopped"' in host.log


def test_a_daemon_that_is_stopped_before_it_serves_has_not_been_started(host: Host) -> None:
    """Who waits for it learns so by the exit code, though the daemon itself has only done as it was ordered."""
    process = host.halt_as_it_starts()
    host.signal(signal.SIGTERM)
    host.signal(signal.SIGCONT)
    assert process.wait(30) == 70
    assert ('"stopped"' in host.log, host.pidfile.exists()) == (True, False)


def test_a_daemon_can_be_started_without_standard_streams(host: Host) -> None:
    """Boot scripts may have closed them; the exit code is all that is reported."""
    assert host.begin("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh").wait(30) == 0
    assert ask(host.port) == b"hi"
    host.stop()


def test_no_process_holds_the_terminal(host: Host) -> None:
    """Once it serves, neither supervisor nor workers have the terminal open: closing it waits for nobody."""
    ours, theirs = pty.openpty()
    terminal = os.ttyname(theirs)
    process = host.begin(stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    assert process.wait(30) == 0
    os.close(ours)
    assert ask(host.port) == b"hi"
    for pid in host.processes():
        held = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
        assert not [name for name in held if name.startswith(terminal)], title(pid)


def test_no_process_holds_a_pipe(host: Host) -> None:
    """`ssh HOST echod run --daemonize` returns: once it serves, the pipe that took its messages comes to an end."""
    process = host.begin(stderr=subprocess.PIPE)
    assert process.wait(30) == 0
    with process:
        assert process.stderr is not None
        pipe = process.stderr.fileno()
        os.set_blocking(pipe, False)

        def at_its_end() -> bool:
            with suppress(BlockingIOError):
                return os.read(pipe, 1 << 16) == b""
            return False

        wait_until(at_its_end, "the pipe was empty and nobody could write to it any more", seconds=5)
