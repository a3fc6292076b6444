"""How the mistakes and the warnings of a config file are shown: each with its place, its source line and a caret.

Owns that form, and how text from a file is made printable. It finds no mistake itself. Invariant: what it returns is
safe to print on a terminal of that encoding.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final, Literal

from echod.errors import Mistake, plural

_SHOWN_CHARACTERS: Final = 60  # of a quoted value, to keep the sentence short
_EXCERPT_CHARACTERS: Final = 60  # on either side of the caret: one mistake, one line of a terminal


def in_order(mistakes: Iterable[Mistake]) -> tuple[Mistake, ...]:
    """Sort mistakes or warnings by their place in the file."""
    return tuple(sorted(mistakes, key=lambda mistake: (mistake.line, mistake.column)))


def shown(text: str) -> str:
    """Make text from a file printable in a sentence: on one line, escaped, and shortened."""
    if len(text) > _SHOWN_CHARACTERS:
        text = text[:_SHOWN_CHARACTERS] + "..."
    return _escape(text)


def report(mistakes: Sequence[Mistake], *, file: str, text: bytes, encoding: str) -> str:
    """Show every mistake as `render` does, and then their count."""
    shown = render(mistakes, kind="error", file=file, text=text.decode("utf-8", "replace"), encoding=encoding)
    return f"{shown}\n{file}: {len(mistakes)} {plural(len(mistakes), 'mistake')}"


def render(
    mistakes: Iterable[Mistake], *, kind: Literal["error", "warning"], file: str, text: str, encoding: str = "utf-8"
) -> str:
    """Show mistakes as compilers do: `FILE:LINE:COLUMN: KIND: PATH: MESSAGE`, the line, a caret below the place.

    `text` is the whole file, decoded in whatever way. The result ends without a newline and is safe to print:
    what is unprintable, or not in the encoding, is escaped, a long line is cut around the caret, a blank one omitted.
    """
    lines = text.split("\n")
    output = []
    for mistake in mistakes:
        path = f"{mistake.path}: " if mistake.path else ""
        output.append(f"{_escape(file)}:{mistake.line}:{mistake.column}: {kind}: {path}{mistake.message}")
        line = lines[mistake.line - 1].removesuffix("\r") if mistake.line <= len(lines) else ""
        if line.strip():
            output += _excerpt(line, mistake.column - 1, encoding)
    return "\n".join(output)


def _excerpt(line: str, at: int, encoding: str) -> tuple[str, str]:
    parts = line[max(0, at - _EXCERPT_CHARACTERS) : at], line[at : at + _EXCERPT_CHARACTERS]
    before, after = (_escape(part).encode(encoding, "backslashreplace").decode(encoding) for part in parts)
    head = "..." if at > _EXCERPT_CHARACTERS else ""
    tail = "..." if len(line) > at + _EXCERPT_CHARACTERS else ""
    return head + before + after + tail, " " * _cells(head + before) + "^"


def _escape(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _cells(text: str) -> int:
    """Count the columns of text on a terminal: none for a combining character, two for a wide one."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)
