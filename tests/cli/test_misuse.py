"""Every misuse gives one clear message and the right exit code, and never a traceback."""

import os
import re
import shutil
import socket
import sys
from pathlib import Path

import pytest
from support.daemon import ECHOD, REPOSITORY, StartDaemon, ask, run_echod
from support.ports import free_port

NOBODY = 65534

DEFAULT = "listeners: udp://0.0.0.0:7, udp://[::]:7, tcp://0.0.0.0:7, tcp://[::]:7"
"""The default listeners as `echod check` names them."""

AS_NOBODY = """
import encodings.ascii, os, sys
from echod.cli.main import load
for command in ("run", "check", "status"):
    load([command])
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
from echod.__main__ import main
sys.argv[0] = "echod"
main()
"""
"""Loads echod first and leaves root then: the virtual environment may be out of a nobody's reach."""


def run(*arguments: object, command: tuple[str, ...] = ECHOD) -> tuple[int, str, str]:
    """Run echod with these arguments until it ends; return exit code, stdout and stderr."""
    finished = run_echod(*arguments, command=command)
    return finished.returncode, finished.stdout, finished.stderr


def run_as_nobody(*arguments: object, prefix: tuple[str, ...] = ()) -> tuple[int, str, str]:
    """Run echod as a user without privileges."""
    return run(*arguments, command=(*prefix, sys.executable, "-c", AS_NOBODY))


def run_status(command: str, path: Path) -> tuple[int, str, str]:
    """Ask for an echod with this config, whose status would be beside the file."""
    finished = run_echod(command, "--config", path, RUNTIME_DIRECTORY=str(path.parent / "run"))
    return finished.returncode, finished.stdout, finished.stderr


def words(stderr: str) -> str:
    """Return the lines on stderr that are no log entries."""
    return "\n".join(line for line in stderr.splitlines() if not line.startswith("{"))


def test_the_version_is_one_line() -> None:
    """`echod --version` prints its name and version, and exits 0."""
    code, stdout, stderr = run("--version")
    assert (code, stderr) == (0, "")
    assert stdout.startswith("echod 0.")
    assert len(stdout.splitlines()) == 1


@pytest.mark.parametrize("command", [(), ("run",), ("check",), ("reload",), ("status",), ("units",)])
def test_help_fits_a_screen_and_shows_an_example(command: tuple[str, ...]) -> None:
    """At most 24 lines of 80 columns, with an example."""
    code, stdout, _ = run(*command, "--help")
    assert code == 0
    assert max(map(len, stdout.splitlines())) <= 80
    assert len(stdout.splitlines()) <= 24
    assert re.search("^example.*:\n  echod ", stdout, re.MULTILINE)


@pytest.mark.parametrize(
    "arguments",
    [("--confg", "x"), ("serve",), ("run", "extra"), ("run", "--config"), ("run", "--pidfile", "/tmp/x"), ("chekc",)],  # noqa: S108
)
def test_a_wrong_command_line_exits_2(arguments: tuple[str, ...]) -> None:
    """What the command line cannot mean is reported in one line, behind at most the usage."""
    code, stdout, stderr = run(*arguments)
    assert (code, stdout) == (2, "")
    assert len(stderr.splitlines()) <= 4


@pytest.mark.parametrize("command", ["run", "check", "config", "reload", "status"])
@pytest.mark.parametrize("words", [("/etc/echod.yaml",), ("-c", "/etc/echod.yaml")])
def test_a_config_file_without_its_option_is_misuse_that_names_the_option(command: str, words: tuple[str, ...]) -> None:
    """Exit code 2; of a command without a config file nothing is said of one."""
    code, stdout, stderr = run(command, *words)
    assert (code, stdout) == (2, "")
    unknown = f"unrecognized arguments: {' '.join(words)}"
    assert stderr.endswith(f"\nechod {command}: error: {unknown}; a config file is named by --config FILE\n")
    assert run("units", "--socket", "a", "b")[2].endswith("\nechod units: error: unrecognized arguments: b\n")


@pytest.mark.parametrize(("command", "wanted"), [("status", 3), ("reload", 69)])
def test_a_config_that_is_misspelt_is_named_where_no_echod_is_found(folder: Path, command: str, wanted: int) -> None:
    """The message names that there is no such file, and proposes no other one; of a file that is there it does."""
    path = folder / "echo.yaml"
    code, stdout, stderr = run_status(command, path)
    assert (code, stdout) == (wanted, "")
    assert stderr == f"echod: no echod is running with that config: cannot read {path}: there is no such file\n"
    path.write_text("workers: 1\n")
    code, _, stderr = run_status(command, path)
    assert code == wanted
    assert stderr.startswith(f"echod: no echod is running: there is no {folder}/run/status.json; ")


