"""The daemon loads nothing of the client."""

import os
import signal
from pathlib import Path

from support.daemon import Serve, ask
from support.waiting import wait_until

NEVER_LOADED = (
    "rich",
    "matplotlib",
    "numpy",
    "prometheus_client",
    "twisted",
    "ssl",
    "_hashlib",
    "asyncio.events",
    "echod.ping",
    "echod.probes",
    "echod.measurement",
)

SPY = """
import os, signal, sys

def write_modules(*_):
    loaded = sorted(name for name, module in sys.modules.items() if module is not None)
    with open(f"{__file__}.{os.getpid()}.part", "w") as file:
        file.write("\\n".join(loaded))
    os.rename(file.name, file.name.removesuffix(".part"))

signal.signal(signal.SIGWINCH, write_modules)
"""
"""Loaded by Python before echod: on SIGWINCH, which echod does not use, a process writes its modules to a file."""


def loaded(pid: int, spy: Path) -> set[str]:
    """Return the names of the modules that a running process has."""
    os.kill(pid, signal.SIGWINCH)
    written = Path(f"{spy}.{pid}")
    wait_until(written.exists, f"process {pid} has written the modules that it has loaded")
    return set(written.read_text().splitlines())


def test_echod_run_loads_neither_the_client_nor_what_it_draws_with(tmp_path: Path, serve: Serve) -> None:
    """Supervisor and worker, after traffic and a reload: no rich, no matplotlib, no prometheus_client, no client."""
    spy = tmp_path / "sitecustomize.py"
    spy.write_text(SPY)
    user = {"user": "root"} if os.geteuid() == 0 else {}  # so that a worker may write what it has loaded
    daemon, port = serve(workers=1, variables={"PYTHONPATH": str(tmp_path)}, **user)
    assert daemon.reload()["event"] == "reloaded"
    assert ask(port) == b"hi"
    daemon.counters()
    [worker] = wait_until(daemon.workers, "a worker lives")
    for pid in (daemon.pid, worker):
        modules = loaded(pid, spy)
        assert {"echod.supervisor.supervisor", "echod.worker.worker", "echod.udp.service", "sitecustomize"} <= modules
        foreign = [name for name in modules for never in NEVER_LOADED if f"{name}.".startswith(f"{never}.")]
        assert foreign == []
