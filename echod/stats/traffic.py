"""The row of counters of a listener, as its part of the snapshot.

Owns the mapping from the fields of a row to names. Invariant: no field of a row is left out; of each sum, the parts
that are not zero are listed.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from echod.net.listener import Listener
from echod.net.mode import ListenerOptions, Mode
from echod.stats.counters import (
    CLOSED_FIELDS,
    DROP_FIELDS,
    SEND_FAILED_FIELDS,
    TCP_CLOSED,
    UDP_BATCHES,
    UDP_SEND_FAILURES,
    UDP_TRAINS,
    TcpField,
    UdpField,
)
from echod.stats.snapshot import Family, Rates, TcpTraffic, UdpEchoConfig, UdpTraffic

_UDP_HEADER_BYTES: Final = 8
_SELF_TEST_BYTES: Final = 32
"""The payload of a self test: `admission.selftest.SECRET_BYTES`."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def describe_udp(  # noqa: PLR0913 - what is known of a listener
    listener: Listener, options: ListenerOptions, row: Sequence[int], *, adopted: bool, kernel_drops: int, rate: Rates
) -> UdpTraffic:
    """Describe a UDP listener: its row, and what was measured elsewhere."""
    return UdpTraffic(
        name=str(listener),
        family=_family(listener),
        adopted=adopted,
        mode=options.mode.value,
        impaired=options.impair is not None,
        received=row[UdpField.RECEIVED],
        received_bytes=row[UdpField.RECEIVED_BYTES],
        replied=row[UdpField.REPLIED],
        replied_bytes=row[UdpField.REPLIED_BYTES],
        dropped=_parts(row, DROP_FIELDS),
        send_failed=_parts(row, SEND_FAILED_FIELDS),
        interrupted=row[UdpField.INTERRUPTED],
        held=row[UdpField.HELD],
        duplicated=row[UdpField.DUPLICATED],
        reordered=row[UdpField.REORDERED],
        corrupted=row[UdpField.CORRUPTED],
        kernel_drops=kernel_drops,
        slipped=row[UdpField.SLIPPED],
        self_test=row[UdpField.SELF_TEST],
        batches=tuple(row[UDP_BATCHES]),
        trains=tuple(row[UDP_TRAINS]),
        train_datagrams=row[UdpField.TRAIN_DATAGRAMS],
        received_per_second=rate,
        udpecho_config=_udpecho_config(row) if options.mode is Mode.UDPECHO_PLUS else None,
    )


def _udpecho_config(row: Sequence[int]) -> UdpEchoConfig:
    """Count as TR-143 does: what was admitted and is no self test. Those get a reply."""
    tests, failed = row[UdpField.SELF_TEST], sum(row[UDP_SEND_FAILURES])
    responded = row[UdpField.REPLIED] - tests
    octets = row[UdpField.REPLIED_BYTES] - tests * _SELF_TEST_BYTES + responded * _UDP_HEADER_BYTES
    return UdpEchoConfig(
        packets_received=responded + failed,
        packets_responded=responded,
        bytes_received=octets + row[UdpField.FAILED_BYTES] + failed * _UDP_HEADER_BYTES,
        bytes_responded=octets,
        first_received=_utc(row[UdpField.FIRST_AT]),
        last_received=_utc(row[UdpField.LAST_AT]),
    )


def _utc(nanoseconds: int) -> str:
    """Write a time since 1970 with microseconds; an empty text for zero."""
    moment = _EPOCH + timedelta(microseconds=nanoseconds // 1000)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f") if nanoseconds else ""


def describe_tcp(  # noqa: PLR0913 - as above
    listener: Listener, options: ListenerOptions, row: Sequence[int], *, adopted: bool, accepted: Rates, octets: Rates
) -> TcpTraffic:
    """Describe a TCP listener: its row, and the rates of accepted connections and received bytes."""
    return TcpTraffic(
        name=str(listener),
        family=_family(listener),
        adopted=adopted,
        mode=options.mode.value,
        impaired=options.impair is not None,
        accepted=row[TcpField.ACCEPTED],
        open=row[TcpField.ACCEPTED] - sum(row[TCP_CLOSED]),
        closed=_parts(row, CLOSED_FIELDS),
        accept_failed=row[TcpField.ACCEPT_FAILED],
        received_bytes=row[TcpField.RECEIVED_BYTES],
        sent_bytes=row[TcpField.SENT_BYTES],
        accepted_per_second=accepted,
        bytes_per_second=octets,
    )


def _family(listener: Listener) -> Family:
    return "ipv4" if listener.address.version == 4 else "ipv6"  # noqa: PLR2004


def _parts(row: Sequence[int], places: Mapping[str, int]) -> dict[str, int]:
    return {name: row[place] for name, place in places.items() if row[place]}
