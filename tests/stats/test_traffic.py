"""echod.stats.traffic: a row is reported whole, each number under its name."""

from dataclasses import asdict

from support.counter_pages import UDP
from support.loopback import listener

from echod.admission.selftest import SECRET_BYTES
from echod.net.listener import Protocol
from echod.net.mode import PLAIN, Impairment, ListenerOptions, Mode
from echod.stats.counters import ROW_FIELDS, TcpField, UdpField
from echod.stats.outcomes import Close, Drop
from echod.stats.snapshot import Rates, UdpEchoConfig, UdpTraffic
from echod.stats.traffic import describe_tcp, describe_udp

TCP = listener("::1", 7, Protocol.TCP)
RATES = Rates(1.0, 2.0, 3.0)


def test_every_number_of_a_udp_row_is_told_once() -> None:
    """With a different number in each place, each stands under its own name."""
    row = list(range(100, 100 + ROW_FIELDS))
    reported = describe_udp(UDP, PLAIN, row, adopted=True, kernel_drops=9, rate=RATES)
    assert asdict(reported) | {"dropped": 0, "send_failed": 0} == {
        "name": "udp://127.0.0.1:7",
        "family": "ipv4",
        "adopted": True,
        "mode": "echo",
        "impaired": False,
        "received": 100,
        "received_bytes": 101,
        "replied": 102,
        "replied_bytes": 103,
        "dropped": 0,
        "send_failed": 0,
        "interrupted": 104,
        "held": 156,
        "duplicated": 157,
        "reordered": 158,
        "corrupted": 159,
        "kernel_drops": 9,
        "slipped": 105,
        "self_test": 106,
        "batches": tuple(range(140, 147)),
        "trains": tuple(range(148, 156)),
        "train_datagrams": 107,
        "received_per_second": {"last_1s": 1.0, "last_10s": 2.0, "last_60s": 3.0},
        "udpecho_config": None,
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
    reported = describe_tcp(TCP, PLAIN, row, adopted=False, accepted=RATES, octets=Rates())
    assert (reported.name, reported.family, reported.adopted) == ("tcp://[::1]:7", "ipv6", False)
    assert (reported.mode, reported.impaired) == ("echo", False)
    assert (reported.accepted, reported.received_bytes, reported.sent_bytes, reported.accept_failed) == (1000, 3, 2, 4)
    assert reported.closed == {reason.name.lower(): reason for reason in Close}
    assert reported.open == 1000 - sum(Close)
    assert (reported.accepted_per_second, reported.bytes_per_second) == (RATES, Rates())


def test_what_never_happened_is_not_told() -> None:
    """A status file of a thousand listeners at rest stays small."""
    reported = describe_udp(UDP, PLAIN, [0] * ROW_FIELDS, adopted=False, kernel_drops=0, rate=Rates())
    assert (reported.dropped, reported.send_failed) == ({}, {})
    assert describe_tcp(TCP, PLAIN, [0] * ROW_FIELDS, adopted=False, accepted=Rates(), octets=Rates()).closed == {}


def of_mode(row: list[int], options: ListenerOptions) -> UdpTraffic:
    """Describe a listener with these options."""
    return describe_udp(UDP, options, row, adopted=False, kernel_drops=0, rate=Rates())


def test_the_mode_is_told_and_whether_there_is_impairment() -> None:
    """Over UDP and TCP."""
    impaired = ListenerOptions(impair=Impairment(delay=5))
    udp, tcp = of_mode([0] * ROW_FIELDS, ListenerOptions(mode=Mode.STAMP)), of_mode([0] * ROW_FIELDS, impaired)
    assert [(each.mode, each.impaired) for each in (udp, tcp)] == [("stamp", False), ("echo", True)]
    stream = describe_tcp(TCP, impaired, [0] * ROW_FIELDS, adopted=False, accepted=RATES, octets=RATES)
    assert (stream.mode, stream.impaired) == ("echo", True)


def test_udpecho_plus_is_counted_as_in_tr_143() -> None:
    """Packets that the rules admitted, 8 bytes of UDP header each, without self tests of 32 bytes; times in UTC."""
    assert SECRET_BYTES == 32
    options, row = ListenerOptions(mode=Mode.UDPECHO_PLUS), [0] * ROW_FIELDS
    assert of_mode(row, options).udpecho_config == UdpEchoConfig()
    row[UdpField.RECEIVED], row[UdpField.RECEIVED_BYTES] = 110, 9_999
    row[UdpField.REPLIED], row[UdpField.REPLIED_BYTES] = 103, 100 * 64 + 3 * 32
    row[UdpField.SELF_TEST], row[UdpField.DROPPED + Drop.ACCESS] = 3, 5
    row[UdpField.SEND_FAILED], row[UdpField.SEND_FAILED + 9], row[UdpField.FAILED_BYTES] = 1, 1, 128
    row[UdpField.FIRST_AT] = 1_207_753_265_123_456_789
    row[UdpField.LAST_AT] = 1_207_753_325_000_000_000
    assert of_mode(row, options).udpecho_config == UdpEchoConfig(
        packets_received=102,
        packets_responded=100,
        bytes_received=102 * 72,
        bytes_responded=100 * 72,
        first_received="2008-04-09T15:01:05.123456",
        last_received="2008-04-09T15:02:05.000000",
    )