@pytest.mark.parametrize("command", ["run", "check"])
@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("lisseners: [udp://127.0.0.1:7]", ':1:1: error: lisseners: unknown key; did you mean "listeners"?'),
        ('listeners: [udp://127.0.0.1:"7"]', ":1:"),
        ('listeners:\n  - udp://127.0.0.1:"7"', ":2:5: error: listeners[0]: "),
        ("workers: '2'", ":1:10: error: workers: is text because of the quotes: write 2 without quotes"),
        ("", ":1:1: error: "),
        ("# nothing but a comment\n", ": error: "),
        pytest.param("[" * 1_000_000, ":1:1: error: the file is longer than 65,536 bytes", id="1 MB"),
        pytest.param("[" * 60_000, ":1:", id="deep"),
        ("listeners: [udp://127.0.0.1:0]", "the port 0 is out of bounds"),
        ("workers: 1\naccess: {allow: [any]}", ":2:18: error: access.allow[0]: includes public addresses"),
    ],
)
def test_an_invalid_config_exits_78(tmp_path: Path, command: str, text: str, place: str) -> None:
    """The mistake is named with file, line and column, shown under its line, and counted.

    `check` prints what it was asked for; `run` complains on stderr.
    """
    path = tmp_path / "echod.yaml"
    path.write_text(text)
    code, stdout, stderr = run(command, "--config", path)
    printed, silent = (stdout, stderr) if command == "check" else (stderr, stdout)
    assert (code, silent) == (78, "")
    lines = printed.splitlines()
    assert lines[0].startswith(f"{path}:")
    assert place in lines[0]
    assert lines[-1] == f"{path}: 1 mistake"
    assert len(lines) in (2, 4)
    assert max(map(len, lines)) < 400
    if len(lines) == 4:
        assert lines[2].strip() == "^"


def test_check_reports_that_a_good_file_is_ok_and_what_it_serves(tmp_path: Path) -> None:
    """`FILE: ok`, its listeners and exit 0; what is legal but unwise is a warning before it."""
    path = tmp_path / "echod.yaml"
    path.write_text("listeners: [udp://127.0.0.1:7]\n")
    assert run("check", "--config", path) == (0, f"{path}: ok; listeners: udp://127.0.0.1:7\n", "")
    path.write_text("listeners: [udp://127.0.0.1:7]\ndrain_timeout_seconds: 3600\n")
    code, stdout, _ = run("check", "--config", path)
    lines = stdout.splitlines()
    assert code == 0
    assert lines[0].startswith(f"{path}:2:1: warning: drain_timeout_seconds: ")
    assert lines[1:] == ["drain_timeout_seconds: 3600", "^", f"{path}: ok; listeners: udp://127.0.0.1:7"]


def test_check_names_the_listeners_that_a_file_without_any_has_by_default(tmp_path: Path) -> None:
    """A file of one other key serves port 7 of every address, and not what echod serves without a file."""
    path = tmp_path / "echod.yaml"
    path.write_text("workers: 1\n")
    assert run("check", "--config", path) == (0, f"{path}: ok; default {DEFAULT}\n", "")


def test_check_names_a_range_as_the_file_has_it_and_of_many_listeners_the_first(tmp_path: Path) -> None:
    """Eight entries are named, and the others counted."""
    path = tmp_path / "echod.yaml"
    entries = ["udp://127.0.0.1:7000-7100", *(f"tcp://127.0.0.1:{port}" for port in range(8001, 8010))]
    path.write_text(f"listeners: {entries[:8]}\n")
    assert run("check", "--config", path)[1].splitlines()[-1] == (
        f"{path}: ok; listeners: udp://127.0.0.1:7000-7100, tcp://127.0.0.1:8001, tcp://127.0.0.1:8002, "
        "tcp://127.0.0.1:8003, tcp://127.0.0.1:8004, tcp://127.0.0.1:8005, tcp://127.0.0.1:8006, tcp://127.0.0.1:8007"
    )
    path.write_text(f"listeners: {entries}\n")
    assert run("check", "--config", path)[1].endswith(", tcp://127.0.0.1:8007 and 2 more\n")


def test_check_says_warnings_of_file_and_host_by_line(tmp_path: Path) -> None:
    """What this host makes of the config stands among the warnings of the file itself, in the order of the lines."""
    try:
        caps = [int(Path(f"/proc/sys/net/core/{name}mem_max").read_text()) for name in "rw"]
    except FileNotFoundError:
        pytest.skip("this network namespace hides net.core")
    if max(caps) >= 1024**3:
        pytest.skip("this host allows more than a config may ask for")
    path = tmp_path / "echod.yaml"
    path.write_text("guard: {loop_breaker: false}\nudp: {receive_buffer: 1 GiB}\ndrain_timeout_seconds: 3600\n")
    code, stdout, _ = run("check", "--config", path)
    places = [line.partition(" warning: ")[0] for line in stdout.splitlines()[:-1:3]]
    assert (code, places) == (0, [f"{path}:{at}:" for at in ("1:9", "2:7", "3:1")])
    assert stdout.endswith(f"{path}: ok; default {DEFAULT}\n")


