"""The command line: argv to a command. The only module that prints or exits.

Owns the options, the help texts and the output of the commands. Invariant: every command ends with a code of
`ExitCode`, and an error that the operator can correct is one sentence on stderr, never a traceback.
"""

import argparse
import errno
import faulthandler
import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import Final, NoReturn

from setproctitle import setproctitle

from echod import __version__, logs
from echod.cli import display
from echod.cli.check import check, explain
from echod.cli.daemonize import detach
from echod.cli.reload import reload
from echod.config import file as configfile
from echod.config.schema import find_status_directory
from echod.errors import ConfigError, EchodError, ExitCode, UsageError
from echod.linux import signals, systemd
from echod.linux.descriptors import Output, OutputError, fill_first_three
from echod.stats.snapshot import Snapshot
from echod.status import files, instances
from echod.status.overview import Overview, check_text, old, overview, workers_text
from echod.status.selftest import listeners_of, run_self_test
from echod.supervisor.reporter import Announcer
from echod.supervisor.supervisor import Supervisor

_MAXSIZE_64: Final = 2**63 - 1

_EXAMPLE: Final = """Without a command: run. `echod COMMAND --help` tells more.

example:
  echod check --config echod.yaml && echod run --config echod.yaml"""

_RUN_EXAMPLE: Final = """example:
  echod run --config /etc/echod.yaml
  (printf hi; sleep 1) | ncat -u 127.0.0.1 7

Signals: HUP reloads the config, TERM and INT drain and stop, USR1 logs counts."""

_CHECK_EXAMPLE: Final = """example:
  echod check --config /etc/echod.yaml && systemctl reload echod
  echod check --source 192.0.2.7:40000

Exit code 0: no mistake; 78: mistakes; 66: the file cannot be read.
With --source 0: it gets replies; 1: it is refused, or reaches no listener."""

_RELOAD_EXAMPLE: Final = """example (what `systemctl reload echod` does):
  echod reload && echo new config serves"""


_STATUS_EXAMPLE: Final = """example:
  echod status --watch
  echod status --check && echo it replies

Exit code 0: it runs; 3: it does not; 4: its status cannot be read, or is old.
With --check 0: each listener replied; 1: one did not. Only root and echod's own
user can ask in a way that no rule of the config refuses, and that is counted
apart."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit with its code."""
    fill_first_three()
    sys.stdin = sys.stdin or open(0, encoding="utf-8")  # noqa: SIM115 - for good
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
    words = sys.argv[1:] if argv is None else argv
    if isinstance(sys.stdout, TextIOWrapper):
        out = sys.stdout
        encoding, lines, at_once = out.encoding, out.line_buffering, out.write_through
        # Escaped like stderr: a path may not be UTF-8.
        sys.stdout = Output(out.detach(), encoding, "backslashreplace", line_buffering=lines, write_through=at_once)
    sys.exit(_guarded(None, lambda: _obey(words)))


def _obey(words: Sequence[str]) -> int:
    """Do what the words ask for; return the exit code."""
    try:
        if words[:1] == ["ping"]:
            return _ping(words[1:])
        arguments = _parse(words)
    except SystemExit as end:  # of argparse, which has said help, version or what is wrong
        return int(end.code or 0)
    return _guarded(arguments.config, lambda: arguments.command(arguments))


