"""`echod check`: the mistakes of a config file, or warnings and its listeners; or what becomes of a source.

Owns the options and the order of the output. It starts nothing and changes nothing. Invariant: a file with a mistake is
not examined further.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from echod.cli import host, key_files, service_unit
from echod.cli.options import add_config, make_parser
from echod.config import file as configfile
from echod.config import location
from echod.config.diagnostics import in_order, render, report
from echod.config.document import read
from echod.config.lint import listener_ranges
from echod.config.schema import Config
from echod.errors import ConfigError, ExitCode, UsageError

_MOST_LISTED: Final = 8
"""Entries of `listeners`; of the others, the number."""

_EXAMPLE: Final = """example:
  echod check --config /etc/echod.yaml && systemctl reload echod
  echod check --source 192.0.2.7:40000

Exit code 0: no mistake; 78: mistakes; 66: the file cannot be read.
With --source 0: it gets replies; 1: it is refused, or reaches no listener."""


def parser() -> ArgumentParser:
    """Return the parser of its options."""
    made = make_parser(
        "check",
        description="Print every mistake in a config file with its line, and warnings of settings\nthat are valid but "
        "unreasonable.",
        epilog=_EXAMPLE,
    )
    add_config(made, default=f"{location.DEFAULT_PATH} if it exists, else built-in defaults")
    what = made.add_mutually_exclusive_group()
    what.add_argument(
        "--source", metavar="ADDRESS:PORT", help="say whether this source gets replies, and by which rule"
    )
    what.add_argument("--socket", action="store_true", help="also check that the socket unit passes every listener")
    return made


def main(words: Sequence[str]) -> int:
    """Print the mistakes in the file, or that there are none, or what was asked about it."""
    arguments = parser().parse_args(words)
    text, code = _check(arguments, sys.stdout.encoding)
    print(text)
    return code


def _check(arguments: Namespace, encoding: str) -> tuple[str, ExitCode]:
    """Return what to print, and the exit code.

    Without options that is what is wrong or unwise, also for the service that starts with the file; with --socket as if
    systemd held its ports. Raises UsageError if the source is none, and ConfigUnreadableError.
    """
    path: Path = arguments.config or location.DEFAULT_PATH
    shown = partial(report, file=str(path), encoding=encoding)
    try:
        reading = configfile.read(arguments.config)
    except ConfigError as error:
        return shown(error.mistakes, text=error.text), error.exit_code
    config, text = reading.config, reading.text
    if arguments.source is not None:
        return _inquire(config, arguments.source)
    if text is None:  # nor does it need any socket that systemd could pass
        served = _listed(config.listeners)
        return f"there is no {path}: `echod run` serves the built-in defaults: {served}", ExitCode.OK
    unit = service_unit.examine(path, config, text, activated=arguments.socket)
    keys = key_files.find(config, read(text))
    if mistakes := in_order((*unit.mistakes, *keys.mistakes)):
        return f"{shown(mistakes, text=text)}\n{unit.advice}".rstrip("\n"), ExitCode.CONFIG
    warnings = in_order((*reading.warnings, *unit.warnings, *keys.warnings, *host.warnings(config, text)))
    excerpts = render(warnings, kind="warning", file=str(path), text=text.decode(), encoding=encoding)
    ranges = listener_ranges(read(text)).values()
    labels = [(each, config.listeners[each.first].label) for each in ranges]
    named = [f"{each} ({label})" if label else str(each) for each, label in labels]
    listeners = f"listeners: {_listed(named)}" if named else f"default listeners: {_listed(config.listeners)}"
    besides = f"; passed by systemd too: {_listed(unit.passed)}" if unit.passed else ""
    return f"{excerpts}\n{path}: ok; {listeners}{besides}".lstrip("\n"), ExitCode.OK


def _listed(listeners: Iterable[object]) -> str:
    """Return listeners or ranges of them as a text, but not too many."""
    texts = list(map(str, listeners))
    more = f" and {len(texts) - _MOST_LISTED} more" if len(texts) > _MOST_LISTED else ""
    return ", ".join(texts[:_MOST_LISTED]) + more


def _inquire(config: Config, text: str) -> tuple[str, ExitCode]:
    """Return what becomes of a source, and the exit code."""
    from echod.cli.inquiry import inquire, parse_source  # noqa: PLC0415 - with it the rules of a worker
    from echod.linux.netlink import LocalAddresses  # noqa: PLC0415

    try:
        source = parse_source(text)
    except ValueError as error:
        raise UsageError(f"--source {error}") from None
    own = LocalAddresses().read() or ()
    answers = inquire(config, source, own, broadcast=host.is_broadcast(source.address))
    replied = all(answer.replied for answer in answers)
    return "\n".join(answer.text for answer in answers), ExitCode.OK if replied else ExitCode.NO_ANSWER
