"""Whether the keys that a config names by their path can be read: for `echod check`.

Owns the sentences. It prints no byte of a key. A key that is a credential of the service is not looked for: only the
service has it. Invariant: each path is read once.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from echod.config.document import Document, mistake_at
from echod.config.document import Path as KeyPath
from echod.config.keys import read_key
from echod.config.lint import listener_ranges
from echod.config.schema import Config
from echod.errors import Mistake


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What keeps echod from starting with the keys, and what could not be found out."""

    mistakes: tuple[Mistake, ...]
    warnings: tuple[Mistake, ...]


def find(config: Config, document: Document) -> Findings:
    """Read each key as this user."""
    mistakes, warnings = [], []
    for place, name in _paths(config, document):
        try:
            read_key(Path(name))
        except PermissionError:
            message = f"{name} was not examined, because this user may not read it: run echod check as root"
            warnings.append(mistake_at(document.places[place].key_spot, place, message))
        except OSError as error:
            message = f"{name} cannot be read: {error.strerror}: echod would not start here"
            mistakes.append(mistake_at(document.places[place].spot, place, message))
        except ValueError as error:
            mistakes.append(mistake_at(document.places[place].spot, place, f"{name} {error}"))
    return Findings(mistakes=tuple(mistakes), warnings=tuple(warnings))


def find_hidden(config: Config, document: Document, service: str, reason: Callable[[str], str]) -> Iterator[Mistake]:
    """Find the keys that this user can read and a service cannot.

    `reason` returns why the service cannot read a path, or an empty string.
    """
    reason = cache(reason)
    for place, name in _paths(config, document):
        if os.access(name, os.R_OK) and (why := reason(name)):
            credential = Path(name).name
            message = (
                f"{service} cannot read {name}: {why}: write LoadCredential={credential}:{name} into the unit, and "
                f"hmac_key: {credential} here"
            )
            yield mistake_at(document.places[place].spot, place, message)


def _paths(config: Config, document: Document) -> Iterator[tuple[KeyPath, str]]:
    """Yield the place of each `hmac_key` that is a path, and the path."""
    for place, listeners in listener_ranges(document).items():
        name = config.listeners[listeners.first].hmac_key
        if name.startswith("/"):
            yield (*place, "hmac_key"), name
