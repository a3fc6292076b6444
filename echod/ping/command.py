"""What `echod ping` does, from arguments to exit code.

Owns the order of things. It writes to the streams that it is given and never exits by itself. Invariant: whatever
ends a run, the statistics of what was measured are said before it does.
"""

import errno
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack, closing
from ipaddress import ip_address
from time import monotonic_ns
from typing import Final, TextIO

from echod.errors import UsageError
from echod.measurement import comparison
from echod.measurement.events import DAMAGED, Event
from echod.measurement.path_mtu import explain
from echod.measurement.statistics import Survey
from echod.ping.live import Live
from echod.ping.options import STDOUT, Options, parse_options
from echod.ping.plot import Picture
from echod.ping.records import CsvRows, JsonLines, mtu_record
from echod.ping.reverse_dns import Names
from echod.ping.text import Lines, bars, progress, statistics
from echod.probes.flood import Flood, open_flood
from echod.probes.interfaces import Subject, Watcher
from echod.probes.loop import Loop, interrupt_at_signals
from echod.probes.mtu import MtuProbe
from echod.probes.session import Course, open_session
from echod.probes.sockets import is_broadcast, reserve_descriptors
from echod.probes.target import Target, resolve

REPLIED: Final = 0
NO_REPLY: Final = 1

