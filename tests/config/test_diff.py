"""echod.config.diff: which listeners a reload keeps, opens and closes."""

from ipaddress import IPv4Address

from hypothesis import given, settings
from hypothesis import strategies as st

from echod.config.diff import Plan, plan
from echod.net.listener import Listener, Protocol


def listener(port: int) -> Listener:
    """Make a listener that only its port tells from others."""
    return Listener(protocol=Protocol.UDP, address=IPv4Address("127.0.0.1"), port=port)


LISTENERS = st.lists(st.integers(1, 9).map(listener), unique=True)


def test_listeners_in_both_are_kept_the_others_opened_or_closed() -> None:
    """A reload touches only what changed; kept and opened follow the new file, closed the old."""
    old = [listener(port) for port in (1, 2, 3, 4)]
    new = [listener(port) for port in (6, 3, 5, 1)]
    assert plan(old, new) == Plan(
        keep=(listener(3), listener(1)),
        open=(listener(6), listener(5)),
        close=(listener(2), listener(4)),
    )


def test_a_start_opens_all_and_a_stop_closes_all() -> None:
    """Start and stop are reloads from nothing and to nothing."""
    listeners = (listener(2), listener(1))
    assert plan((), listeners) == Plan(keep=(), open=listeners, close=())
    assert plan(listeners, ()) == Plan(keep=(), open=(), close=listeners)


def test_a_listener_that_changes_only_its_protocol_is_another_listener() -> None:
    """The same address and port over TCP is another socket: one closes, one opens."""
    udp = listener(7)
    tcp = Listener(protocol=Protocol.TCP, address=udp.address, port=udp.port)
    assert plan((udp,), (tcp,)) == Plan(keep=(), open=(tcp,), close=(udp,))


@settings(deadline=None)
@given(old=LISTENERS, new=LISTENERS)
def test_every_listener_stands_in_exactly_one_place(old: list[Listener], new: list[Listener]) -> None:
    """What is kept or opened is the new set, what is kept or closed is the old; no listener is in two places."""
    answer = plan(old, new)
    assert sorted((*answer.keep, *answer.open), key=str) == sorted(new, key=str)
    assert sorted((*answer.keep, *answer.close), key=str) == sorted(old, key=str)
    assert not set(answer.open) & set(answer.close)


def test_one_pass_over_iterators_is_enough() -> None:
    """The listeners may come from iterators, which can be read only once."""
    assert plan(iter((listener(1),)), iter((listener(1), listener(2)))) == Plan(
        keep=(listener(1),),
        open=(listener(2),),
        close=(),
    )
