"""The command line of `echod ping`.

Owns the options and their meaning; the letters are those of iputils ping where it has them. Never resolves a name and
never prints. Invariant: options that contradict each other are a UsageError here, so no other module checks them.
"""

import argparse
import re
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

from echod import __version__
from echod.errors import UsageError
from echod.measurement.payload import MAX_PROBES
from echod.net.listener import MAX_PORT, Protocol
from echod.ping.usage import DESCRIPTION, EPILOG
from echod.ping.values import looks_like_port, parse_duration, parse_number, parse_pattern, parse_sizes, parse_tos
from echod.probes.settings import DISCOVERY, ProbeSettings, SocketSettings
from echod.probes.target import TargetSpec, parse, with_port

DEFAULT_SIZE: Final = 56
"""Bytes, as ping's."""
MAX_WINDOW: Final = 65_536
STDOUT: Final = Path("-")
"""Of --csv."""

_PORT_DIGITS: Final = 4
"""Digits of a port that -p takes for a pattern: fewer are rarely meant as a port, five are not a pattern."""

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a run."""

    probes: ProbeSettings
    specs: tuple[TargetSpec, ...]
    warning: str
    """A sentence about an option that may be a mistake, or empty."""
    family: socket.AddressFamily | None
    flood: bool
    quiet: bool
    stamps: bool
    numeric: bool
    json: bool
    csv: Path | None
    histogram: bool
    plot: Path | None
    mtu: bool
    compare: bool


class _Parser(argparse.ArgumentParser):
    """Raises UsageError instead of printing and exiting."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"ping: {message}; see `{self.prog} --help`")


def _value(read: Callable[[str], Value]) -> Callable[[str], Value]:
    """Make argparse show the sentence of a ValueError unchanged."""

    def convert(text: str) -> Value:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def _number(low: int, high: int) -> Callable[[str], int]:
    return _value(lambda text: parse_number(text, low, high))


