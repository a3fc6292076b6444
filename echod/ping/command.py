"""The command `echod ping`, from arguments to exit code.

Owns the order of a run: options, targets, probes, output. It writes to the given streams and never exits. Invariant:
however a run ends, the statistics of what was measured are written first.
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
from echod.measurement.statistics import Statistics
from echod.net.mode import Mode
from echod.ping.contradictions import STDOUT
from echod.ping.far_end import RESPONDERS
from echod.ping.live import LiveTable
from echod.ping.options import Options, parse_options
from echod.ping.plot import Plot
from echod.ping.records import CsvRows, JsonLines, mtu_record
from echod.ping.reveal import reveal_sources
from echod.ping.reverse_dns import ReverseDns
from echod.ping.text import TextLines, bars, progress, summary
from echod.probes.detection import detect
from echod.probes.flood import FloodSession
from echod.probes.loop import Loop, interrupt_at_signals
from echod.probes.mtu import MtuProbe
from echod.probes.session import ProbeSession, Session, Watcher, open_session
from echod.probes.settings import ProbeSettings
from echod.probes.sockets import is_broadcast, reserve_descriptors
from echod.probes.target import Target, resolve

REPLIED: Final = 0
NO_REPLY: Final = 1

_UNWRITABLE: Final = frozenset({errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""Errors of a write to a pipe or a file, which no socket of a probe has."""


def ping(argv: Sequence[str], out: TextIO, err: TextIO) -> int:
    """Run `echod ping` with these arguments; return its exit code.

    Raises UsageError, and KeyboardInterrupt if it is interrupted before it has measured anything.
    """
    run: Run | None = None
    try:
        options = parse_options(argv)
        if options.warning:
            err.write(f"echod: ping: {options.warning}\n")
        targets = [resolve(spec, options.family, options.probes.sockets.source) for spec in options.specs]
        _refuse_targets(targets)
        reserve_descriptors(len(targets) * options.probes.source_ports)
        if options.mtu:
            return _find_mtu(options, targets, out)
        if options.reveal:
            return REPLIED if reveal_sources(options, targets, out) else NO_REPLY
        probed = [(target, _probes_for(target, options, err)) for target in targets]
        _refuse_sizes(probed)
        run = Run(options, probed, out, err)
        run.measure()
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        # Data that is left in the buffer must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
        if error.errno != errno.EPIPE:  # the reader of a pipe that closed it is not an error
            raise UsageError(f"ping: the output cannot be written: {error.strerror}") from None
    return run.exit_code if run is not None else NO_REPLY


class Run:
    """One run over all targets."""

    def __init__(
        self, options: Options, targets: Sequence[tuple[Target, ProbeSettings]], out: TextIO, err: TextIO
    ) -> None:
        """Prepare a run over targets, each with its probes.

        `err` takes the live table and progress, and the text if CSV goes to `out`.
        """
        self._options, self._targets = options, targets
        self._out, self._err = out, err
        self._text = err if options.csv == STDOUT else out
        """Where lines and statistics go: not between the rows of CSV."""
        self._rows: CsvRows | None = None
        self._watchers: list[Watcher] = []
        self._sessions: list[ProbeSession | FloodSession] = []
        self._reverse_dns = ReverseDns(numeric=options.numeric)
        self._live: LiveTable | None = None
        quiet = options.quiet or options.csv == STDOUT
        protocols = len({target.protocol for target, _ in targets}) > 1
        hosts = len({target.endpoint for target, _ in targets}) > 1
        self._lines = TextLines(self._text, stamps=options.stamps, quiet=quiet, protocols=protocols, hosts=hosts)
        self._objects = JsonLines(out, quiet=options.quiet)
        self._begun = False

    @property
    def exit_code(self) -> int:
        """Return 0 if there was a reply, else 1."""
        return REPLIED if any(session.statistics.received for session in self._sessions) else NO_REPLY

    def measure(self) -> None:
        """Probe all targets, then write the statistics."""
        options = self._options
        plot = Plot(options.plot) if options.plot else None
        with ExitStack() as stack:
            # Before the loop catches signals: opening a FIFO blocks until it has a reader, and Ctrl-C must end that.
            self._rows = _open_rows(options, out=self._out, stack=stack)
            loop = stack.enter_context(closing(Loop()))
            try:
                self._measure(loop, plot)
            finally:
                if self._begun:
                    self._end(loop.interrupts)
            if plot:
                plot.draw(self._sessions)

    def _measure(self, loop: Loop, plot: Plot | None) -> None:
        """Probe all targets until each is done or a signal ends the run."""
        options = self._options
        with ExitStack() as stack:
            make = FloodSession if options.flood else open_session
            for target, probes in self._targets:
                self._sessions.append(make(target, probes, loop, self._watchers, stack))
            self._start_live_table(stack)
            self._watchers.append(self._look_up_sender)
            if self._rows:  # before the lines: a write to stdout may block
                self._watchers.append(self._rows.take)
            self._watchers.append(self._objects.take if options.json else self._lines.take)
            self._watchers += [watcher.take for watcher in (plot, self._live) if watcher is not None]
            self._begin()
            loop.run(self._sessions, self._refresh, self._print_progress)
            for session in self._sessions:
                session.finish()

    def _start_live_table(self, stack: ExitStack) -> None:
        """Start the live table if stderr is a terminal and lines of replies would be quiet or of several targets."""
        options = self._options
        if options.json or not self._err.isatty() or not (options.quiet or len(self._sessions) > 1):
            return
        try:
            self._live = LiveTable(self._err, self._sessions)
        except ImportError:
            return
        stack.callback(self._live.close)
        if self._text.isatty():
            self._lines.quiet = True  # lines would scroll the table away

    def _begin(self) -> None:
        self._begun = True
        if not self._options.json:
            for session in self._sessions:
                self._lines.begin(session)
        now = monotonic_ns()
        for session in self._sessions:
            session.start(now)

    def _refresh(self, now: int) -> int:
        self._out.flush()
        return self._live.refresh(now) if self._live else now + 10**9

    def _print_progress(self) -> None:
        self._err.write(progress(self._sessions))
        self._err.flush()

    def _look_up_sender(self, _session: Session, event: Event) -> None:
        if event.reason:
            self._reverse_dns.look_up(event.address)

    def _end(self, interrupts: int) -> None:
        options = self._options
        addresses = {address for each in self._sessions for _, address in each.statistics.errors}
        names = self._reverse_dns.results(sorted(addresses), until=interrupts)
        comparisons = _comparisons(self._sessions) if options.compare else []
        if options.json:
            more = {"comparisons": comparisons} if comparisons else {}
            self._objects.end(self._sessions, names, **more)
        else:
            for session in self._sessions:
                self._text.write(summary(session, names))
                if options.histogram:
                    self._text.write(bars(session, shutil.get_terminal_size().columns, self._text.encoding))
            if len(self._sessions) > 1:
                self._text.write(f"\n{progress(self._sessions)}")
            if comparisons:
                self._text.write("\n" + "".join(f"{line}\n" for line in comparisons))
        self._out.flush()
        self._text.flush()


