"""`echod status`: what the running echod does, as tables or JSON, and whether its listeners reply.

Owns the options and the form on the screen; `overview` has the text. Invariants: if the stream is not a terminal, or
rich is not installed, the output is plain text without control sequences, so that it can be piped; on a terminal of any
width every figure is there.
"""

import json
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TextIO

from echod import logs
from echod.cli.directory import status_directory
from echod.cli.options import add_running, make_parser
from echod.config.location import DEFAULT_PATH
from echod.errors import ExitCode
from echod.stats.snapshot import Snapshot
from echod.status import files, instances
from echod.status.kernel import with_kernel
from echod.status.overview import Overview, check_text, old, overview, text, workers_text
from echod.status.tables import GAP, aligned

WATCH_SECONDS: Final = 1.0
"""Interval between refreshes: the file is not written more often."""

_ALARMS: Final = ("REJECTED", "OLD, ", "UNKNOWN, ")
"""What a line of the overview has that is to be seen at once."""

_EXAMPLE: Final = """example:
  echod status --watch
  echod status --check && echo it replies

Exit code 0: it runs; 3: it does not; 4: its status cannot be read, or is old.
With --check 0: each listener replied; 1: one did not. Probes of root and of
echod's own user are refused by no rule of the config and counted separately."""


def parser() -> ArgumentParser:
    """Return the parser of its options."""
    made = make_parser(
        "status",
        description="Show what the running echod does: traffic, losses and who lost it, workers, top\nsources.",
        epilog=_EXAMPLE,
    )
    add_running(made, DEFAULT_PATH)
    made.add_argument("--json", action="store_true", help="print one line of JSON, for programs")
    how = made.add_mutually_exclusive_group()
    how.add_argument("--watch", action="store_true", help="show it again every second, until Ctrl-C")
    how.add_argument("--check", action="store_true", help="send a probe to each listener and say whether it replies")
    return made


def main(words: Sequence[str]) -> int:
    """Show what the running echod does, or whether it replies."""
    arguments = parser().parse_args(words)
    place = status_directory(arguments.config)
    if arguments.check:
        return _check_listeners(place, as_json=arguments.json)
    if not arguments.json:
        if arguments.watch:
            watch(lambda: _overview(_load(place)), sys.stdout)
        snapshot = _load(place)
        show(_overview(snapshot), sys.stdout)
        return _running(snapshot)
    printed = None
    while True:
        snapshot = _load(place)
        if printed is None or _timeless(snapshot) != _timeless(printed):
            printed = snapshot
            print(json.dumps(json.loads(printed.pack())), flush=True)  # in ASCII: valid in any encoding
        if not arguments.watch:
            return _running(snapshot)
        time.sleep(WATCH_SECONDS)


def _load(place: Path) -> Snapshot:
    """Return what the daemon of this directory reports, and what its accelerator does."""
    return with_kernel(files.load(place))


def _timeless(snapshot: Snapshot) -> Snapshot:
    """Return a snapshot without the moments at which it was written."""
    kernel = replace(snapshot.kernel, at=0.0, at_monotonic=0.0) if snapshot.kernel is not None else None
    return replace(snapshot, at=0.0, at_monotonic=0.0, kernel=kernel)


def _running(snapshot: Snapshot) -> ExitCode:
    """Return the exit code for a running echod: whether its status is up to date."""
    return ExitCode.STATUS_UNKNOWN if snapshot.stale else ExitCode.OK


def _overview(snapshot: Snapshot) -> Overview:
    uptime = instances.monotonic() - snapshot.started_monotonic
    return overview(snapshot, uptime_seconds=uptime, when=_when)


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _check_listeners(place: Path, *, as_json: bool) -> int:
    """Send a probe through each listener and report the outcome."""
    from echod.status.selftest import listeners_of, run_self_test  # noqa: PLC0415 - `echod status` alone sends nothing

    snapshot = files.load(place)
    mark = files.read_self_test(place)
    results = run_self_test(listeners_of(snapshot), mark)
    passed = all(result.passed for result in results)
    if not passed and mark != (newer := files.read_self_test(place)):
        # Reloaded meanwhile: the workers that answer now have another mark.
        snapshot = files.load(place)
        results = run_self_test(listeners_of(snapshot), newer)
        passed = all(result.passed for result in results)
    snapshot = files.load(place)
    workers = [worker for worker in snapshot.activity.workers if worker.problem]
    if as_json:
        rows = [{"name": str(one.listener), "seconds": one.seconds, "problem": one.problem} for one in results]
        rows += [{"name": f"worker {one.worker}", "seconds": None, "problem": one.problem} for one in workers]
        print(json.dumps(rows))
    else:
        print(check_text(results))
        print(workers_text(workers), end="\n" if workers else "")
    if mark is None:
        logs.report(
            f"echod: {place / files.SELF_TEST_NAME} does not exist or cannot be read by this user, so the probes "
            "were sent as those of any client, and the config may refuse them"
        )
    if snapshot.stale:
        logs.report(f"echod: these are the listeners {old(snapshot, _when)}")
    return _running(snapshot) if passed and not workers else ExitCode.NO_ANSWER


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
    """Draw it as lines of text: if the terminal is too narrow they are wrapped, whereas rich's tables lose columns."""
    from rich.text import Text  # noqa: PLC0415 - as above

    lines = [Text(line, "bold red" if any(each in line for each in _ALARMS) else "") for line in shown.lines]
    for table in shown.tables:
        head, *rows = aligned(table)
        lines += [Text(), Text(GAP.join(head).rstrip(), "bold")]
        for number, row in enumerate(rows):
            alarming = table.alarming - {column for line, column in table.wanted if line == number}
            bad = [index in alarming and cell.strip() != "0" for index, cell in enumerate(row)]
            cells = [Text(cell, "red" if red else "") for cell, red in zip(row, bad, strict=True)]
            lines.append(Text(GAP).join(cells))
            lines[-1].rstrip()
        lines += [Text(line, "dim") for line in table.legend]
    return Text("\n").join(lines)
