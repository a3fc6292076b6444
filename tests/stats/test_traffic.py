"""echod.stats.traffic: a row is reported whole, each number under its name."""

from dataclasses import asdict

from support.counter_pages import UDP
from support.loopback import listener

from echod.net.listener import Protocol
from echod.stats.counters import ROW_FIELDS, TcpField
from echod.stats.outcomes import Close, Drop
from echod.stats.snapshot import Rates
from echod.stats.traffic import describe_tcp, describe_udp

TCP = listener("::1", 7, Protocol.TCP)
RATES = Rates(1.0, 2.0, 3.0)


def test_every_number_of_a_udp_row_is_told_once() -> None:
    """With a different number in each place, each stands under its own name."""
    row = list(range(100, 100 + ROW_FIELDS))
    reported = describe_udp(UDP, row, adopted=True, kernel_drops=9, rate=RATES)
    assert asdict(reported) | {"dropped": 0, "send_failed": 0} == {
        "name": "udp://127.0.0.1:7",
        "family": "ipv4",
        "adopted": True,
        "received": 100,
        "received_bytes": 101,
        "replied": 102,
        "replied_bytes": 103,
        "dropped": 0,
        "send_failed": 0,
        "interrupted": 104,
        "kernel_drops": 9,
        "slipped": 105,
        "self_test": 106,
        "batches": tuple(range(140, 147)),
        "trains": tuple(range(148, 156)),
        "train_datagrams": 107,
        "received_per_second": {"last_1s": 1.0, "last_10s": 2.0, "last_60s": 3.0},
    }
    assert reported.dropped == {drop.name.lower(): 108 + drop for drop in Drop}
    names = ["EAGAIN", "EINVAL", "EACCES", "EPERM", "ENETUNREACH", "EHOSTUNREACH", "EMSGSIZE", "ENOBUFS", "ENODEV"]
    assert reported.send_failed == {name: 128 + index for index, name in enumerate([*names, "other"])}


def test_every_number_of_a_tcp_row_is_told_once() -> None:
    """What was accepted and has not ended is open."""
    row = [0] * ROW_FIELDS
    row[TcpField.ACCEPTED], row[TcpField.RECEIVED_BYTES], row[TcpField.SENT_BYTES] = 1000, 3, 2
    row[TcpField.ACCEPT_FAILED] = 4
    for reason in Close:
        row[TcpField.CLOSED + reason] = reason
    reported = describe_tcp(TCP, row, adopted=False, accepted=RATES, octets=Rates())
    assert (reported.name, reported.family, reported.adopted) == ("tcp://[::1]:7", "ipv6", False)
    assert (reported.accepted, reported.received_bytes, reported.sent_bytes, reported.accept_failed) == (1000, 3, 2, 4)
    assert reported.closed == {reason.name.lower(): reason for reason in Close}
    assert reported.open == 1000 - sum(Close)
    assert (reported.accepted_per_second, reported.bytes_per_second) == (RATES, Rates())


def test_what_never_happened_is_not_told() -> None:
    """A status file of a thousand listeners at rest stays small."""
    reported = describe_udp(UDP, [0] * ROW_FIELDS, adopted=False, kernel_drops=0, rate=Rates())
    assert (reported.dropped, reported.send_failed) == ({}, {})
    assert describe_tcp(TCP, [0] * ROW_FIELDS, adopted=False, accepted=Rates(), octets=Rates()).closed == {}
