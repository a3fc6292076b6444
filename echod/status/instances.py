"""The echods of this host as processes: their titles, and when a process was born.

Owns what tells which process is meant. Times are those of the initial time namespace
(time_namespaces(7)), so that processes in different ones agree. Invariant: a process that is gone, or hidden, is absent
or None, never an error.
"""

import time
from pathlib import Path
from typing import Final

from echod.linux.procfs import TICKS, start_ticks

_TITLE: Final = "echod: supervisor"
_DEFAULTS: Final = "(built-in defaults)"


def title(config: str | None) -> str:
    """Return the title of the supervisor that serves this config, a path as in `Snapshot.config`, or None for none."""
    return f"{_TITLE} {config or _DEFAULTS}"


def supervisors() -> dict[int, str | None]:
    """Return the config of each echod that this process can see, but those in containers, by process id.

    It is None for an echod without a config file.
    """
    found: dict[int, str | None] = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().rstrip(b"\0").decode("utf-8", "replace")
            if words.startswith(f"{_TITLE} ") and _is_of_our_host(place):
                config = words.removeprefix(f"{_TITLE} ")
                found[int(place.name)] = config if config != _DEFAULTS else None
        except OSError:
            continue
    return dict(sorted(found.items()))


def _is_of_our_host(place: Path) -> bool:
    """Tell whether a process has no other number in a PID namespace of its own."""
    lines = (place / "status").read_text(encoding="utf-8", errors="replace").splitlines()
    return all(len(line.split()) <= len(("NSpid:", "number")) for line in lines if line.startswith("NSpid:"))


def is_supervisor(pid: int) -> bool | None:
    """Tell whether this process is an echod's; None if that is hidden, as with ProtectProc= and PrivateUsers=."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(_TITLE.encode())
    except OSError:
        return None


def user(pid: int) -> int | None:
    """Return the user of a process; None if it does not exist or is hidden."""
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return None


def birth(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None if it does not exist or is hidden."""
    ticks = start_ticks(pid)
    return None if ticks is None else ticks - round(_offset("boottime") * TICKS)


def was_born(pid: int, born: object) -> bool:
    """Tell whether a process was born at that time; if that is hidden, it may have been."""
    found = birth(pid)
    # Between time namespaces a tick may be rounded up or down.
    return found is None or (isinstance(born, int) and abs(found - born) <= 1)


def monotonic() -> float:
    """Return CLOCK_MONOTONIC, in seconds."""
    return time.monotonic() - _offset("monotonic")


def _offset(clock: str) -> float:
    """Return how many seconds a clock of this time namespace is ahead of the initial one."""
    try:
        # UTF-8 is loaded already; the module of another codec may be out of reach of a user without privileges.
        lines = Path("/proc/self/timens_offsets").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0  # without time namespaces (before Linux 5.6)
    found = {name: int(seconds) + int(nanoseconds) / 1e9 for name, seconds, nanoseconds in map(str.split, lines)}
    return found[clock]
