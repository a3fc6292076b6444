"""`--daemonize`: into the background only once all is well, with a pidfile that never lies."""

import fcntl
import os
import pty
import pwd
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from support.daemon import ECHOD, REPOSITORY, ask, children, end_processes, environment, fill, title
from support.loopback import needs_root
from support.ports import free_port
from support.waiting import wait_until


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """How the command ended that a user typed."""

    code: int
    printed: str


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

    def start(self, **variables: str) -> Finished:
        """Run the command until it returns; what it says goes to a file."""
        with self.stderr.open("wb") as stderr:
            finished = subprocess.run(
                self.command,
                cwd=REPOSITORY,
                env=environment(**variables),
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                check=False,
                timeout=30,
            )
        return Finished(code=finished.returncode, printed=self.stderr.read_text())

    @property
    def command(self) -> list[str]:
        """Return what a user types."""
        return [*ECHOD, "run", "--config", str(self.config), "--daemonize", "--pidfile", str(self.pidfile)]

    @property
    def pid(self) -> int:
        """Return what the pidfile says."""
        return int(self.pidfile.read_text())

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
    assert host.start().code == 0
    assert ask(host.port) == b"hi"
    assert title(host.pid) == f"echod: supervisor {host.config}"
    assert len(host.processes()) == 3
    assert os.getsid(host.pid) != os.getsid(0)
    assert Path(f"/proc/{host.pid}/stat").read_text().rpartition(")")[2].split()[4] == "0"  # no controlling terminal


@needs_root
def test_the_workers_of_a_daemon_of_root_are_nobody(host: Host) -> None:
    """Only the supervisor is root: python-daemon keeps its user, and no process that hears a peer has it."""
    assert host.start().code == 0
    supervisor, *workers = host.processes()
    users = [Path(f"/proc/{pid}/status").read_text().partition("Uid:\t")[2].split("\t")[0] for pid in workers]
    assert users == [str(pwd.getpwnam("nobody").pw_uid)] * 2
    assert Path(f"/proc/{supervisor}").stat().st_uid == 0
    assert ask(host.port) == b"hi"


def test_it_keeps_no_folder_busy_and_files_unwritable_by_others(host: Host) -> None:
    """Its working folder is / and its umask 022; relative paths were resolved before."""
    assert host.start().code == 0
    assert Path(f"/proc/{host.pid}/cwd").readlink() == Path("/")
    assert "Umask:\t0022" in Path(f"/proc/{host.pid}/status").read_text()
    assert host.pidfile.stat().st_mode & 0o777 == 0o644


def test_sigterm_by_the_pidfile_stops_it_and_removes_the_pidfile(host: Host) -> None:
    """`kill $(cat PIDFILE)` leaves neither process nor pidfile; SIGHUP before it reloads."""
    assert host.start().code == 0
    processes = host.processes()
    os.kill(host.pid, signal.SIGHUP)
    wait_until(lambda: '"reloaded"' in host.stderr.read_text(), "it had reloaded")
    os.kill(host.pid, signal.SIGTERM)
    wait_until(lambda: not any(map(title, processes)), "its processes were gone")
    assert not host.pidfile.exists()
    assert '"stopped"' in host.stderr.read_text()


def test_its_log_can_be_rotated(host: Host, tmp_path: Path) -> None:
    """With the logrotate file of echod: what is logged later is the beginning of the file, however it was opened."""
    assert host.start().code == 0
    rules = (REPOSITORY / "packaging/logrotate/echod").read_text()
    (tmp_path / "rules").write_text(rules.replace("/var/log/echod.log", str(host.stderr)))
    (tmp_path / "rules").chmod(0o644)
    rotate = ["logrotate", "--force", "--state", str(tmp_path / "state"), str(tmp_path / "rules")]
    subprocess.run(rotate, check=True, capture_output=True)
    assert '"ready"' in (tmp_path / "stderr.1").read_text()
    assert host.stderr.read_text() == ""
    os.kill(host.pid, signal.SIGHUP)
    wait_until(lambda: '"reloaded"' in host.stderr.read_text(), "it had reloaded")
    assert host.stderr.read_text().startswith("{")


