"""`echod accelerate`: have the kernel repeat what the daemon replied.

Owns the start of the accelerator's process; `accelerator` does the rest. Invariant: an error is reported on stderr.
"""

import faulthandler
import os
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from echod import logs
from echod.accelerator.accelerator import Accelerator
from echod.cli.options import add_config, make_parser
from echod.config import location
from echod.config.diagnostics import report
from echod.errors import ConfigError, ExitCode
from echod.linux import signals

_EXAMPLE: Final = """example:
  echod accelerate --config /etc/echod.yaml

It needs CAP_BPF and CAP_NET_ADMIN, and kernel.interfaces in the file.
Signals: HUP reloads the config, TERM and INT stop. See echod-accelerate(8)."""


def parser() -> ArgumentParser:
    """Return the parser of its options."""
    made = make_parser(
        "accelerate",
        description="Have the kernel repeat what the running echod replied, until stopped.",
        epilog=_EXAMPLE,
    )
    add_config(made, default=f"{location.DEFAULT_PATH}")
    return made


def main(words: Sequence[str]) -> int:
    """Serve until stopped."""
    arguments = parser().parse_args(words)
    signals.block()
    faulthandler.enable()  # the watchdog's SIGABRT leaves a stack in the log
    path: Path = (arguments.config or location.DEFAULT_PATH).absolute()
    try:
        Accelerator(path=path, environment=os.environ).run()
    except ConfigError as error:
        logs.report(report(error.mistakes, file=str(path), text=error.text, encoding=sys.stderr.encoding))
        return error.exit_code
    return ExitCode.OK
