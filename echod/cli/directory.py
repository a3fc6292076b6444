"""The status directory of the echod that an operator means by a config file."""

import os
from contextlib import suppress
from pathlib import Path

from echod.config import file as configfile
from echod.config.parse import find_instance, find_status_directory
from echod.errors import EchodError
from echod.status import files


def status_directory(path: Path | None, process: int | None = None) -> Path:
    """Return the status directory of this process, or of an echod with this config, or with the default one."""
    named, text = (path or configfile.DEFAULT_PATH).absolute(), b""
    with suppress(EchodError):  # an unreadable or missing config is no reason to give up
        text = configfile.read_text(named)
    configured, config = find_status_directory(text), configfile.shown(named)
    environment = dict(os.environ)
    if instance := find_instance(str(named)):  # RuntimeDirectory= of echod@.service
        environment.setdefault("RUNTIME_DIRECTORY", f"{files.DEFAULT_DIRECTORY}-{instance}")
    return files.find(environment, configured, config, named=path is not None, process=process)
