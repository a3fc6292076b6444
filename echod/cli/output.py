"""Standard output, and its errors.

Owns the class of stdout of every command. It knows nothing of what is written. Invariant: an error of stdout is never
taken for one of another file.
"""

from io import TextIOWrapper
from typing import NoReturn


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
