"""The exporter process: serves metrics, health and a status page over HTTP.

Owns one loop, its HTTP server and the last snapshot. It starts with its generation's counters and never gets others,
and holds no socket of a listener. What only the supervisor knows arrives as snapshots on a channel; when that closes,
the exporter ends. It echoes nothing, and no echo waits for it. Invariant: the loop blocks only in its poll, so no
client delays another.
"""

import os
import platform
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from time import monotonic

from echod import __version__
from echod.admission.selftest import Result
from echod.exporter import metrics
from echod.exporter.channel import DRAIN, SNAPSHOT, ExporterInputs
from echod.exporter.health import Health, HealthReport
from echod.exporter.status_page import PAGE
from echod.linux import process, procfs
from echod.linux.poll import READ, Poll
from echod.linux.privileges import drop_capabilities
from echod.metrics import exposition
from echod.metrics.http_server import HttpServer, OnRequest, Request, Respond, Response, Withdraw, failure
from echod.metrics.model import Histogram, Metric
from echod.stats.snapshot import Snapshot
from echod.status.kernel import kernel_files, with_kernel
from echod.status.selftest import TEST_SECONDS


class Exporter:
    """The loop."""

    def __init__(self, inputs: ExporterInputs) -> None:
        """Start to accept."""
        self._inputs = inputs
        self._poll = Poll()
        self._snapshot = inputs.snapshot
        self._draining = inputs.draining
        self._closing = False
        self._scrapes: list[tuple[str, Respond]] = []
        """The Accept header of each request for metrics that is to be answered in this turn of the loop."""
        self._tests: Sequence[Result] = ()
        self._health = Health(inputs.page, mark=inputs.self_test, reachable=inputs.reachable, poll=self._poll)
        self._paths: Mapping[str, OnRequest] = {
            "/": lambda _request, respond: respond(PAGE),
            "/status.json": self._on_status,
            "/metrics": self._on_metrics,
            "/healthz": self._on_health,
            "/readyz": self._on_ready,
        }
        self._poll.register(inputs.channel.fileno(), READ, self._on_message)
        self._server = HttpServer(inputs.http_sockets, hosts=inputs.hosts, poll=self._poll, on_request=self._on_request)

    def run(self) -> None:
        """Serve until the channel is closed and no connection is left."""
        while not (self._closing and not self._server.busy):
            now = monotonic()
            deadlines = (self._server.next_deadline(), self._health.next_deadline())
            nearest = min((each for each in deadlines if each is not None), default=None)
            ready = self._poll.wait(None if nearest is None else max(0.0, nearest - now))
            now = monotonic()
            for on_ready in ready:
                on_ready(now)
            self._server.on_deadline(now)
            self._health.on_deadline(now)
            self._serve_metrics()

    # -- messages of the supervisor

    def _on_message(self, _now: float) -> None:
        message, files, *_ = socket.recv_fds(self._inputs.channel, len(SNAPSHOT), 1)
        if not message:
            self._poll.unregister(self._inputs.channel.fileno())
            self._closing = True
            self._server.stop_accepting()  # at once, for the port may be needed; open connections are still answered
        self._draining = self._draining or message == DRAIN
        for fd in files:  # none if this process may open no more descriptors; the next message is as complete
            with os.fdopen(fd, "rb") as file:
                file.seek(0)
                self._snapshot = file.read()

    # -- requests

    def _on_request(self, request: Request, respond: Respond) -> Withdraw | None:
        path = self._paths.get(request.path)
        if path is None:
            respond(failure(HTTPStatus.NOT_FOUND))
            return None
        return path(request, respond)

    def _on_metrics(self, request: Request, respond: Respond) -> Withdraw | None:
        """Test first, then count, so that the test's own traffic is included."""

        def on_report(report: HealthReport) -> None:
            self._tests = report.results
            self._scrapes.append((request.accept, respond))

        if self._health.reachable:
            return self._health.request(monotonic(), on_report)
        self._scrapes.append((request.accept, respond))
        return None

    def _serve_metrics(self) -> None:
        """Count once for all who wait, however many they are: with many listeners that takes a while."""
        scrapes, self._scrapes = self._scrapes, []
        if not scrapes:
            return
        found = self._count()
        written: dict[str, Response] = {}
        for accept, respond in scrapes:
            if accept not in written:
                body, content_type = exposition.write(found, accept)
                written[accept] = Response(content_type=content_type, body=body)
            respond(written[accept])

    def _count(self) -> list[Metric | Histogram]:
        udp, tcp = self._inputs.traffic()
        found: list[Metric | Histogram] = [metrics.of_build(__version__, platform.python_version())]
        pids = {"supervisor": self._inputs.supervisor, "exporter": os.getpid()}
        if self._snapshot:
            snapshot = with_kernel(Snapshot.unpack(self._snapshot))
            found += metrics.of_daemon(snapshot)
            if snapshot.kernel is not None and not snapshot.kernel_problem:
                found += metrics.of_kernel(snapshot.kernel)
            drops = {one.name: one.kernel_drops for one in snapshot.activity.udp}
            udp = [replace(one, kernel_drops=max(one.kernel_drops, drops.get(one.name, 0))) for one in udp]
            workers = snapshot.activity.workers
            pids |= {f"worker {one.worker}": one.pid for one in workers if one.pid is not None}
        found += [*metrics.of_udp(udp), *metrics.of_tcp(tcp), metrics.of_listeners((*udp, *tcp))]
        found += [*metrics.of_udpecho_config(udp), *metrics.of_self_tests(self._tests, TEST_SECONDS)]
        usage = {name: procfs.resource_usage(pid) for name, pid in pids.items()}
        found += metrics.of_processes({name: used for name, used in usage.items() if used is not None})
        return found

    def _on_health(self, _request: Request, respond: Respond) -> Withdraw:
        return self._health.request(monotonic(), lambda report: respond(self._report(report)))

    def _report(self, report: HealthReport) -> Response:
        """Add the workers that do not serve: a probe reaches only one of the sockets of a UDP listener."""
        workers = Snapshot.unpack(self._snapshot).activity.workers if self._snapshot else ()
        problems = [f"worker {one.worker}: {one.problem}" for one in workers if one.problem]
        healthy = report.healthy and not problems
        return _plain(("ok" if healthy else "failing", *report.lines, *problems), healthy=healthy)

    def _on_ready(self, _request: Request, respond: Respond) -> None:
        respond(_plain(["stopping" if self._draining else "serving"], healthy=not self._draining))

    def _on_status(self, _request: Request, respond: Respond) -> None:
        if self._snapshot:
            body = with_kernel(Snapshot.unpack(self._snapshot)).pack() if kernel_files() else self._snapshot
            respond(Response(content_type="application/json", body=body))
        else:
            respond(_plain(["no status yet"], healthy=False))


def _plain(lines: Sequence[str], *, healthy: bool) -> Response:
    status = HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE
    return Response(status=status, body="".join(f"{line}\n" for line in lines).encode())


def run_exporter(inputs: ExporterInputs) -> None:
    """Be the exporter in a newly forked process."""
    if process.set_up_child(inputs.supervisor, "echod: exporter", inputs.account):
        if inputs.account is None:
            drop_capabilities()
        Exporter(inputs).run()
