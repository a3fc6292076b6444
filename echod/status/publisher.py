"""The daemon's snapshot: in the status file, for `echod status` and `echod reload`, and sent to the exporter.

Owns the last snapshot; decides nothing. Invariant: the file is never older than
STATUS_FILE_SECONDS while the loop turns, so its readers know that the daemon is alive.
"""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from echod import __version__
from echod.admission.selftest import SelfTest
from echod.stats.snapshot import Activity, LastReload, Snapshot
from echod.status import instances
from echod.status.files import StatusFiles
from echod.status.writing import STATUS_FILE_SECONDS


class Publisher:
    """Makes each snapshot and publishes it."""

    def __init__(self, config: str, send: Callable[[bytes], None]) -> None:
        """Take the config's path, and a function that sends each packed snapshot to the exporter."""
        self._send = send
        self._files = StatusFiles(None)
        self._write_due = 0.0
        now, now_monotonic = time.time(), instances.monotonic()
        self._snapshot = Snapshot(
            version=__version__,
            pid=os.getpid(),
            born=instances.birth(os.getpid()),
            at=now,
            at_monotonic=now_monotonic,
            started=now,
            started_monotonic=now_monotonic,
            generation=0,
            config=config,
            config_read=None,
        )

    def start(self, directory: Path | None) -> None:
        """Publish in this directory from now on; None for no file."""
        self._files = StatusFiles(directory)

    def serving(self, generation: int, self_test: SelfTest | None, config_read: float | None) -> None:
        """Take over what is served from now on: the generation, its mark, and when its config was read."""
        self._snapshot = replace(self._snapshot, generation=generation, config_read=config_read)
        self._files.write_self_test(self_test.pack() if self_test is not None else None)

    def show(self, activity: Activity) -> None:
        """Publish the daemon's activity."""
        self._publish(activity=activity)

    def reload_begun(self) -> None:
        """Publish that a reload begins."""
        self._publish(reloads_begun=self._snapshot.reloads_begun + 1)

    def reload_finished(self, code: int, text: str) -> None:
        """Publish the outcome of a reload, for `echod reload`."""
        outcome = LastReload(at=time.time(), code=code, text=text)
        self._publish(reloads_finished=self._snapshot.reloads_finished + 1, reload=outcome)

    def refresh(self, now: float) -> None:
        """Publish again if that is due, although nothing has changed."""
        if now >= self._write_due:
            self._publish()

    def remove(self) -> None:
        """Remove the files: echod is stopping."""
        self._files.remove()

    def _publish(self, **changes: Any) -> None:  # noqa: ANN401 - fields of a Snapshot
        """Publish the last snapshot with what has changed."""
        self._snapshot = replace(self._snapshot, at=time.time(), at_monotonic=instances.monotonic(), **changes)
        self._write_due = time.monotonic() + STATUS_FILE_SECONDS
        packed = self._snapshot.pack()
        self._files.write(packed)
        self._send(packed)
