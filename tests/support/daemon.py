"""A running echod as a test sees it: a real process with its log, its workers and its counters.

Owns what it started and ends only that. What is to come of it is waited for by a
condition, with a deadline.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

import yaml
from support.waiting import SECONDS, wait_until

from echod.config.parse import parse_config
from echod.errors import ConfigError

REPOSITORY: Final = Path(__file__).resolve().parents[2]

ACCELERATED: Final = "ECHOD_TEST_ACCELERATED" in os.environ
"""Whether this is a run with an `echod accelerate` beside each daemon (support.beside)."""

ECHOD: Final = (sys.executable, "-m", "echod")

ENDS_WITH_US: Final = ("setpriv", "--pdeathsig", "KILL", "--")
"""A prefix that has the kernel kill a command if the process that started it is killed (PR_SET_PDEATHSIG).

A prefix behind it that changes the user undoes that: let it be AS_NOBODY, which does the same again.
"""

AS_NOBODY: Final = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--pdeathsig=KILL")
"""A prefix that runs a command as an ordinary user."""

_MANAGED: Final = (
    "NOTIFY_SOCKET",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LISTEN_",
    "WATCHDOG_",
    "NO_COLOR",
    "RUNTIME_DIRECTORY",
)


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a shell: without what a service manager around the tests may have set."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_MANAGED)} | more


def run_echod(
    *words: object,
    prefix: Sequence[str] = (),
    command: Sequence[str] = ECHOD,
    folder: Path = REPOSITORY,
    **variables: str,
) -> "subprocess.CompletedProcess[str]":
    """Run a command of echod until it ends, with these variables and behind the `prefix` of another command."""
    finished = subprocess.run(
        [*prefix, *command, *map(str, words)],
        cwd=folder,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=40,
    )
    assert "Traceback" not in finished.stderr
    return finished


def connect_udp(host: str, port: int) -> socket.socket:
    """Return a connected UDP socket: it receives only what comes from that address and port."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(SECONDS)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    sock.connect((host, port))
    return sock


def ask(port: int, payload: bytes = b"hi", *, host: str = "127.0.0.1") -> bytes:
    """Send one datagram; return the answer that came from where it was sent to."""
    with connect_udp(host, port) as sock:
        sock.send(payload)
        return sock.recv(65_536)


def connect_tcp(port: int, source: str = "127.0.0.1", window: int = 0) -> socket.socket:
    """Connect to a port of 127.0.0.1 from this address, with a deadline on all that follows.

    The receive window is what the kernel chooses unless it is given, in bytes.
    """
    sock = socket.socket()
    if window:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    sock.settimeout(SECONDS)
    sock.bind((source, 0))
    sock.connect(("127.0.0.1", port))
    return sock


def is_served(sock: socket.socket, word: bytes = b"hi") -> bool:
    """Tell whether a TCP connection is echoed on; False where it was closed without a byte."""
    try:
        sock.sendall(word)
        answer = sock.recv(64)
    except (ConnectionResetError, BrokenPipeError):
        return False
    assert answer in (b"", word)
    return answer == word


def with_kernel(text: str) -> str:
    """Return a config with the interfaces where the kernel is to reply; one with mistakes, or with a kernel, as it is.

    They are those of every namespace that has them: `eth0` is the server's end of a wire.
    """
    try:
        parse_config(text.encode())
    except ConfigError:
        return text
    return text if "kernel:" in text else f"{text}\nkernel: {{interfaces: [lo, eth0]}}\n"


def fill(place: Path) -> None:
    """Leave no room in a file system, by one file."""
    with suppress(OSError), (place / "fill").open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def children(pid: int) -> list[int]:
    """Return the direct children of a process."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def title(pid: int) -> str:
    """Return what `ps` shows of a process; nothing if it is gone or a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def is_balanced(row: Mapping[str, int]) -> bool:
    """Hold a UDP row of counters to the rule: every datagram received ended in exactly one number, or is held."""
    ends = sum(number for name, number in row.items() if name.startswith(("dropped_", "send_failed_")))
    later = row.get("interrupted", 0) + row.get("held", 0)
    return "replied" not in row or row["received"] == row["replied"] + ends + later


class Beside(Protocol):
    """What is beside a daemon, and does a part of its work."""

    def reload(self) -> None:
        """Take over the config of the daemon."""

    def add_to(self, rows: dict[str, dict[str, int]]) -> None:
        """Add what it did to the counters of the daemon."""

    def end(self) -> None:
        """End it."""