def _guarded(config: Path | None, command: Callable[[], int]) -> int:
    """Run a command; turn what it raises into a message on stderr and an exit code."""
    try:
        code = command()
        print(end="", flush=True)  # here, where a write error is still reported
    except ConfigError as error:
        path, text = config or configfile.DEFAULT_PATH, b""
        with suppress(EchodError):  # the file is gone; then without its lines
            text = configfile.read_text(path)
        logs.last_words(explain(path, text, error, sys.stderr.encoding))
        return error.exit_code
    except EchodError as error:
        logs.last_words(f"echod: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        return ExitCode.OK
    except Exception as error:  # noqa: BLE001 - any exception must be reflected in the exit code
        if not isinstance(error, OutputError):
            logs.last_words(f"echod: this is a defect in echod {__version__}\n{traceback.format_exc()}")
            return ExitCode.SOFTWARE
        # Output that is still buffered must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = ExitCode.OK  # the reader closed the pipe
        if error.errno != errno.EPIPE:
            logs.last_words(f"echod: the output cannot be written: {error.strerror}")
            code = ExitCode.IO_ERROR
    return code


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="echod",
        description="Echo daemon: sends UDP datagrams and TCP streams back as they came (RFC 862).",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"echod {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND")
    add = partial(commands.add_parser, formatter_class=argparse.RawDescriptionHelpFormatter)

    run = add("run", help="serve until told to stop", description="Serve until told to stop.", epilog=_RUN_EXAMPLE)
    _add_config(run, otherwise=f"{configfile.DEFAULT_PATH} if it exists, else built-in defaults")
    run.add_argument("--daemonize", action="store_true", help="detach from the terminal (hosts without systemd)")
    run.add_argument("--pidfile", type=Path, metavar="FILE", help="with --daemonize: hold this file while running")
    run.set_defaults(command=_run)

    checking = add(
        "check",
        help="say what is wrong with a config file",
        description="Say every mistake in a config file with its line, and what is legal but unwise.",
        epilog=_CHECK_EXAMPLE,
    )
    _add_config(checking, otherwise=str(configfile.DEFAULT_PATH))
    what = checking.add_mutually_exclusive_group()
    what.add_argument(
        "--source", metavar="ADDRESS:PORT", help="say whether this source gets replies, and by which rule"
    )
    what.add_argument("--socket", action="store_true", help="as with echod.socket, which must pass every listener")
    what.add_argument("--print", action="store_true", help="print the config as a whole, with every key")
    checking.set_defaults(command=_check)

    again = add(
        "reload",
        help="let the running echod read its config again, and wait for the outcome",
        description="Let the running echod read its config again. Returns when that is done:\n0 if the new "
        "config serves, else every mistake and 78, and the previous config\nstays in force.",
        epilog=_RELOAD_EXAMPLE,
    )
    _add_config(again, otherwise=f"{configfile.DEFAULT_PATH}; it says where the status of that echod stands")
    again.set_defaults(command=_reload)

    _add_status(
        add(
            "status",
            help="tell what the running echod does",
            description="Tell what the running echod does: traffic, losses and who lost it, workers, top\nsources.",
            epilog=_STATUS_EXAMPLE,
        )
    )

    commands.add_parser("ping", help="measure loss, latency and path to an echo server", add_help=False)

    # Bare `echod`, and `echod --config FILE`, mean `run`.
    bare = not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help", "--version"))
    return parser.parse_args(["run", *argv] if bare else argv)


def _add_status(parser: argparse.ArgumentParser) -> None:
    _add_config(parser, otherwise=f"{configfile.DEFAULT_PATH}; it says where the status stands")
    parser.add_argument("--json", action="store_true", help="as one line of JSON, for programs")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--watch", action="store_true", help="show it again every second, until Ctrl-C")
    how.add_argument("--check", action="store_true", help="send a probe to each listener, and tell whether it replies")
    parser.set_defaults(command=_status)


def _add_config(parser: argparse.ArgumentParser, *, otherwise: str) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"config file (default: {otherwise})")


def _check(arguments: argparse.Namespace) -> int:
    """Report the mistakes in the file, or that there are none, or what was asked about it."""
    path: Path = arguments.config or configfile.DEFAULT_PATH
    text, code = check(
        path, source=arguments.source, whole=arguments.print, activated=arguments.socket, encoding=sys.stdout.encoding
    )
    print(text)
    return code


def _reload(arguments: argparse.Namespace) -> int:
    """Request a reload and report its outcome."""
    outcome = reload(lambda process: _status_directory(arguments.config, process), os.environ)
    print(outcome.text)
    return outcome.code


def _status(arguments: argparse.Namespace) -> int:
    """Show what the running echod does, or whether it answers."""
    place = _status_directory(arguments.config)
    if arguments.check:
        return _check_listeners(place, as_json=arguments.json)
    if not arguments.json:
        if arguments.watch:
            display.watch(lambda: _overview(files.load(place)), sys.stdout)
        snapshot = files.load(place)
        display.show(_overview(snapshot), sys.stdout)
        return _running(snapshot)
    told = None
    while True:
        snapshot = files.load(place)
        if told is None or replace(snapshot, at=told.at, at_monotonic=told.at_monotonic) != told:
            told = snapshot
            print(json.dumps(json.loads(told.pack())), flush=True)  # in ASCII: valid in any encoding
        if not arguments.watch:
            return _running(snapshot)
        time.sleep(display.WATCH_SECONDS)


