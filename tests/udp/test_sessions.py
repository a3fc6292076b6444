"""echod.udp.sessions: each client has its own counts, and a table of them is bounded."""

from collections.abc import Callable
from struct import pack

import pytest

from echod.udp.sessions import MOST, MOST_OF_SOURCE, WAIT_SECONDS, Session, Sessions, count_requests, count_train


def ipv4(address: int, port: int = 7) -> bytes:
    """Return a peer of IPv4."""
    return pack("=H", 2) + pack(">HI", port, address)


def ipv6(network: int, host: int = 1, port: int = 7) -> bytes:
    """Return a peer of IPv6: in a /64 of 2001:db8::/32, this host."""
    return pack("=H", 10) + pack(">HIIIQI", port, 0, 0x20010DB8, network, host, 0)


A, B, C, D, E, F, G = map(ipv4, range(7))

# What one source can vary, each number another session of it.
VARIED: dict[str, Callable[[int], bytes]] = {
    "the port": lambda number: ipv4(0xC0000201, number),
    "the SSID": lambda number: ipv4(0xC0000201) + pack(">H", number + 1),
    "the host of its /64": lambda number: ipv6(1, number),
    "the SSID in IPv6": lambda number: ipv6(1) + pack(">H", number + 1),
}


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
    for other in (B, C, D, E, F, G):
        numbers(sessions, A)
        numbers(sessions, other)
        assert len(sessions) <= 4
    assert numbers(sessions, A) == [7]
    assert numbers(sessions, B) == [1]


def test_a_table_is_never_larger_than_it_may_be() -> None:
    """Whoever floods it with clients."""
    sessions = Sessions()
    keys = [ipv4(number) for number in range(3 * MOST)]
    for first in range(0, len(keys), 64):
        sessions.find(keys[first : first + 64], 0.0)
        assert len(sessions) <= MOST
    assert len(Sessions(most=1).find([A, B, C], 0.0)) == 3


@pytest.mark.parametrize("vary", VARIED.values(), ids=VARIED)
def test_one_source_makes_no_other_be_forgotten(vary: Callable[[int], bytes]) -> None:
    """Whatever it varies, it forgets its own sessions alone, the first of them too."""
    sessions, others = Sessions(), [A, ipv6(2), ipv6(2) + b"\0\1"]
    assert numbers(sessions, *others, vary(0)) == [1, 1, 1, 1]
    for number in range(1, 3 * MOST):
        numbers(sessions, vary(number))
        assert len(sessions) <= len(others) + MOST_OF_SOURCE
    assert numbers(sessions, *others, vary(0), vary(3 * MOST - 1)) == [2, 2, 2, 1, 2]


def test_of_one_source_those_that_are_in_use_go_on() -> None:
    """One that is used all the time, and each of 256 that are used in turn."""
    sessions = Sessions()
    for port in range(1000, 3000):
        numbers(sessions, ipv4(1, 7), ipv4(1, port))
    assert numbers(sessions, ipv4(1, 7)) == [2001]
    in_turn = [ipv4(2, port) for port in range(256)]
    for count in (1, 2, 3):
        assert numbers(sessions, *in_turn) == [count] * 256


def test_what_a_source_used_again_is_not_forgotten_with_the_rest() -> None:
    """Its first session was used before 256 others, and again: only those that were not are forgotten."""
    sessions = Sessions()
    ports = [ipv4(1, port) for port in range(600)]
    numbers(sessions, *ports[:257])
    assert numbers(sessions, ports[0]) == [2]
    numbers(sessions, *ports[257:512])
    assert numbers(sessions, ports[0], ports[1]) == [3, 1]


def test_sessions_of_a_source_that_survived_a_turn_are_its_oldest() -> None:
    """It has 256 that were idle for 15 minutes, and 257 new ones: the idle ones are forgotten."""
    sessions = Sessions()
    ports = [ipv4(1, port) for port in range(513)]
    numbers(sessions, *ports[:256], now=1.0)
    numbers(sessions, *ports[256:], now=1.0 + WAIT_SECONDS)
    assert len(sessions) == 257


def test_many_sources_with_many_sessions_fill_the_table_and_no_more() -> None:
    """Each of them has more sessions than it may have."""
    sessions = Sessions()
    for address in range(3 * MOST // 300):
        numbers(sessions, *(ipv4(address, port) for port in range(300)))
        assert len(sessions) <= MOST


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
