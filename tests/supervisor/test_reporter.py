"""What the supervisor reports in the log."""

from collections.abc import Callable
from pathlib import Path

from structlog.typing import EventDict
from support.daemon import Daemon
from support.loopback import needs_root
from support.ports import free_port

from echod.config.file import Reading
from echod.config.schema import Config
from echod.config.socket_unit import units_of
from echod.net.listener import parse_listener
from echod.status.publisher import Publisher
from echod.supervisor.reporter import Reporter

StartDaemon = Callable[..., Daemon]

ORDINARY = ("setpriv", "--bounding-set=-net_admin")
"""Whoever has no CAP_NET_ADMIN gets no larger buffers than the host's limits."""

LIMIT = int(Path("/proc/sys/net/core/rmem_max").read_text())


@needs_root
def test_only_the_buffer_that_the_kernel_grants_in_part_is_warned_of(echod: StartDaemon) -> None:
    """One entry for each such buffer, however many sockets have it, with what to write; a reload logs it again."""
    port = free_port(2)
    wanted = 4 * LIMIT
    config = {
        "listeners": [f"udp://127.0.0.1:{port}", f"udp://127.0.0.1:{port + 1}", f"tcp://127.0.0.1:{port}"],
        "workers": 2,
        "udp": {"receive_buffer": wanted, "send_buffer": "64 KiB"},
    }
    daemon = echod(config, prefix=ORDINARY)
    (entry,) = daemon.log("buffer_capped")
    assert entry["level"] == "warning"
    assert (entry["key"], entry["asked"], entry["granted"]) == ("udp.receive_buffer", wanted, LIMIT)
    assert entry["message"] == (
        f"udp.receive_buffer asks for {wanted:,} bytes and the kernel grants {LIMIT:,}: write sysctl "
        f"net.core.rmem_max={wanted}, or ReceiveBuffer={wanted} into the .socket unit"
    )


@needs_root
def test_the_default_buffers_are_never_warned_of(echod: StartDaemon) -> None:
    """A default install has no warning, whatever the host's limits are: nobody asked for what it does not get."""
    daemon = echod({"listeners": [f"udp://127.0.0.1:{free_port()}"], "workers": 1}, prefix=ORDINARY)
    assert [entry for entry in daemon.log() if entry["level"] == "warning"] == []


def test_a_listener_that_is_passed_and_not_configured_names_the_units_of_the_instance(log: list[EventDict]) -> None:
    """The line to remove is in the socket unit of that echod, and both units are to be restarted."""
    path = Path("/etc/echod/red.yaml")
    publisher = Publisher(str(path), lambda _: None)
    reporter = Reporter(str(path), units_of("red"), {}, publisher)
    reporter.reading(Reading(path=path, text=b"", config=Config()), parse_listener("udp://192.0.2.1:7001"))
    (entry,) = [entry for entry in log if entry["event"] == "listener_not_configured"]
    assert entry["listener"] == "udp://192.0.2.1:7001"
    assert entry["message"] == (
        "udp://192.0.2.1:7001 is served although /etc/echod/red.yaml does not have it, because systemd holds it: to "
        "end that, remove ListenDatagram=192.0.2.1:7001 from echod@red.socket (systemctl edit echod@red.socket) and "
        "restart that and echod@red.service"
    )
