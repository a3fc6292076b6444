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
from echod.net.mode import Mode
from echod.ping.contradictions import refuse
from echod.ping.modes import fitting_sizes, make_frame, read_key
from echod.ping.usage import DESCRIPTION, EPILOG
from echod.ping.values import looks_like_port, parse_duration, parse_number, parse_pattern, parse_sizes, parse_tos
from echod.probes.frames import STAMP_PORT
from echod.probes.settings import DISCOVERY, ProbeSettings, SocketSettings
from echod.probes.target import ECHO_PORT, TargetSpec, parse, with_port

MAX_WINDOW: Final = 65_536

_PORT_DIGITS: Final = 4
"""Digits of a port that -p takes for a pattern: fewer are rarely meant as a port, five are not a pattern."""

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a run."""

    probes: ProbeSettings
    """With the sizes of a plain echo; `probes_of` has those of a mode."""
    sizes: tuple[int, ...] | None
    mode: Mode | None
    """None: what the first probes find out."""
    key: bytes
    ssid: int
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
    reveal: bool

    def probes_of(self, mode: Mode) -> ProbeSettings:
        """Return the probes of a mode. Raises UsageError if their sizes do not suit it."""
        frame = make_frame(mode, key=self.key, ssid=self.ssid, tos=self.probes.sockets.tos)
        return replace(self.probes, frame=frame, sizes=fitting_sizes(self.sizes, frame))


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
    add("--plus", action="store_true", help="probe a UDPEchoPlus server (TR-143): loss and delay of each direction")
    stamp = "probe a STAMP reflector (RFC 8762), by default at port 862: loss, delay and DSCP of each direction"
    add("--stamp", action="store_true", help=stamp)
    add("--key", type=Path, metavar="FILE", help="authenticate STAMP packets with the key in FILE")
    add("--ssid", type=_number(1, 65_535), metavar="N", help="identify the STAMP session by N (RFC 8972)")
    add("--mode", choices=("auto",), help="find out which of these the server is, by the first probes")
    reveal = "print what a server with `mode: reveal` sees of each source port: address and port after NAT"
    add("--reveal", action="store_true", help=reveal)
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
    refuse(found)
    interval = found.interval
    if found.rate:
        interval = -(-(10**9) // found.rate)  # rounded up: no faster than that
    elif interval is None:
        interval = 0 if found.flood else 10**9
    probes = ProbeSettings(
        interval=interval,
        count=MAX_PROBES if found.count is None else found.count,
        window=found.window or (1024 if found.flood else 1 if interval == 0 else MAX_WINDOW),
        sizes=fitting_sizes(found.sizes, None),
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
        sizes=found.sizes,
        mode=_mode(found),
        key=read_key(found.key) if found.key else b"",
        ssid=found.ssid or 0,
        specs=_specs(found.targets, STAMP_PORT if found.stamp else ECHO_PORT),
        warning=_warning(found.targets, found.pattern[0] if found.pattern else ""),
        compare=found.compare is not None,
        **_unchanged(found, "family flood quiet stamps numeric json csv histogram plot mtu reveal"),
    )
    return _checked(options)


_TAKES_NUMBER: Final = re.compile("-[46a-zA-Z]*[ciwWstQ]|--(?:rate|window|source-port|sources|ssid)")


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


def _mode(found: argparse.Namespace) -> Mode | None:
    """Return the mode of the probes; None if they are to find it out."""
    if found.mode:
        return None
    return Mode.UDPECHO_PLUS if found.plus else Mode.STAMP if found.stamp else Mode.ECHO


def _specs(texts: Sequence[str], port: int) -> tuple[TargetSpec, ...]:
    """Read the targets; refuse `HOST PORT` with the target to write instead."""
    for text, number in pairwise(texts):
        if looks_like_port(number) and (better := with_port(text, number)):
            raise UsageError(f'"{number}" is a number, not a host: for this port write {better}')
    return tuple(parse(text, port) for text in texts)


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
    measuring = {Mode.UDPECHO_PLUS: "--plus", Mode.STAMP: "--stamp", None: "--mode auto"}
    for word, given in (
        ("-f", options.flood),
        ("--mtu", options.mtu),
        ("--reveal", options.reveal),
        (measuring.get(options.mode, ""), options.mode in measuring),
    ):
        if given and (tcp or options.compare):
            raise UsageError(f"ping: {word} is for UDP: leave {'--compare' if options.compare else 'tcp://'} out")
    options.probes_of(options.mode or Mode.ECHO)
    return options