class Daemon:
    """`echod run` in a process of its own, with its config in a file and its log in another."""

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any] | str | None,
        *,
        prefix: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
        command: Sequence[str] = ("run",),
    ) -> None:
        """Start it behind the `prefix` of another command; without a config, none is named."""
        self.config_path = folder / "echod.yaml"
        self.stderr_path = folder / "stderr"
        self.status_path = folder / "run"
        self._entries: list[dict[str, Any]] = []
        self._read = 0
        self.beside: Beside | None = None
        named: tuple[str, ...] = ()
        if config is not None:
            self.write(config)
            named = ("--config", str(self.config_path))
        with self.stderr_path.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*ENDS_WITH_US, *prefix, *ECHOD, *command, *named],
                cwd=REPOSITORY,
                env=environment(**({"RUNTIME_DIRECTORY": str(self.status_path)} | dict(variables or {}))),
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
            )

    @property
    def pid(self) -> int:
        """Return the supervisor's process id."""
        return self.process.pid

    def write(self, config: Mapping[str, Any] | str) -> None:
        """Put this config in the place of the one in the file."""
        text = config if isinstance(config, str) else yaml.safe_dump(dict(config))
        if ACCELERATED:
            text = with_kernel(text)
        # As a whole, as editors do: a reload that is under way must not read half of it.
        new = self.config_path.with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        new.replace(self.config_path)

    # -- what it reports

    @property
    def stderr(self) -> str:
        """Return all that it has written."""
        return self.stderr_path.read_text(encoding="utf-8", errors="replace")

    def log(self, event: str | None = None) -> list[dict[str, Any]]:
        """Return the entries so far, of one event or of all."""
        with self.stderr_path.open("rb") as file:
            file.seek(self._read)
            whole, _, _ = file.read().rpartition(b"\n")
        if whole:
            self._read += len(whole) + 1
            self._entries += [json.loads(line) for line in whole.splitlines() if line.startswith(b"{")]
        return [entry for entry in self._entries if event in (None, entry["event"])]

    def wait_for(self, event: str, count: int = 1, *, seconds: float = SECONDS) -> dict[str, Any]:
        """Wait until an event was logged so often; return that entry."""

        def logged() -> list[dict[str, Any]]:
            entries = self.log(event)
            running = self.process.poll() is None
            assert running or len(self.log(event)) >= count, f"echod ended without {event}:\n{self.stderr}"
            return entries[count - 1 : count]

        return wait_until(logged, f"{event} was logged {count} times", seconds=seconds)[0]

    def counters(self) -> dict[str, dict[str, int]]:
        """Have it log its counters until each datagram received has its end in them; return them by listener.

        (A client may have its answer a moment before that is counted.)
        """
        rows: dict[str, dict[str, int]] = {}

        def balanced() -> bool:
            rows.update(self._counters())
            return all(is_balanced(row) for row in rows.values())

        wait_until(balanced, "received = replied + drops + failures")
        return rows

    def _counters(self) -> dict[str, dict[str, int]]:
        """Ask twice: where the second answer begins, the first is whole."""
        before = len(self.log("counters"))
        for asked in (1, 2):
            self.signal(signal.SIGUSR1)
            self.wait_for("counters", before + asked)
        first = self.log("counters")[before]["listener"]

        def end() -> int | None:
            names = [entry["listener"] for entry in self.log("counters")[before:]]
            return names.index(first, 1) if first in names[1:] else None

        rows = wait_until(end, "the counters were logged twice") or 0
        wait_until(lambda: len(self.log("counters")) == before + 2 * rows, "the second answer was whole too")
        entries = self.log("counters")[before : before + rows]
        counted = {
            entry["listener"]: {name: number for name, number in entry.items() if isinstance(number, int)}
            for entry in entries
        }
        if self.beside is not None:
            self.beside.add_to(counted)
        return counted

    def closes(self) -> dict[str, int]:
        """Return how many connections of the one TCP listener have ended for each reason."""
        (row,) = (row for name, row in self.counters().items() if name.startswith("tcp://"))
        return {name.removeprefix("closed_"): count for name, count in row.items() if name.startswith("closed_")}

    def wait_for_closes(self, **closes: int) -> None:
        """Wait until exactly so many connections have ended for these reasons; each may be counted after its end."""
        wait_until(lambda: self.closes() == closes, f"the connections that ended were {closes}")

    # -- what it is

    def status(self) -> dict[str, Any]:
        """Return what it reports of itself in its status file."""
        reported: dict[str, Any] = json.loads((self.status_path / "status.json").read_bytes())
        return reported

    def workers(self) -> list[int]:
        """Return the process ids of the workers that live."""
        return [child for child in children(self.pid) if title(child).startswith("echod: worker ")]

    # -- what is done to it

    def signal(self, number: signal.Signals) -> None:
        """Send the supervisor a signal."""
        self.process.send_signal(number)

    def reload(self, config: Mapping[str, Any] | str | None = None) -> dict[str, Any]:
        """Write the config, if one is given, and reload; return the entry with the outcome."""
        if config is not None:
            self.write(config)
        outcomes = ("reloaded", "reload_rejected")
        before = [len(self.log(event)) for event in outcomes]
        self.signal(signal.SIGHUP)
        wait_until(lambda: [len(self.log(event)) for event in outcomes] != before, "the reload was logged")
        if self.beside is not None:
            self.beside.reload()
        return next(self.log(event)[-1] for event, n in zip(outcomes, before, strict=True) if len(self.log(event)) > n)

    def wait(self, seconds: float = SECONDS) -> int:
        """Wait for its end; return the exit code."""
        return self.process.wait(seconds)

    def stop(self) -> int:
        """Stop it; return the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def end(self) -> None:
        """End it, however it is, and what it started."""
        if self.beside is not None:
            self.beside.end()
        if self.process.poll() is None:
            end_processes(children(self.pid))
            self.process.kill()
            self.process.wait()


StartDaemon = Callable[..., Daemon]
"""What the fixture `echod` is."""

Serve = Callable[..., tuple[Daemon, int]]
"""What the fixture `serve` is."""


def end_processes(pids: Iterable[int]) -> None:
    """Kill processes that a test started and that may be gone already."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
