"""The command line: the choice of a command, which is imported only when it is chosen.

Owns the list of commands and the standard streams. A command owns its options, its help and its output: it takes the
words after its name and returns an exit code. Invariant: no command loads what only another one needs.
"""

import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from functools import partial
from io import TextIOWrapper
from typing import Final, NoReturn

from echod import __version__
from echod.cli.errors import Output, guarded
from echod.cli.options import make_parser
from echod.errors import ExitCode
from echod.linux.descriptors import fill_first_three

COMMANDS: Final = {
    "run": "serve until stopped",
    "check": "find the mistakes in a config file",
    "config": "print the effective config, or the defaults",
    "reload": "reload the config of the running echod and wait for the outcome",
    "status": "show what the running echod does",
    "units": "write the systemd units of this echod",
    "accelerate": "have the kernel repeat what the running echod replied",
    "ping": "measure loss, latency and path to an echo server",
}
"""The purpose of each command."""

_EXAMPLE: Final = """Without a command: run. `echod COMMAND --help` shows its options, echod(8) more.

example:
  echod check --config echod.yaml && echod run --config echod.yaml"""


def load(words: Sequence[str]) -> Callable[[], int]:
    """Import the command that the words of a command line choose; return a function that runs it."""
    # Bare `echod`, and `echod --config FILE`, mean `run`.
    bare = not words or (words[0].startswith("-") and words[0] not in ("-h", "--help", "--version"))
    name, *rest = ("run", *words) if bare else words
    match name:
        case "run":
            from echod.cli.run import main as command  # noqa: PLC0415 - no other command may load it; so below
        case "check":
            from echod.cli.check import main as command  # noqa: PLC0415
        case "config":
            from echod.cli.config import main as command  # noqa: PLC0415
        case "reload":
            from echod.cli.reload import main as command  # noqa: PLC0415
        case "status":
            from echod.cli.status import main as command  # noqa: PLC0415
        case "units":
            from echod.cli.units import main as command  # noqa: PLC0415
        case "accelerate":
            from echod.cli.accelerate import main as command  # noqa: PLC0415
        case "ping":
            from echod.cli.ping import main as command  # noqa: PLC0415
        case _:
            return partial(_help, words)
    return partial(command, rest)


def main(command: Callable[[], int]) -> NoReturn:
    """Run a command and exit with its code."""
    fill_first_three()
    sys.stdin = sys.stdin or open(0, encoding="utf-8")  # noqa: SIM115 - for good
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
    if isinstance(sys.stdout, TextIOWrapper):
        out = sys.stdout
        encoding, lines, at_once = out.encoding, out.line_buffering, out.write_through
        # Escaped like stderr: a path may not be UTF-8.
        sys.stdout = Output(out.detach(), encoding, "backslashreplace", line_buffering=lines, write_through=at_once)
    sys.exit(guarded(command))


def parser() -> ArgumentParser:
    """Return the parser of what stands before a command."""
    description = "Echo daemon: sends UDP datagrams and TCP streams back as they came (RFC 862)."
    made = make_parser("", description=description, epilog=_EXAMPLE)
    made.add_argument("--version", action="version", version=f"echod {__version__}")
    commands = made.add_subparsers(metavar="COMMAND")
    for name, purpose in COMMANDS.items():
        commands.add_parser(name, help=purpose)
    return made


def _help(words: Sequence[str]) -> int:
    """Print the help, the version, or that there is no such command."""
    parser().parse_args(words)  # which exits, for no word here is a command
    return ExitCode.USAGE