def test_a_second_daemon_on_the_pidfile_is_refused(host: Host) -> None:
    """Exit code 69 and one line that names the process which holds it; the first one serves on."""
    assert host.start().code == 0
    first = host.pid
    second = host.start()
    assert second.code == 69
    assert second.printed == f"echod: echod is running already: {host.pidfile} is locked by process {first}\n"
    assert host.pid == first
    assert ask(host.port) == b"hi"


def test_a_pidfile_left_by_a_killed_daemon_is_no_obstacle(host: Host) -> None:
    """After SIGKILL the pidfile stays behind, unlocked: the next daemon takes it over."""
    assert host.start().code == 0
    processes = host.processes()
    os.kill(host.pid, signal.SIGKILL)
    wait_until(lambda: not any(map(title, processes)), "its processes were gone")
    assert host.pidfile.exists()
    assert host.start().code == 0
    assert title(host.pid) == f"echod: supervisor {host.config}"
    assert ask(host.port) == b"hi"


def test_a_start_up_error_is_reported_before_the_terminal_is_let_go(host: Host) -> None:
    """A port that is taken: the exit code and the sentence of the foreground, no process, no pidfile."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as owner:
        owner.bind(("127.0.0.1", host.port))
        finished = host.start()
    assert finished.code == 69
    assert f"echod: udp://127.0.0.1:{host.port} is in use by another process" in finished.printed
    assert not host.pidfile.exists()
    assert host.start().code == 0


@pytest.mark.parametrize("variable", ["INVOCATION_ID", "NOTIFY_SOCKET", "LISTEN_FDS"])
def test_it_is_refused_under_systemd(host: Host, variable: str) -> None:
    """Exit code 2 and a sentence that names the variable by which systemd was seen."""
    finished = host.start(**{variable: "1"})
    assert finished.code == 2
    assert f"--daemonize cannot be used under systemd ({variable} is set)" in finished.printed
    assert not host.pidfile.exists()


def test_a_pidfile_that_cannot_be_written_is_refused(host: Host, tmp_path: Path) -> None:
    """A folder that is not there, or a symbolic link in the pidfile's place: exit code 2, and nothing is started."""
    target = tmp_path / "precious"
    target.write_text("precious")
    host.pidfile.symlink_to(target)
    finished = host.start()
    assert (finished.code, target.read_text()) == (2, "precious")
    assert f"cannot write the pidfile {host.pidfile}" in finished.printed
    host.pidfile = tmp_path / "none" / "echod.pid"
    assert host.start().code == 2


def test_what_another_user_has_put_in_the_place_of_the_pidfile_is_left_alone(host: Host, tmp_path: Path) -> None:
    """Its directory may be his: a FIFO, and a file that has its own name elsewhere, which would be emptied."""
    precious = tmp_path / "precious"
    precious.write_text("precious")
    host.pidfile.hardlink_to(precious)
    finished = host.start()
    assert (finished.code, finished.printed) == (
        2,
        f"echod: cannot write the pidfile {host.pidfile}: it has more than one name (hard links)\n",
    )
    assert precious.read_text() == "precious"
    host.pidfile.unlink()
    os.mkfifo(host.pidfile)
    finished = host.start()
    assert (finished.code, finished.printed) == (
        2,
        f"echod: cannot write the pidfile {host.pidfile}: it is not a regular file\n",
    )
    assert host.pidfile.is_fifo()
    host.pidfile.unlink()  # the fixture reads it


def test_the_text_of_a_pidfile_cannot_control_the_terminal(host: Host) -> None:
    """Who holds its lock has written it, and it is shown only if it is a number."""
    host.pidfile.write_text("\x1b[2J1\n")
    with host.pidfile.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        finished = host.start()
    printed = f"echod: echod is running already: {host.pidfile} is locked by process unknown\n"
    assert (finished.code, finished.printed) == (69, printed)


