"""Errors that an operator can cause, and their exit codes.

Owns every exception that echod raises on purpose, and the plural of a noun in a message. What a *peer* can cause is
never an exception: it is a value, and it is counted. Invariant: the text of each exception is one sentence that an
operator can act on.
"""

from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of sysexits.h, but 2 for usage, as in getopt programs and argparse.

    The low ones of `echod status` follow the LSB, "Init Script Actions".
    """

    OK = 0
    NO_ANSWER = 1
    USAGE = 2
    NOT_RUNNING = 3
    STATUS_UNKNOWN = 4
    NO_INPUT = 66
    UNAVAILABLE = 69
    SOFTWARE = 70
    IO_ERROR = 74
    STOPPED = 75
    """EX_TEMPFAIL: `echod reload` was overtaken by a stop."""
    NO_PERMISSION = 77
    CONFIG = 78
    INTERRUPTED = 130
    """128 + SIGINT, as in shells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One thing that is wrong, or unwise, in a config file.

    `line` and `column` count from 1; `path` is dotted, as in `tcp.max_connections` or `listeners[2]`, and
    empty if the mistake concerns the file as a whole.
    """

    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        """Write the path, if there is one, and the message."""
        return f"{self.path}: {self.message}" if self.path else self.message


def plural(number: int, noun: str) -> str:
    """Return a noun in the form that goes with a number."""
    if number == 1:
        return noun
    return f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"


class EchodError(Exception):
    """An operator's mistake, or a host that does not allow what was asked."""

    exit_code = ExitCode.SOFTWARE


class UsageError(EchodError):
    """The command line asks for something impossible, such as `--daemonize` under systemd."""

    exit_code = ExitCode.USAGE


class ConfigUnreadableError(EchodError):
    """The config file is missing, not readable, or not a regular file."""

    exit_code = ExitCode.NO_INPUT


class ConfigError(EchodError):
    """The config file has mistakes; carries every one, ordered by line."""

    exit_code = ExitCode.CONFIG

    def __init__(self, mistakes: tuple[Mistake, ...]) -> None:
        """Take the mistakes, at least one."""
        super().__init__("; ".join(f"line {each.line}: {each}" for each in mistakes))
        self.mistakes = mistakes
        self.text = b""
        """The content of the file, if it was read from one."""

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle it as it is made: a process may read a config for another."""
        return ConfigError, (self.mistakes,), {"text": self.text}


class KeyUnreadableError(EchodError):
    """The file of a key that the config names is missing, not readable, or no key."""

    exit_code = ExitCode.CONFIG


class AddressUnavailableError(EchodError):
    """A listener's address is in use, or not an address of this host."""

    exit_code = ExitCode.UNAVAILABLE


class FamilyUnavailableError(AddressUnavailableError):
    """A listener's address family is switched off or forbidden here: a restart does not help."""

    exit_code = ExitCode.CONFIG


class PassedSocketError(EchodError):
    """A socket that was passed cannot be served: the .socket unit has to be changed, and a restart does not help."""

    exit_code = ExitCode.CONFIG


class UnknownUserError(EchodError):
    """This host has no user of the name that the config gives."""

    exit_code = ExitCode.CONFIG


class InterruptedStartError(EchodError):
    """The user pressed Ctrl-C before the daemon served."""

    exit_code = ExitCode.INTERRUPTED


class NotRunningError(EchodError):
    """There is no echod to talk to."""

    exit_code = ExitCode.UNAVAILABLE


class ReloadOvertakenError(EchodError):
    """The echod that was to reload has stopped meanwhile."""

    exit_code = ExitCode.STOPPED


class NoStatusError(EchodError):
    """There is no echod to show the status of."""

    exit_code = ExitCode.NOT_RUNNING


class StatusUnknownError(EchodError):
    """There is a status, but it cannot be read."""

    exit_code = ExitCode.STATUS_UNKNOWN


class NotPermittedError(EchodError):
    """This process may not bind a port, reload the running echod, or become another user."""

    exit_code = ExitCode.NO_PERMISSION


class KernelUnavailableError(EchodError):
    """The kernel of this host cannot repeat what the sockets replied."""

    exit_code = ExitCode.UNAVAILABLE


class NothingConfiguredError(EchodError):
    """The config has nothing to do for the command: it has to be changed, and a restart does not help."""

    exit_code = ExitCode.CONFIG


class StartFailedError(EchodError):
    """The workers could not be started or did not become ready, or there is no memory for them or the config."""
