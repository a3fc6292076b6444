"""What the supervisor says of itself: the status line, and the log entries with more to them than facts.

Owns words, never state.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import structlog

from echod.core.errors import ConfigError, EchodError, Mistake
from echod.core.listener import Listener, Protocol
from echod.core.plan import Plan
from echod.sockets import Buffers

MAX_LOGGED_MISTAKES: Final = 20
"""Of one rejected reload; `echod check` shows all."""

_log = structlog.get_logger()


def status(listeners: Iterable[Listener], workers: int) -> str:
    """Return one ASCII line that says what is served."""
    listeners = tuple(listeners)
    counts = {protocol.value: sum(each.protocol is protocol for each in listeners) for protocol in Protocol}
    parts = " and ".join(f"{number} {protocol}" for protocol, number in counts.items() if number)
    return f"serving {parts} listener{'s' * (len(listeners) > 1)} with {workers} worker{'s' * (workers > 1)}"


def log_listeners(plan: Plan) -> None:
    """Log what is served that was not before, and what is served no more."""
    for listener in plan.open:
        _log.info("listener_bound", listener=str(listener))
    for listener in plan.close:
        _log.info("listener_closed", listener=str(listener))


def log_buffers(asked: Buffers, got: Buffers | None) -> None:
    """Log once, not for each socket, that the kernel granted less than the config asks for."""
    if got is not None and (got.receive < asked.receive or got.send < asked.send):
        _log.warning(
            "buffers_capped",
            message=f"the kernel grants {got.receive:,} bytes of receive buffer and {got.send:,} of send buffer where "
            f"{asked.receive:,} and {asked.send:,} are configured: raise net.core.rmem_max and net.core.wmem_max, "
            "or set ReceiveBuffer= and SendBuffer= in the .socket unit",
            asked_receive=asked.receive,
            got_receive=got.receive,
            asked_send=asked.send,
            got_send=got.send,
        )


def log_warnings(path: Path | None, warnings: Iterable[Mistake]) -> None:
    """Log what is legal but unreasonable in a config that is put to use."""
    for warning in warnings:
        place = f"{path}:{warning.line}:{warning.column}"
        _log.warning("config_unreasonable", message=f"{place}: {warning}", key=warning.path)


def log_rejected(path: Path, error: EchodError) -> None:
    """Log why a reload did not happen, a mistake an entry."""
    mistakes = error.mistakes if isinstance(error, ConfigError) else ()
    for mistake in mistakes[:MAX_LOGGED_MISTAKES]:
        text = f"reload rejected: {path}:{mistake.line}:{mistake.column}: {mistake}"
        _log.error("reload_rejected", message=text, file_line=mistake.line, key=mistake.path)
    if len(mistakes) > MAX_LOGGED_MISTAKES:
        more = len(mistakes) - MAX_LOGGED_MISTAKES
        _log.error("reload_rejected", message=f"reload rejected: {more:,} more mistakes; see echod check")
    if not mistakes:
        _log.error("reload_rejected", message=f"reload rejected, the old config goes on: {error}")