def test_a_pidfile_for_which_there_is_no_room_is_refused(host: Host, small: Path) -> None:
    """Exit code 2 and one sentence, before anything is started; and no empty pidfile is left."""
    fill(small)
    host.pidfile = small / "echod.pid"
    finished = host.start()
    assert (finished.code, finished.printed) == (
        2,
        f"echod: cannot write the pidfile {host.pidfile}: No space left on device\n",
    )
    assert not host.pidfile.exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_the_daemon_goes_on_where_nobody_waits_for_it_any_more(host: Host, number: signal.Signals, code: int) -> None:
    """The first process is ended while the daemon starts: it serves all the same, and Ctrl-C is told so."""
    listeners = [f"udp://127.77.0.1:{port}" for port in range(15_000, 15_400)]
    host.configure(listeners=[f"udp://127.0.0.1:{host.port}", *listeners], workers=2)
    with host.stderr.open("wb") as stderr:
        # Who runs the tests in the background ignores SIGINT, and so would it.
        command = ["env", "--default-signal=INT", *host.command]
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environment(), stderr=stderr)
    wait_until(lambda: bool(host.pidfile.exists() and host.pidfile.read_text().strip()), "it was starting")
    os.kill(host.pid, signal.SIGSTOP)  # so that it takes as long as this test does
    assert '"ready"' not in host.stderr.read_text()
    process.send_signal(number)
    assert process.wait(30) == code
    os.kill(host.pid, signal.SIGCONT)
    wait_until(lambda: '"ready"' in host.stderr.read_text(), "it served")
    assert ask(host.port) == b"hi"
    sentence = f"echod: the daemon still starts in the background; to stop it: kill $(cat {host.pidfile})\n"
    assert (sentence in host.stderr.read_text()) == (number == signal.SIGINT)
    os.kill(host.pid, signal.SIGTERM)
    wait_until(lambda: not host.pidfile.exists(), "it had stopped")
    assert '"stopped"' in host.stderr.read_text()


def test_a_daemon_that_is_stopped_before_it_serves_has_not_been_started(host: Host) -> None:
    """Who waits for it learns so by the exit code, though the daemon itself has only done as it was reported."""
    host.configure(listeners=[f"udp://127.77.0.1:{port}" for port in range(15_000, 15_400)], workers=2)
    with host.stderr.open("wb") as stderr:
        process = subprocess.Popen(host.command, cwd=REPOSITORY, env=environment(), stderr=stderr)
    wait_until(lambda: bool(host.pidfile.exists() and host.pidfile.read_text().strip()), "it was starting")
    os.kill(host.pid, signal.SIGSTOP)
    assert '"ready"' not in host.stderr.read_text()
    os.kill(host.pid, signal.SIGTERM)
    os.kill(host.pid, signal.SIGCONT)
    assert process.wait(30) == 70
    assert ('"stopped"' in host.stderr.read_text(), host.pidfile.exists()) == (True, False)


def test_a_daemon_can_be_started_without_standard_streams(host: Host) -> None:
    """Boot scripts may have closed them; the exit code is all that is reported."""
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *host.command]
    assert subprocess.run(command, cwd=REPOSITORY, env=environment(), check=False, timeout=30).returncode == 0
    assert ask(host.port) == b"hi"
    os.kill(host.pid, signal.SIGTERM)
    wait_until(lambda: not host.pidfile.exists(), "it had stopped")


def test_no_process_holds_the_terminal(host: Host) -> None:
    """Once it serves, neither supervisor nor workers have the terminal open: closing it waits for nobody."""
    ours, theirs = pty.openpty()
    terminal = os.ttyname(theirs)
    process = subprocess.Popen(
        host.command, cwd=REPOSITORY, env=environment(), stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    assert process.wait(30) == 0
    os.close(ours)
    assert ask(host.port) == b"hi"
    for pid in host.processes():
        held = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
        assert not [name for name in held if name.startswith(terminal)], title(pid)


def test_no_process_holds_a_pipe(host: Host) -> None:
    """`ssh HOST echod run --daemonize` returns: once it serves, the pipe that took its messages comes to an end."""
    process = subprocess.Popen(host.command, cwd=REPOSITORY, env=environment(), stderr=subprocess.PIPE)
    assert process.wait(30) == 0
    with process:
        assert process.stderr is not None
        pipe = process.stderr.fileno()
        os.set_blocking(pipe, False)
        wait_until(lambda: is_at_its_end(pipe), "the pipe had come to its end", seconds=5)


def is_at_its_end(pipe: int) -> bool:
    """Tell whether a pipe is empty and nobody can write to it any more."""
    try:
        return os.read(pipe, 1 << 16) == b""
    except BlockingIOError:
        return False
