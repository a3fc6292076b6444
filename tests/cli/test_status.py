"""`echod status` on terminals of every width: no figure is ever lost."""

import os
import pty
import re
import threading
from collections.abc import Callable
from typing import TextIO

import pytest

from echod.cli import status
from echod.status.overview import Overview, text
from echod.status.tables import Table

OVERVIEW = Overview(
    lines=("echod 1.0, process 4242, up 00:00:01", "config: /etc/echod.yaml, REJECTED"),
    tables=(
        Table(
            head=("UDP listener", "received", "dropped", "send failed"),
            left=1,
            rows=(("udp://127.0.0.1:7", "1,234,567", "12,345", "0"), ("udp://[::1]:7", "6", "0", "4,321")),
            alarming=frozenset({2}),
            legend=("dropped: by echod.",),
        ),
        Table(
            head=("rates and totals", "socket", "/s, 1 s", "/s, 10 s", "/s, 60 s", "total in", "total out"),
            left=1,
            rows=(("udp://127.0.0.1:7", "bound", "1,111", "2,222.2", "333.3", "61.0 MiB", "60.9 MiB"),),
        ),
    ),
)
WIDTHS = range(15, 81)


def on_a_terminal(write: Callable[[TextIO], None], columns: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write to a terminal of so many columns; return what stands on it, without control sequences."""
    for name, value in (("TERM", "xterm"), ("COLUMNS", str(columns)), ("LINES", "200")):
        monkeypatch.setenv(name, value)
    leader, follower = pty.openpty()
    shown = bytearray()

    def read() -> None:
        try:
            while chunk := os.read(leader, 65_536):
                shown.extend(chunk)
        except OSError:
            pass  # the other end is closed

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with os.fdopen(follower, "w", encoding="utf-8") as out:
            write(out)
    finally:
        reader.join()
        os.close(leader)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()).replace("\r", "")


@pytest.mark.parametrize("columns", WIDTHS)
def test_every_figure_is_there_on_a_terminal_of_any_width(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a pipe gets, in the same order. Lines are wrapped between words, unless one is longer than a line."""
    shown = on_a_terminal(lambda out: status.show(OVERVIEW, out), columns, monkeypatch)
    if columns >= max(map(len, text(OVERVIEW).split())):
        assert shown.split() == text(OVERVIEW).split()
    assert "".join(shown.split()) == "".join(text(OVERVIEW).split())
    assert max(map(len, shown.splitlines())) <= columns


def test_on_a_terminal_that_is_wide_enough_it_looks_as_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same columns, in the same places."""
    shown = on_a_terminal(lambda out: status.show(OVERVIEW, out), 100, monkeypatch)
    assert shown == text(OVERVIEW) + "\n"


@pytest.mark.parametrize("columns", [15, 80])
def test_every_figure_is_there_while_it_is_watched(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a screen of its own, line for line as it is shown once."""
    monkeypatch.setattr(status, "WATCH_SECONDS", 0.0)
    looks = iter([OVERVIEW])

    def write(out: TextIO) -> None:
        with pytest.raises(StopIteration):
            status.watch(lambda: next(looks), out)

    shown = on_a_terminal(write, columns, monkeypatch)
    assert "".join(shown.split()) == "".join(text(OVERVIEW).split())
