"""echod.stats.counters: the numbers on the shared page, where they lie and that they add up."""

import errno
import mmap
from collections.abc import Mapping
from enum import IntEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.counter_pages import TCP, UDP, counter_page, listeners, summed

from echod.net.listener import Listener
from echod.stats.counters import (
    HEADER_FIELDS,
    ROW_BYTES,
    ROW_FIELDS,
    UDP_BATCHES,
    UDP_DROPS,
    UDP_SEND_FAILURES,
    UDP_TRAINS,
    CounterPage,
    SlotField,
    TcpField,
    UdpField,
    Unfinished,
    describe,
    send_failed_field,
    train_field,
)
from echod.stats.outcomes import SEND_ERRORS, Close, Drop

CACHE_LINE = 64
PAGES = st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(0, 40))
NUMBERS = st.integers(0, 2**40)


def as_words(numbers: Mapping[str, int]) -> list[str]:
    """Write each number behind its name, in order."""
    return [f"{name}={number}" for name, number in numbers.items()]


def printed(row: memoryview) -> int:
    """Add up, number by number as they are documented, what a UDP row says became of datagrams."""
    drops = sum(row[UdpField.DROPPED + drop] for drop in Drop)
    failures = sum(row[send_failed_field(error)] for error in (*SEND_ERRORS, errno.EIO))
    return row[UdpField.REPLIED] + drops + failures + row[UdpField.INTERRUPTED]


def closed(row: memoryview) -> int:
    """Add up, reason by reason, the ends that a TCP row counts."""
    return sum(row[TcpField.CLOSED + reason] for reason in Close)


# -- fixed numbers


@pytest.mark.parametrize(
    ("fields", "numbers"),
    [
        (SlotField, "HEARTBEAT=0 CONNECTIONS=1 PLACES=2"),
        (
            UdpField,
            """RECEIVED=0 RECEIVED_BYTES=1 REPLIED=2 REPLIED_BYTES=3 INTERRUPTED=4 SLIPPED=5 SELF_TEST=6
            TRAIN_DATAGRAMS=7 DROPPED=8 SEND_FAILED=28 BATCHES=40 TRAINS=48 HELD=56
            DUPLICATED=57 REORDERED=58 CORRUPTED=59 FIRST_AT=60 LAST_AT=61 FAILED_BYTES=62""",
        ),
        (TcpField, "ACCEPTED=0 RECEIVED_BYTES=1 SENT_BYTES=2 ACCEPT_FAILED=3 CLOSED=8"),
    ],
)
def test_the_numbers_of_the_fields_are_fixed(fields: type[IntEnum], numbers: str) -> None:
    """Later readers index the page by these numbers, so none may ever move."""
    assert as_words({field.name: field.value for field in fields}) == numbers.split()


def test_no_two_numbers_of_a_row_share_a_place() -> None:
    """Fields, drops, send failures and ends each have a place of their own within the row."""
    plain = [field for field in UdpField if field < UdpField.DROPPED]
    failures = [send_failed_field(error) for error in (*SEND_ERRORS, errno.EIO)]
    places = list(range(ROW_FIELDS))
    histograms = [*places[UDP_BATCHES], *places[UDP_TRAINS]]
    udp = [*plain, *(UdpField.DROPPED + drop for drop in Drop), *failures, *histograms]
    tcp = [*(field for field in TcpField if field is not TcpField.CLOSED), *(TcpField.CLOSED + end for end in Close)]
    for places in (udp, tcp):
        assert len(set(places)) == len(places)
        assert all(0 <= place < ROW_FIELDS for place in places)
    assert all(field < HEADER_FIELDS for field in SlotField)


def test_the_parts_of_a_row_are_all_of_their_kind() -> None:
    """Who sums up a part has every number of that kind in it, and no other."""
    places = list(range(ROW_FIELDS))
    assert set(places[UDP_DROPS]) >= {UdpField.DROPPED + drop for drop in Drop}
    assert places[UDP_SEND_FAILURES] == [send_failed_field(error) for error in (*SEND_ERRORS, errno.EIO)]
    assert {send_failed_field(error) for error in errno.errorcode.keys() - SEND_ERRORS.keys()} == {37}
    assert (len(places[UDP_BATCHES]), len(places[UDP_TRAINS])) == (7, 8)


