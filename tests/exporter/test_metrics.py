"""echod.exporter.metrics: what Prometheus receives, by which name, and that nothing is left out."""

from collections.abc import Iterable

from support.snapshots import BUSY, IN_MODES, KERNEL, make_snapshot

from echod.admission.selftest import Result
from echod.exporter.metrics import (
    CLOSE_REASONS,
    DROP_REASONS,
    ERRNOS,
    of_build,
    of_daemon,
    of_kernel,
    of_listeners,
    of_processes,
    of_self_tests,
    of_tcp,
    of_udp,
    of_udpecho_config,
)
from echod.metrics.model import Histogram, Metric
from echod.net.listener import parse_listener
from echod.stats.snapshot import LastReload, Snapshot, TcpTraffic, UdpEchoConfig, UdpTraffic

UDP, TCP = BUSY.udp[0], BUSY.tcp[0]
UDP_LABELS, TCP_LABELS = ("udp://0.0.0.0:7", "ipv4"), ("tcp://0.0.0.0:7", "ipv4")


def snapshot(reload: LastReload = LastReload(), config_read: float | None = 50.0) -> Snapshot:  # noqa: B008 - frozen
    """Make a snapshot of three workers, one of which is awaited."""
    return make_snapshot(started=40.0, generation=3, config_read=config_read, reload=reload, activity=BUSY)


def numbers(found: Iterable[Metric | Histogram]) -> dict[str, dict[tuple[str, ...], float]]:
    """Return the samples of counters and gauges by name."""
    return {one.name: dict(one.samples) for one in found if isinstance(one, Metric)}


def test_a_udp_listener_is_reported_whole() -> None:
    """Each number has its name, with the listener and the family as labels."""
    reported = numbers(of_udp([UDP]))
    assert {name: samples[UDP_LABELS] for name, samples in reported.items() if UDP_LABELS in samples} == {
        "echod_udp_datagrams_received_total": 1_000_000,
        "echod_udp_datagrams_replied_total": 998_765,
        "echod_udp_datagrams_slipped_total": 3,
        "echod_udp_received_bytes_total": 64_000_000,
        "echod_udp_sent_bytes_total": 63_900_000,
        "echod_udp_kernel_drops_total": 77,
        "echod_udp_self_tests_total": 4,
        "echod_udp_datagrams_held": 0,
        "echod_udp_datagrams_duplicated_total": 0,
        "echod_udp_datagrams_reordered_total": 0,
        "echod_udp_datagrams_corrupted_total": 0,
    }


def test_received_is_replied_plus_dropped_plus_failed() -> None:
    """What a worker left behind when it died is among the dropped, so that the sum holds in a query too."""
    reported = numbers(of_udp([UDP]))
    dropped, failed = reported["echod_udp_datagrams_dropped_total"], reported["echod_udp_datagrams_send_failures_total"]
    assert dropped[*UDP_LABELS, "interrupted"] == 5
    assert 998_765 + sum(dropped.values()) + sum(failed.values()) == 1_000_000


def test_the_balance_of_an_impaired_listener_has_what_is_held() -> None:
    """And what impairment did to datagrams, which is in no sum."""
    reported, labels = numbers(of_udp(IN_MODES.udp)), ("udp://127.0.0.1:7072", "ipv4")
    names = ("held", "duplicated_total", "reordered_total", "corrupted_total", "received_total", "replied_total")
    found = [reported[f"echod_udp_datagrams_{name}"][labels] for name in names]
    assert found == [80, 11, 12, 1, 1000, 900]
    assert reported["echod_udp_datagrams_dropped_total"][*labels, "impaired"] == 20


def test_each_listener_tells_its_mode() -> None:
    """One series of each, whose value is always 1."""
    assert numbers([of_listeners((*BUSY.udp, *IN_MODES.udp, *IN_MODES.tcp))]) == {
        "echod_listener_info": {
            ("udp://0.0.0.0:7", "ipv4", "echo", "false"): 1,
            ("udp://[::]:7", "ipv6", "echo", "false"): 1,
            ("udp://0.0.0.0:7070", "ipv4", "udpecho_plus", "false"): 1,
            ("udp://127.0.0.1:7072", "ipv4", "echo", "true"): 1,
            ("udp://[::1]:9", "ipv6", "discard", "false"): 1,
            ("tcp://127.0.0.1:9", "ipv4", "discard", "false"): 1,
        }
    }


