"""The totals of all generations: nothing is lost when one ends, and nothing is believed of a broken worker."""

import pytest
from support.counter_pages import TCP, UDP, counter_page
from support.loopback import listener

from echod.net.listener import Listener
from echod.net.mode import ListenerOptions, Mode
from echod.stats.counters import ROW_FIELDS, CounterPage, TcpField, UdpField
from echod.stats.totals import Totals, read_traffic
from echod.stats.watch import PageWatch


def counted(listener: Listener, field: int, *counts: int) -> CounterPage:
    """Lay a page on which the first workers have counted so much in one field."""
    laid = counter_page(listener, slots=2)
    for slot, count in enumerate(counts):
        laid.row(slot, listener)[field] = count
    return laid


def test_past_and_living_generations_are_added_up() -> None:
    """By listener, over all slots; a page that was taken over counts as before."""
    totals = Totals()
    past, living = counted(UDP, UdpField.RECEIVED, 3, 4), counted(UDP, UdpField.RECEIVED, 10)
    tcp = counted(TCP, TcpField.ACCEPTED, 2)
    for _ in range(2):
        assert totals.row(UDP, [past, living])[UdpField.RECEIVED] == 17
        assert totals.datagrams([past, living, tcp]) == 17
    totals.take_over(past)
    totals.take_over(tcp)
    assert totals.row(UDP, [living])[UdpField.RECEIVED] == 17
    assert totals.datagrams([living]) == 17
    rows = totals.rows([living])
    assert (rows[UDP][UdpField.RECEIVED], rows[TCP][TcpField.ACCEPTED]) == (17, 2)
    rows[UDP][UdpField.RECEIVED] = 99
    assert totals.rows([living])[UDP][UdpField.RECEIVED] == 17
    assert sum(totals.row(listener(port=9), [living])) == 0


def test_times_are_not_added_up() -> None:
    """The first of all slots and generations is the least that is not zero, the last is the greatest."""
    past, living, totals = counter_page(UDP, slots=2), counter_page(UDP, slots=2), Totals()
    for row, times in ((past.row(1, UDP), (1000, 1500)), (living.row(0, UDP), (1200, 1300))):
        row[UdpField.FIRST_AT], row[UdpField.LAST_AT] = times
    for pages in ([past, living], [living]):
        total = totals.row(UDP, pages)
        assert (total[UdpField.FIRST_AT], total[UdpField.LAST_AT]) == (1000, 1500)
        totals.take_over(past)
    living.row(1, UDP)[UdpField.LAST_AT] = 1700
    assert totals.row(UDP, [living])[UdpField.LAST_AT] == 1700
    assert totals.rows([living])[UDP][UdpField.FIRST_AT] == 1000


def test_what_is_held_goes_with_the_workers_that_hold_it() -> None:
    """It is the sum of the living; a worker that died leaves none, but interrupted ones."""
    past, living, totals = counter_page(UDP, slots=2), counter_page(UDP, slots=2), Totals()
    for row in (past.row(0, UDP), living.row(0, UDP), living.row(1, UDP)):
        row[UdpField.RECEIVED], row[UdpField.REPLIED], row[UdpField.HELD] = 9, 2, 7
    assert totals.row(UDP, [past, living])[UdpField.HELD] == 21
    for slot in range(2):
        past.settle(slot)
    totals.take_over(past)
    total = totals.row(UDP, [living])
    assert (total[UdpField.HELD], total[UdpField.INTERRUPTED]) == (14, 7)
    assert (
        total[UdpField.RECEIVED] == total[UdpField.REPLIED] + total[UdpField.HELD] + total[UdpField.INTERRUPTED] == 27
    )


def test_rows_of_different_lengths_are_never_added() -> None:
    """A row of another layout is a defect that must show, not a number that is lost in silence."""
    totals = Totals()
    totals._gone[UDP] = [0] * (ROW_FIELDS - 1)
    with pytest.raises(ValueError, match="longer"):
        totals.row(UDP, [counter_page(UDP)])


def test_the_sums_have_tcp_only_where_a_tcp_listener_was_served() -> None:
    """Drops and failures of every reason are one number each; the kernel's drops are asked of each listener."""
    totals, laid = Totals(), counter_page(UDP, slots=2)
    row = laid.row(0, UDP)
    row[UdpField.RECEIVED], row[UdpField.REPLIED], row[UdpField.DROPPED + 1], row[UdpField.DROPPED + 2] = 9, 4, 2, 1
    row[UdpField.SEND_FAILED + 1] = 2
    udp = {"datagrams_received": 9, "datagrams_replied": 4, "datagrams_dropped": 3, "send_failures": 2}
    assert totals.sums([laid], {UDP: 5}.__getitem__) == udp | {"kernel_drops": 5}
    tcp = counter_page(TCP, slots=2)
    tcp.row(1, TCP)[TcpField.ACCEPTED], tcp.row(1, TCP)[TcpField.SENT_BYTES] = 3, 100
    sums = totals.sums([laid, tcp], {UDP: 5, TCP: 0}.__getitem__)
    assert sums == udp | {"kernel_drops": 5, "connections": 3, "tcp_bytes": 100}


def test_the_traffic_of_all_listeners_is_read_without_rates() -> None:
    """Each has its counters, whether it was passed, and the drops of the kernel that were given."""
    laid = counter_page(UDP, TCP, slots=2)
    laid.row(0, UDP)[UdpField.RECEIVED] = laid.row(0, UDP)[UdpField.REPLIED] = 3
    laid.row(1, TCP)[TcpField.ACCEPTED] = 2
    options = {TCP: ListenerOptions(mode=Mode.DISCARD)}
    ((udp,), (tcp,)) = read_traffic(Totals(), [PageWatch(laid)], {TCP}, {UDP: 8}, options)
    assert (udp.mode, tcp.mode) == ("echo", "discard")
    assert (udp.received, udp.kernel_drops, udp.adopted, udp.received_per_second.last_1s) == (3, 8, False, 0.0)
    assert (tcp.accepted, tcp.adopted, tcp.accepted_per_second.last_1s) == (2, True, 0.0)


def test_what_a_broken_worker_writes_is_not_read() -> None:
    """The last good numbers stay, until a worker that is well counts on from there."""
    laid = counter_page(UDP, slots=2)
    row, totals, watches = laid.row(0, UDP), Totals(), [PageWatch(laid)]

    def replied() -> int:
        return read_traffic(totals, watches, (), {UDP: 0}, {})[0][0].replied

    row[UdpField.RECEIVED] = row[UdpField.REPLIED] = 9
    assert replied() == 9
    for scribbled in (0, 2**64 - 1, 10):
        row[UdpField.REPLIED] = scribbled
        assert replied() == 9
    row[UdpField.RECEIVED] = row[UdpField.REPLIED] = 12
    assert replied() == 12
