"""How the files of a status directory are written: each is replaced atomically, whatever stands in the way there.

Knows no content. Invariant: a reader never sees a partial file, and a file that cannot be written raises nothing.
"""

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

NAME: Final = "status.json"
PUBLIC: Final = 0o644
PRIVATE: Final = 0o600

STATUS_FILE_SECONDS: Final = 5.0
"""The greatest interval between updates of the status file."""

_ELSEWHERE: Final = "give echod's user write permission there, or set another status.directory and restart echod"
_ROOM: Final = "make room there"
_GONE: Final = "create it again, or restart the unit whose RuntimeDirectory= it was"
_FORBIDDEN: Final = (
    "give echod a directory that is not read-only: RuntimeDirectory= in the unit with status.directory: auto, or "
    "in a container a tmpfs there"
)
_WAYS_OUT: Final = {errno.ENOSPC: _ROOM, errno.EDQUOT: _ROOM, errno.ENOENT: _GONE, errno.EROFS: _FORBIDDEN}


def replace_file(place: Path, name: str, content: bytes, mode: int) -> str:
    """Replace a file, and create its directory if there is none. Returns the problem, or empty text."""
    new = place / f"{name}.new"
    try:
        with suppress(FileExistsError):
            make_directory(place)
        remove_file(new)  # a FIFO would hold us here, and what another has opened he may read
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, mode)
            file.write(content)
        new.replace(place / name)
    except OSError as error:
        remove_file(new)
        way_out = _WAYS_OUT.get(error.errno or 0, _ELSEWHERE)
        return f"{place} cannot be written: {error.strerror}; {way_out}"
    return ""


def make_directory(place: Path) -> None:
    """Make a directory that everybody may read, whatever the umask is."""
    place.mkdir()
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(fd, 0o755)  # that one, and not what another has put in its place meanwhile
    finally:
        os.close(fd)


def remove_file(path: Path) -> None:
    """Remove a file, if it is there and that is allowed."""
    with suppress(OSError):
        path.unlink()
