"""The one process of `echod accelerate`: it keeps the datapath in the kernel as config and host are.

Owns the datapath, the watch over the network, and the loop. It sees no datagram. Invariants: after each change of the
network no path of before holds; a config that cannot be used changes nothing; however often the network changes, this
process takes a bounded share of the time.
"""

import signal
from collections.abc import Callable, MutableMapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from time import monotonic, monotonic_ns
from typing import Final

import structlog
from setproctitle import setproctitle

from echod import __version__, logs
from echod.accelerator import obstacles
from echod.accelerator.changes import Cause, NetworkChanges
from echod.accelerator.interfaces import Interfaces
from echod.accelerator.publisher import CONFIG, Publisher
from echod.accelerator.settings import Settings
from echod.bpf.datapath import Datapath
from echod.bpf.maps import Declaration
from echod.config import location
from echod.errors import EchodError, KernelUnavailableError, NothingConfiguredError, StartFailedError
from echod.linux import prctl
from echod.linux.bpf import ProgramRefusedError
from echod.linux.netlink import LocalAddresses
from echod.linux.poll import READ, Poll
from echod.linux.process import Child
from echod.linux.signals import Signals

CHECK_SECONDS: Final = 1.0
"""Interval of the watchdog and the status: the only wake-up of an idle process."""

PAUSE_SECONDS: Final = 0.02
"""Pause after notifications. Those that arrive meanwhile are handled together; the first one later, at once."""

RENEWAL_SHARE: Final = 0.1
"""Of the time, at most, for new declarations where own addresses change all the time."""

_OF_INTERFACES: Final = {Cause.LINK, Cause.LOST}
_OF_ADDRESSES: Final = {Cause.ADDRESS, Cause.LINK, Cause.LOST, Cause.ROUTE}

_log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class _Due:
    """When what is to be done, by the monotonic clock."""

    check: float = 0.0
    listen: float = inf
    """The end of the pause after notifications."""
    renewal: float = inf
    """Own addresses may have changed."""
    next_renewal: float = 0.0
    """Not before, so that renewals have their share of the time alone."""


