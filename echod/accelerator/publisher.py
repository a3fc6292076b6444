"""What the accelerator reports of itself: its status file, and what it tells the service manager.

Owns the form of that file and the moments at which it is written. Decides nothing. Invariant: the file is never older
than STATUS_FILE_SECONDS while the loop turns; one that cannot be written disturbs nothing.
"""

import fcntl
import json
import os
import time
from collections import Counter
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Any, Final

import structlog

from echod import __version__
from echod.accelerator.changes import Cause
from echod.accelerator.interfaces import Interfaces
from echod.bpf.datapath import Datapath
from echod.errors import KernelUnavailableError
from echod.linux.systemd import Notifier
from echod.status import instances
from echod.status.writing import NAME, PUBLIC, STATUS_FILE_SECONDS, make_directory, replace_file

DEFAULT_DIRECTORY: Final = Path("/run/echod-accelerate")
CONFIG: Final = "config"
"""What paths are forgotten for beside the causes of `changes`: another declaration."""

_log = structlog.get_logger()


def directory(environment: Mapping[str, str]) -> Path | None:
    """Return where the status file is: RUNTIME_DIRECTORY (systemd.exec(5)), else that of root in /run."""
    first = environment.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return Path(first) if first else DEFAULT_DIRECTORY if os.geteuid() == 0 else None


class Publisher:
    """The reports of one process."""

    def __init__(self, environment: MutableMapping[str, str], config: str) -> None:
        """Take the environment, and the config's path as text."""
        self.notifier = Notifier(environment)
        self.flushes = Counter(dict.fromkeys([*(each.value for each in Cause), CONFIG], 0))
        self._place = directory(environment)
        self._problem = ""
        self._watchdog_due, self._write_due, self._paths_due = 0.0, 0.0, -inf
        self._paths = 0
        self._published: dict[str, Any] = {}
        self._about = {
            "version": __version__,
            "pid": os.getpid(),
            "born": instances.birth(os.getpid()),
            "started": time.time(),
            "config": config,
        }

    def claim(self) -> None:
        """Take the status directory for this process alone. Raises KernelUnavailableError if another one has it."""
        if self._place is None:
            return
        with suppress(OSError):  # without a directory there is no status file; the log says so
            with suppress(FileExistsError):
                make_directory(self._place)
            self._claim = os.open(self._place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(self._claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise KernelUnavailableError(
                    f"another echod accelerate runs with {self._place}: stop it, or set another RUNTIME_DIRECTORY"
                ) from None

    def alive(self, now: float) -> None:
        """Tell the service manager that the loop turns, if that is due, and what it had no room for before."""
        self.notifier.catch_up()
        seconds = self.notifier.watchdog_seconds
        if seconds is not None and now >= self._watchdog_due:
            self._watchdog_due = now + seconds / 3
            self.notifier.watchdog()

    def publish(self, datapath: Datapath, interfaces: Interfaces, now: float) -> None:
        """Write the status file, if anything has changed or that is due."""
        if now >= self._paths_due:
            self._paths, self._paths_due = datapath.count_paths(now), now + STATUS_FILE_SECONDS
        attached = datapath.attached
        state = {
            "interfaces": [
                {
                    "name": name,
                    "ifindex": ifindex,
                    "kind": attached[ifindex].kind.value if ifindex in attached else "",
                    "driver": interfaces.driver.value,
                }
                for name, ifindex in interfaces.found.items()
            ],
            "paths": self._paths,
            "flushes": dict(sorted(self.flushes.items())),
            "traffic": [
                {
                    "family": f"ipv{version}",
                    "port": port,
                    "replied": each.replied,
                    "replied_bytes": each.replied_bytes,
                    "passed": each.passed,
                    "slipped": each.slipped,
                    "dropped": each.dropped,
                }
                for (version, port), each in sorted(datapath.traffic().items())
            ],
        }
        if state == self._published and now < self._write_due:
            return
        self._published, self._write_due = state, now + STATUS_FILE_SECONDS
        if self._place is not None:
            times = {"at": time.time(), "at_monotonic": instances.monotonic()}
            text = json.dumps(self._about | times | state).encode()
            self._note(replace_file(self._place, NAME, text, PUBLIC))

    def remove(self) -> None:
        """Remove the status file: the process is stopping."""
        if self._place is not None:
            with suppress(OSError):
                (self._place / NAME).unlink()

    def _note(self, problem: str) -> None:
        """Log a problem once, until it is solved."""
        if problem and not self._problem:
            what, _, _ = problem.partition(";")  # the advice behind it is for the daemon
            message = (
                f"no status of echod accelerate is written: {what}; give it a RuntimeDirectory= that it may write to"
            )
            _log.warning("status_not_written", message=message)
        self._problem = problem
