"""What a command raises, as a message on stderr and an exit code.

Owns the class of stdout of every command. Invariant: every command ends with a code of `ExitCode`, and an error that
the operator can correct is one sentence on stderr, never a traceback; an error of stdout is never taken for one of
another file.
"""

import errno
import os
import sys
import traceback
from collections.abc import Callable
from io import TextIOWrapper
from typing import NoReturn

from echod import __version__, logs
from echod.errors import EchodError, ExitCode


class OutputError(OSError):
    """Something could not be written to stdout: a full disk, or a reader that is gone (EPIPE)."""


class Output(TextIOWrapper):
    """Standard output, whose errors are OutputError."""

    def write(self, text: str) -> int:
        """Write; raises OutputError."""
        try:
            return super().write(text)
        except OSError as error:
            _fail(error)

    def flush(self) -> None:
        """Write what is buffered; raises OutputError."""
        try:
            super().flush()
        except OSError as error:
            _fail(error)


def _fail(error: OSError) -> NoReturn:
    raise OutputError(error.errno, error.strerror) from None


def guarded(command: Callable[[], int]) -> int:
    """Run a command; turn what it raises into a message on stderr and an exit code."""
    try:
        try:
            code = command()
        except SystemExit as end:  # of argparse, which has printed the help, the version or the mistake
            code = int(end.code or 0)
        print(end="", flush=True)  # here, where a write error is still reported
    except EchodError as error:
        logs.report(f"echod: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        return ExitCode.OK
    except OutputError as error:
        # Output that is still buffered must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:
            return ExitCode.OK  # the reader closed the pipe
        logs.report(f"echod: the output cannot be written: {error.strerror}")
        return ExitCode.IO_ERROR
    except Exception:  # noqa: BLE001 - any exception must be reflected in the exit code
        logs.report(f"echod: this is a defect in echod {__version__}\n{traceback.format_exc()}")
        return ExitCode.SOFTWARE
    return code
