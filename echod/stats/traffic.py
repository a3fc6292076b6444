"""The row of counters of a listener, as its part of the snapshot.

Owns the mapping from the fields of a row to names. Invariant: no field of a row is left out; of each sum, the parts
that are not zero are listed.
"""

from collections.abc import Mapping, Sequence

from echod.net.listener import Listener
from echod.stats.counters import (
    CLOSED_FIELDS,
    DROP_FIELDS,
    SEND_FAILED_FIELDS,
    TCP_CLOSED,
    UDP_BATCHES,
    UDP_TRAINS,
    TcpField,
    UdpField,
)
from echod.stats.snapshot import Family, Rates, TcpTraffic, UdpTraffic


def describe_udp(
    listener: Listener, row: Sequence[int], *, adopted: bool, kernel_drops: int, rate: Rates
) -> UdpTraffic:
    """Describe a UDP listener: its row, and what was measured elsewhere."""
    return UdpTraffic(
        name=str(listener),
        family=_family(listener),
        adopted=adopted,
        received=row[UdpField.RECEIVED],
        received_bytes=row[UdpField.RECEIVED_BYTES],
        replied=row[UdpField.REPLIED],
        replied_bytes=row[UdpField.REPLIED_BYTES],
        dropped=_parts(row, DROP_FIELDS),
        send_failed=_parts(row, SEND_FAILED_FIELDS),
        interrupted=row[UdpField.INTERRUPTED],
        kernel_drops=kernel_drops,
        slipped=row[UdpField.SLIPPED],
        self_test=row[UdpField.SELF_TEST],
        batches=tuple(row[UDP_BATCHES]),
        trains=tuple(row[UDP_TRAINS]),
        train_datagrams=row[UdpField.TRAIN_DATAGRAMS],
        received_per_second=rate,
    )


def describe_tcp(
    listener: Listener, row: Sequence[int], *, adopted: bool, accepted: Rates, octets: Rates
) -> TcpTraffic:
    """Describe a TCP listener: its row, and the rates of accepted connections and received bytes."""
    return TcpTraffic(
        name=str(listener),
        family=_family(listener),
        adopted=adopted,
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
