"""Signals are taken by the loop, none is lost, and each is taken once."""

import json
import subprocess
import sys

from running import REPOSITORY

FLOOD = """
import json, os, select, signal
from echod.signals import Signals, block
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