_UNWRITABLE: Final = frozenset({errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""What a write to a pipe or a file can meet, and no socket of ours."""


def ping(argv: Sequence[str], out: TextIO, err: TextIO) -> int:
    """Run `echod ping` with these arguments; return its exit code.

    Raises UsageError, and KeyboardInterrupt where there is nothing to say.
    """
    run: Run | None = None
    try:
        options = parse_options(argv)
        if options.remark:
            err.write(f"echod: ping: {options.remark}\n")
        targets = [resolve(wish, options.family, options.probes.sockets.source) for wish in options.wishes]
        _refuse_targets(options, targets)
        if options.mtu:
            return _find_mtu(options, targets, out)
        reserve_descriptors(len(targets) * options.probes.source_ports)
        run = Run(options, targets, out, err)
        run.measure()
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        # What is still in the buffer must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
        if error.errno != errno.EPIPE:  # else who read it has seen enough
            raise UsageError(f"ping: the output cannot be written: {error.strerror}") from None
    return run.exit_code if run is not None else NO_REPLY


class Run:
    """One run over all targets."""

    def __init__(self, options: Options, targets: Sequence[Target], out: TextIO, err: TextIO) -> None:
        """Take what is asked, of whom, and where to say what came of it."""
        self._options, self._targets = options, targets
        self._out, self._err = out, err
        self._text = err if options.csv == STDOUT else out
        """Where lines and statistics go: not among the rows."""
        self._rows: CsvRows | None = None
        self._watchers: list[Watcher] = []
        self._subjects: list[Course | Flood] = []
        self._names = Names(numeric=options.numeric)
        self._live: Live | None = None
        self._lines = self._make_lines(quiet=options.quiet or options.csv == STDOUT)
        self._objects = JsonLines(out, quiet=options.quiet)
        self._begun = False

    @property
    def exit_code(self) -> int:
        """Return 0 if a reply came, else 1."""
        return REPLIED if any(subject.survey.received for subject in self._subjects) else NO_REPLY

    def measure(self) -> None:
        """Ask until it is enough, then say what it adds up to."""
        options = self._options
        picture = Picture(options.plot) if options.plot else None
        with ExitStack() as stack:
            # Before the loop catches signals: a FIFO is opened when somebody reads it, and Ctrl-C ends that wait.
            self._rows = _open_rows(options, out=self._out, stack=stack)
            loop = stack.enter_context(closing(Loop()))
            try:
                self._measure(loop, picture)
            finally:
                if self._begun:
                    self._end(loop.interrupts)
            if picture:
                picture.draw(self._subjects)

    def _measure(self, loop: Loop, picture: Picture | None) -> None:
        """Ask until it is enough."""
        options = self._options
        with ExitStack() as stack:
            make = open_flood if options.flood else open_session
            self._subjects += [make(each, options.probes, loop, self._watchers, stack) for each in self._targets]
            self._show_live(stack)
            self._watchers.append(self._note)
            if self._rows:  # before what is for stdout, which may block
                self._watchers.append(self._rows.take)
            self._watchers.append(self._objects.take if options.json else self._lines.take)
            self._watchers += [watcher.take for watcher in (picture, self._live) if watcher is not None]
            self._begin()
            loop.run(self._subjects, self._refresh, self._tell_progress)
            for subject in self._subjects:
                subject.finish()

    def _make_lines(self, *, quiet: bool) -> Lines:
        protocols = len({target.protocol for target in self._targets}) > 1
        hosts = len({target.endpoint for target in self._targets}) > 1
        return Lines(self._text, stamps=self._options.stamps, quiet=quiet, protocols=protocols, hosts=hosts)

    def _show_live(self, stack: ExitStack) -> None:
        """Draw the live view where it is wanted and can be."""
        options = self._options
        if options.json or not self._err.isatty() or not (options.quiet or len(self._subjects) > 1):
            return
        try:
            self._live = Live(self._err, self._subjects)
        except ImportError:
            return
        stack.callback(self._live.close)
        if self._text.isatty():
            self._lines = self._make_lines(quiet=True)  # both on one terminal are none

    def _begin(self) -> None:
        self._begun = True
        if not self._options.json:
            for subject in self._subjects:
                self._lines.begin(subject, self._options.probes.sizes)
        now = monotonic_ns()
        for subject in self._subjects:
            subject.start(now)

    def _refresh(self, now: int) -> int:
        self._out.flush()
        return self._live.turn(now) if self._live else now + 10**9

    def _tell_progress(self) -> None:
        self._err.write(progress(self._subjects))
        self._err.flush()

    def _note(self, _subject: Subject, event: Event) -> None:
        if event.reason:
            self._names.ask(event.address)

    def _end(self, interrupts: int) -> None:
        options = self._options
        addresses = {address for each in self._subjects for _, address in each.survey.obstacles}
        names = self._names.known(sorted(addresses), until=interrupts)
        verdicts = _verdicts(self._subjects) if options.compare else []
        if options.json:
            more = {"comparisons": verdicts} if verdicts else {}
            self._objects.end(self._subjects, names, **more)
        else:
            for subject in self._subjects:
                self._text.write(statistics(subject, names))
                if options.histogram:
                    self._text.write(bars(subject, shutil.get_terminal_size().columns, self._text.encoding))
            if len(self._subjects) > 1:
                self._text.write(f"\n{progress(self._subjects)}")
            if verdicts:
                self._text.write("\n" + "".join(f"{line}\n" for line in verdicts))
        self._out.flush()
        self._text.flush()


def _refuse_targets(options: Options, targets: Sequence[Target]) -> None:
    """Refuse an address that nobody answers at, and a probe that no datagram can carry."""
    for target in targets:
        if ip_address(target.address[0]).is_unspecified:
            raise UsageError(f"{target.ip}: is no host's address: write that of a host, such as that of this one")
        if is_broadcast(target):
            raise UsageError(f"{target.ip}: is a broadcast address, and echod replies to none: write that of a host")
        if (size := max(options.probes.sizes)) > target.most:
            raise UsageError(f"ping: -s: {size} bytes do not fit, {target} takes at most {target.most}")


def _open_rows(options: Options, *, out: TextIO, stack: ExitStack) -> CsvRows | None:
    """Begin the rows. Raises UsageError where the file takes none."""
    if options.csv is None:
        return None
    if options.csv == STDOUT:
        return CsvRows(out)
    try:
        # Line by line, so that no row waits for anything, such as a pipe for the lines that nobody reads.
        file = options.csv.open("w", buffering=1, encoding="utf-8", errors="backslashreplace", newline="")
    except OSError as error:
        raise UsageError(f"ping: --csv {options.csv}: {error.strerror}") from None
    rows = CsvRows(file, options.csv)
    stack.callback(rows.close)
    return rows


def _verdicts(subjects: Sequence[Subject]) -> list[str]:
    """Say what each pair of UDP and TCP means together."""
    return [
        f"{udp.target.endpoint}: {comparison.explain(_outcome(udp.survey), _outcome(tcp.survey))}"
        for udp, tcp in zip(subjects[::2], subjects[1::2], strict=True)
    ]


def _outcome(survey: Survey) -> comparison.Outcome:
    damaged = sum(survey.counts[kind] for kind in DAMAGED)
    reasons = frozenset(reason for reason, _ in survey.obstacles)
    return comparison.outcome(received=survey.received, damaged=damaged, reasons=reasons)


def _find_mtu(options: Options, targets: Sequence[Target], out: TextIO) -> int:
    """Search the path MTU of each target."""

    def tell(text: str) -> None:
        if not (options.quiet or options.json):
            out.write(f"{text}\n")
            out.flush()

    found = False
    interrupt_at_signals()
    for target in targets:
        if not options.json:
            out.write(f"MTU {target} ({target.ip})\n")
        finding = MtuProbe(target, options.probes, tell).run()
        found = found or finding.passes is not None
        if options.json:
            out.write(json.dumps(mtu_record(target, finding)) + "\n")
        else:
            out.write("".join(f"{sentence}\n" for sentence in explain(finding)))
        out.flush()
        if finding.interrupted:
            break
    return REPLIED if found else NO_REPLY
