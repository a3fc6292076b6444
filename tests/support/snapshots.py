"""Snapshots for tests: of this process, with a plain config; and the activity of a busy echod."""

import os
from dataclasses import replace
from typing import Any

from echod.stats.snapshot import (
    Activity,
    Kernel,
    KernelInterface,
    KernelTraffic,
    Rates,
    Refused,
    Snapshot,
    TcpTraffic,
    TopSource,
    UdpEchoConfig,
    UdpTraffic,
    WorkerState,
)
from echod.status.instances import birth

BUSY = Activity(
    udp=(
        UdpTraffic(
            name="udp://0.0.0.0:7",
            family="ipv4",
            adopted=False,
            received=1_000_000,
            received_bytes=64_000_000,
            replied=998_765,
            replied_bytes=63_900_000,
            dropped={"source_port_low": 1200, "rate": 12},
            send_failed={"EAGAIN": 18},
            interrupted=5,
            kernel_drops=77,
            slipped=3,
            self_test=4,
            batches=(20, 6, 0, 0, 0, 0, 1),
            trains=(0, 1, 0, 0, 0, 0, 0, 2),
            train_datagrams=60,
            received_per_second=Rates(1234.5, 12.3, 0.25),
        ),
        UdpTraffic(name="udp://[::]:7", family="ipv6", adopted=True),
    ),
    tcp=(
        TcpTraffic(
            name="tcp://0.0.0.0:7",
            family="ipv4",
            adopted=False,
            accepted=12,
            open=2,
            closed={"finished": 9, "access": 1},
            accept_failed=1,
            received_bytes=2048,
            sent_bytes=10,
            accepted_per_second=Rates(1.0, 0.5, 0.2),
        ),
    ),
    workers=(
        WorkerState(worker=1, pid=4242, cpu_seconds=1234.5, heartbeat_age_seconds=0, restarts=0, connections=2),
        WorkerState(worker=2, pid=4243, cpu_seconds=0.01, heartbeat_age_seconds=4, restarts=1, connections=0),
        WorkerState(worker=3, pid=None, cpu_seconds=0, heartbeat_age_seconds=0, restarts=2, connections=0),
    ),
    worker_restarts=3,
    top_sources=(TopSource(source="192.0.2.1", count=60_000), TopSource(source="2001:db8::/64", count=7)),
    refused=(Refused(source="192.0.2.9", protocol="udp", reason="source_port_low", count=1200),),
)
"""All that there can be: of UDP, received is replied, dropped, failed and interrupted together."""

IN_MODES = Activity(
    udp=(
        UdpTraffic(
            name="udp://0.0.0.0:7070",
            family="ipv4",
            adopted=False,
            mode="udpecho_plus",
            received=1010,
            replied=1008,
            dropped={"access": 1},
            send_failed={"EAGAIN": 1},
            self_test=3,
            udpecho_config=UdpEchoConfig(
                packets_received=1006,
                packets_responded=1005,
                bytes_received=72_432,
                bytes_responded=72_360,
                first_received="2008-04-09T15:01:05.123456",
                last_received="2008-04-09T15:02:05.000000",
            ),
        ),
        UdpTraffic(
            name="udp://127.0.0.1:7072",
            family="ipv4",
            adopted=False,
            impaired=True,
            received=1000,
            replied=900,
            dropped={"impaired": 20},
            held=80,
            duplicated=11,
            reordered=12,
            corrupted=1,
        ),
        UdpTraffic(
            name="udp://[::1]:9", family="ipv6", adopted=True, mode="discard", received=5, dropped={"discarded": 5}
        ),
    ),
    tcp=(TcpTraffic(name="tcp://127.0.0.1:9", family="ipv4", adopted=False, mode="discard", accepted=1),),
)
"""Listeners that are no plain echoes; what is dropped by all but the first is dropped on purpose."""

KERNEL = Kernel(
    version="1.0",
    pid=4250,
    born=7,
    at=1.0,
    at_monotonic=1.0,
    started=1.0,
    config="/etc/echod.yaml",
    interfaces=(
        KernelInterface(name="eth0", ifindex=2, kind="ethernet"),
        KernelInterface(name="eth1", ifindex=0, kind=""),
    ),
    paths=12,
    flushes={"link": 1, "route": 2, "rule": 0},
    traffic=(
        KernelTraffic(
            family="ipv4",
            port=7,
            replied=8_999_000,
            replied_bytes=575_936_000,
            passed=40,
            slipped=6,
            dropped={"access": 900, "rate": 100},
        ),
        KernelTraffic(family="ipv6", port=7),
    ),
)
"""What the accelerator of the busy echod reports: 9,000,000 datagrams ended in the kernel."""


def make_snapshot(**changes: Any) -> Snapshot:  # noqa: ANN401 - as the fields are
    """Make a snapshot without traffic that differs in these fields."""
    pid = os.getpid()
    plain = Snapshot(
        version="1.0",
        pid=pid,
        born=birth(pid),
        at=1.0,
        at_monotonic=1.0,
        started=1.0,
        started_monotonic=1.0,
        generation=1,
        config="/etc/echod.yaml",
        config_read=None,
    )
    return replace(plain, **changes)
