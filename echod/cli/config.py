"""`echod config`: the config that a file makes, or the built-in defaults, with every key; or the schema of all.

Owns the options and the output. It looks at no host and changes nothing. Invariant: stdout has what was asked for, or
nothing.
"""

import json
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Final

from echod import logs
from echod.cli.options import add_config, make_parser
from echod.config import file as configfile
from echod.config import location
from echod.config.diagnostics import report
from echod.config.schema import Config
from echod.config.written import write_config
from echod.errors import ConfigError, ExitCode

_EXAMPLE: Final = """example:
  echod config | grep max_connections
  echod config --defaults > echod.yaml
  echod config --schema > echod.schema.json

Exit code 0: it was printed; 78: the file has mistakes; 66: it cannot be read."""


def parser() -> ArgumentParser:
    """Return the parser of its options."""
    made = make_parser("config", description="Print the effective config, with every key.", epilog=_EXAMPLE)
    what = made.add_mutually_exclusive_group()
    add_config(what, default=f"{location.DEFAULT_PATH} if it exists, else built-in defaults")
    what.add_argument("--defaults", action="store_true", help="print the default of every key")
    what.add_argument("--schema", action="store_true", help="print the JSON Schema of a config file, for editors")
    return made


def main(words: Sequence[str]) -> int:
    """Print a config, as a file that echod reads."""
    arguments = parser().parse_args(words)
    if arguments.schema:
        from echod.config.json_schema import make_schema  # noqa: PLC0415 - nobody else needs it

        print(json.dumps(make_schema(), indent=2))
        return ExitCode.OK
    if arguments.defaults:
        print(write_config(Config()))
        return ExitCode.OK
    try:
        print(write_config(configfile.read(arguments.config).config))
    except ConfigError as error:
        file = str(arguments.config or location.DEFAULT_PATH)
        logs.report(report(error.mistakes, file=file, text=error.text, encoding=sys.stderr.encoding))
        return error.exit_code
    return ExitCode.OK
