"""What a killed run of the tests leaves behind: no process of an echod that it has started."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.daemon import AS_NOBODY, REPOSITORY, children, end_processes, environment, title
from support.loopback import needs_root
from support.ports import free_port
from support.waiting import wait_until

RUN = """
import json, sys
from pathlib import Path
from support.daemon import Daemon
folder, port, *prefix = sys.argv[1:]
daemon = Daemon(Path(folder), {"listeners": [f"udp://127.0.0.1:{port}"], "workers": 2}, prefix=prefix)
daemon.wait_for("ready")
print(daemon.pid, flush=True)
sys.stdin.read()
"""


@needs_root
@pytest.mark.parametrize(
    "prefix",
    [
        (),
        ("unshare", "--ipc", "--fork", "--kill-child"),
        AS_NOBODY,
    ],
    ids=["plain", "forked", "another user"],
)
def test_an_echod_ends_with_the_process_that_started_it(folder: Path, prefix: tuple[str, ...]) -> None:
    """Killed, as by a time limit, it cannot end what it has started; the kernel does, whatever the prefix is."""
    run = subprocess.Popen(
        [sys.executable, "-c", RUN, folder, str(free_port()), *prefix],
        cwd=REPOSITORY,
        env=environment(PYTHONPATH="tests"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with run:
        assert run.stdout is not None
        pids = [int(run.stdout.readline())]
        for pid in pids:
            pids += children(pid)  # supervisor, workers, and what a prefix has forked
        assert len(pids) >= 3
        run.kill()
    try:
        wait_until(lambda: not any(map(title, pids)), "all that echod had started was gone")
    finally:
        end_processes(pids)
