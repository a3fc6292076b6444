"""Signals are taken by the loop, none is lost, and each is taken once."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from support.daemon import REPOSITORY, Daemon, ask
from support.ports import free_port
from support.waiting import wait_until

HUP_AND_USR1 = 1 << signal.SIGHUP - 1 | 1 << signal.SIGUSR1 - 1

FLOOD = """
import json, os, select, signal
from echod.linux.signals import Signals, block
block()
os.kill(os.getpid(), signal.SIGHUP)
signals = Signals()
for _ in range(5000):
    os.kill(os.getpid(), signal.SIGUSR1)
os.kill(os.getpid(), signal.SIGTERM)
ready = lambda: bool(select.select([signals], [], [], 0)[0])
told = [[ready(), sorted(signals.take())] for _ in range(2)]
os.kill(os.getpid(), signal.SIGTERM)
print(json.dumps([*told, [ready(), sorted(signals.take())]]))
"""


def test_a_flood_of_one_signal_loses_no_other() -> None:
    """SIGTERM behind 5,000 of SIGUSR1, and SIGHUP that came while they were put off, are taken, once each."""
    command = [sys.executable, "-c", FLOOD]
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True, timeout=30)
    assert json.loads(finished.stdout) == [[True, [1, 10, 15]], [False, []], [True, [15]]]


def blocks(daemon: Daemon, mask: int) -> bool:
    """Tell whether the supervisor blocks these signals and no other."""
    return f"SigBlk:\t{mask:016x}\n" in Path(f"/proc/{daemon.pid}/status").read_text()


def test_a_signal_inherited_pending_is_acted_on_once_it_serves(echod: Callable[..., Daemon]) -> None:
    """Of a launcher that blocks or ignores SIGHUP and SIGUSR1, none ends the start: they take effect after it."""
    for how in ("block", "ignore"):
        daemon = echod(
            {"listeners": [f"udp://127.0.0.1:{free_port()}"], "workers": 1},
            prefix=["env", f"--{how}-signal=HUP,USR1"],
            ready=False,
        )
        wait_until(partial(blocks, daemon, HUP_AND_USR1), "the first line of echod has run")
        daemon.signal(signal.SIGHUP)
        daemon.signal(signal.SIGUSR1)
        daemon.wait_for("reloaded")
        daemon.wait_for("counters")
        events = [entry["event"] for entry in daemon.log()]
        assert events.index("ready") < events.index("reloaded")


def test_stray_signals_end_nothing(echod: Callable[..., Daemon]) -> None:
    """Every signal that echod has no use for, and that would end a process, is ignored by supervisor and worker."""
    port = free_port()
    daemon = echod({"listeners": [f"udp://127.0.0.1:{port}"], "workers": 1})
    (worker,) = daemon.workers()
    names = ["USR2", "ALRM", "VTALRM", "PROF", "IO", "PWR", "STKFLT", "PIPE", "XFSZ"]
    stray = [signal.Signals[f"SIG{name}"] for name in names]
    for number in (*stray, *range(signal.SIGRTMIN, signal.SIGRTMAX + 1)):
        os.kill(daemon.pid, number)
        os.kill(worker, number)
    assert ask(port) == b"hi"
    assert daemon.workers() == [worker]
    assert daemon.stop() == 0
