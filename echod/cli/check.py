"""What `echod check` says: the mistakes of a config file, warnings, the config as a whole, or what becomes of a source.

Owns the order of what is said, as text. It starts nothing and changes nothing. Invariant: a file with a mistake is
never judged further.
"""

from pathlib import Path

from echod.cli import host, service_unit
from echod.cli.inquiry import inquire, parse_source
from echod.config import file as configfile
from echod.config.document import render
from echod.config.schema import in_order, parse_config
from echod.config.written import write_config
from echod.errors import ConfigError, ExitCode, UsageError
from echod.linux.netlink import LocalAddresses


def check(
    path: Path, *, source: str | None = None, whole: bool = False, activated: bool = False, encoding: str
) -> tuple[str, ExitCode]:
    """Return what to print, and the exit code.

    That is the outcome for a `source` if one is given, the `whole` config if that is wanted, else what is wrong or
    unwise, also for the service that starts with the file; with `activated` as if systemd held its ports. Raises
    UsageError if the source is none, and ConfigUnreadableError.
    """
    text = configfile.read_text(path)
    try:
        config, found = parse_config(text)
    except ConfigError as error:
        return explain(path, text, error, encoding), error.exit_code
    if whole:
        return write_config(config), ExitCode.OK
    if source is None:
        if not_passed := service_unit.examine(path, config, text, activated=activated):
            shown = explain(path, text, ConfigError(not_passed.mistakes), encoding)
            return f"{shown}\n{not_passed.advice}".rstrip("\n"), ExitCode.CONFIG
        warnings = in_order((*found, *host.warnings(config, text)))
        shown = render(warnings, kind="warning", file=str(path), text=text.decode(), encoding=encoding)
        return f"{shown}\n{path}: ok".lstrip("\n"), ExitCode.OK
    try:
        asked = parse_source(source)
    except ValueError as error:
        raise UsageError(f"--source {error}") from None
    own = LocalAddresses().look() or ()
    answers = inquire(config, asked, own, broadcast=host.is_broadcast(asked.address))
    replied = all(answer.replied for answer in answers)
    return "\n".join(answer.text for answer in answers), ExitCode.OK if replied else ExitCode.NO_ANSWER


def explain(path: Path, text: bytes, error: ConfigError, encoding: str) -> str:
    """Describe every mistake with its place, its source line and a caret, and their count."""
    count, content = len(error.mistakes), text.decode("utf-8", "replace")
    shown = render(error.mistakes, kind="error", file=str(path), text=content, encoding=encoding)
    return f"{shown}\n{path}: {count} mistake{'s' * (count > 1)}"
