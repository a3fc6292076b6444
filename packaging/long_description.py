"""The long description of the distribution: README.md, in the form in which an index of packages can show it.

A page of an index has no folder beside it. So a link to a file becomes its text, and a picture what it shows. Loaded by
hatchling when it builds (tool.hatch.metadata.hooks.custom).
"""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class LongDescription(MetadataHookInterface):
    """Adds the long description to the metadata."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add it."""
        readme = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": standalone(readme)}


def standalone(text: str) -> str:
    """Return Markdown without pictures and links that are files."""
    text = re.sub(r"!\[([^\]]*)\]\((?!https:)[^)]*\)", r"*(Picture in the source: \1.)*", text)
    return re.sub(r"(?<!!)\[([^\]]*)\]\((?!https:|#)[^)]*\)", r"\1", text)
