"""echod.core.admission: who is answered, who is not, and for which reason."""

import itertools
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echod.core.admission import Admission, Drop, network_port

OWN = (7, 7007)
OTHER = 40_000
PORTS = st.integers(0, 65_535)


def test_the_numbers_of_the_drops_are_fixed() -> None:
    """Counters are indexed by these numbers and read by programs of other versions, so none may ever move."""
    assert {drop.name: drop.value for drop in Drop} == {
        "DESTINATION_NOT_UNICAST": 1,
        "SOURCE_PORT_ZERO": 2,
        "SOURCE_PORT_OWN": 3,
        "TRUNCATED": 9,
    }


def test_every_port_lies_in_a_sockaddr_as_htons_puts_it() -> None:
    """For all 65,536 ports `network_port` and the C library agree."""
    assert [network_port(port) for port in range(65_536)] == [socket.htons(port) for port in range(65_536)]


@pytest.mark.parametrize(
    ("port", "unicast", "truncated", "decision"),
    [
        (OTHER, True, False, None),
        (OTHER, False, False, Drop.DESTINATION_NOT_UNICAST),
        (0, True, False, Drop.SOURCE_PORT_ZERO),
        (7, True, False, Drop.SOURCE_PORT_OWN),
        (7007, True, False, Drop.SOURCE_PORT_OWN),
        (OTHER, True, True, Drop.TRUNCATED),
    ],
)
def test_each_rule_refuses_for_its_own_reason(
    port: int,
    *,
    unicast: bool,
    truncated: bool,
    decision: Drop | None,
) -> None:
    """A datagram with one fault is dropped for that fault, and one without any is answered."""
    assert Admission(OWN).admit(network_port(port), unicast=unicast, truncated=truncated) is decision


def test_of_several_faults_the_first_rule_names_the_drop() -> None:
    """In every combination of faults the reason is the first in the order of the numbers: one datagram, one reason."""
    admission = Admission(OWN)
    for port, unicast, truncated in itertools.product((0, 7, OTHER), (True, False), (True, False)):
        faults = {
            Drop.DESTINATION_NOT_UNICAST: not unicast,
            Drop.SOURCE_PORT_ZERO: port == 0,
            Drop.SOURCE_PORT_OWN: port in OWN,
            Drop.TRUNCATED: truncated,
        }
        first = min((drop for drop, is_there in faults.items() if is_there), default=None)
        assert admission.admit(network_port(port), unicast=unicast, truncated=truncated) is first


def test_a_port_is_refused_as_it_lies_in_the_sockaddr_and_not_in_ordinary_numbers() -> None:
    """Own port 7 lies as 0x0700: a peer on port 0x0700 = 1792, which lies as 7, is a stranger and is answered."""
    admission = Admission((7,))
    assert admission.admit(network_port(1792), unicast=True, truncated=False) is None
    assert admission.admit(0x0700, unicast=True, truncated=False) is Drop.SOURCE_PORT_OWN


def test_a_daemon_without_udp_listeners_still_refuses_port_zero() -> None:
    """Port 0 is refused whatever the own ports are, in both looks, and is not mistaken for an own port."""
    admission = Admission(())
    assert not admission.admits_all([0])
    assert admission.admit(0, unicast=True, truncated=False) is Drop.SOURCE_PORT_ZERO


@settings(deadline=None)
@given(own=st.sets(PORTS.filter(bool), max_size=4), batch=st.lists(PORTS, max_size=16), chosen=st.data())
def test_the_look_over_a_batch_agrees_with_the_looks_at_each_datagram(
    own: set[int],
    batch: list[int],
    chosen: st.DataObject,
) -> None:
    """`admits_all` says yes exactly where `admit` would let every whole unicast datagram of the batch pass."""
    if own:
        batch += chosen.draw(st.lists(st.sampled_from(sorted(own)), max_size=2))
    admission = Admission(own)
    ports = [network_port(port) for port in batch]
    each = [admission.admit(port, unicast=True, truncated=False) for port in ports]
    assert admission.admits_all(ports) is all(drop is None for drop in each)
