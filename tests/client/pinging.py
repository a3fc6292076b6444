"""`echod ping` as a test runs it: a real process, its output, its exit code."""

import json
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from running import ECHOD, REPOSITORY, SECONDS, environment

HERE = Path(__file__).parent

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


def start(*words: object, **options: Any) -> "subprocess.Popen[str]":  # noqa: ANN401 - as Popen says
    """Start `echod ping`."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    command = [*ECHOD, "ping", *map(str, words)]
    variables = environment(COLUMNS="80", TZ="UTC", PYTHONFAULTHANDLER="1")
    return subprocess.Popen(command, cwd=REPOSITORY, env=variables, **pipes)


def ping(*words: object) -> Pinged:
    """Run `echod ping` to its end; it never shows a traceback."""
    with start(*words) as process:
        out, err = ended(process)
    assert "Traceback" not in err
    return Pinged(process.returncode, out, err)


def ended(process: "subprocess.Popen[str]", seconds: float = 60.0) -> tuple[str, str]:
    """Wait for the end of a Python process; return what it wrote. One that does not end says where it is, and dies."""
    try:
        return process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # faulthandler writes the stack
        try:
            out, err = process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            out = err = "(nothing, not even when it was told to abort)"
    raise AssertionError(f"{process.args!r} did not end in {seconds} s. Its stack:\n{err}\nIt had written:\n{out}")


def shape(text: str) -> str:
    """Put a sign in the place of what differs from run to run: times, and how much a flood got through."""
    text = re.sub(rf"{NUMBER}(?:/{NUMBER})+", "T/T", text)
    text = re.sub(rf"(time[ =]|jitter |handshake |within |and |down ){NUMBER}(?= ?m?s)", r"\1T", text)
    return re.sub(r"from \d\d:\d\d:\d\d ", "from T ", text)


class Suspect:
    """A process that does harm by a plan: `mischief` or `meddler`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        """Take its process, which says its port first."""
        assert process.stdout
        self._process = process
        ready, _, _ = select.select([process.stdout], [], [], SECONDS)
        assert ready, f"{process.args!r} said no port in {SECONDS} s"
        self.port = int(process.stdout.readline())

    def account(self) -> dict[str, int]:
        """Let it end; return what it did, and how often."""
        account: dict[str, int] = json.loads(ended(self._process, SECONDS)[0])
        return account


@contextmanager
def mischief(plan: Sequence[str], script: str = "mischief.py", *words: str) -> Iterator[Suspect]:
    """Start an echo server that does harm, or another script that does, in the network that we are in."""
    command = [sys.executable, HERE / script, json.dumps(plan), *words]
    variables = environment(PYTHONFAULTHANDLER="1")
    with subprocess.Popen(command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Suspect(process)
        finally:
            process.kill()
