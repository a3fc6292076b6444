"""The status directory of the echod that an operator means by a config file."""

import os
from pathlib import Path

from echod.config import file as configfile
from echod.config import location
from echod.config.parse import find_instance, find_status_directory
from echod.errors import EchodError, NoStatusError
from echod.status import files, writing


def status_directory(path: Path | None, process: int | None = None) -> Path:
    """Return the status directory of this process, or of an echod with this config, or with the default one.

    Raises NoStatusError if there is neither such an echod nor such a file, and as `files.find` does.
    """
    named, text, unreadable = (path or location.DEFAULT_PATH).absolute(), b"", ""
    try:
        text = configfile.read_text(named)
    except EchodError as error:  # no reason to give up: the echod may run
        unreadable = str(error)
    configured, config = find_status_directory(text), location.shown(named)
    environment = dict(os.environ)
    if instance := find_instance(str(named)):  # RuntimeDirectory= of echod@.service
        environment.setdefault("RUNTIME_DIRECTORY", f"{files.DEFAULT_DIRECTORY}-{instance}")
    place = files.find(environment, configured, config, named=path is not None, process=process)
    if path is not None and unreadable and not os.path.lexists(place / writing.NAME):
        raise NoStatusError(f"no echod is running with that config: {unreadable}")
    return place