def test_the_counters_of_tr_143_are_those_of_listeners_that_have_them() -> None:
    """Times in seconds since 1970; there is none before the first packet, and nothing without such a listener."""
    assert list(of_udpecho_config(BUSY.udp)) == []
    fresh = UdpTraffic(name="new", family="ipv6", adopted=True, mode="udpecho_plus", udpecho_config=UdpEchoConfig())
    labels = ("udp://0.0.0.0:7070", "ipv4")
    assert numbers(of_udpecho_config((*IN_MODES.udp, fresh))) == {
        "echod_udpecho_packets_received_total": {labels: 1006, ("new", "ipv6"): 0},
        "echod_udpecho_packets_responded_total": {labels: 1005, ("new", "ipv6"): 0},
        "echod_udpecho_received_bytes_total": {labels: 72_432, ("new", "ipv6"): 0},
        "echod_udpecho_responded_bytes_total": {labels: 72_360, ("new", "ipv6"): 0},
        "echod_udpecho_first_packet_timestamp_seconds": {labels: 1_207_753_265.123456},
        "echod_udpecho_last_packet_timestamp_seconds": {labels: 1_207_753_325.0},
    }


def test_every_reason_has_its_series_from_the_start() -> None:
    """Also those that were never counted, at 0."""
    quiet = UdpTraffic(name="u", family="ipv4", adopted=False)
    reported = numbers([*of_udp([quiet]), *of_tcp([TcpTraffic(name="t", family="ipv4", adopted=False)])])
    assert reported["echod_udp_datagrams_dropped_total"] == {("u", "ipv4", reason): 0 for reason in DROP_REASONS}
    assert reported["echod_udp_datagrams_send_failures_total"] == {("u", "ipv4", name): 0 for name in ERRNOS}
    assert reported["echod_tcp_connections_closed_total"] == {("t", "ipv4", reason): 0 for reason in CLOSE_REASONS}
    assert (len(DROP_REASONS), len(ERRNOS), len(CLOSE_REASONS)) == (17, 10, 11)


def test_the_kernel_is_reported_by_family_and_port() -> None:
    """What it replied to, dropped and left to the sockets; where, of how many paths, and what it forgot."""
    reported = numbers(of_kernel(KERNEL))
    dropped = reported.pop("echod_kernel_datagrams_dropped_total")
    assert {labels: number for labels, number in dropped.items() if number} == {
        ("ipv4", "7", "access"): 900,
        ("ipv4", "7", "rate"): 100,
    }
    assert len(dropped) == 2 * 11
    assert reported == {
        "echod_kernel_datagrams_answered_total": {("ipv4", "7"): 8_999_000, ("ipv6", "7"): 0},
        "echod_kernel_datagrams_passed_total": {("ipv4", "7"): 40, ("ipv6", "7"): 0},
        "echod_kernel_datagrams_slipped_total": {("ipv4", "7"): 6, ("ipv6", "7"): 0},
        "echod_kernel_sent_bytes_total": {("ipv4", "7"): 575_936_000, ("ipv6", "7"): 0},
        "echod_kernel_paths": {(): 12},
        "echod_kernel_attached": {("eth0", "tcx"): 1, ("eth1", "tcx"): 0},
        "echod_kernel_flushes_total": {("link",): 1, ("route",): 2, ("rule",): 0},
    }


def test_sizes_are_histograms() -> None:
    """Buckets are cumulative up to all there were, and the sum is that of what was observed."""
    batches, trains = [one for one in of_udp([UDP]) if isinstance(one, Histogram)]
    ((labels, buckets, total),) = batches.samples
    assert (batches.name, labels) == ("echod_udp_batch_size", UDP_LABELS)
    bounds = ("1.0", "2.0", "4.0", "8.0", "16.0", "32.0", "64.0", "+Inf")
    assert buckets == list(zip(bounds, (20, 26, 26, 26, 26, 26, 27, 27), strict=True))
    assert total == 1_000_000 - 60 + 3
    ((_, buckets, total),) = trains.samples
    assert (trains.name, total) == ("echod_udp_train_length", 60)
    assert buckets == list(zip(bounds, (0, 1, 1, 1, 1, 1, 1, 3), strict=True))


