"""The live view of `echod ping`: a line for each target on a terminal of any width, and never half a number."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.daemon import ECHOD, environment
from support.ping.pinging import ended, impairing, measuring, watched
from support.ports import free_port

from echod.ping.live import lay_out


def seen(width: int, *words: str) -> tuple[list[str], str]:
    """Run `echod ping` on a terminal of this width; return the lines that were last drawn on it, and stdout."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, width, 0, 0))
    variables = environment(TERM="xterm", PYTHONFAULTHANDLER="1")
    variables.pop("COLUMNS", None)
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": theirs}
    drawn = b""
    with watched([*ECHOD, "ping", *words], env=variables, **pipes) as process:
        os.close(theirs)
        out = ended(process)[0]
    try:
        while piece := os.read(ours, 65_536):
            drawn += piece
    except OSError:  # the other end of a terminal that is gone
        pass
    os.close(ours)
    assert process.returncode == 0
    last = drawn.decode()[drawn.decode().rindex("target ") :]
    return [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in re.split("[\r\n]+", last)], out


@pytest.mark.parametrize(("width", "columns"), [(60, 6), (80, 7), (120, 7)])
def test_each_number_is_whole_on_any_terminal(width: int, columns: int) -> None:
    """At 60 columns the jitter is left out, at 80 all is there; the chart of round trips takes what is left."""
    with impairing([*["answer"] * 20, *["drop"] * 20]) as server:
        targets = [f"127.0.0.1:{server.port}", f"127.0.0.1:{free_port()}"]
        lines, out = seen(width, "-q", "-n", "-c", "40", "-i", "20ms", "-W", "2", *targets)
    head, whole, lost = lines[:3]
    chart = "[▁▂▃▄▅▆▇█]+" if width == 120 else ""  # the latest 30; else the last few alone, which are all lost
    assert head.split() == ["target", "sent", "loss", "last", "avg", "best", "worst", "jitter"][: columns + 1]
    assert re.fullmatch(rf"udp://{targets[0]} +\d+ +\d+\.\d%( +\d+\.\d+){{{columns - 2}}} +{chart}!+ *", whole)
    assert re.fullmatch(rf"udp://{targets[1]} +\d+ +100\.0%( +-){{{columns - 2}}} +!+ *", lost)
    assert max(map(len, lines)) <= width
    assert out.startswith("PING ")
    assert out.count("ping statistics ---") == 2


def test_losses_by_direction_have_their_columns() -> None:
    """Where a target may report them; a plain echo reports none."""
    plan = [*["answer", "drop", "drop out"] * 4, "answer"]
    with measuring(plan, mode="plus") as server, measuring(["answer"], mode="echo") as echo:
        targets = [f"127.0.0.1:{server.port}", f"127.0.0.1:{echo.port}"]
        lines, _ = seen(120, "-q", "-n", "-c", "13", "-i", "20ms", "-W", "1", "--plus", *targets)
    assert lines[0].split() == ["target", "sent", "loss", "last", "avg", "best", "worst", "jitter", "out", "back"]
    figures = [[each for each in line.split() if not re.search("[▁▂▃▄▅▆▇█!]", each)] for line in lines[1:3]]
    assert [each[8:] for each in figures] == [["4", "4"], ["-", "-"]]


figures = st.tuples(*[st.text("0123456789.%", min_size=1, max_size=9)] * 7)


@given(names=st.lists(st.text("abc:/[].", min_size=1, max_size=50), min_size=1, max_size=4), data=st.data())
def test_a_figure_is_never_cut(names: list[str], data: st.DataObject) -> None:
    """Whatever the width; from 40 columns on no line is longer, with what is left for the chart."""
    rows = data.draw(st.lists(figures, min_size=len(names), max_size=len(names)))
    width = data.draw(st.integers(1, 200))
    lines, left = lay_out(names, rows, width)
    assert len({len(line) for line in lines}) == 1
    assert left >= 0
    if width >= 40:
        assert max(len(line.rstrip()) for line in lines) + left <= width
    for line, row in zip(lines, rows, strict=True):
        shown = line.split()
        assert tuple(shown[-count:] if (count := len(shown) - 1) else ()) == row[:count]
        assert shown[0] in names or ".." in shown[0]
