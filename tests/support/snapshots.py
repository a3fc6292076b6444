"""Snapshots for tests: of this process, with a plain config and no traffic."""

import os
from dataclasses import replace
from typing import Any

from echod.stats.snapshot import Snapshot
from echod.status.instances import birth


def make_snapshot(**changes: Any) -> Snapshot:  # noqa: ANN401 - as the fields are
    """Make a snapshot that differs in these fields."""
    pid = os.getpid()
    plain = Snapshot(
        version="1.0",
        pid=pid,
        born=birth(pid),
        at=1.0,
        at_monotonic=1.0,
        started=1.0,
        started_monotonic=1.0,
        generation=1,
        config="/etc/echod.yaml",
        config_read=None,
    )
    return replace(plain, **changes)
