"""What operators see of a real accelerator: `echod status`, the status page and the metrics, beside the daemon."""

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from support.daemon import AS_NOBODY, run_echod
from support.loopback import NOBODY, needs_root
from support.netns.accelerator import Accelerated, accelerated
from support.netns.datagrams import OTHER_PORT, PORT, SERVER, SERVER6, Datagram, numbered, over, over_ipv4, over_ipv6
from support.netns.wire import LINK
from support.scraping import Series, fetch, needs_prometheus, parse, status, total, value
from support.system.network import entered
from support.waiting import wait_until

pytestmark = needs_root

HTTP: Final = 9007
"""In a namespace of the test's own."""
ENDED_IN_KERNEL: Final = "echod_kernel_datagrams_answered_total", "echod_kernel_datagrams_dropped_total"


@contextmanager
def reporting(folder: Path, **sections: Any) -> Iterator[tuple[Accelerated, Callable[[], None]]]:  # noqa: ANN401
    """Start echod; give it, and a function that starts the accelerator with its status where it is looked for."""
    metrics = {"listen": f"http://127.0.0.1:{HTTP}"}
    with (
        TemporaryDirectory(prefix="echod-accelerate-test-", dir="/run") as name,
        accelerated(folder, start=False, metrics=metrics, **sections) as host,
    ):
        place = Path(name)
        place.chmod(0o755)
        os.chown(place, NOBODY, NOBODY)

        def start() -> None:
            host.start(variables={"RUNTIME_DIRECTORY": name})
            host.accelerator.status_path = place

        yield host, start


def scraped(host: Accelerated) -> Series:
    """Return the metrics."""
    with entered(host.wire.server):
        return parse(fetch(HTTP)[2])


def reported(host: Accelerated) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return what the status page shows: all of the kernel, and the UDP listeners."""
    with entered(host.wire.server):
        found = status(HTTP)
    return found["kernel"], found["activity"]["udp"]


def received(host: Accelerated) -> int:
    """Return how many datagrams ended in the kernel or in the sockets, by what the status page shows."""
    kernel, udp = reported(host)
    in_kernel = sum(each["replied"] + sum(each["dropped"].values()) for each in kernel["traffic"])
    return in_kernel + sum(each["replied"] + sum(each["dropped"].values()) for each in udp)


def ended(host: Accelerated) -> int:
    """Return how many datagrams of others than self tests ended, in the kernel or in the sockets, by the metrics."""
    series = scraped(host)
    in_kernel = sum(total(series, name) for name in ENDED_IN_KERNEL)
    in_sockets = total(series, "echod_udp_datagrams_received_total") - total(series, "echod_udp_self_tests_total")
    return round(in_kernel + in_sockets)


MIXED: Final[Sequence[Datagram]] = (
    over_ipv4(),
    over_ipv6(to_port=OTHER_PORT),
    over_ipv4(source_port=53),
    over_ipv6(source_port=OTHER_PORT),
    over("192.0.2.7"),
    over("2001:db8::7"),
    over_ipv4(to=SERVER, payload=b"over the limit"),
    over_ipv6(to=SERVER6, payload=b"over the limit"),
)


def test_kernel_and_sockets_together_have_all_that_was_sent(folder: Path) -> None:
    """Exactly, where some is replied to, refused by port or source, or over its limit: in each view."""
    limits = {"datagrams_per_second": 1, "burst": 60}
    with reporting(folder, limits=limits) as (host, start):
        start()
        host.wire.replies()
        sent = 0
        for datagram in MIXED:
            for each in numbered(datagram, 80):
                host.wire.inject(each.frame())
            sent += 80
            wait_until(lambda: ended(host) == sent, f"{sent} datagrams were counted")  # noqa: B023
        series = scraped(host)
        tests = round(total(series, "echod_udp_self_tests_total"))
        wait_until(lambda: received(host) == sent + tests, "the status was as new as the metrics")
        kernel, udp = reported(host)
        dropped = {reason for each in kernel["traffic"] for reason in each["dropped"]}
        assert dropped == {"source_port_low", "source_port_own", "access", "rate"}
        in_sockets = sum(each["received"] for each in udp) - tests
        assert in_sockets < 100
        replied = [sum(each["replied"] for each in some) for some in (kernel["traffic"], udp)]
        assert sum(replied) - tests == len(host.wire.replies())
        passed = sum(each["passed"] for each in kernel["traffic"])
        assert passed == in_sockets == total(series, "echod_kernel_datagrams_passed_total")

        shown = run_echod("status", RUNTIME_DIRECTORY=str(host.daemon.status_path), prefix=AS_NOBODY).stdout
        row = re.search(r"^sum +([\d,]+) +([\d,]+) +([\d,]+) +(\d+)", shown, re.MULTILINE)
        assert row is not None, shown
        all_received, *ends = (int(each.replace(",", "")) for each in row.groups())
        assert all_received == sum(ends) == 640 + tests
        assert f"left to the sockets by the kernel, and counted there: {passed}." in shown
        assert f"\nkernel: repeats replies at {LINK} (tcx); " in shown


def of_kernel(host: Accelerated) -> set[str]:
    """Return the names of the metrics of the kernel."""
    return {name for name, _ in scraped(host) if name.startswith("echod_kernel_")}


@needs_prometheus
def test_metrics_of_the_kernel_are_there_while_an_accelerator_runs(folder: Path) -> None:
    """Absent before and after, not 0; another accelerator counts from 0. Their names are as Prometheus wants them."""
    with reporting(folder) as (host, start):
        assert of_kernel(host) == set()
        assert reported(host)[0] is None
        start()
        wait_until(lambda: of_kernel(host), "there were metrics of the kernel")
        assert value(scraped(host), "echod_kernel_attached", interface=LINK, driver="tcx") == 1
        with host.wire.client_of(SERVER, PORT) as sock:
            for number in range(30):
                sock.send(b"%d" % number)
                assert sock.recv(64) == b"%d" % number
        labels = {"family": "ipv4", "port": str(PORT)}
        replied = "echod_kernel_datagrams_answered_total"
        wait_until(lambda: value(scraped(host), replied, **labels) > 20, "what the kernel replied to was counted")
        wait_until(lambda: value(scraped(host), "echod_kernel_paths") == 1, "the path was counted")
        with entered(host.wire.server):
            text = fetch(HTTP)[2]
        lint = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
        assert (lint.returncode, lint.stdout, lint.stderr) == (0, "", "")
        host.accelerator.signal(signal.SIGKILL)
        host.accelerator.wait()
        assert (host.accelerator.status_path / "status.json").exists()
        assert of_kernel(host) == set()
        assert "\nkernel: " not in run_echod("status", RUNTIME_DIRECTORY=str(host.daemon.status_path)).stdout
        start()
        wait_until(lambda: of_kernel(host), "there were metrics of the kernel again")
        assert value(scraped(host), replied, **labels) == 0
