"""What `echod accelerate` reports of itself, for who shows it beside what the daemon does.

Owns where its status file is looked for, and whose it is. The file is read with the care of the daemon's own, and by
readers of the daemon's alone: the daemon does not know whether an accelerator runs. Invariant: numbers of another
echod, or of a process that is gone, are never returned.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Final

from echod.stats.snapshot import Kernel, Snapshot
from echod.status import instances
from echod.status.files import STALE_SECONDS, is_alive, is_same, read_file
from echod.status.writing import NAME

DIRECTORIES: Final = Path("/run"), "echod-accelerate*"
"""Where accelerators have their runtime directories, and the pattern of the names: each instance has another one."""


def with_kernel(snapshot: Snapshot) -> Snapshot:
    """Return a snapshot of the daemon with what its accelerator reports; if none runs, with nothing."""
    kernel, problem = _find(snapshot.config)
    return replace(snapshot, kernel=kernel, kernel_problem=problem)


def _find(config: str) -> tuple[Kernel | None, str]:
    """Return what the accelerator with this config reports, and why that is old or not known."""
    unknown = ""
    for path in kernel_files():
        try:
            text, _ = read_file(path)
            status = json.loads(text)
            if not is_same(status["config"], config) or not is_alive(status):
                continue
            kernel = Kernel.unpack(text)
        except (FileNotFoundError, NotADirectoryError):
            continue  # none runs
        except OSError as error:
            unknown = f"{path} cannot be read: {error.strerror}"
        except (KeyError, TypeError, ValueError, RecursionError):
            unknown = f"{path} is not valid: it was written by another version of echod"
        else:
            is_old = instances.monotonic() - kernel.at_monotonic > STALE_SECONDS
            return kernel, _old(kernel) if is_old else ""
    return None, unknown


def kernel_files() -> list[Path]:
    """Return the status files of all accelerators of this host, whoever they are of; some may not be there."""
    parent, pattern = DIRECTORIES
    try:
        return [place / NAME for place in sorted(parent.glob(pattern))]
    except OSError:  # a sandbox may hide all of it
        return []


def _old(kernel: Kernel) -> str:
    return (
        f"process {kernel.pid} has written no status for more than {STALE_SECONDS:.0f} seconds; it hangs, or its log "
        "says why it cannot"
    )
