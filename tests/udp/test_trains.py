"""echod.udp.trains: which neighbours go out as one message."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from echod.linux.mmsg_layout import MAX_JOINED, MAX_PAYLOAD
from echod.net.peers import NAME_BYTES
from echod.udp.trains import WORTH_JOINING, find_alike, find_runs

LENGTHS = st.sampled_from((0, 1, 2, 8, 1000, 1023, 1024, 1472, 9000, 32_753, 32_754, MAX_PAYLOAD))

Key = tuple[int, str] | None


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[Key], list[int]]:
    """Draw keys and lengths as a batch has them: stretches of one peer and one length, some slots refused."""
    keys: list[Key] = []
    lengths: list[int] = []
    for _ in range(draw(st.integers(0, 6))):
        length, peer, count = draw(LENGTHS), draw(st.sampled_from("ab")), draw(st.integers(1, 150))
        refused = draw(st.booleans()) and draw(st.booleans())
        keys += [None if refused else (length, peer)] * count
        lengths += [length] * count
    return keys, lengths


def joinable(run: Sequence[int], keys: list[Key], lengths: list[int], longest: int) -> bool:
    """Tell by the rule itself, not by its arithmetic, whether one message may answer these slots."""
    return (
        len({keys[slot] for slot in run}) == 1
        and len(run) <= MAX_JOINED
        and sum(lengths[slot] for slot in run) <= MAX_PAYLOAD
        and all(0 < lengths[slot] <= longest for slot in run)
    )


def test_the_limits_are_those_of_the_kernel() -> None:
    """UDP_MAX_SEGMENTS of the kernels with the smallest, and the IPv4 maximum: 65,535 - 20 - 8."""
    assert (MAX_JOINED, MAX_PAYLOAD) == (64, 65_507)


def test_a_batch_of_nothing_has_no_runs() -> None:
    """No slots, no messages."""
    assert find_runs([], [], MAX_PAYLOAD) == []


def test_neighbours_with_one_key_are_one_run() -> None:
    """Equal neighbours join; the same peer further on begins a run of its own, for order must stay."""
    assert find_runs(["a", "a", "b", "a", "a", "a"], [8] * 6, MAX_PAYLOAD) == [range(2), range(2, 3), range(3, 6)]


def test_a_refused_slot_is_left_out_and_parts_its_neighbours() -> None:
    """A slot without a key stands in no run, and no run reaches over it: a run is answered as it lies in memory."""
    assert find_runs(["a", None, "a", "a", None, None], [8] * 6, MAX_PAYLOAD) == [range(1), range(2, 4)]


def test_a_batch_of_refused_slots_has_no_runs() -> None:
    """Where nobody is answered nothing goes out, however many were refused."""
    assert find_runs([None] * 200, [8] * 200, MAX_PAYLOAD) == []


@pytest.mark.parametrize(
    ("length", "count", "sizes"),
    [
        (1, 130, [64, 64, 2]),  # the kernel's limit of segments
        (1023, 128, [64, 64]),  # 64 of 1,023 bytes are 65,472
        (1024, 128, [63, 63, 2]),  # 64 of 1,024 would be 65,536
        (1472, 90, [44, 44, 2]),
        (32_753, 3, [2, 1]),
        (32_754, 3, [1, 1, 1]),
        (MAX_PAYLOAD, 2, [1, 1]),
        (0, 3, [1, 1, 1]),  # an empty segment ends a train
    ],
)
def test_a_run_is_as_long_as_the_kernel_takes(length: int, count: int, sizes: list[int]) -> None:
    """At most 64 datagrams and 65,507 bytes; the rest goes on in the next run."""
    assert [len(run) for run in find_runs(["a"] * count, [length] * count, MAX_PAYLOAD)] == sizes


def test_what_is_longer_than_the_port_can_join_goes_alone() -> None:
    """A datagram of exactly `longest` bytes joins, one byte more does not, and with zero nothing does."""
    keys, lengths = ["a", "a", "b", "b"], [1000, 1000, 1001, 1001]
    assert find_runs(keys, lengths, 1000) == [range(2), range(2, 3), range(3, 4)]
    assert find_runs(keys, lengths, 0) == [range(slot, slot + 1) for slot in range(4)]


def test_a_datagram_beyond_the_payload_of_ipv4_still_goes_out() -> None:
    """IPv6 carries 20 bytes more than MAX_PAYLOAD: such a datagram is a run of its own and not lost."""
    assert find_runs(["a", "a"], [65_527, 65_527], 65_527) == [range(1), range(1, 2)]


@settings(deadline=None)
@given(batch=batches(), longest=st.sampled_from((0, 1, 1000, 1472, MAX_PAYLOAD)))
@example(batch=([(1, "a")] * 1024, [1] * 1024), longest=MAX_PAYLOAD)
def test_runs_cover_each_slot_to_answer_once_and_in_order(batch: tuple[list[Key], list[int]], longest: int) -> None:
    """Joining changes neither what is answered nor the order; every run of several is one that may be sent."""
    keys, lengths = batch
    found = find_runs(keys, lengths, longest)
    assert [slot for run in found for slot in run] == [slot for slot, key in enumerate(keys) if key is not None]
    assert all(run.step == 1 and len(run) >= 1 for run in found)
    assert all(len(run) == 1 or joinable(run, keys, lengths, longest) for run in found)


@settings(deadline=None)
@given(batch=batches(), longest=st.sampled_from((0, 1, 1000, 1472, MAX_PAYLOAD)))
def test_no_run_could_have_been_longer(batch: tuple[list[Key], list[int]], longest: int) -> None:
    """Each run takes all it may: not even the first slot of the run right behind it would have had room."""
    keys, lengths = batch
    for run, following in pairwise(find_runs(keys, lengths, longest)):
        if run.stop == following.start:
            assert not joinable(range(run.start, run.stop + 1), keys, lengths, longest)


# -- slots of one length, by their names alone


def named(order: str) -> bytes:
    """Lay out names as they lie in a batch, one for each letter."""
    return b"".join(letter.encode() * NAME_BYTES for letter in order)


def test_where_all_slots_are_of_one_peer_there_is_one_run() -> None:
    """Or as many as the kernel's limits ask for."""
    assert find_alike(named("a" * 64), 64, MAX_PAYLOAD) == [range(64)]
    assert find_alike(named("a" * 64), 1472, MAX_PAYLOAD) == [range(44), range(44, 64)]


