"""Where log entries go and how they look: the only module that configures structlog.

Owns the destination: the journal's native protocol, a terminal, or JSON lines on stderr. Never decides what is
logged. Invariant: logging never blocks on the journal and never raises; entries that it did not accept are counted, and
the next entry has their number.

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

EventDict: TypeAlias = MutableMapping[str, Any]

IDENTIFIER: Final = "echod"

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
    from logging_journald import JournaldTransport

    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect(str(JournaldTransport.SOCKET_PATH))
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


def _unicode(text: str) -> str:
    """Return text that can be encoded: a file name may contain bytes that are not a character."""
    return text.encode("utf-8", "backslashreplace").decode()


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
    """Delivers entries by the journal's native protocol, each fact in a separate field."""

    def __init__(self) -> None:
        from logging_journald import JournaldTransport

        # Not connected: each send looks the path up again, so a restarted journald is found.
        self._transport = JournaldTransport(connected=False)
        self._transport.socket.setblocking(False)
        self._lost = 0

    def __call__(self, _logger: object, _method: str, event: EventDict) -> str:
        text = sentence(event)
        if "exception" in event:
            text += f"\n{event.pop('exception')}"
        fields: dict[str, Any] = {
            "MESSAGE": _unicode(text),
            "PRIORITY": _PRIORITIES[event.pop("level")],
            "SYSLOG_IDENTIFIER": IDENTIFIER,
        }
        fields |= {field: event.pop(name) for name, field in _CALLSITE.items()}
        fields |= {f"ECHOD_{key.upper()}": _unicode(_plain(value)) for key, value in event.items() if key != "message"}
        if self._lost:
            fields["ECHOD_LOST_ENTRIES"] = self._lost
        try:
            self._transport.send(fields.items())
        except OSError:
            self._lost += 1
        else:
            self._lost = 0
        return ""


def descriptors() -> list[int]:
    """Return the descriptors that a forked process must keep open to log."""
    return [2, *(each._transport.socket.fileno() for each in _journals())]  # noqa: SLF001


def _journal() -> _Journal | None:
    """Return the existing one, which counts lost entries, or a new one; None if none can be opened."""
    try:
        return next(iter(_journals()), None) or _Journal()
    except OSError:
        return None


def _journals() -> list[_Journal]:
    import structlog

    return [each for each in structlog.get_config()["processors"] if isinstance(each, _Journal)]