@pytest.mark.parametrize(
    ("datagrams", "place"), [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (8, 3), (33, 6), (64, 6), (65, 7), (10**6, 7)]
)
def test_a_train_has_the_place_of_its_length(datagrams: int, place: int) -> None:
    """Up to 1, 2, 4, ... 64 datagrams, and all that is longer."""
    assert train_field(datagrams) == UdpField.TRAINS + place


# -- layout


@given(shape=PAGES)
def test_parts_of_the_page_never_overlap_nor_share_a_cache_line(shape: tuple[int, int, int]) -> None:
    """Each header, row and ledger fills cache lines of its own, and together they are the whole page.

    A header has 8 numbers, a row 64, and a ledger at least its places and less than a cache line more.
    """
    slots, count, places = shape
    served = listeners(count)
    memory = mmap.mmap(-1, CounterPage.size(slots=slots, listeners=count, places=places))
    laid = CounterPage(memoryview(memory), slots=slots, listeners=served, places=places)
    parts = []
    for slot in range(slots):
        header, *rows, ledger = laid.header(slot), *(laid.row(slot, each) for each in served), laid.ledger(slot)
        assert len(header) == HEADER_FIELDS == 8
        assert {len(row) for row in rows} == {ROW_FIELDS} == {64}
        assert places <= len(ledger) < places + CACHE_LINE // 8
        parts += [header, *rows, ledger]
    for mark, part in enumerate(parts, start=1):
        assert not any(part)  # nobody was here before
        for index in range(len(part)):
            part[index] = mark
    numbers = memoryview(memory).cast("Q").tolist()
    lines = [numbers[start : start + CACHE_LINE // 8] for start in range(0, len(numbers), CACHE_LINE // 8)]
    assert all(line == [line[0]] * (CACHE_LINE // 8) for line in lines)
    assert {line[0] for line in lines} == {mark for mark, part in enumerate(parts, start=1) if len(part)}


def test_two_pages_over_one_memory_show_each_other_their_numbers() -> None:
    """The page keeps nothing to itself: what a worker writes the supervisor reads, in eight bytes, aligned."""
    memory = memoryview(mmap.mmap(-1, CounterPage.size(slots=2, listeners=2, places=3)))
    ours, theirs = (CounterPage(memory, slots=2, listeners=[UDP, TCP], places=3) for _ in range(2))
    theirs.header(1)[SlotField.HEARTBEAT] = 1
    theirs.row(1, TCP)[TcpField.SENT_BYTES] = 2**64 - 1
    theirs.ledger(1)[2] = 3
    assert ours.header(1)[SlotField.HEARTBEAT] == 1
    assert ours.row(1, TCP)[TcpField.SENT_BYTES] == 2**64 - 1
    assert ours.ledger(1)[2] == 3
    assert ours.header(1).itemsize == ours.row(1, UDP).itemsize == ours.ledger(1).itemsize == 8
    assert sorted(memory.cast("Q"))[-4:] == [0, 1, 3, 2**64 - 1]


# -- sums


@given(
    drops=st.fixed_dictionaries(dict.fromkeys(Drop, NUMBERS)),
    failures=st.dictionaries(st.sampled_from((*SEND_ERRORS, errno.EIO)), NUMBERS),
    replied=NUMBERS,
    interrupted=NUMBERS,
    unsaid=NUMBERS,
)
def test_after_settling_every_datagram_received_stands_in_one_number(
    drops: dict[Drop, int],
    failures: dict[int, int],
    replied: int,
    interrupted: int,
    unsaid: int,
) -> None:
    """Received = replied + drops + failures + interrupted, and only what was left unsaid became interrupted."""
    laid = counter_page(UDP)
    row = laid.row(0, UDP)
    row[UdpField.REPLIED], row[UdpField.INTERRUPTED] = replied, interrupted
    for drop, number in drops.items():
        row[UdpField.DROPPED + drop] = number
    for error, number in failures.items():
        row[send_failed_field(error)] = number
    row[UdpField.RECEIVED] = printed(row) + unsaid
    row[UdpField.RECEIVED_BYTES] = row[UdpField.REPLIED_BYTES] = 1
    # None of these is an end.
    row[UdpField.SLIPPED] = row[UdpField.SELF_TEST] = row[UdpField.BATCHES] = row[UdpField.TRAINS] = 7
    before = row.tolist()
    laid.settle(0)
    assert row[UdpField.RECEIVED] == printed(row)
    assert row[UdpField.INTERRUPTED] == interrupted + unsaid
    before[UdpField.INTERRUPTED] += unsaid
    assert row.tolist() == before


@given(ends=st.fixed_dictionaries(dict.fromkeys(Close, NUMBERS)), open_ones=NUMBERS)
def test_after_settling_every_connection_has_ended(ends: dict[Close, int], open_ones: int) -> None:
    """Connections open when their worker died are closed_interrupted; those that had ended stay as they were."""
    laid = counter_page(TCP)
    row = laid.row(0, TCP)
    for reason, number in ends.items():
        row[TcpField.CLOSED + reason] = number
    row[TcpField.ACCEPTED] = closed(row) + open_ones
    row[TcpField.RECEIVED_BYTES], row[TcpField.SENT_BYTES], row[TcpField.ACCEPT_FAILED] = 5, 4, 3
    before = row.tolist()
    laid.settle(0)
    assert row[TcpField.ACCEPTED] == closed(row)
    before[TcpField.CLOSED + Close.INTERRUPTED] += open_ones
    assert row.tolist() == before


def test_settling_one_worker_leaves_the_others_alone() -> None:
    """What the living have not counted yet they will count themselves."""
    laid = counter_page(UDP, TCP, slots=3, places=2)
    for slot in range(3):
        laid.header(slot)[SlotField.CONNECTIONS] = 1
        laid.row(slot, UDP)[UdpField.RECEIVED] = laid.row(slot, TCP)[TcpField.ACCEPTED] = 5
    laid.settle(1)
    assert [laid.row(slot, UDP)[UdpField.INTERRUPTED] for slot in range(3)] == [0, 5, 0]
    assert [laid.row(slot, TCP)[TcpField.CLOSED + Close.INTERRUPTED] for slot in range(3)] == [0, 5, 0]
    assert [laid.header(slot)[SlotField.CONNECTIONS] for slot in range(3)] == [1, 0, 1]


# -- a worker that died with a batch in hand


@pytest.mark.parametrize(("counted", "found"), [(100, 9), (91, 0), (109, 0)])
def test_what_was_received_and_not_counted_becomes_interrupted(counted: int, found: int) -> None:
    """Once: only if the row still has the numbers from before that receive."""
    laid = counter_page(TCP, UDP, slots=2)
    row = laid.row(1, UDP)
    row[UdpField.RECEIVED], row[UdpField.RECEIVED_BYTES], row[UdpField.REPLIED] = 100, 1000, 98
    laid.settle(1, Unfinished(row=1, counted=counted, datagrams=9, octets=90))
    assert row[UdpField.RECEIVED] == 100 + found
    assert row[UdpField.RECEIVED_BYTES] == 1000 + 10 * found
    assert row[UdpField.INTERRUPTED] == 2 + found
    laid.settle(1, Unfinished(row=1, counted=counted, datagrams=9, octets=90))
    assert row[UdpField.RECEIVED] == 100 + found


@pytest.mark.parametrize("row", [0, 2, 2**64 - 1])
def test_a_note_of_no_udp_listener_is_not_believed(row: int) -> None:
    """A broken worker may have noted anything."""
    laid = counter_page(TCP, UDP)
    laid.settle(0, Unfinished(row=row, counted=0, datagrams=9, octets=90))
    assert not any(map(sum, summed(laid).values()))


# -- what can be believed


def test_numbers_that_add_up_are_plausible() -> None:
    """Also while a worker has received what it has not answered yet, and holds connections."""
    laid = counter_page(UDP, TCP, slots=2, places=4)
    laid.row(1, UDP)[UdpField.RECEIVED], laid.row(1, UDP)[UdpField.REPLIED] = 9, 4
    laid.row(1, TCP)[TcpField.ACCEPTED], laid.row(1, TCP)[TcpField.CLOSED + Close.IDLE] = 3, 3
    laid.header(1)[SlotField.CONNECTIONS], laid.header(1)[SlotField.PLACES] = 2, 4
    assert all(laid.has_plausible_rows(slot, laid.listeners) and laid.has_plausible_header(slot) for slot in range(2))


@pytest.mark.parametrize(
    ("listener", "place", "number"),
    [
        (UDP, UdpField.REPLIED, 10),
        (UDP, UdpField.INTERRUPTED, 10),
        (UDP, UdpField.DROPPED + Drop.RATE, 10),
        (UDP, UdpField.SEND_FAILED, 10),
        (UDP, UdpField.RECEIVED, 2**63),
        (UDP, UdpField.RECEIVED_BYTES, 2**64 - 1),
        (UDP, UdpField.TRAINS, 2**64 - 1),
        (TCP, TcpField.CLOSED + Close.RESET, 10),
        (TCP, TcpField.SENT_BYTES, 2**64 - 1),
    ],
)
def test_numbers_that_cannot_be_true_are_found(listener: Listener, place: int, number: int) -> None:
    """More ends than there were beginnings, and counts that nobody lives to count; in one slot and one row."""
    laid = counter_page(UDP, TCP, slots=2)
    for slot in range(2):
        laid.row(slot, UDP)[UdpField.RECEIVED] = laid.row(slot, TCP)[TcpField.ACCEPTED] = 9
    laid.row(1, listener)[place] = number
    other = TCP if listener is UDP else UDP
    assert not laid.has_plausible_rows(1, laid.listeners)
    assert laid.has_plausible_rows(1, [other])
    assert laid.has_plausible_rows(0, laid.listeners)


@pytest.mark.parametrize(
    ("numbers", "plausible", "heartbeat"),
    [
        ((9, 2, 3), True, 9),
        ((0, 1, 0), False, 0),
        ((0, 3, 2), False, 0),
        ((0, 0, 2**64 - 1), False, 0),
        ((0, 2**64 - 1, 2**64 - 1), False, 0),
        ((2**64 - 1, 0, 0), False, 0),
    ],
)
def test_a_header_that_cannot_be_is_found_and_every_header_is_settled(
    numbers: tuple[int, int, int], heartbeat: int, *, plausible: bool
) -> None:
    """More connections than places, more places than there are, turns that nobody makes: the next worker can count.

    Its places are free again; a heartbeat goes on from where it stood, so its next turn is seen as a change.
    """
    laid = counter_page(TCP, places=4)
    header = laid.header(0)
    for field, number in zip(SlotField, numbers, strict=True):
        header[field] = number
    assert laid.has_plausible_header(0) is plausible
    laid.settle(0)
    assert header.tolist()[:3] == [heartbeat, 0, 0]


def test_of_a_distrusted_worker_the_last_good_rows_are_read() -> None:
    """Until it is settled: then they are in the page, and what was under way is interrupted."""
    laid = counter_page(UDP, TCP, slots=2)
    for slot in range(2):
        laid.row(slot, UDP)[UdpField.RECEIVED], laid.row(slot, UDP)[UdpField.REPLIED] = 9, 4
        laid.row(slot, TCP)[TcpField.ACCEPTED] = 2
    good, totals = laid.rows(1), summed(laid)
    for listener in (UDP, TCP):
        for place in range(ROW_FIELDS):
            laid.row(1, listener)[place] = 2**64 - 1 - place
    assert list(laid.distrusted) == []
    laid.distrust(1, good)
    assert list(laid.distrusted) == [1]
    assert summed(laid) == totals
    assert laid.datagrams() == 18
    assert [share[UdpField.RECEIVED] for share in laid.shares(UDP)] == [9, 9]
    laid.trust(1)
    assert list(laid.distrusted) == []
    assert summed(laid) != totals
    laid.distrust(1, good)
    laid.settle(1, Unfinished(row=0, counted=9, datagrams=5, octets=5))
    assert list(laid.distrusted) == []
    assert summed(laid)[UDP][UdpField.RECEIVED] == 18
    assert laid.row(1, UDP)[UdpField.INTERRUPTED] == 5
    assert laid.row(1, TCP)[TcpField.CLOSED + Close.INTERRUPTED] == 2


@given(slots=st.integers(1, 4), numbers=st.data())
def test_totals_are_the_sums_over_the_slots(slots: int, numbers: st.DataObject) -> None:
    """Each number of each listener is added up over all workers, and over nothing else; of times, two are kept."""
    laid = counter_page(UDP, TCP, slots=slots, places=2)
    rows = st.lists(NUMBERS, min_size=ROW_FIELDS, max_size=ROW_FIELDS)
    written = {(slot, listener): numbers.draw(rows) for slot in range(slots) for listener in (UDP, TCP)}
    for (slot, listener), row in written.items():
        for index, number in enumerate(row):
            laid.row(slot, listener)[index] = number
    for slot in range(slots):
        laid.header(slot)[SlotField.HEARTBEAT] = laid.ledger(slot)[0] = 77
    columns = {
        listener: list(zip(*(written[slot, listener] for slot in range(slots)), strict=True)) for listener in (UDP, TCP)
    }
    totals = {listener: [sum(column) for column in found] for listener, found in columns.items()}
    totals[UDP][60] = min((time for time in columns[UDP][60] if time), default=0)
    totals[UDP][61] = max(columns[UDP][61])
    assert summed(laid) == totals


def test_the_shares_of_a_listener_are_its_rows_in_all_slots() -> None:
    """They sum up to its total; a listener that is not on the page has none."""
    laid = counter_page(UDP, TCP, slots=2)
    for slot in range(2):
        laid.row(slot, UDP)[3] = laid.row(slot, TCP)[4] = slot + 1
    for listener in (UDP, TCP):
        assert list(map(sum, zip(*laid.shares(listener), strict=True))) == summed(laid)[listener]
    assert laid.shares(listeners(3)[2]) == []


def test_the_rows_of_a_slot_are_copied_as_they_are() -> None:
    """All listeners' numbers of one worker, in order, and nobody else's; later changes are not in the copy."""
    laid = counter_page(UDP, TCP, slots=2, places=3)
    laid.row(1, UDP)[0], laid.row(1, TCP)[1], laid.row(0, UDP)[0], laid.ledger(1)[0] = 5, 6, 7, 8
    copy = laid.rows(1)
    laid.row(1, UDP)[0] = 9
    numbers = memoryview(copy).cast("Q").tolist()
    assert len(copy) == 2 * ROW_BYTES
    assert (numbers[0], numbers[ROW_FIELDS + 1], sum(numbers)) == (5, 6, 11)


# -- names


@pytest.mark.parametrize(
    ("listener", "idle", "names"),
    [
        (
            UDP,
            "received=0 received_bytes=0 replied=0 replied_bytes=0",
            """received=100 received_bytes=101 replied=102 replied_bytes=103
            dropped_destination_not_unicast=109 dropped_source_port_zero=110 dropped_source_port_own=111
            dropped_source_port_low=112 dropped_source_port_refused=113 dropped_source_invalid=114
            dropped_source_is_self=115 dropped_access=116 dropped_truncated=117 dropped_rate=118 dropped_loop=119
            dropped_malformed=120 dropped_unauthenticated=121 dropped_discarded=122 dropped_impaired=123
            dropped_impair_queue=124
            send_failed_eagain=128 send_failed_einval=129 send_failed_eacces=130 send_failed_eperm=131
            send_failed_enetunreach=132 send_failed_ehostunreach=133 send_failed_emsgsize=134
            send_failed_enobufs=135 send_failed_enodev=136 send_failed_other=137
            interrupted=104 slipped=105 self_test=106 held=156 duplicated=157 reordered=158 corrupted=159""",
        ),
        (
            TCP,
            "accepted=0 received_bytes=0 sent_bytes=0",
            """accepted=100 received_bytes=101 sent_bytes=102
            closed_finished=109 closed_reset=110 closed_idle=111 closed_stalled=112 closed_drained=113
            closed_over_limit=114 closed_over_source_limit=115 closed_interrupted=116 closed_access=117
            closed_no_means=118 closed_self_test=119 accept_failed=103""",
        ),
    ],
)
def test_every_number_of_a_row_has_its_name(listener: Listener, idle: str, names: str) -> None:
    """With its index in every place, the row names each number by its own place, in a fixed order.

    The main numbers are there even at zero; drops, failures and ends that never happened are not.
    """
    assert as_words(describe(listener, range(100, 100 + ROW_FIELDS))) == names.split()
    assert as_words(describe(listener, [0] * ROW_FIELDS)) == idle.split()
