"""What systemd makes of a config on this host, where it runs echod: used by `echod check`, never by the daemon.

Owns the calls of systemctl and systemd-run. It changes nothing. Invariant: nothing is reported if systemd cannot be
asked, or runs no echod with this file.
"""

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from echod.cli.key_files import find_hidden
from echod.config import socket_unit
from echod.config.document import read
from echod.config.location import DEFAULT_PATH, shown
from echod.config.parse import find_instance
from echod.config.schema import Config
from echod.config.socket_unit import Passing
from echod.errors import ConfigUnreadableError, Mistake
from echod.net.listener import Listener

_BOOTED: Final = Path("/run/systemd/system")
"""There if systemd is PID 1: sd_booted(3)."""

_SECONDS: Final = 30.0
"""Time limit for an answer of systemd."""

_VISIBILITY: Final = (
    "User",
    "Group",
    "SupplementaryGroups",
    "DynamicUser",
    "RootDirectory",
    "ProtectHome",
    "ProtectSystem",
    "InaccessiblePaths",
    "TemporaryFileSystem",
    "BindPaths",
    "BindReadOnlyPaths",
)
"""The settings of a unit that decide which files it can read (systemd.exec(5)); DynamicUser= implies PrivateTmp=."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What a config has and the socket units do not pass, what to write there, and what they pass in its place."""

    mistakes: tuple[Mistake, ...] = ()
    advice: str = ""
    warnings: tuple[Mistake, ...] = ()
    passed: tuple[Listener, ...] = ()
    """What the socket units pass and the config does not have: it is served too."""


def examine(path: Path, config: Config, text: bytes, *, activated: bool) -> Examination:
    """Look at a config, parsed from `text`, as the service does that is started with it, if there is one.

    With `activated` it is compared with the socket units also where they do not hold the ports yet. Raises
    ConfigUnreadableError if the service cannot read it.
    """
    named = str(path.absolute())
    hidden: tuple[Mistake, ...] = ()
    units, unit = socket_unit.units_of(""), _read("")
    if (instance := find_instance(named)) and not _starts_with(named, unit):
        units, unit = socket_unit.units_of(instance), _read(instance)
    if _starts_with(named, unit):
        activated |= socket_unit.is_activated(unit, units.socket)
        if os.geteuid() == 0:  # root can read every file
            hidden = _look(units.service, unit, named, config, text)
    if not activated or hidden:
        return Examination(mistakes=hidden)
    metrics = units.metrics in unit.get("Requires", "").split()
    # An operator may have added units, each with Service= of this one.
    sockets = {units.socket, *unit.get("TriggeredBy", "").split()} - {units.metrics}
    passing = Passing(
        units=units,
        listeners=frozenset().union(*map(_passed, sockets)),
        metrics=_passed(units.metrics) if metrics else None,
    )
    return Examination(
        mistakes=socket_unit.find_not_passed(config, read(text), passing),
        advice=socket_unit.advice(config.listeners, passing),
        warnings=socket_unit.find_replaced(config, read(text), passing),
        passed=tuple(sorted(passing.listeners.difference(config.listeners), key=str)),
    )


def _read(instance: str) -> dict[str, str]:
    """Return the properties of a service; none if it is not loaded."""
    names = ("LoadState", "ExecStart", "Requires", "TriggeredBy", "PrivateNetwork", *_VISIBILITY)
    unit = socket_unit.properties(_show(socket_unit.units_of(instance).service, *names))
    return unit if unit.get("LoadState") == "loaded" else {}


def _starts_with(config: str, unit: Mapping[str, str]) -> bool:
    return bool(unit) and socket_unit.config_of(unit, str(DEFAULT_PATH)) == config


def _look(service: str, unit: Mapping[str, str], path: str, config: Config, text: bytes) -> tuple[Mistake, ...]:
    """Read the file as the service will. Raises ConfigUnreadableError if that fails. Then read its keys likewise."""
    if reason := _why_unreadable(unit, path):
        raise ConfigUnreadableError(
            f"{service} cannot read {shown(Path(path))}: {reason}: its user must be able to read the file, and it "
            "does not see /home, /root, /tmp and /var/tmp: run chmod a+r on the file, and a+x on the directories above"
        )
    return tuple(find_hidden(config, read(text), service, partial(_why_unreadable, unit)))


def _why_unreadable(unit: Mapping[str, str], path: str) -> str:
    """Return why a service with these properties cannot read a file; an empty string if it can, or if nobody knows."""
    visibility = [f"--property={name}={unit[name]}" for name in _VISIBILITY if unit.get(name)]
    command = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", "--setenv=LC_ALL=C", *visibility]
    result = _run([*command, "cat", "--", path])
    found = re.search(rf"^\S*cat: '?{re.escape(path)}'?: (.*)", result.stderr) if result is not None else None
    return found[1] if found else ""


def _passed(unit: str) -> frozenset[Listener]:
    return socket_unit.passed(_show(unit, "Listen", "BindToDevice"))


def _show(unit: str, *properties: str) -> str:
    result = _run(["systemctl", "show", f"--property={','.join(properties)}", unit]) if _BOOTED.is_dir() else None
    return result.stdout if result is not None and result.returncode == 0 else ""


def _run(command: list[str]) -> "subprocess.CompletedProcess[str] | None":
    """Run a command of systemd; None if it is not there or does not end."""
    try:
        return subprocess.run(  # noqa: S603 - nothing in it comes from others than root and this file
            command, check=False, stdin=subprocess.DEVNULL, capture_output=True, errors="replace", timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
