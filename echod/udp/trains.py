"""Which adjacent slots of a batch may go out as one message.

Owns the joining rule and nothing else. Invariant: the runs cover every slot to be answered, once and in order, so
joining changes neither what is answered nor the order of the answers to a peer.
"""

from collections.abc import Hashable, Sequence
from itertools import islice
from operator import eq
from typing import Final

from echod.linux.mmsg_layout import MAX_JOINED, MAX_PAYLOAD
from echod.net.peers import NAME_BYTES

WORTH_JOINING: Final = 2
"""Datagrams per message, on average. With fewer, joining costs more time here than it saves in the kernel."""


def find_runs(keys: Sequence[Hashable], lengths: Sequence[int], longest: int) -> list[range]:
    """Split slots into runs, each of which one message with UDP_SEGMENT can answer.

    Adjacent slots with equal `keys` are joined; a slot whose key is None is left out. Equal keys imply equal `lengths`,
    in bytes. Slots longer than `longest` are not joined.
    """
    # If the batch has only one peer, its keys are one object, and a quick count shows that all are equal.
    changes = []
    if keys and (keys[0] is not keys[-1] or keys.count(keys[0]) < len(keys)):
        changes = [slot for slot, same in enumerate(map(eq, keys, islice(keys, 1, None)), 1) if not same]
    found: list[range] = []
    first = 0
    for after in (*changes, len(keys)):
        if first < after and keys[first] is not None:
            room = _room(lengths[first], longest)
            found += [range(start, min(start + room, after)) for start in range(first, after, room)]
        first = after
    return found


def find_alike(names: bytes, length: int, longest: int) -> list[range]:
    """Do the same for slots of `length` bytes each, by their names alone, NAME_BYTES of each.

    With few peers, a few comparisons are enough. Returns no runs if joining does not pay.
    """
    found: list[range] = []
    first, slots, room = 0, len(names) // NAME_BYTES, _room(length, longest)
    while first < slots:
        after = first + _count_equal(names, first, slots - first)
        found += [range(start, min(start + room, after)) for start in range(first, after, room)]
        if len(found) * WORTH_JOINING > slots:
            return []
        first = after
    return found


def _count_equal(names: bytes, first: int, most: int) -> int:
    """Return how many of at most `most` names, from the first one on, are equal to it."""
    at = first * NAME_BYTES
    name = names[at : at + NAME_BYTES]
    if most == 1 or not names.startswith(name, at + NAME_BYTES):
        return 1
    if names.startswith(name * most, at):
        return most
    equal = 2
    while most - equal > 1:
        middle = (equal + most) // 2
        if names.startswith(name * middle, at):
            equal = middle
        else:
            most = middle
    return equal


def _room(length: int, longest: int) -> int:
    """Return how many datagrams of this length one message may join; empty datagrams cannot be in a train."""
    return max(1, min(MAX_JOINED, MAX_PAYLOAD // length)) if 0 < length <= longest else 1
