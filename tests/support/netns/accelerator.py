"""echod behind a wire, and `echod accelerate` beside it, each a process of its own.

Owns how the accelerator is started: as an ordinary user with exactly the two capabilities. Invariant: both are gone
with the `with` statement.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from support.beside import daemon_in
from support.daemon import AS_NOBODY, Daemon
from support.netns.stage import config
from support.netns.wire import LINK, Wire

CAPABILITIES: Final = "-all,+bpf,+net_admin"
WITH_TWO_CAPABILITIES: Final = (
    *AS_NOBODY,
    f"--inh-caps={CAPABILITIES}",
    f"--ambient-caps={CAPABILITIES}",
    f"--bounding-set={CAPABILITIES}",
)
"""A prefix that runs a command as an ordinary user who has them."""

NEVER: Final = {"interfaces": [LINK], "fresh_seconds": 1800, "stale_seconds": 3600}
"""A section `kernel` whose paths do not age while a test runs: what ends an answer is an event."""


class Accelerated:
    """A daemon and its accelerator on the server's side of a wire."""

    def __init__(self, wire: Wire, daemon: Daemon, folder: Path) -> None:
        """Take a daemon that is ready. The accelerator is started by `start`."""
        self.wire, self.daemon = wire, daemon
        self._folder = folder
        folder.mkdir(mode=0o777)
        folder.chmod(0o777)
        self.process: Daemon | None = None

    @property
    def accelerator(self) -> Daemon:
        """Return the accelerator that was started last."""
        assert self.process is not None
        return self.process

    def start(
        self, *, prefix: Sequence[str] = WITH_TWO_CAPABILITIES, variables: Mapping[str, str] | None = None
    ) -> Daemon:
        """Start the accelerator, ready."""
        self.process = Daemon(
            self._folder,
            None,
            prefix=("ip", "netns", "exec", self.wire.server, *prefix),
            variables=variables,
            command=("accelerate", "--config", str(self.daemon.config_path)),
        )
        self.process.wait_for("ready")
        return self.process

    def end(self) -> None:
        """End the accelerator, if it was started."""
        if self.process is not None:
            self.process.end()

    def write(self, **sections: Any) -> None:  # noqa: ANN401 - as YAML is
        """Write another config for both, of these sections."""
        self.daemon.write(config(**({"kernel": NEVER} | sections)))

    def total(self, name: str) -> int:
        """Return a number of datagrams of the status file, of all accounts."""
        return sum(each[name] for each in self.accelerator.status()["traffic"])

    def dropped(self) -> dict[str, int]:
        """Return what the status file says was dropped, by reason; each of one account alone."""
        return {name: count for each in self.accelerator.status()["traffic"] for name, count in each["dropped"].items()}


@contextmanager
def accelerated(folder: Path, *, start: bool = True, **sections: Any) -> Iterator[Accelerated]:  # noqa: ANN401
    """Lay a wire, start echod behind it with these sections in its config, and the accelerator; end all."""
    whole = config(**({"kernel": NEVER} | sections))
    with Wire() as wire, daemon_in(wire.server, folder, whole) as daemon:
        daemon.config_path.chmod(0o644)
        host = Accelerated(wire, daemon, folder / "accelerator")
        try:
            if start:
                host.start()
            yield host
        finally:
            host.end()
    if host.process is not None:
        assert "Traceback" not in host.process.stderr