def test_the_file_that_is_installed_is_ok_and_nothing_else() -> None:
    """On an ordinary host the shipped config is neither wrong nor unwise."""
    path = REPOSITORY / "config" / "echod.yaml"
    assert run("check", "--config", path) == (0, f"{path}: ok; {DEFAULT}\n", "")


@pytest.mark.parametrize("command", ["run", "check"])
def test_an_unreadable_config_exits_66(folder: Path, command: str) -> None:
    """A file that is missing, a directory, a FIFO, or another's secret: one line names which."""
    secret, fifo = folder / "secret.yaml", folder / "fifo.yaml"
    secret.write_text("workers: 1")
    secret.chmod(0)
    os.mkfifo(fifo)
    missing = folder / "none.yaml"
    printed = {path: run(command, "--config", path) for path in (missing, folder, fifo)}
    printed[secret] = run_as_nobody(command, "--config", secret)
    reasons = {
        missing: "there is no such file",
        folder: "it is a directory",
        fifo: "it is not a regular file",
        secret: "it may not be read by this user: chmod a+r it, and a+x the directories that lead to it",
    }
    for path, reason in reasons.items():
        assert printed[path] == (66, "", f"echod: cannot read {path}: {reason}\n")


def test_check_warns_of_a_key_that_its_user_may_not_read(folder: Path) -> None:
    """The service may be able to: root finds out. `run` needs it."""
    path, key, listener = folder / "echod.yaml", folder / "stamp.key", f"udp://127.0.0.1:{free_port()}"
    key.write_bytes(b"secret")
    key.chmod(0)
    path.write_text(f"listeners:\n- address: {listener}\n  mode: stamp\n  hmac_key: {key}\n")
    code, stdout, stderr = run_as_nobody("check", "--config", path)
    warning = f"{key} was not examined, because this user may not read it: run echod check as root"
    assert (code, stderr) == (0, "")
    assert stdout.startswith(f"{path}:4:3: warning: listeners[0].hmac_key: {warning}\n")
    assert stdout.endswith(f"\n{path}: ok; listeners: {listener} (stamp)\n")
    code, _, stderr = run_as_nobody("run", "--config", path)
    assert code == 78
    remedy = "let the user of echod read it, or pass it with LoadCredential= of the service unit"
    assert f"hmac_key of {listener}: {key} cannot be read: Permission denied: {remedy}" in words(stderr)


@pytest.mark.parametrize("scheme", ["udp", "tcp"])
@pytest.mark.parametrize("reuse", [False, True])
def test_an_address_in_use_exits_69(folder: Path, scheme: str, reuse: bool) -> None:  # noqa: FBT001
    """Another process's port is refused, also where that process would share it (SO_REUSEPORT)."""
    port, path = free_port(), folder / "echod.yaml"
    path.write_text(f"listeners: [{scheme}://127.0.0.1:{port}]")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM if scheme == "udp" else socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, reuse)
        sock.bind(("127.0.0.1", port))
        if scheme == "tcp":
            sock.listen()
        code, _, stderr = run("run", "--config", path)
    assert code == 69
    assert words(stderr).startswith(f"echod: {scheme}://127.0.0.1:{port} is in use by another process")
    assert len(words(stderr).splitlines()) == 1


def test_a_second_echod_of_the_same_user_exits_69(echod: StartDaemon) -> None:
    """It cannot join the first one's sockets and steal its peers; the first never notices."""
    port = free_port()
    first = echod({"listeners": [f"udp://127.0.0.1:{port}"]})
    code, _, stderr = run("run", "--config", first.config_path)
    assert code == 69
    assert "is in use by another process" in words(stderr)
    assert ask(port) == b"hi"


def test_an_interface_that_is_not_there_exits_69(folder: Path) -> None:
    """The message names the command that lists those that are."""
    path = folder / "echod.yaml"
    path.write_text(f"listeners: ['udp://[fe80::1%nope0]:{free_port()}']")
    code, _, stderr = run("run", "--config", path)
    assert code == 69
    assert "names an interface that this host does not have; `ip link` lists them" in words(stderr)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and a network namespace")
