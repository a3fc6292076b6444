"""`echod units`: the units of systemd for an echod that pip or pipx has installed.

Owns the options and the files that it writes. It asks no systemd and touches no config. Invariants: each file is
complete or not there; nothing is written if one of them cannot be, or would replace what somebody has changed.
"""

import os
import re
import sys
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Final

import echod
from echod.cli.options import make_parser
from echod.errors import ExitCode, UsageError

_DIRECTORY: Final = Path("/etc/systemd/system")
_CONFIG: Final = Path("/etc/echod.yaml")
_CATALOG: Final = Path("/usr/local/lib/systemd/catalog/echod.catalog")

_IN_UNITS: Final = "/usr/local/bin/echod"
"""The command that the units have as they are shipped."""

_ACTIVATED: Final = "socket-activated.conf"

_HIDDEN: Final = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - nothing is written there
"""What the service does not see: ProtectHome=, and PrivateTmp= of DynamicUser=."""

_EXAMPLE: Final = """example:
  echod units --socket

The last line that this prints names the folder with the other drop-ins."""


def parser() -> ArgumentParser:
    """Return the parser of its options."""
    made = make_parser(
        "units",
        description="Write the units of systemd for this echod, where no package has brought them.\n/etc/echod.yaml is "
        "not touched.",
        epilog=_EXAMPLE,
    )
    made.add_argument(
        "--socket", action="store_true", help="let systemd hold the ports, with a drop-in for the service"
    )
    made.add_argument("--force", action="store_true", help="replace files that differ")
    made.add_argument(
        "directory", nargs="?", type=Path, default=_DIRECTORY, metavar="DIR", help=f"where to (default: {_DIRECTORY})"
    )
    return made


def main(words: Sequence[str]) -> int:
    """Write the units, and print which, and what to run next."""
    arguments = parser().parse_args(words)
    source = find_files()
    units = make_units(source / "systemd", find_command(), socket=arguments.socket)
    written = write({arguments.directory / name: text for name, text in units.items()}, force=arguments.force)
    for path in written:
        print(f"wrote {path}")
    if not written:
        print(f"the units in {arguments.directory} are those of this echod")
    if arguments.directory == _DIRECTORY:
        print("\n".join(["to apply them:", *(f"  {each}" for each in next_commands(source, socket=arguments.socket))]))
    print(f"other drop-ins: {source / 'systemd'}")
    return ExitCode.OK


def find_files() -> Path:
    """Return the folder of the units, `systemd`, of the default config and of the journal's catalogue."""
    package = Path(echod.__file__).parent
    installed = package / "files"
    return installed if installed.is_dir() else package.parent / "packaging"


def find_command() -> Path:
    """Return the path by which this echod was started. Raises UsageError if a unit cannot start it by that."""
    started = Path(sys.argv[0])
    beside = started if started.name == "echod" else Path(sys.executable).with_name("echod")
    command = beside.parent.resolve() / beside.name  # which may be a link that leads elsewhere after an upgrade
    if not os.access(command, os.X_OK):
        raise UsageError("a unit needs a path to start echod by: run this command as `echod units`")
    if not re.fullmatch(r"[\w/.+-]+", str(command), re.ASCII):
        raise UsageError(
            f"a unit cannot name {str(command)!r}: install echod in a folder of letters, digits, . + - and _"
        )
    for needed in (command.resolve(), Path(sys.prefix), Path(sys.executable).resolve(), Path(echod.__file__)):
        for hidden in _HIDDEN:
            if needed.is_relative_to(hidden):
                raise UsageError(
                    f"echod.service could not run {command}: it does not see {needed}; install echod outside of /home, "
                    "/root, /tmp and /var/tmp, as with `pipx install --global echod-daemon`"
                )
    return command


def make_units(source: Path, command: Path, *, socket: bool) -> dict[str, str]:
    """Return the text of each unit, and of the drop-in, by its name below the directory of systemd."""
    units = {path.name: path for pattern in ("*.service", "*.socket") for path in sorted(source.glob(pattern))}
    if socket:
        units[f"echod.service.d/{_ACTIVATED}"] = source / _ACTIVATED
    return {name: path.read_text(encoding="utf-8").replace(_IN_UNITS, str(command)) for name, path in units.items()}


def write(units: Mapping[Path, str], *, force: bool) -> list[Path]:
    """Write the files that are not there, or with `force` are others; return them. Raises UsageError."""
    try:
        different = [path for path, text in units.items() if _is_other(path, text.encode())]
        if different and not force:
            raise UsageError(
                f"{' and '.join(map(str, different))} would be replaced: move your changes to a drop-in "
                "(systemctl edit), or take the new text with --force; nothing was written"
            )
        missing = [path for path in units if path in different or not path.exists()]
        for path in missing:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, units[path].encode())
    except OSError as error:
        place = error.filename or path.parent  # a full disk names no file
        raise UsageError(f"cannot write the units: {place}: {error.strerror}") from None
    return missing


def _is_other(path: Path, content: bytes) -> bool:
    """Tell whether a file is there that is another one. A mask of systemctl is a link, and is one."""
    return path.is_symlink() or (path.exists() and path.read_bytes() != content)


def _write(path: Path, content: bytes) -> None:
    """Write a file that everybody may read, beside the old one, which it then replaces."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    try:
        with new.open("xb") as file:
            file.write(content)
        new.chmod(0o644)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def next_commands(source: Path, *, socket: bool) -> list[str]:
    """Return the commands that apply the units on this host, and bring what else they need to this version."""
    # The config names its schema, which editors read, by the place where a package of a distribution puts it.
    schema = quote(f"s,=/usr/share/,={sys.prefix}/share/,")
    config = find(source, "echod.yaml", "config")
    place = f"sed {schema} {quote(str(config))} | install -m 0644 /dev/stdin {_CONFIG}"
    first = [] if _CONFIG.exists() else [place]
    catalog = find(source, "echod.catalog", "packaging/journal")
    if not _CATALOG.exists() or _CATALOG.read_bytes() != catalog.read_bytes():
        first += [f"install -D -m 0644 {quote(str(catalog))} {_CATALOG}", "journalctl --update-catalog"]
    if not socket:
        restart = ["systemctl restart echod.service", "systemctl try-restart echod-accelerate.service"]
        return [*first, "systemctl daemon-reload", "systemctl enable echod.service", *restart]
    # An echod that has bound the ports itself must release them before systemd can take them. Its stop is one of the
    # accelerator too, which the start brings back.
    start = ["systemctl stop echod.service", "systemctl start echod.service"]
    return [*first, "systemctl daemon-reload", "systemctl enable echod.socket echod.service", *start]


def find(source: Path, name: str, folder: str) -> Path:
    """Return a file that is beside the units, or in this folder of a source tree."""
    beside = source / name
    return beside if beside.exists() else source.parent / folder / name
