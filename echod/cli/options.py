"""What the command lines of several commands have in common."""

import argparse
from pathlib import Path


def make_parser(command: str, *, description: str, epilog: str) -> argparse.ArgumentParser:
    """Return a parser for `echod COMMAND` that prints these texts as they are."""
    return argparse.ArgumentParser(
        prog=f"echod {command}".rstrip(),
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_config(parser: argparse._ActionsContainer, *, default: str) -> None:
    """Add `--config FILE`; `default` is what its help says of the default."""
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"config file (default: {default})")