class Accelerator:
    """The process. `run` returns when a signal has stopped it."""

    def __init__(self, *, path: Path, environment: MutableMapping[str, str]) -> None:
        """Take the path of the config, and the environment."""
        self._path, self._environment = path, environment
        self._poll, self._signals, self._due = Poll(), Signals(), _Due()
        self._noted = ""
        self._stopping = self._reload_wanted = self._is_reading = False
        self._poll.register(self._signals.fileno(), READ, self._on_signals)

    def run(self) -> None:
        """Serve until stopped by a signal. Raises EchodError if it cannot start."""
        with suppress(OSError):  # a filter of system calls may forbid it, where there is nothing to give up
            prctl.limit_capabilities(prctl.CAP_BPF | prctl.CAP_NET_ADMIN)
        self._settings = self._read().answer()
        logs.configure(level=self._settings.log_level, destination=self._settings.log_destination)
        shown = location.shown(self._path)
        setproctitle(f"echod: accelerator {shown}")
        self._publisher = Publisher(self._environment, shown)
        try:
            self._start(shown)
        except EchodError as error:
            self._publisher.notifier.send(f"STATUS=does not start: {error}")
            raise
        with closing(self._changes), self._datapath:
            self._serve()

    def _start(self, shown: str) -> None:
        if not self._settings.interfaces:
            raise NothingConfiguredError(f"{shown} has no kernel.interfaces: write those where the kernel is to reply")
        self._publisher.claim()
        _log.info("starting", version=__version__, config=shown)
        try:
            self._changes = NetworkChanges()
            self._own = LocalAddresses()
            self._own.unsubscribe()  # `_changes` tells when they are to be read
            self._networks = self._own.read() or ()
            self._note_addresses()
            self._datapath = Datapath(self._declaration(self._settings))
        except OSError as error:
            raise _explained(error) from None
        self._interfaces = Interfaces(self._datapath)
        try:
            self._interfaces.configure(self._settings.interfaces, self._settings.driver)
            self._interfaces.attach(monotonic())
        except OSError as error:
            self._datapath.close()
            raise _explained(error) from None
        self._listen(monotonic())

    def _serve(self) -> None:
        self._publisher.publish(self._datapath, self._interfaces, monotonic())
        self._report("READY=1")
        _log.info("ready", message=f"ready: {self._serving}")
        while not self._stopping:
            due = min(self._due.check, self._due.listen, self._due.renewal)
            ready = self._poll.wait(max(0.0, due - monotonic()))
            now = monotonic()
            for on_ready in ready:
                on_ready(now)
            if now >= self._due.listen:
                self._listen(now)
            if now >= self._due.renewal:
                self._renew(now)
            if self._reload_wanted and not (self._is_reading or self._stopping):
                self._reload()
            if now >= self._due.check:
                self._due.check = now + CHECK_SECONDS
                self._publisher.alive(now)
                self._try(self._interfaces.check, now)
                self._publisher.publish(self._datapath, self._interfaces, now)
        self._publisher.notifier.send("STOPPING=1", "STATUS=stopping")
        self._publisher.remove()

    def _read(self) -> Child[Settings]:
        """Have the config read by a process of its own: what it is read with takes more memory than all else here."""
        try:
            return Child("reader of the config", partial(_read, self._path), logs.report)
        except OSError as error:
            raise StartFailedError(f"the config cannot be read by a process of its own: {error.strerror}") from None

    def _declaration(self, settings: Settings) -> Declaration:
        """Return what settings declare here. Raises KernelUnavailableError for a foreign socket."""
        declared = settings.on_host(self._networks)
        if foreign := obstacles.find_foreign(declared.listeners):
            raise KernelUnavailableError(foreign)
        return declared

    def _try(self, change: Callable[[float], None], now: float) -> None:
        """Attach or detach while the kernel replies elsewhere: it goes on there, whatever fails here."""
        try:
            change(now)
        except OSError as error:
            message = f"not attached to all of kernel.interfaces: {_explained(error)}"
            _log.warning("kernel_not_attached", message=message)

    # -- the network changes

    def _listen(self, now: float) -> None:
        """Wait for notifications, and forget once more: a reply may have been on its way while something changed."""
        if self._due.listen < inf:
            self._datapath.forget(now)
        self._due.listen = inf
        for descriptor in self._changes.descriptors:
            self._poll.register(descriptor, READ, self._on_change)

    def _on_change(self, now: float) -> None:
        """Forget all paths, have the rest done that the changes ask for, and pause."""
        causes = self._changes.receive()
        if causes:
            self._datapath.forget(now)
            self._publisher.flushes.update(cause.value for cause in causes)
            _log.debug("kernel_paths_forgotten", causes=sorted(cause.value for cause in causes))
        if causes & _OF_INTERFACES:
            self._try(self._interfaces.attach, now)
        if causes & _OF_ADDRESSES:
            self._due.renewal = min(self._due.renewal, self._due.next_renewal)
        self._due.listen = now + PAUSE_SECONDS
        for descriptor in self._changes.descriptors:
            self._poll.unregister(descriptor)

    def _renew(self, now: float) -> None:
        """Read own addresses, and declare them if they have changed."""
        self._due.renewal = inf
        found = self._own.read()
        self._note_addresses()
        if found is not None:
            self._networks = found
            try:
                self._datapath.declare(self._settings.on_host(found))
            except OSError as error:
                _log.error("kernel_not_renewed", message=f"new own addresses are not used: {_explained(error)}")
        end = monotonic()
        self._due.next_renewal = end + (end - now) / RENEWAL_SHARE
        if self._own.is_due:
            self._due.renewal = max(self._due.next_renewal, end + CHECK_SECONDS)

    def _note_addresses(self) -> None:
        """Log once why own addresses are not known."""
        if (problem := self._own.problem) and problem != self._noted:
            _log.warning("own_addresses_unknown", message=problem)
        self._noted = problem

    # -- signals

    def _on_signals(self, _now: float) -> None:
        numbers = self._signals.take()
        self._reload_wanted = self._reload_wanted or signal.SIGHUP in numbers
        self._stopping = self._stopping or not numbers.isdisjoint({signal.SIGTERM, signal.SIGINT})

    def _reload(self) -> None:
        """Have the config read as it is now; what the network does meanwhile is heard."""
        self._reload_wanted = False
        self._publisher.notifier.send("RELOADING=1", f"MONOTONIC_USEC={monotonic_ns() // 1000}")
        _log.info("reloading", config=location.shown(self._path))
        try:
            reading = self._read()
        except EchodError as error:
            self._reject(error)
            return
        self._is_reading = True
        self._poll.register(reading.fileno(), READ, partial(self._on_read, reading))

    def _reject(self, error: EchodError) -> None:
        _log.error("reload_rejected", message=f"reload rejected: {error}")
        self._report("READY=1")

    def _on_read(self, reading: Child[Settings], _now: float) -> None:
        """Go over to the config that was read, when all of it is here; one that cannot be used changes nothing."""
        if not reading.receive():
            return
        self._is_reading = False
        self._poll.unregister(reading.fileno())
        try:
            try:
                settings = reading.answer()
                self._datapath.declare(self._declaration(settings))
            except OSError as error:
                raise _explained(error) from None
        except EchodError as error:
            self._reject(error)
            return
        self._settings = settings
        self._publisher.flushes[CONFIG] += 1
        logs.configure(level=settings.log_level, destination=settings.log_destination)
        self._interfaces.configure(settings.interfaces, settings.driver)
        self._try(self._interfaces.attach, monotonic())
        self._report("READY=1")
        _log.info("reloaded")

    @property
    def _serving(self) -> str:
        return f"repeating replies at {', '.join(self._interfaces.serving) or 'no interface'}"

    def _report(self, *lines: str) -> None:
        self._publisher.notifier.send(*lines, f"STATUS={self._serving}")


def _read(path: Path) -> Settings:
    """Be the process that reads a config. What that takes, 13 MiB, the accelerator itself never loads."""
    from echod.accelerator.declaration import declare  # noqa: PLC0415 - see above
    from echod.config import file as configfile  # noqa: PLC0415

    return declare(configfile.read(path).config)


def _explained(error: OSError) -> EchodError:
    """Return the sentence for what the kernel has refused; log what the verifier says at length."""
    if isinstance(error, ProgramRefusedError):
        _log.debug("kernel_program_refused", message=error.log)
    return obstacles.explain(error)
