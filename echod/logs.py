"""Where log entries go and how they look: the only module that configures structlog.

Owns the destination: the journal, a terminal, or JSON lines on stderr. Never decides what is logged. Invariant: logging
never blocks on the journal and never raises.

structlog is imported where it is used: a command that only writes to stderr must not wait for it.
"""
# ruff: noqa: PLC0415 - see above

import os
import re
import socket
import sys
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeAlias

from echod.linux.journal import PATH, Journal

EventDict: TypeAlias = MutableMapping[str, Any]

MESSAGE_IDS: Final = {
    "ready": "308e699fdcb84023ada6b1cc7c8b85aa",
    "reload_rejected": "6887c335ba7e4f098c05815659d79fa7",
    "worker_exited": "1ef69928b63a45e290910e525a8fe8bb",
    "worker_stuck": "d0f018a68dd34d91afdad882d04a9491",
    "refused": "7cf94b0df0be4082961ae4b74413890d",
    "queue_full": "98696bdb33ee47898c7aaa565c90453c",
    "buffer_capped": "8657b348b889488e91a89501a2bd2ad2",
    "descriptors_capped": "1e4b5054bb1b411091136348375f33d8",
    "address_absent": "5bcd1e57b0c3433596f1e6919523b53b",
    "listener_detached": "a102b38b402645678b871371f8207fb0",
}
"""The events that the catalogue of the journal explains (packaging/journal/echod.catalog, journalctl -x)."""

_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""Priorities of syslog(3)."""
_COLOURS: Final = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "31;1"}

_CALLSITE: Final = {"pathname": "CODE_FILE", "lineno": "CODE_LINE", "func_name": "CODE_FUNC"}
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def configure(*, level: str, destination: str) -> None:
    """Send entries of this level and above to `journal`, `console`, `json`, or with `auto` to what stderr is.

    May be called again: a reload can change both. It never raises: without a descriptor for the journal it uses JSON.
    """
    import logging

    import structlog
    from structlog.processors import CallsiteParameter, CallsiteParameterAdder

    if destination == "auto":
        to_journal = stderr_is_journal() or _missed_journal()
        destination = "journal" if to_journal else "console" if sys.stderr.isatty() else "json"
    journal = _journal() if destination == "journal" else None
    render: list[Any]
    if journal is not None:
        callsite = CallsiteParameterAdder({CallsiteParameter(name) for name in _CALLSITE})
        render = [callsite, structlog.processors.format_exc_info, journal]
    elif destination == "console":
        render = [structlog.processors.format_exc_info, _render_console]
    else:
        render = [structlog.processors.dict_tracebacks, _stamp, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[structlog.processors.add_log_level, *render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=_StderrLogger,
        # A cached logger would keep the level from before a reload.
        cache_logger_on_first_use=False,
    )


def stderr_is_journal() -> bool:
    """Return whether stderr is connected to the journal: any child process inherits the variable (systemd.exec(5))."""
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _missed_journal() -> bool:
    """Return whether stderr would be the journal's if the journal had run: without it systemd gives /dev/null.

    A service with StandardError=null has that, too, and logs nothing: the journal can be reached then. The decision
    holds for later reloads.
    """
    if "INVOCATION_ID" not in os.environ or not _stderr_is_null():
        return False
    if _journals():
        return True
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect(PATH)
    except OSError:
        return True
    return False


def _stderr_is_null() -> bool:
    try:
        return os.fstat(2).st_rdev == Path(os.devnull).stat().st_rdev
    except OSError:
        return False


def report(text: str) -> None:
    """Write lines to stderr, so that the journal attributes them to the unit even if the process exits at once.

    For the journal each line gets the prefix `<3>` of sd-daemon(3). If nobody reads stderr, because the journal did not
    run at the start or was stopped since, the lines are log entries.
    """
    prefix = "<3>" if stderr_is_journal() else ""
    for line in text.splitlines():
        if (_stderr_is_null() or not _write(f"{prefix}{line}")) and _journals():
            import structlog

            structlog.get_logger().error("process_failed", message=line)


def sentence(event: Mapping[str, Any]) -> str:
    """Return an entry as one self-contained line: `message` if it has one, else event and facts."""
    if "message" in event:
        return str(event["message"])
    hidden = {"event", "level", "exception", "exc_info", *_CALLSITE}
    facts = ", ".join(f"{key.replace('_', ' ')} {_plain(value)}" for key, value in event.items() if key not in hidden)
    name = str(event["event"]).replace("_", " ")
    return f"{name}: {facts}" if facts else name


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _stamp(_logger: object, _method: str, event: EventDict) -> EventDict:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"timestamp": now, "level": event.pop("level"), "event": event.pop("event"), **event}


def _render_console(_logger: object, _method: str, event: EventDict) -> str:
    """Return `12:34:56.789 warning  sentence`, with the level coloured if stderr is a terminal."""
    level = event["level"]
    shown = f"{level:<7}"
    if sys.stderr.isatty() and "NO_COLOR" not in os.environ:
        shown = f"\x1b[{_COLOURS[level]}m{shown}\x1b[0m"
    time = datetime.now().astimezone().strftime("%H:%M:%S.%f")[:-3]
    # Text quoted from a config file must not control the terminal.
    text = _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", sentence(event))
    trace = f"\n{event['exception']}" if "exception" in event else ""
    return f"{time} {shown} {text}{trace}"


class _StderrLogger:
    """Writes rendered lines; an entry that a processor has delivered arrives here empty."""

    def __init__(self, *_names: object) -> None: ...

    def msg(self, line: str) -> None:
        if line:
            _write(line)

    debug = info = warning = error = critical = msg


def _write(line: str) -> bool:
    try:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        # stderr is closed or its reader is gone. The daemon continues.
        return False
    return True


class _Journal:
    """The last processor of entries for the journal: each fact in a separate field."""

    def __init__(self) -> None:
        # RuntimeDirectory= of the unit is echod, or echod-NAME for an instance: SyslogIdentifier= is the same.
        self.journal = Journal(Path(os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0] or "echod").name)

    def __call__(self, _logger: object, _method: str, event: EventDict) -> str:
        text = sentence(event)
        if "exception" in event:
            text += f"\n{event.pop('exception')}"
        fields: dict[str, object] = {"MESSAGE": text, "PRIORITY": _PRIORITIES[event.pop("level")]}
        if event["event"] in MESSAGE_IDS:
            fields["MESSAGE_ID"] = MESSAGE_IDS[event["event"]]
        fields |= {field: event.pop(name) for name, field in _CALLSITE.items()}
        fields |= {f"ECHOD_{key.upper()}": _plain(value) for key, value in event.items() if key != "message"}
        self.journal.send(fields)
        return ""


def descriptors() -> list[int]:
    """Return the descriptors that a forked process must keep open to log."""
    return [2, *(each.journal.fileno() for each in _journals())]


def _journal() -> _Journal | None:
    """Return the existing one, which counts lost entries, or a new one; None if none can be opened."""
    try:
        return next(iter(_journals()), None) or _Journal()
    except OSError:
        return None


def _journals() -> list[_Journal]:
    import structlog

    return [each for each in structlog.get_config()["processors"] if isinstance(each, _Journal)]
