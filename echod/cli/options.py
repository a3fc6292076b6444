"""What the command lines of several commands have in common."""

import argparse
from pathlib import Path
from typing import NoReturn


class _Parser(argparse.ArgumentParser):
    """Explains the usual mistake about a config file: that it stands without its option."""

    def error(self, message: str) -> NoReturn:
        named = "--config" in self._option_string_actions and message.startswith("unrecognized arguments: ")
        super().error(f"{message}; a config file is named by --config FILE" if named else message)


def make_parser(command: str, *, description: str, epilog: str) -> argparse.ArgumentParser:
    """Return a parser for `echod COMMAND` that prints these texts as they are."""
    return _Parser(
        prog=f"echod {command}".rstrip(),
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_config(parser: argparse._ActionsContainer, *, default: str) -> None:
    """Add `--config FILE` of a command that reads it; `default` is what its help says of the default."""
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"config file (default: {default})")


def add_running(parser: argparse.ArgumentParser, default: Path) -> None:
    """Add `--config FILE` of a command that asks an echod that runs."""
    what = f"ask the echod that runs with FILE (default: with {default}, or without a file)"
    parser.add_argument("--config", type=Path, metavar="FILE", help=what)
