"""The man pages as their source, mdoc(7): a section, its tags, its literal blocks."""

import re

from support.daemon import REPOSITORY

PAGES = REPOSITORY / "packaging/man"


def source(page: str) -> str:
    """Return the source of a page, with plain dashes, and lines joined that it continues."""
    return (PAGES / page).read_text(encoding="utf-8").replace("\\-", "-").replace("\\\n", "")


def section(page: str, name: str) -> str:
    """Return the source of one section, or of one subsection."""
    end = r"S[hs] " if f"\n.Ss {name}\n" in source(page) else "Sh "
    found = re.search(rf"^\.S[hs] {re.escape(name)}\n(.*?)(?=^\.{end}|\Z)", source(page), re.MULTILINE | re.DOTALL)
    assert found, f"{page} has no section {name}"
    return found[1]


def entries(text: str, macro: str) -> dict[str, str]:
    """Return the tags with this macro, and the source of their text; one tag may have several names."""
    parts = re.split(rf"^\.It {macro} (.*)\n", text, flags=re.MULTILINE)
    return {
        name: body
        for names, body in zip(parts[1::2], parts[2::2], strict=True)
        for name in re.findall(r"[\w./-]+", names)
    }


def literals(text: str) -> list[str]:
    """Return the literal blocks."""
    return re.findall(r"^\.Bd -literal[^\n]*\n(.*?)^\.Ed$", text, re.MULTILINE | re.DOTALL)
