"""The status file: written by the supervisor, read by `echod reload`.

Owns its place and its form, a JSON object. It is replaced as a whole, so a reader never sees half of one, and there
is no socket to attack. Invariant: a status file that cannot be written never disturbs the service.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

NAME: Final = "status.json"
DEFAULT_DIRECTORY: Final = Path("/run/echod")


def directory(environment: Mapping[str, str]) -> Path | None:
    """Return the RUNTIME_DIRECTORY that the service manager made for us (systemd.exec(5)), or None."""
    first = environment.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return Path(first) if first else None


class StatusFile:
    """The file as the supervisor has it; without a directory, nothing is written."""

    def __init__(self, place: Path | None) -> None:
        """Take the directory it stands in."""
        self._path = place / NAME if place is not None else None

    def write(self, status: Mapping[str, Any]) -> None:
        """Replace what the file says."""
        if self._path is None:
            return
        new = self._path.with_suffix(".new")
        with suppress(OSError):
            new.write_text(json.dumps(status) + "\n", encoding="utf-8")
            new.replace(self._path)

    def remove(self) -> None:
        """Say no more: echod is stopping."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink()


def read(place: Path) -> dict[str, Any] | None:
    """Return what the file in that directory says, or None where there is none."""
    try:
        status = json.loads((place / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return status if isinstance(status, dict) else None
