"""The keys of authenticated STAMP, read when a config is.

Workers get the bytes: they may be another user, who cannot read the file. A key is in no config, log or status.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from echod.errors import KeyUnreadableError
from echod.net.listener import Listener
from echod.net.mode import ListenerOptions

MAX_KEY_BYTES: Final = 1024


def read_keys(listeners: Mapping[Listener, ListenerOptions]) -> dict[Listener, bytes]:
    """Return the key of each listener that has one: the bytes of its file, without a newline at the end.

    Raises KeyUnreadableError.
    """
    return {listener: _read(listener, options.hmac_key) for listener, options in listeners.items() if options.hmac_key}


def _read(listener: Listener, name: str) -> bytes:
    what = f"hmac_key of {listener}"
    directory = os.environ.get("CREDENTIALS_DIRECTORY", "")
    if not name.startswith("/") and not directory:
        raise KeyUnreadableError(
            f"{what}: the service has no credentials: write LoadCredential={name}:FILE into the service unit, or an "
            "absolute path into the config"
        )
    path = Path(directory, name)  # an absolute path stays what it is
    try:
        return read_key(path)
    except OSError as error:
        raise KeyUnreadableError(f"{what}: {path} cannot be read: {error.strerror}: {_remedy(name, error)}") from None
    except ValueError as error:
        raise KeyUnreadableError(f"{what}: {path} {error}") from None


def _remedy(name: str, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "let the user of echod read it, or pass it with LoadCredential= of the service unit"
    if name.startswith("/"):
        return "write the path of the file that has the key"
    return f"write LoadCredential={name}:FILE into the service unit, and restart it"


def read_key(path: Path) -> bytes:
    """Return the key in a file. Raises OSError, and ValueError with what is wrong if it is no key."""
    # Without O_NONBLOCK a FIFO of that name would block for ever.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        key = file.read(MAX_KEY_BYTES + 2).removesuffix(b"\n")
    if not 1 <= len(key) <= MAX_KEY_BYTES:
        found = "no bytes" if not key else "more"
        raise ValueError(f"has {found}: a key has 1 to {MAX_KEY_BYTES:,} bytes")
    return key
