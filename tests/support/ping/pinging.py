"""`echod ping` as a test runs it: a real process, its output, its exit code."""

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.daemon import ECHOD, REPOSITORY, environment

HERE = Path(__file__).parent

LIFETIME = 120.0
"""Seconds that no run takes, on a busy machine either."""

NUMBER = r"\d+(?:\.\d+)?"


@dataclass(frozen=True, slots=True)
class Pinged:
    """How a run ended."""

    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        """Return what `--json` printed."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def summary(self) -> dict[str, Any]:
        """Return the statistics of the first target."""
        target: dict[str, Any] = self.objects[-1]["targets"][0]
        return target


@contextmanager
def watched(command: Sequence[str | Path], **options: Any) -> Iterator["subprocess.Popen[str]"]:  # noqa: ANN401 - Popen's
    """Start a Python process. One that outlives `LIFETIME` is told to abort: then it writes its stack to stderr.

    So nothing that waits for it, be it for a line, waits for ever. It hears the signals of a terminal, also where the
    tests are run in the background, or by nohup, and do not.
    """
    with subprocess.Popen(
        ["env", "--default-signal=HUP,INT,QUIT", *command], cwd=REPOSITORY, text=True, **options
    ) as process:
        watchdog = threading.Timer(LIFETIME, process.send_signal, [signal.SIGABRT])
        watchdog.start()
        try:
            yield process
        finally:
            watchdog.cancel()
            process.kill()


def ended(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """Wait for the end of a watched process; return what it wrote."""
    out, err = process.communicate()
    assert process.returncode != -signal.SIGABRT, (
        f"{process.args!r} did not end in {LIFETIME} s. It had written:\n{out}\nIts stack:\n{err}"
    )
    return out, err


def start(*words: object, **options: Any) -> AbstractContextManager["subprocess.Popen[str]"]:  # noqa: ANN401 - Popen's
    """Start `echod ping`."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    variables = environment(COLUMNS="80", TZ="UTC", PYTHONFAULTHANDLER="1")
    return watched([*ECHOD, "ping", *map(str, words)], env=variables, **pipes)


def read_lines(process: "subprocess.Popen[str]", count: int = 1) -> list[str]:
    """Wait for the next lines of a process on stdout; they are empty where it has ended."""
    assert process.stdout
    return [process.stdout.readline() for _ in range(count)]


def ping(*words: object, **options: Any) -> Pinged:  # noqa: ANN401 - Popen's
    """Run `echod ping` to its end; it never shows a traceback."""
    with start(*words, **options) as process:
        out, err = ended(process)
    assert "Traceback" not in err
    return Pinged(process.returncode, out, err)


def shape(text: str) -> str:
    """Put a sign in the place of what differs from run to run: times, and how much a flood got through."""
    text = re.sub(rf"{NUMBER}(?:/{NUMBER})+", "T/T", text)
    text = re.sub(rf"(time[ =]|jitter |handshake |within |and |replies: ){NUMBER}(?= ?m?s)", r"\1T", text)
    return re.sub(r"from \d\d:\d\d:\d\d ", "from T ", text)


class Impairer:
    """A process that does harm by a plan: `impairing_server` or `impairing_bridge`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        """Take its process, which says its port first."""
        self._process = process
        [printed] = read_lines(process)
        assert printed, f"{process.args!r} ended before it said its port"
        self.port = int(printed)

    def account(self) -> dict[str, int]:
        """Let it end; return what it did, and how often."""
        account: dict[str, int] = json.loads(ended(self._process)[0])
        return account


@contextmanager
def impairing(
    plan: Sequence[str], script: str = "impairing_server.py", *words: str, options: object = None
) -> Iterator[Impairer]:
    """Start an echo server that does harm, or another script that does, in the network that we are in."""
    before = [] if options is None else [json.dumps(options)]
    command: list[str | Path] = [sys.executable, HERE / script, *before, json.dumps(plan), *words]
    variables = environment(PYTHONFAULTHANDLER="1")
    with watched(command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield Impairer(process)


def measuring(plan: Sequence[str], **options: object) -> AbstractContextManager[Impairer]:
    """Start a server of UDPEchoPlus, STAMP or reveal with these options of `measuring_server`."""
    return impairing(plan, "measuring_server.py", options=options)


def impaired(plan: Sequence[str], *words: object) -> tuple[Pinged, dict[str, int]]:
    """Run `echod ping` against an echo server that does harm; return the report, and the account of the server."""
    with impairing(plan) as server:
        found = ping(*words, f"127.0.0.1:{server.port}")
        return found, server.account()