def _add_probes(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("number, rate and duration").add_argument
    duration = _value(parse_duration)
    count = "send N probes to each TARGET, then end (until Ctrl-C)"
    add("-c", dest="count", type=_number(1, MAX_PROBES), metavar="N", help=count)
    interval = "interval between probes (1 s); 0 sends the next one when the reply to the last arrives"
    add("-i", dest="interval", type=duration, metavar="TIME", help=interval)
    add("--rate", type=_number(1, 10**7), metavar="N", help="send N probes per second to each TARGET, instead of -i")
    window = "have at most N probes in flight (65536; 1 with -i 0, 1024 with -f)"
    add("--window", type=_number(1, MAX_WINDOW), metavar="N", help=window)
    flood = "flood: send UDP probes as fast as replies arrive; verify each reply, but print no line for it"
    add("-f", dest="flood", action="store_true", help=flood)
    add("-w", dest="deadline", type=duration, metavar="TIME", help="end the run after TIME, even with probes in flight")
    timeout = "wait TIME for each reply (2 s); a later one is late, not lost"
    add("-W", dest="timeout", type=duration, default=2 * 10**9, metavar="TIME", help=timeout)


def _add_packets(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("packets")
    add = group.add_argument
    sizes = "bytes of payload (56); several are used in turn: 64-1472 or 64,512,1472"
    add("-s", dest="sizes", type=_value(parse_sizes), metavar="SIZES", help=sizes)
    pattern = _value(lambda text: (text, parse_pattern(text)))
    add("-p", dest="pattern", type=pattern, metavar="HEX", help="fill probes with this pattern of 1 to 16 bytes")
    add("-I", dest="source", default="", metavar="SOURCE", help="send from this address or interface")
    port = "send from port N; with --sources also from the ports that follow it"
    add("--source-port", type=_number(1, MAX_PORT), default=0, metavar="N", help=port)
    sources = "send from N source ports in turn (paths of an ECMP network), with statistics for each"
    add("--sources", type=_number(1, 256), default=1, metavar="N", help=sources)
    tos = "TOS byte or traffic class: 0 to 255, 0x00 to 0xff, or a DSCP name"
    add("-Q", dest="tos", type=_value(parse_tos), metavar="TOS", help=tos)
    add("-t", dest="ttl", type=_number(1, 255), metavar="TTL", help="time to live or hop limit of probes: 1 to 255")
    discovery = "do: never fragment; want: fragment at this host; dont: let routers fragment"
    add("-M", dest="discovery", choices=("do", "want", "dont"), help=discovery)
    either = group.add_mutually_exclusive_group().add_argument
    either("-4", dest="family", action="store_const", const=socket.AF_INET, help="IPv4 only")
    either("-6", dest="family", action="store_const", const=socket.AF_INET6, help="IPv6 only")


def _add_output(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("output").add_argument
    quiet = "print no line for each reply; on a terminal show a live table (needs the `live` extra)"
    add("-q", dest="quiet", action="store_true", help=quiet)
    add("-D", dest="stamps", action="store_true", help="begin each line with the time, in seconds since 1970")
    add("-n", dest="numeric", action="store_true", help="do not look up the names of routers")
    add("--json", action="store_true", help="print JSON instead of text: an object for each event, then a summary")
    csv = "write a CSV row for each event to FILE as well; - is stdout, the text then goes to stderr"
    add("--csv", type=Path, metavar="FILE", help=csv)
    add("--histogram", action="store_true", help="print the distribution of round-trip times after the statistics")
    plot = "plot latency, losses and distribution to FILE.svg or FILE.png (needs the `plot` extra)"
    add("--plot", type=Path, metavar="FILE", help=plot)


def _add_modes(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("modes").add_argument
    add("--mtu", action="store_true", help="find the path MTU, with probes that are not fragmented")
    add("--compare", choices=("tcp",), help="probe each TARGET over TCP as well, and compare the results")
    add("--version", action="version", version=f"{_name()} {__version__}", help="print the version")
    add("-h", "--help", action="help", help=argparse.SUPPRESS)


def _name() -> str:
    """Return what the operator wrote: the client alone is installed, and packed into one file, as `echod-ping`."""
    return "echod-ping" if Path(sys.argv[0]).name == "echod-ping" else "echod ping"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    name = _name()
    made = _Parser(
        prog=name,
        usage=f"{name} [OPTION]... TARGET...",
        description=DESCRIPTION,
        epilog=EPILOG.replace("echod ping", name),
        add_help=False,
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=20, width=80),
    )
    made.add_argument("targets", nargs="+", metavar="TARGET", help=argparse.SUPPRESS)
    for add in (_add_probes, _add_packets, _add_output, _add_modes):
        add(made)
    return made


def help_text() -> str:
    """Return the text of `echod ping --help`."""
    return parser().format_help()


def parse_options(argv: Sequence[str]) -> Options:
    """Read the command line. Raises UsageError."""
    found = parser().parse_args(_join_negative(argv))
    _refuse_contradictions(found)
    interval = found.interval
    if found.rate:
        interval = -(-(10**9) // found.rate)  # rounded up: no faster than that
    elif interval is None:
        interval = 0 if found.flood else 10**9
    probes = ProbeSettings(
        interval=interval,
        count=MAX_PROBES if found.count is None else found.count,
        window=found.window or (1024 if found.flood else 1 if interval == 0 else MAX_WINDOW),
        sizes=found.sizes or (DEFAULT_SIZE,),
        pattern=found.pattern[1] if found.pattern else b"",
        source_ports=found.sources,
        **_unchanged(found, "timeout deadline"),
        sockets=SocketSettings(
            discovery=DISCOVERY[found.discovery] if found.discovery else None,
            **_unchanged(found, "source source_port tos ttl"),
        ),
    )
    options = Options(
        probes=probes,
        specs=_specs(found.targets),
        warning=_warning(found.targets, found.pattern[0] if found.pattern else ""),
        compare=found.compare is not None,
        **_unchanged(found, "family flood quiet stamps numeric json csv histogram plot mtu"),
    )
    return _checked(options)


_TAKES_NUMBER: Final = re.compile("-[46a-zA-Z]*[ciwWstQ]|--(?:rate|window|source-port|sources)")


def _join_negative(argv: Sequence[str]) -> list[str]:
    """Join each negative number to the option before it, because argparse would take it for an option, like -4."""
    words: list[str] = []
    for word in argv:
        before = words[-1] if words else ""
        if re.match(r"-[.0-9]", word) and _TAKES_NUMBER.fullmatch(before):
            words[-1] += f"={word}" if before.startswith("--") else word
        else:
            words.append(word)
    return words


def _specs(texts: Sequence[str]) -> tuple[TargetSpec, ...]:
    """Read the targets; refuse `HOST PORT` with the target to write instead."""
    for text, number in pairwise(texts):
        if looks_like_port(number) and (better := with_port(text, number)):
            raise UsageError(f'"{number}" is a number, not a host: for this port write {better}')
    return tuple(parse(text) for text in texts)


def _warning(texts: Sequence[str], pattern: str) -> str:
    """Return a warning if the pattern looks like a port: -p sets the port in other programs."""
    if len(pattern) == _PORT_DIGITS and looks_like_port(pattern) and (better := with_port(texts[0], pattern)):
        return (
            f"-p {pattern} fills probes with the bytes {pattern[:2]} {pattern[2:]}; for port {pattern} write {better}"
        )
    return ""


def _unchanged(found: argparse.Namespace, names: str) -> dict[str, Any]:
    """Return the options that are taken as they were read."""
    return {name: getattr(found, name) for name in names.split()}


_CONTRADICTIONS: Final = (
    ("rate", "interval", "--rate and -i both set the interval: write one of them"),
    ("json", "histogram", "--json prints no histogram: leave --histogram out"),
    ("flood", "sources", "-f uses one source port: leave --sources out"),
    ("flood", "csv", "-f has no event for each reply: leave --csv out"),
    ("flood", "plot", "-f has no event for each reply: leave --plot out"),
    ("flood", "interval", "-f sends as fast as replies arrive: leave -i out, or write --rate"),
    ("mtu", "compare", "--mtu and --compare are two modes: write one of them"),
    ("mtu", "count", "--mtu sends as many probes as it needs: leave -c out"),
    ("mtu", "deadline", "--mtu ends by itself: leave -w out"),
    ("mtu", "interval", "--mtu sets its own rate: leave -i out"),
    ("mtu", "rate", "--mtu sets its own rate: leave --rate out"),
    ("mtu", "window", "--mtu sets its own rate: leave --window out"),
    ("mtu", "flood", "--mtu sets its own rate: leave -f out"),
    ("mtu", "sizes", "--mtu sets its own sizes: leave -s out"),
    ("mtu", "discovery", "--mtu sets its own discovery mode: leave -M out"),
    ("mtu", "sources", "--mtu uses one source port: leave --sources out"),
    ("mtu", "csv", "--mtu has no event for each reply: leave --csv out"),
    ("mtu", "plot", "--mtu has no event for each reply: leave --plot out"),
    ("mtu", "stamps", "--mtu prints no line for each reply: leave -D out"),
    ("mtu", "histogram", "--mtu measures no latency: leave --histogram out"),
)
"""Options that exclude each other, and what to write instead: no option is ignored silently."""


def _refuse_contradictions(found: argparse.Namespace) -> None:
    """Refuse options that exclude each other, and times that are too short for any probe."""
    for one, other, sentence in _CONTRADICTIONS:
        given = getattr(found, other)
        if getattr(found, one) and given is not None and given is not False and (other != "sources" or given > 1):
            raise UsageError(f"ping: {sentence}")
    if found.json and found.csv == STDOUT:
        raise UsageError("ping: --json and --csv - both write to stdout: write --csv FILE")
    if found.plot and found.plot.suffix not in (".svg", ".png"):
        raise UsageError(f"ping: --plot {found.plot}: write a name that ends in .svg or .png")
    if found.source_port and len(found.targets) > 1:
        raise UsageError("ping: --source-port is for one TARGET: leave the others out")
    if found.source_port + found.sources - 1 > MAX_PORT:
        given = f"--source-port {found.source_port} --sources {found.sources}"
        raise UsageError(f"ping: {given}: the last port is {MAX_PORT}: write less")
    if found.timeout == 0:
        raise UsageError("ping: -W 0 leaves no time for a reply: write a longer time")
    if found.deadline == 0:
        raise UsageError("ping: -w 0 ends before the first probe: write a longer time")


def _checked(options: Options) -> Options:
    """Refuse what the protocols cannot do; add the TCP targets of `--compare`."""
    tcp = [spec for spec in options.specs if spec.protocol is Protocol.TCP]
    if options.compare:
        if tcp:
            raise UsageError("ping: --compare tcp adds TCP by itself: write each TARGET once, over UDP")
        twins = (replace(spec, protocol=Protocol.TCP) for spec in options.specs)
        pairs = zip(options.specs, twins, strict=True)
        options = replace(options, specs=tuple(spec for pair in pairs for spec in pair))
    if (tcp or options.compare) and 0 in options.probes.sizes:
        raise UsageError("ping: TCP cannot carry a probe of 0 bytes: leave size 0 out")
    for word, given in (("-f", options.flood), ("--mtu", options.mtu)):
        if given and (tcp or options.compare):
            raise UsageError(f"ping: {word} is for UDP: leave {'--compare' if options.compare else 'tcp://'} out")
    return options
