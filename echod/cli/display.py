"""The output of `echod status`: tables with colours on a terminal, else plain text.

Owns the form on the screen; `overview` has the text. Invariants: if the stream is not a terminal, or rich is not
installed, the output is plain text without control sequences, so that it can be piped; on a terminal of any width every
figure is there.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, TextIO

from echod.status.overview import GAP, Overview, Table, aligned, text

WATCH_SECONDS: Final = 1.0
"""Interval between refreshes: the file is not written more often."""


def show(shown: Overview, out: TextIO) -> None:
    """Write it once."""
    shown = _encodable(shown, out.encoding)
    console = _console(out)
    if console is None:
        out.write(text(shown) + "\n")
    else:
        console.print(_drawn(shown), crop=False)


def watch(look: Callable[[], Overview], out: TextIO) -> None:
    """Write it again and again, in the same place on a terminal, until `look` raises or the operator interrupts."""
    console = _console(out)
    if console is None:
        while True:
            out.write(text(_encodable(look(), out.encoding)) + "\n\n")
            out.flush()
            time.sleep(WATCH_SECONDS)
    from rich.live import Live  # noqa: PLC0415 - as below

    with Live(_drawn(_encodable(look(), out.encoding)), console=console, auto_refresh=False, screen=True) as live:
        while True:
            time.sleep(WATCH_SECONDS)
            live.update(_drawn(_encodable(look(), out.encoding)), refresh=True)


def _encodable(shown: Overview, encoding: str) -> Overview:
    """Escape what the encoding does not have, before it is put into columns."""

    def escape(texts: Sequence[str]) -> tuple[str, ...]:
        return tuple(text.encode(encoding, "backslashreplace").decode(encoding) for text in texts)

    tables = (replace(table, rows=tuple(map(escape, table.rows))) for table in shown.tables)
    return replace(shown, lines=escape(shown.lines), tables=tuple(tables))


def _console(out: TextIO) -> Any:  # noqa: ANN401 - rich's
    """Return a console of rich, or None if the stream is not a terminal or rich is not installed."""
    if not out.isatty():
        return None
    try:
        from rich.console import Console  # noqa: PLC0415 - slow to load, optional, and never in the daemon
    except ImportError:
        return None
    return Console(file=out, highlight=False)


def _drawn(shown: Overview) -> Any:  # noqa: ANN401 - rich's
    from rich.console import Group  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415

    parts: list[Any] = [
        Text(line, style="bold red" if "REJECTED" in line or line.startswith("OLD, ") else "") for line in shown.lines
    ]
    for table in shown.tables:
        parts += [Text(), _table(table), *(Text(line, style="dim") for line in table.legend)]
    return Group(*parts)


def _table(table: Table) -> Any:  # noqa: ANN401 - rich's
    """Draw it as lines of text: if the terminal is too narrow they are wrapped, whereas rich's tables lose columns."""
    from rich.text import Text  # noqa: PLC0415 - as above

    head, *rows = aligned(table)
    lines = [Text(GAP.join(head), style="bold")]
    for row in rows:
        bad = [index in table.alarming and cell.strip() != "0" for index, cell in enumerate(row)]
        cells = [Text(cell, style="red" if red else "") for cell, red in zip(row, bad, strict=True)]
        lines.append(Text(GAP).join(cells))
    for line in lines:
        line.rstrip()
    return Text("\n").join(lines)