def test_a_tcp_listener_is_reported_whole() -> None:
    """Connections by what became of them, and bytes both ways."""
    reported = numbers(of_tcp([TCP]))
    assert {name: samples[TCP_LABELS] for name, samples in reported.items() if TCP_LABELS in samples} == {
        "echod_tcp_connections_accepted_total": 12,
        "echod_tcp_connections": 2,
        "echod_tcp_accept_failures_total": 1,
        "echod_tcp_received_bytes_total": 2048,
        "echod_tcp_sent_bytes_total": 10,
    }
    assert reported["echod_tcp_connections_closed_total"][*TCP_LABELS, "finished"] == 9


def test_workers_are_reported_one_by_one() -> None:
    """How many live, who was replaced how often, and whose loop stands still."""
    reported = numbers(of_daemon(snapshot()))
    assert reported["echod_workers"] == {(): 2}
    assert reported["echod_generation"] == {(): 3}
    assert reported["echod_worker_restarts_total"] == {("1",): 0, ("2",): 1, ("3",): 2}
    assert reported["echod_worker_heartbeat_age_seconds"] == {("1",): 0, ("2",): 4, ("3",): 0}
    assert reported["echod_worker_connections"] == {("1",): 2, ("2",): 0, ("3",): 0}


def test_the_last_reload_is_reported_with_its_outcome_and_time() -> None:
    """Before the first one it is the start, at which the config was read too, or there was none to read."""
    for last, read, outcome in (
        (LastReload(), 50.0, (1.0, 50.0)),
        (LastReload(), None, (1.0, 40.0)),
        (LastReload(at=90.0, code=78, text="no"), 50.0, (0.0, 90.0)),
        (LastReload(at=95.0, code=0, text="yes"), 95.0, (1.0, 95.0)),
    ):
        reported = numbers(of_daemon(snapshot(last, read)))
        successful = reported["echod_config_last_reload_successful"][()]
        assert (successful, reported["echod_config_last_reload_timestamp_seconds"][()]) == outcome


def test_a_self_test_has_its_duration() -> None:
    """Each listener, whether it replied, and how long that took; without a reply, the timeout."""
    results = [
        Result(listener=parse_listener("udp://0.0.0.0:7").first, seconds=0.0004),
        Result(listener=parse_listener("tcp://0.0.0.0:7").first, seconds=None, problem="no reply within 1 s"),
    ]
    reported = numbers(of_self_tests(results, 1.5))
    assert reported["echod_self_test_successful"] == {UDP_LABELS: 1.0, TCP_LABELS: 0.0}
    assert reported["echod_self_test_duration_seconds"] == {UDP_LABELS: 0.0004, TCP_LABELS: 1.5}


def test_a_process_has_the_metrics_that_every_exporter_has() -> None:
    """Without the number of descriptors where that is not known."""
    usage = {"cpu_seconds": 2.5, "resident_bytes": 7.0, "virtual_bytes": 8.0, "started": 9.0}
    assert numbers(of_processes({"worker 1": usage, "exporter": {**usage, "open_descriptors": 3}})) == {
        "process_cpu_seconds_total": {("worker 1",): 2.5, ("exporter",): 2.5},
        "process_resident_memory_bytes": {("worker 1",): 7, ("exporter",): 7},
        "process_virtual_memory_bytes": {("worker 1",): 8, ("exporter",): 8},
        "process_open_fds": {("exporter",): 3},
        "process_start_time_seconds": {("worker 1",): 9.0, ("exporter",): 9.0},
    }


def test_the_build_is_a_gauge_of_one() -> None:
    """Its labels have the versions."""
    build = of_build("1.0", "3.11.2")
    assert (build.name, build.labels) == ("echod_build_info", ("version", "python"))
    assert list(build.samples) == [(("1.0", "3.11.2"), 1)]


def test_every_label_has_its_place_in_every_sample() -> None:
    """And each help is a sentence."""
    everything = [
        *of_udp([UDP]),
        *of_tcp([TCP]),
        *of_daemon(snapshot()),
        *of_processes({}),
        *of_self_tests([], 1.0),
        *of_kernel(KERNEL),
    ]
    for one in everything:
        if isinstance(one, Metric):
            assert all(len(labels) == len(one.labels) for labels, _ in one.samples)
        assert one.help.endswith(".")
