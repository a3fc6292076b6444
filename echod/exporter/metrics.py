"""echod's own metrics for Prometheus: name, help and labels of each, and its samples, made from its counters.

Owns the names, on which dashboards depend. Every possible reason and errno is present
from the start, at 0, so that `rate()` sees the first increment. A label names a listener, a reason, an errno or a
process, never a peer. Invariant: for each UDP listener received = replied + all dropped + all send failures + held.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from echod.admission.selftest import Result
from echod.metrics.model import Histogram, Labels, Metric, buckets, metric
from echod.stats.counters import CLOSED_FIELDS, DROP_FIELDS, SEND_FAILED_FIELDS
from echod.stats.outcomes import Drop
from echod.stats.snapshot import (
    BATCH_SIZES,
    TRAIN_LENGTHS,
    Kernel,
    KernelTraffic,
    Snapshot,
    TcpTraffic,
    UdpEchoConfig,
    UdpTraffic,
    WorkerState,
)

_KERNEL_REASONS: Final = [drop.name.lower() for drop in Drop if drop <= Drop.LOOP]
"""The kernel repeats plain replies, and those after these are of modes."""
DROP_REASONS: Final = (*DROP_FIELDS, "interrupted")
"""With `interrupted`, so that the sums hold without another metric."""
ERRNOS: Final = tuple(SEND_FAILED_FIELDS)
CLOSE_REASONS: Final = tuple(CLOSED_FIELDS)


def of_udp(traffic: Sequence[UdpTraffic]) -> Iterator[Metric | Histogram]:
    """Yield the metrics of the UDP listeners."""

    def plain(name: str, text: str, value: Callable[[UdpTraffic], int]) -> Metric:
        return _of_listeners(f"echod_udp_{name}_total", text, (((one.name, one.family), value(one)) for one in traffic))

    yield plain("datagrams_received", "Datagrams received.", lambda one: one.received)
    yield plain("datagrams_replied", "Datagrams replied to, self tests included.", lambda one: one.replied)
    yield _of_listeners(
        "echod_udp_datagrams_dropped_total",
        "Datagrams received and dropped, by reason.",
        _by(traffic, DROP_REASONS, lambda one: {**one.dropped, "interrupted": one.interrupted}),
        "reason",
    )
    yield _of_listeners(
        "echod_udp_datagrams_send_failures_total",
        "Datagrams whose reply the kernel refused to send, by errno.",
        _by(traffic, ERRNOS, lambda one: one.send_failed),
        "errno",
    )
    yield plain(
        "datagrams_slipped",
        "Datagrams above a limit that were still replied to, by limits.slip or limits.dry_run.",
        lambda one: one.slipped,
    )
    yield _of_listeners(
        "echod_udp_datagrams_held",
        "Datagrams that impairment holds.",
        (((one.name, one.family), one.held) for one in traffic),
    )
    yield plain("datagrams_duplicated", "Datagrams whose reply impairment sent twice.", lambda one: one.duplicated)
    yield plain("datagrams_reordered", "Datagrams whose reply impairment sent out of order.", lambda one: one.reordered)
    yield plain("datagrams_corrupted", "Datagrams in whose reply impairment inverted a bit.", lambda one: one.corrupted)
    yield plain("received_bytes", "Payload bytes of the datagrams received.", lambda one: one.received_bytes)
    yield plain("sent_bytes", "Payload bytes of the replies.", lambda one: one.replied_bytes)
    yield plain(
        "kernel_drops",
        "Datagrams that the receive queue had no room for, or whose checksum was wrong; a train counts as one.",
        lambda one: one.kernel_drops,
    )
    yield plain("self_tests", "Datagrams of self tests replied to.", lambda one: one.self_test)
    yield Histogram(
        name="echod_udp_batch_size",
        help="Datagrams and trains that one recvmmsg call received.",
        labels=("listener", "family"),
        samples=[
            (
                (one.name, one.family),
                buckets(BATCH_SIZES, one.batches),
                one.received - one.train_datagrams + sum(one.trains),
            )
            for one in traffic
        ],
    )
    yield Histogram(
        name="echod_udp_train_length",
        help="Datagrams in one train (UDP GRO).",
        labels=("listener", "family"),
        samples=[((one.name, one.family), buckets(TRAIN_LENGTHS, one.trains), one.train_datagrams) for one in traffic],
    )


def of_listeners(traffic: Iterable[UdpTraffic | TcpTraffic]) -> Metric:
    """Return the metric of the modes."""
    samples = [((one.name, one.family, one.mode, str(one.impaired).lower()), 1) for one in traffic]
    text = "Mode of the listener, and whether its path is impaired; always 1."
    return _of_listeners("echod_listener_info", text, samples, "mode", "impaired")


def of_udpecho_config(traffic: Iterable[UdpTraffic]) -> Iterator[Metric]:
    """Yield the metrics of UDPEchoConfig (TR-143), of the listeners in mode udpecho_plus; none without one."""
    counted = [((one.name, one.family), one.udpecho_config) for one in traffic if one.udpecho_config is not None]
    for name, text, value in _UDPECHO_CONFIG if counted else ():
        samples = [(labels, value(config)) for labels, config in counted]
        yield _of_listeners(
            f"echod_udpecho_{name}", text, [(labels, each) for labels, each in samples if each is not None]
        )


def _moment(text: str) -> float | None:
    """Read a time of UDPEchoConfig; None if there was none yet."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() if text else None


