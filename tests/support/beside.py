"""The suites a second time: with ECHOD_TEST_ACCELERATED=1 there is an `echod accelerate` beside each daemon.

Owns it, and the way from its counters to those of the daemon: what both did is what one would have done alone. All
daemons of such a run are in network namespaces, and none in that of the machine. Invariant: it ends with its daemon.
"""

import ctypes
import mmap
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from support.daemon import ACCELERATED, Daemon
from support.manager import Manager

from echod.accelerator.declaration import declare
from echod.bpf import maps
from echod.config.parse import parse_config
from echod.errors import ConfigError

_GETFD: Final = 438  # pidfd_getfd(2), on all architectures
_MAPPABLE_ARRAY: Final = {"map_type": "2", "map_flags": "0x400"}
_syscall = ctypes.CDLL(None, use_errno=True).syscall


class Accelerator:
    """One beside a daemon that is ready."""

    def __init__(self, daemon: Daemon, prefix: Sequence[str]) -> None:
        """Start it with the config of the daemon, behind the `prefix` of another command, ready."""
        self._config = daemon.config_path
        folder = self._config.parent / "accelerator"
        folder.mkdir()
        # Its log may be in any form, and silent.
        self._manager = Manager(str(folder / "notify"))
        command = ("accelerate", "--config", str(self._config))
        self._process = Daemon(folder, None, prefix=prefix, variables=self._manager.variables, command=command)
        self._pages: dict[str, Callable[[], maps.Rows]] = {}
        self._ready = 0
        self._await()

    def reload(self) -> None:
        """Have it read the config of the daemon again, whatever is in it."""
        self._process.signal(signal.SIGHUP)
        self._await()

    def add_to(self, rows: dict[str, dict[str, int]]) -> None:
        """Add what the kernel replied to and dropped to the counters of the listeners, which did not see it."""
        for (version, port), row in maps.join_rows(page() for page in self._pages.values()).items():
            done = maps.describe(row)
            named = {"replied": done.replied, "replied_bytes": done.replied_bytes, "slipped": done.slipped}
            named |= {f"dropped_{name}": number for name, number in done.dropped.items()}
            named |= {"received": done.replied + sum(done.dropped.values()), "received_bytes": done.replied_bytes}
            listener = next((each for name, each in rows.items() if _account(name) == (version, port)), {})
            for name, number in named.items():
                if number:
                    listener[name] = listener.get(name, 0) + number

    def end(self) -> None:
        """End it."""
        self._process.end()
        self._manager.close()
        assert "Traceback" not in self._process.stderr

    def _await(self) -> None:
        """Wait until it says that it is ready, once more; map its counters, if they are others: the old stay mapped."""
        self._ready += 1
        self._manager.wait_for("READY=1", self._ready)
        try:
            declared = declare(parse_config(self._config.read_bytes())[0]).declared
        except (ConfigError, FileNotFoundError):
            return

        def read(view: mmap.mmap) -> maps.Rows:
            return maps.add_rows(bytes(view), declared.accounts, declared.rows)

        for info in Path(f"/proc/{self._process.pid}/fdinfo").glob("*"):
            fields = _described(info)
            if _MAPPABLE_ARRAY.items() <= fields.items() and fields["map_id"] not in self._pages:
                view = _map(self._process.pid, int(info.name), int(fields["value_size"]))
                self._pages[fields["map_id"]] = partial(read, view)


def _account(listener: str) -> tuple[int, int]:
    """Return family and port of a listener; zeros if it is none of UDP."""
    address, _, port = listener.rpartition(":")
    return (6 if "[" in address else 4, int(port)) if listener.startswith("udp://") else (0, 0)


def _described(info: Path) -> dict[str, str]:
    """Return what a file of /proc/PID/fdinfo says; nothing if its descriptor is closed meanwhile."""
    try:
        return dict(line.split(":\t") for line in info.read_text().splitlines() if ":\t" in line)
    except FileNotFoundError:
        return {}


def _map(pid: int, descriptor: int, size: int) -> mmap.mmap:
    """Map the values of an array whose descriptor another process has."""
    process = os.pidfd_open(pid)
    copy = _syscall(ctypes.c_long(_GETFD), process, descriptor, 0)
    assert copy >= 0, os.strerror(ctypes.get_errno())
    mapped = mmap.mmap(copy, size, prot=mmap.PROT_READ)
    os.close(copy)
    os.close(process)
    return mapped


def start(daemon: Daemon, prefix: Sequence[str] = ()) -> None:
    """Start one beside a daemon that is ready and has a config of ours, if this is such a run."""
    if ACCELERATED and daemon.config_path.exists():
        daemon.beside = Accelerator(daemon, prefix)


@contextmanager
def daemon_in(namespace: str, folder: Path, config: Mapping[str, Any]) -> Iterator[Daemon]:
    """Run echod in a network namespace, ready; end it."""
    prefix = ("ip", "netns", "exec", namespace)
    daemon = Daemon(folder, config, prefix=prefix)
    try:
        daemon.wait_for("ready")
        start(daemon, prefix)
        yield daemon
    finally:
        daemon.end()
    assert "Traceback" not in daemon.stderr
