"""The place of the config: its default, and how a path is shown. Reads nothing, and loads nothing that could."""

from pathlib import Path
from typing import Final

DEFAULT_PATH: Final = Path("/etc/echod.yaml")


def shown(path: Path) -> str:
    """Return a path as text for people or a file, even if its bytes are not UTF-8."""
    return str(path).encode("utf-8", "backslashreplace").decode()
