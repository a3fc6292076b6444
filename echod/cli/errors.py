"""What a command raises, as a message on stderr and an exit code.

Invariant: every command ends with a code of `ExitCode`, and an error that the operator can correct is one sentence on
stderr, never a traceback.
"""

import errno
import os
import sys
import traceback
from collections.abc import Callable

from echod import __version__, logs
from echod.cli.output import OutputError
from echod.errors import EchodError, ExitCode


def guarded(command: Callable[[], int]) -> int:
    """Run a command; turn what it raises into a message on stderr and an exit code."""
    try:
        code = _run(command)
        print(end="", flush=True)  # here, where a write error is still reported
    except EchodError as error:
        logs.report(f"echod: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        return ExitCode.OK
    except Exception as error:  # noqa: BLE001 - any exception must be reflected in the exit code
        if not isinstance(error, OutputError):
            logs.report(f"echod: this is a defect in echod {__version__}\n{traceback.format_exc()}")
            return ExitCode.SOFTWARE
        # Output that is still buffered must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = ExitCode.OK  # the reader closed the pipe
        if error.errno != errno.EPIPE:
            logs.report(f"echod: the output cannot be written: {error.strerror}")
            code = ExitCode.IO_ERROR
    return code


def _run(command: Callable[[], int]) -> int:
    try:
        return command()
    except SystemExit as end:  # of argparse, which has printed the help, the version or the mistake
        return int(end.code or 0)