_UDPECHO_CONFIG: Final[tuple[tuple[str, str, Callable[[UdpEchoConfig], float | None]], ...]] = (
    ("packets_received_total", "PacketsReceived of TR-143.", lambda config: config.packets_received),
    ("packets_responded_total", "PacketsResponded of TR-143.", lambda config: config.packets_responded),
    ("received_bytes_total", "BytesReceived of TR-143, with UDP headers.", lambda config: config.bytes_received),
    ("responded_bytes_total", "BytesResponded of TR-143, with UDP headers.", lambda config: config.bytes_responded),
    (
        "first_packet_timestamp_seconds",
        "TimeFirstPacketReceived of TR-143; not there before.",
        lambda config: _moment(config.first_received),
    ),
    (
        "last_packet_timestamp_seconds",
        "TimeLastPacketReceived of TR-143; not there before.",
        lambda config: _moment(config.last_received),
    ),
)


def of_tcp(traffic: Sequence[TcpTraffic]) -> Iterator[Metric]:
    """Yield the metrics of the TCP listeners."""

    def plain(name: str, text: str, value: Callable[[TcpTraffic], int]) -> Metric:
        return _of_listeners(f"echod_tcp_{name}_total", text, (((one.name, one.family), value(one)) for one in traffic))

    yield plain("connections_accepted", "Connections accepted.", lambda one: one.accepted)
    yield _of_listeners(
        "echod_tcp_connections_closed_total",
        "Connections that ended, by reason.",
        _by(traffic, CLOSE_REASONS, lambda one: one.closed),
        "reason",
    )
    yield _of_listeners(
        "echod_tcp_connections", "Open connections.", (((one.name, one.family), one.open) for one in traffic)
    )
    why = "Failures of accept because no descriptor or memory was left; each pauses it."
    yield plain("accept_failures", why, lambda one: one.accept_failed)
    yield plain("received_bytes", "Bytes received.", lambda one: one.received_bytes)
    yield plain("sent_bytes", "Bytes sent back.", lambda one: one.sent_bytes)


def of_daemon(snapshot: Snapshot) -> Iterator[Metric]:
    """Yield the metrics of the workers, the config and the daemon itself."""
    workers = snapshot.activity.workers
    yield metric("echod_generation", "Number of the generation of workers that serves.", [((), snapshot.generation)])
    yield metric("echod_workers", "Running worker processes.", [((), sum(one.pid is not None for one in workers))])
    yield _of_workers("restarts_total", "Replacements of a worker that died.", workers, lambda one: one.restarts)
    yield _of_workers(
        "heartbeat_age_seconds",
        "Age of the worker's heartbeat; 0 for less than two seconds.",
        workers,
        lambda one: one.heartbeat_age_seconds,
    )
    yield _of_workers("connections", "Open TCP connections of the worker.", workers, lambda one: one.connections)
    reload = snapshot.reload
    yield metric(
        "echod_config_last_reload_successful",
        "Whether the config file was in force after it was last read.",
        [((), float(reload.code == 0))],
    )
    yield metric(
        "echod_config_last_reload_timestamp_seconds",
        "Time at which the config file was last read.",
        [((), reload.at or snapshot.config_read or snapshot.started)],
    )


