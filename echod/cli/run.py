"""`echod run`: serve, in the foreground or detached.

Owns the start of the daemon's process; the supervisor does the rest. Invariant: an error is reported on stderr and to
the service manager.
"""

import faulthandler
import gc
import os
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from echod import logs
from echod.cli.errors import guarded
from echod.cli.options import add_config, make_parser
from echod.config import location
from echod.config.diagnostics import report
from echod.errors import ConfigError, EchodError, ExitCode, UsageError
from echod.linux import signals, systemd
from echod.supervisor.supervisor import Supervisor

_EXAMPLE: Final = """example:
  echod run --config /etc/echod.yaml
  echod ping -c 3 127.0.0.1

Signals: HUP reloads the config, TERM and INT drain and stop, USR1 logs counts."""


def parser() -> ArgumentParser:
    """Return the parser of its options."""
    made = make_parser("run", description="Serve until stopped.", epilog=_EXAMPLE)
    add_config(made, default=f"{location.DEFAULT_PATH} if it exists, else port 7007 of this host")
    made.add_argument("--daemonize", action="store_true", help="detach from the terminal (hosts without systemd)")
    made.add_argument("--pidfile", type=Path, metavar="FILE", help="with --daemonize: hold this file while running")
    return made


def main(words: Sequence[str]) -> int:
    """Serve until stopped."""
    arguments = parser().parse_args(words)
    if sys.byteorder != "little" or sys.maxsize < 2**63 - 1:
        raise EchodError("echod runs on 64-bit little-endian Linux only: it reads the kernel's structures as they lie")
    signals.block()
    faulthandler.enable()  # the watchdog's SIGABRT leaves a stack in the log
    path = arguments.config.absolute() if arguments.config is not None else None
    if not arguments.daemonize:
        if arguments.pidfile is not None:
            raise UsageError("--pidfile needs --daemonize")
        return _serve(path, lambda: None)
    if variable := systemd.managed(os.environ):
        raise UsageError(f"--daemonize cannot be used under systemd ({variable} is set): run echod in the foreground")
    pidfile = arguments.pidfile.absolute() if arguments.pidfile is not None else None
    from echod.cli.daemonize import detach  # noqa: PLC0415 - else python-daemon would be in every daemon's memory

    return detach(pidfile, lambda on_serving: guarded(partial(_serve, path, on_serving)))


def _serve(path: Path | None, on_serving: Callable[[], None]) -> int:
    supervisor = Supervisor(path=path, environment=os.environ, on_serving=on_serving)
    # Imported objects are permanent: the garbage collector must not traverse them, and so unshare the workers' pages.
    gc.freeze()
    try:
        supervisor.run()
    except ConfigError as error:
        file = str(path or location.DEFAULT_PATH)
        logs.report(report(error.mistakes, file=file, text=error.text, encoding=sys.stderr.encoding))
        return error.exit_code
    return ExitCode.OK
