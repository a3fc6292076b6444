"""Where the config comes from: a file that the operator names, /etc/echod.yaml, or the defaults for a first try.

Owns the reading of that file. Never keeps it: each reload reads it again.
"""

import errno
import os
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from echod.config.document import MAX_BYTES
from echod.config.location import DEFAULT_PATH, shown
from echod.config.parse import parse_config
from echod.config.schema import FIRST_TRY, Config
from echod.errors import ConfigError, ConfigUnreadableError, Mistake, StartFailedError

_REASONS: Final = {
    errno.ENOENT: "there is no such file",
    errno.EACCES: "it may not be read by this user: chmod a+r it, and a+x the directories that lead to it",
    errno.EISDIR: "it is a directory",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What was read: `path` and `text` are None if no file was named and none exists."""

    path: Path | None
    text: bytes | None
    config: Config
    warnings: tuple[Mistake, ...] = ()
    at: float | None = None
    """When the file was read, in seconds since 1970."""


def read(path: Path | None) -> Reading:
    """Read the named file, without a name /etc/echod.yaml if it exists, else take the defaults for a first try.

    Raises ConfigUnreadableError, ConfigError with every mistake, and StartFailedError where there is no memory for it.
    """
    if path is None and not os.path.lexists(DEFAULT_PATH):
        return Reading(path=None, text=None, config=FIRST_TRY)
    path = path or DEFAULT_PATH
    at = time.time()
    text = read_text(path)
    with suppress(MemoryError):  # what was taken is free after this block, so that the error can be reported
        try:
            config, warnings = parse_config(text)
        except ConfigError as error:
            error.text = text
            raise
        return Reading(path=path, text=text, config=config, warnings=warnings, at=at)
    raise StartFailedError(f"there is not enough memory to read {shown(path)}: raise LimitAS=")


def read_text(path: Path) -> bytes:
    """Return the content of the file, at most one byte more than a config may have.

    Raises ConfigUnreadableError.
    """
    try:
        # Without O_NONBLOCK a FIFO of that name would block echod here for ever.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigUnreadableError(f"cannot read {shown(path)}: it is not a regular file")
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror)
        raise ConfigUnreadableError(f"cannot read {shown(path)}: {reason}") from None