def of_kernel(kernel: Kernel) -> Iterator[Metric]:
    """Yield the metrics of the accelerator. When it is started again its counters begin at 0."""

    def plain(name: str, text: str, value: Callable[[KernelTraffic], int]) -> Metric:
        samples = [((one.family, str(one.port)), value(one)) for one in kernel.traffic]
        return metric(f"echod_kernel_{name}_total", text, samples, "family", "port")

    yield plain("datagrams_answered", "Datagrams replied to inside the kernel.", lambda one: one.replied)
    yield metric(
        "echod_kernel_datagrams_dropped_total",
        "Datagrams dropped inside the kernel, by reason.",
        [
            ((one.family, str(one.port), reason), one.dropped.get(reason, 0))
            for one in kernel.traffic
            for reason in _KERNEL_REASONS
        ],
        *("family", "port", "reason"),
    )
    yield plain(
        "datagrams_passed",
        "Datagrams that the kernel left to the sockets, which count them as received.",
        lambda one: one.passed,
    )
    yield plain(
        "datagrams_slipped",
        "Datagrams above a limit that the kernel let through, by limits.dry_run.",
        lambda one: one.slipped,
    )
    yield plain("sent_bytes", "Payload bytes of the replies of the kernel.", lambda one: one.replied_bytes)
    yield metric("echod_kernel_paths", "Paths whose replies the kernel repeats.", [((), kernel.paths)])
    yield metric(
        "echod_kernel_attached",
        "Whether the kernel repeats replies at the interface.",
        [((one.name, one.driver), float(bool(one.kind))) for one in kernel.interfaces],
        *("interface", "driver"),
    )
    flushes = [((cause,), times) for cause, times in kernel.flushes.items()]
    yield metric("echod_kernel_flushes_total", "How often all paths were forgotten, by cause.", flushes, "cause")


def of_build(version: str, python: str) -> Metric:
    """Return the metric of the version."""
    return metric(
        "echod_build_info", "Versions of echod and Python; always 1.", [((version, python), 1)], "version", "python"
    )


def of_self_tests(results: Sequence[Result], timeout: float) -> Iterator[Metric]:
    """Yield the metrics of the last self test; its `timeout` (seconds) is the duration of a probe without a reply."""
    labelled = [((str(one.listener), f"ipv{one.listener.address.version}"), one) for one in results]
    yield _of_listeners(
        "echod_self_test_successful",
        "Whether the listener replied to the last self test.",
        ((labels, float(one.passed)) for labels, one in labelled),
    )
    yield _of_listeners(
        "echod_self_test_duration_seconds",
        "Time from the probe of the last self test to its reply, or to the timeout.",
        ((labels, timeout if one.seconds is None else one.seconds) for labels, one in labelled),
    )


def of_processes(usage: Mapping[str, Mapping[str, float]]) -> Iterator[Metric]:
    """Yield the resources of each process, under the names that all exporters use.

    `usage` is what `linux.procfs` returns, by the name of the process: `supervisor`, `exporter` or `worker N`.
    """
    for name, text, key in _PROCESS_METRICS:
        yield metric(name, text, [((process,), used[key]) for process, used in usage.items() if key in used], "process")


_PROCESS_METRICS: Final = (
    ("process_cpu_seconds_total", "User and system CPU time.", "cpu_seconds"),
    ("process_resident_memory_bytes", "Resident memory, shared pages included.", "resident_bytes"),
    ("process_virtual_memory_bytes", "Virtual memory.", "virtual_bytes"),
    ("process_open_fds", "Open file descriptors.", "open_descriptors"),
    ("process_start_time_seconds", "Start time of the process.", "started"),
)


def _of_workers(name: str, text: str, workers: Iterable[WorkerState], value: Callable[[WorkerState], float]) -> Metric:
    return metric(f"echod_worker_{name}", text, [((str(one.worker),), value(one)) for one in workers], "worker")


def _by(
    traffic: Iterable[UdpTraffic] | Iterable[TcpTraffic],
    keys: Sequence[str],
    counts: Callable[..., Mapping[str, int]],
) -> Iterator[tuple[Labels, float]]:
    """Yield a sample for each listener and each key, also if nothing was counted yet."""
    for one in traffic:
        found = counts(one)
        yield from (((one.name, one.family, key), found.get(key, 0)) for key in keys)


def _of_listeners(name: str, text: str, samples: Iterable[tuple[Labels, float]], *labels: str) -> Metric:
    return metric(name, text, samples, "listener", "family", *labels)