def _running(snapshot: Snapshot) -> ExitCode:
    """Return the exit code for a running echod: whether its status is up to date."""
    return ExitCode.STATUS_UNKNOWN if snapshot.stale else ExitCode.OK


def _overview(snapshot: Snapshot) -> Overview:
    uptime = instances.monotonic() - snapshot.started_monotonic
    return overview(snapshot, uptime_seconds=uptime, when=_when)


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _check_listeners(place: Path, *, as_json: bool) -> int:
    """Send a probe through each listener and report the outcome."""
    snapshot = files.load(place)
    mark = files.read_self_test(place)
    results = run_self_test(listeners_of(snapshot), mark)
    passed = all(result.passed for result in results)
    if not passed and mark != (newer := files.read_self_test(place)):
        # Reloaded meanwhile: the workers that answer now have another mark.
        snapshot = files.load(place)
        results = run_self_test(listeners_of(snapshot), newer)
        passed = all(result.passed for result in results)
    snapshot = files.load(place)
    workers = [worker for worker in snapshot.activity.workers if worker.problem]
    if as_json:
        told = [{"name": str(one.listener), "seconds": one.seconds, "problem": one.problem} for one in results]
        told += [{"name": f"worker {one.worker}", "seconds": None, "problem": one.problem} for one in workers]
        print(json.dumps(told))
    else:
        print(check_text(results))
        print(workers_text(workers), end="\n" if workers else "")
    if mark is None:
        logs.last_words(
            f"echod: {place / files.SELF_TEST_NAME} is not there or cannot be read by this user, so the listeners "
            "were asked as any client asks, and the config may refuse that"
        )
    if snapshot.stale:
        logs.last_words(f"echod: these are the listeners {old(snapshot, _when)}")
    return _running(snapshot) if passed and not workers else ExitCode.NO_ANSWER


def _status_directory(path: Path | None, process: int | None = None) -> Path:
    """Return the status directory of this process, or of an echod with this config, or with the default one."""
    named, text = (path or configfile.DEFAULT_PATH).absolute(), b""
    with suppress(EchodError):  # an unreadable or missing config is no reason to give up
        text = configfile.read_text(named)
    configured, config = find_status_directory(text), configfile.shown(named)
    return files.find(os.environ, configured, config, named=path is not None, process=process)


def _ping(words: Sequence[str]) -> int:
    """Measure. The client is imported here, so that the daemon never loads it."""
    signals.end_at_once()
    try:
        from echod.ping.command import ping  # noqa: PLC0415 - see above

        return ping(words, sys.stdout, sys.stderr)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED


def _run(arguments: argparse.Namespace) -> int:
    """Serve, in the foreground or detached."""
    if sys.byteorder != "little" or sys.maxsize < _MAXSIZE_64:
        raise EchodError("echod runs on 64-bit little-endian Linux only: it reads the kernel's structures as they lie")
    signals.block()
    faulthandler.enable()  # the watchdog's SIGABRT leaves a stack in the log
    path = arguments.config.absolute() if arguments.config is not None else None
    if not arguments.daemonize:
        if arguments.pidfile is not None:
            raise UsageError("--pidfile goes with --daemonize")
        return _serve(path, lambda: None)
    if variable := systemd.managed(os.environ):
        raise UsageError(f"--daemonize has no place under systemd ({variable} is set): run echod in the foreground")
    pidfile = arguments.pidfile.absolute() if arguments.pidfile is not None else None
    return detach(pidfile, lambda on_serving: _guarded(path, lambda: _serve(path, on_serving)))


def _serve(path: Path | None, on_serving: Callable[[], None]) -> int:
    setproctitle(instances.title(configfile.shown(path or configfile.DEFAULT_PATH)))
    announcer = Announcer(path=path, notifier=systemd.Notifier(os.environ), environment=os.environ)
    supervisor = Supervisor(
        path=path,
        passed=systemd.passed_sockets(os.environ),
        announcer=announcer,
        on_serving=on_serving,
    )
    # Imported objects are permanent: the garbage collector must not traverse them, and so unshare the workers' pages.
    gc.freeze()
    try:
        supervisor.run()
    except EchodError as error:
        announcer.failed(error)
        raise
    announcer.stopped()
    return ExitCode.OK