@pytest.mark.parametrize("order", ["", "a", "ab", "abc", "aab", "abbaab"])
def test_where_joining_is_not_worth_it_there_are_no_runs(order: str) -> None:
    """More than one message for each two slots: then all of them go out as they are."""
    assert find_alike(named(order), 64, MAX_PAYLOAD) == []


def test_two_slots_a_message_are_worth_it() -> None:
    """On the average, whoever has them."""
    assert find_alike(named("aabb"), 64, MAX_PAYLOAD) == [range(2), range(2, 4)]
    assert find_alike(named("abbbcc"), 64, MAX_PAYLOAD) == [range(1), range(1, 4), range(4, 6)]


@st.composite
def orders(draw: st.DrawFn) -> list[bytes]:
    """Draw the names of a batch: stretches of few peers, whose names differ little."""
    names = [b"\0" * NAME_BYTES, b"\0" * (NAME_BYTES - 1) + b"\1", b"\1" + b"\0" * (NAME_BYTES - 1)]
    stretches = draw(st.lists(st.tuples(st.sampled_from(names), st.integers(1, 70)), max_size=8))
    return [name for name, count in stretches for _ in range(count)]


@settings(deadline=None)
@given(order=orders(), length=LENGTHS, longest=st.sampled_from((0, 1, 1000, 1472, MAX_PAYLOAD)))
@example(order=[bytes(NAME_BYTES)] * 64, length=0, longest=MAX_PAYLOAD)
@example(order=[bytes(NAME_BYTES)] * 64, length=8, longest=0)
@example(order=[bytes(NAME_BYTES)] * 4, length=32_753, longest=MAX_PAYLOAD)
@example(order=[bytes(NAME_BYTES)] * 5, length=32_753, longest=MAX_PAYLOAD)
def test_by_names_alone_the_runs_are_those_by_keys(order: list[bytes], length: int, longest: int) -> None:
    """The same runs, or, exactly where they come to more than one for two slots, none."""
    runs = find_runs(order, [length] * len(order), longest)
    worth_it = len(runs) * WORTH_JOINING <= len(order)
    assert find_alike(b"".join(order), length, longest) == (runs if worth_it else [])
