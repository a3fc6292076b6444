"""`echod ping`: its help, its signals and its streams; the rest is the package `ping`."""

import sys
from argparse import ArgumentParser
from collections.abc import Sequence

from echod.errors import ExitCode
from echod.linux import signals


def parser() -> ArgumentParser:
    """Return the parser of its options."""
    from echod.ping import options  # noqa: PLC0415 - as below

    return options.parser()


def main(words: Sequence[str]) -> int:
    """Measure."""
    signals.end_at_once()
    try:
        if not {"-h", "--help"}.isdisjoint(words):
            from echod.ping.options import help_text  # noqa: PLC0415 - all that is needed

            print(end=help_text())
            return ExitCode.OK
        from echod.ping.command import ping  # noqa: PLC0415 - Ctrl-C can end this import

        return ping(words, sys.stdout, sys.stderr)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
