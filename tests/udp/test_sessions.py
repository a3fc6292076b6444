"""echod.udp.sessions: each client has its own counts, and a table of them is bounded."""

from echod.udp.sessions import MOST, WAIT_SECONDS, Session, Sessions, count_requests, count_train

A, B, C, D = b"a", b"b", b"c", b"d"


def numbers(sessions: Sessions, *keys: bytes, now: float = 0.0) -> list[int]:
    """Count one more request for each key, and return the counts."""
    return count_requests(sessions.find(keys, now))


def test_each_client_has_its_own_counts() -> None:
    """In the order of the keys; a client may be in it twice."""
    sessions = Sessions()
    assert numbers(sessions, A, B) == [1, 1]
    assert numbers(sessions, B) == [2]
    assert numbers(sessions, B, A, B) == [3, 2, 4]
    found = sessions.find([A, A], 0.0)
    assert found[0] is found[1]
    assert (found[0].received, found[0].failed) == (2, 0)


def test_a_new_client_is_one_session_however_often_it_is_asked_for() -> None:
    """Also within one batch."""
    first, second = Sessions().find([A, A], 0.0)
    assert first is second


def test_clients_that_are_idle_make_room() -> None:
    """Of four that are remembered at most, the one that is used goes on."""
    sessions = Sessions(most=4)
    for other in (B, C, D, b"e", b"f", b"g"):
        numbers(sessions, A)
        numbers(sessions, other)
        assert len(sessions) <= 4
    assert numbers(sessions, A) == [7]
    assert numbers(sessions, B) == [1]


def test_a_table_is_never_larger_than_it_may_be() -> None:
    """Whoever floods it with clients."""
    sessions = Sessions()
    keys = [number.to_bytes(4, "big") for number in range(3 * MOST)]
    for first in range(0, len(keys), 64):
        sessions.find(keys[first : first + 64], 0.0)
        assert len(sessions) <= MOST
    assert len(Sessions(most=1).find([A, B, C], 0.0)) == 3


def test_a_session_that_is_idle_for_long_is_over() -> None:
    """It survives one turn, and not two; who is used between them goes on."""
    sessions = Sessions()
    numbers(sessions, A, B, now=1.0)
    assert numbers(sessions, A, now=1.0 + WAIT_SECONDS) == [2]
    assert numbers(sessions, A, B, now=1.0 + 2 * WAIT_SECONDS) == [3, 1]


def test_a_train_is_as_many_requests() -> None:
    """They have adjacent numbers, behind those of before."""
    sessions = Sessions()
    assert numbers(sessions, A) == [1]
    [session] = sessions.find([A], 0.0)
    assert list(count_train(session, 3)) == [2, 3, 4]
    assert numbers(sessions, A) == [5]


def test_a_session_begins_at_zero() -> None:
    """Nothing was received, and nothing failed."""
    assert (Session().received, Session().failed) == (0, 0)
