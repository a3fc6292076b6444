"""echod.measurement.flood_ring: which probes of a flood are remembered, and which a damaged reply may belong to."""

import pytest

from echod.measurement.events import Moment
from echod.measurement.flood_ring import Ring
from echod.measurement.payload import MAX_CANDIDATES, Payloads

SIZE, TRAIN, KEPT = 32, 4, 2
IN_FLIGHT = 1


def filled(*walls: int, size: int = SIZE, train: int = TRAIN, kept: int = KEPT) -> Ring:
    """Return a ring with a train written at each of these times."""
    ring = Ring(Payloads(0xCAFE), size=size, train=train, kept=kept)
    for wall in walls:
        ring.write(wall, train)
        ring.sent(Moment(wall=wall + 1, clock=wall - 100), train, IN_FLIGHT)
    return ring


def test_a_train_is_remembered_until_as_many_more_are_written() -> None:
    """With its bytes, its states and its times; the third takes the place of the first."""
    ring = filled(1000, 2000)
    assert [ring.remembers(sequence) for sequence in (-1, 0, 7, 8)] == [False, True, True, False]
    assert ring.payload(1, 2) == Payloads(0xCAFE).encode(1, 1000, SIZE) + Payloads(0xCAFE).encode(2, 1000, SIZE)
    assert ring.time_sent(3) == Moment(wall=1001, clock=900)
    ring.set_states(2, b"\5\6")
    assert ring.states(0, 4) == b"\1\1\5\6"
    train = ring.write(3000, TRAIN)
    assert ring.states(0, 4) == bytes(4)
    ring.sent(Moment(wall=3001, clock=2900), TRAIN, IN_FLIGHT)
    assert (ring.oldest, ring.remembers(3), ring.remembers(11)) == (4, False, True)
    assert ring.payload(8, 4) == train
    assert (ring.time_sent(8).wall, ring.time_sent(4).wall) == (3001, 2001)


@pytest.mark.parametrize(("wall", "expected"), [(2000, range(4, 8)), (9999, range(1, 8))])
def test_the_send_time_of_a_damaged_reply_names_its_train(wall: int, expected: range) -> None:
    """If none was sent then, all from the oldest on are candidates."""
    ring = filled(1000, 2000)
    assert ring.candidates(Payloads(0xCAFE).encode(99, wall, SIZE), 1) == expected
    assert ring.candidates(Payloads(0xBEEF).encode(99, wall, SIZE), 1) == range(0)


def test_without_a_send_time_the_oldest_are_candidates() -> None:
    """Up to a bound, and none that is forgotten."""
    ring = filled(*range(1000, 1050), size=8, kept=40)
    assert ring.candidates(b"\xff" * 8, 3) == range(40, 40 + MAX_CANDIDATES)
    assert ring.candidates(b"\xff" * 8, 190) == range(190, 200)