def _probes_for(target: Target, options: Options, err: TextIO) -> ProbeSettings:
    """Return the probes for a target; by default the first of them find out what it is, and a sentence says it."""
    if options.mode is not None:
        return options.probes_of(options.mode)
    mode = detect(target, options.probes)
    what = (
        f"is a {RESPONDERS[mode]}"
        if mode
        else f"did not reply to the first probes: a {RESPONDERS[Mode.ECHO]} is assumed"
    )
    err.write(f"echod: ping: {target} {what}\n")
    err.flush()
    return options.probes_of(mode or Mode.ECHO)


def _refuse_sizes(probed: Sequence[tuple[Target, ProbeSettings]]) -> None:
    """Refuse probes that are too long for a datagram."""
    for target, probes in probed:
        if (size := max(probes.sizes)) > target.max_payload:
            raise UsageError(f"ping: -s: {size} bytes are too many: {target} takes at most {target.max_payload}")


def _refuse_targets(targets: Sequence[Target]) -> None:
    """Refuse addresses that are not of one host."""
    for target in targets:
        if ip_address(target.address[0]).is_unspecified:
            raise UsageError(f"{target.ip}: is not the address of a host: write one, such as an address of this host")
        if is_broadcast(target):
            advice = "echod does not reply to it: write the address of a host"
            raise UsageError(f"{target.ip}: is a broadcast address, {advice}")


def _open_rows(options: Options, *, out: TextIO, stack: ExitStack) -> CsvRows | None:
    """Open the CSV file and write its header. Raises UsageError if that fails."""
    if options.csv is None:
        return None
    if options.csv == STDOUT:
        return CsvRows(out)
    try:
        # Line-buffered: no row waits for anything else, such as a blocked write to stdout.
        file = options.csv.open("w", buffering=1, encoding="utf-8", errors="backslashreplace", newline="")
    except OSError as error:
        raise UsageError(f"ping: --csv {options.csv}: {error.strerror}") from None
    rows = CsvRows(file, options.csv)
    stack.callback(rows.close)
    return rows


def _comparisons(sessions: Sequence[Session]) -> list[str]:
    """Return a sentence for each pair of UDP and TCP: what both results together mean."""
    return [
        f"{udp.target.endpoint}: {comparison.explain(_reachability(udp.statistics), _reachability(tcp.statistics))}"
        for udp, tcp in zip(sessions[::2], sessions[1::2], strict=True)
    ]


def _reachability(statistics: Statistics) -> comparison.Reachability:
    damaged = sum(statistics.counts[kind] for kind in DAMAGED)
    reasons = frozenset(reason for reason, _ in statistics.errors)
    return comparison.reachability(received=statistics.received, damaged=damaged, reasons=reasons)


def _find_mtu(options: Options, targets: Sequence[Target], out: TextIO) -> int:
    """Find the path MTU of each target; return the exit code."""

    def report(text: str) -> None:
        if not (options.quiet or options.json):
            out.write(f"{text}\n")
            out.flush()

    found = False
    interrupt_at_signals()
    for target in targets:
        if not options.json:
            out.write(f"MTU {target} ({target.ip})\n")
        result = MtuProbe(target, options.probes, report).run()
        found = found or result.passes is not None
        if options.json:
            out.write(json.dumps(mtu_record(target, result)) + "\n")
        else:
            out.write("".join(f"{sentence}\n" for sentence in explain(result)))
        out.flush()
        if result.interrupted:
            break
    return REPLIED if found else NO_REPLY