def test_a_port_that_needs_a_privilege_exits_77(folder: Path) -> None:
    """Port 7 without privilege: the message names the capability, the .socket unit and ports above 1023."""
    path = folder / "echod.yaml"
    path.write_text("listeners: [udp://0.0.0.0:7]")
    # A namespace of its own: the host's sysctl ip_unprivileged_port_start may allow port 7 to all.
    code, _, stderr = run_as_nobody("run", "--config", path, prefix=("unshare", "--net"))
    assert code == 77
    printed = words(stderr)
    assert printed.startswith("echod: udp://0.0.0.0:7 may not be bound by this user")
    assert all(way in printed for way in ("AmbientCapabilities=CAP_NET_BIND_SERVICE", ".socket unit", "above 1023"))
    assert len(printed.splitlines()) == 1


@pytest.mark.skipif(Path("/etc/echod.yaml").exists(), reason="/etc/echod.yaml exists, so the defaults are not used")
@pytest.mark.parametrize("command", [(), ("run",)])
def test_bare_echod_runs_with_defaults_and_says_so(echod: StartDaemon, command: tuple[str, ...]) -> None:
    """Without a command or a file it serves port 7007 of this host alone, and the reason is logged once."""
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_INET, kind) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind == socket.SOCK_STREAM)
            try:
                sock.bind(("127.0.0.1", 7007))
            except OSError:
                pytest.skip("port 7007 is taken")
    daemon = echod(command=command)
    assert ask(7007) == b"hi"
    (entry,) = daemon.log("defaults_used")
    assert "there is no /etc/echod.yaml" in entry["message"]
    assert daemon.stop() == 0


@pytest.mark.skipif(Path("/etc/echod.yaml").exists(), reason="/etc/echod.yaml exists, so the defaults are not used")
def test_bare_check_checks_the_defaults_and_says_so() -> None:
    """Without a file it has the config that `echod run` serves."""
    line = (
        "there is no /etc/echod.yaml: `echod run` serves the built-in defaults: udp://127.0.0.1:7007, "
        "udp://[::1]:7007, tcp://127.0.0.1:7007, tcp://[::1]:7007\n"
    )
    assert run("check") == (0, line, "")
    code, stdout, _ = run("config")
    assert (code, "- udp://127.0.0.1:7007\n" in stdout) == (0, True)
    code, stdout, _ = run("check", "--source", "127.0.0.1:40000")
    assert (code, "replied to at udp://127.0.0.1:7007" in stdout) == (0, True)


@pytest.mark.parametrize("variables", [{}, {"PYTHONUNBUFFERED": "1"}])
def test_output_that_cannot_be_written_exits_74(echod: StartDaemon, variables: dict[str, str]) -> None:
    """A full disk is no defect of ours: one sentence, whichever command it is; a reader who has gone is none at all."""
    daemon = echod({"listeners": [f"udp://127.0.0.1:{free_port()}"], "workers": 1})
    to_full = ("sh", "-c", 'exec "$@" >/dev/full', "sh")
    commands = (
        ["check"],
        ["config"],
        ["status"],
        ["status", "--json"],
        ["status", "--check"],
        ["status", "--watch"],
        ["reload"],
    )
    for command in commands:
        where = {"RUNTIME_DIRECTORY": str(daemon.status_path)} | variables
        finished = run_echod(*command, "--config", daemon.config_path, prefix=to_full, **where)
        printed = "echod: the output cannot be written: No space left on device\n"
        assert (command, finished.returncode, finished.stderr) == (command, 74, printed)


@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "en_US.ISO-8859-1"])
def test_a_config_whose_path_is_no_utf_8_is_a_config(echod: StartDaemon, tmp_path: Path, locale: str) -> None:
    """It is checked, serves, and is reported with the strange byte written out; so is what is wrong in it."""
    path = Path(os.fsdecode(bytes(tmp_path) + b"/\xff.yaml"))
    path.write_text(f"listeners: [udp://127.0.0.1:{free_port()}]\nworkers: 1\n")
    daemon = echod(command=("run", "--config", str(path)), variables={"LC_ALL": locale})

    def inform(command: str) -> tuple[int, str]:
        reported = run_echod(command, "--config", path, RUNTIME_DIRECTORY=str(daemon.status_path), LC_ALL=locale)
        assert reported.stderr == ""
        return reported.returncode, reported.stdout

    shown = f"{tmp_path}/\\udcff.yaml"
    assert daemon.status()["config"] == shown
    assert inform("check")[0] == 0
    assert f"config: {shown}, read " in inform("status")[1]
    assert inform("reload") == (0, "reloaded; changed: nothing\n")
    path.write_text("workers: 0\n")
    assert inform("check")[0] == 78
    rejected = "REJECTED; the previous config stays in force\n"
    code, printed = inform("reload")
    assert (code, printed.partition(" error: ")[0]) == (78, f"{rejected}{shown}:1:10:")
    path.unlink()
    assert inform("reload") == (66, f"{rejected}cannot read {shown}: there is no such file\n")
    assert daemon.stop() == 0
