"""echod.bpf.decisions: which datagram has a path, and who is refused before the sockets."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_network
from time import monotonic

import pytest
from support.bpf import (
    ANY,
    DROP,
    LOCAL,
    LOOPBACK,
    NEXT,
    OTHER_LOCAL,
    OTHER_LOCAL6,
    REDIRECT,
    Frame,
    Kernel,
    Outcome,
    both_drivers,
    declaration,
    needs_bpf,
    over_ipv6,
    rules,
)
from support.loopback import listener
from support.waiting import wait_until

from echod.bpf.layout import Hook, LinkKind
from echod.bpf.maps import KernelTraffic
from echod.bpf.options import Limits

pytestmark = needs_bpf

OTHER_INTERFACE = 7
both_families = pytest.mark.parametrize("frame", [Frame(), over_ipv6()], ids=["IPv4", "IPv6"])


def is_passed(outcome: Outcome) -> bool:
    """Tell whether the sockets get it, as it is, and it is counted as that alone."""
    (traffic,) = outcome.counted.values()
    return outcome.verdict == NEXT and traffic == KernelTraffic(passed=1)


def is_dropped(outcome: Outcome, reason: str) -> bool:
    """Tell whether it is dropped for that reason alone."""
    (traffic,) = outcome.counted.values()
    return outcome.verdict == DROP and traffic == KernelTraffic(dropped={reason: 1})


# -- paths


@both_families
def test_the_first_datagram_is_for_the_sockets_and_the_next_is_not(frame: Frame) -> None:
    """Once they have replied, all of that peer are replied to here, from whichever of its ports."""
    with Kernel() as kernel:
        assert is_passed(kernel.meet(frame))
        kernel.note(frame.reply)
        for port in (frame.source_port, 40_001, 65_535):
            assert kernel.meet(replace(frame, source_port=port)).verdict == REDIRECT


@pytest.mark.parametrize(
    "other",
    [
        {"source": "10.0.0.3"},
        {"to": OTHER_LOCAL},
        {"to_port": 7007},
        {"source": "fd00::2", "to": "fd00::1"},
    ],
)
def test_a_path_is_that_of_one_peer_one_local_address_and_one_port(other: dict[str, str]) -> None:
    """Nothing follows for any other."""
    with Kernel() as kernel:
        kernel.note(Frame().reply)
        assert is_passed(kernel.meet(replace(Frame(), **other)))  # type: ignore[arg-type]


def note_elsewhere(kernel: Kernel, frame: Frame) -> None:
    """Note a path by another interface than the one that frames come in by."""
    kernel.note(frame.reply)
    paths = kernel.datapath._maps["paths"]
    for key, path in list(paths.items()):
        paths.update(key, path[:16] + OTHER_INTERFACE.to_bytes(4, "little") + path[20:])


@both_drivers
@both_families
def test_a_peer_whose_replies_leave_by_another_interface_is_for_the_sockets(frame: Frame, hook: Hook) -> None:
    """Only they can send by another interface than the one that a datagram came in by."""
    with Kernel(hook=hook) as kernel:
        note_elsewhere(kernel, frame)
        assert is_passed(kernel.meet(frame, ifindex=LOOPBACK))


@pytest.mark.parametrize(
    ("frame", "reason"),
    [(Frame(source="127.0.0.1"), "source_invalid"), (over_ipv6(source=OTHER_LOCAL6), "source_is_self")],
)
def test_a_path_by_another_interface_excuses_nobody(frame: Frame, reason: str) -> None:
    """Who is answered on `lo`, say, is refused where no such source is valid, before any account is charged."""
    with Kernel() as kernel:
        note_elsewhere(kernel, frame)
        assert is_dropped(kernel.meet(frame), reason)


@both_families
def test_a_path_that_is_no_longer_fresh_is_renewed_by_one_datagram(frame: Frame) -> None:
    """One goes to the sockets, and all others meanwhile are replied to; their reply makes the path fresh."""
    with Kernel(declaration(fresh_seconds=100.0, stale_seconds=1000.0)) as kernel:
        kernel.note(frame.reply)
        kernel.age(101)
        assert is_passed(kernel.meet(frame))
        # On a busy machine 100 ms may be over, and the next is for the sockets, too.
        wait_until(lambda: [kernel.meet(frame).verdict for _ in range(3)] == [REDIRECT] * 3, "three were replied to")
        kernel.note(frame.reply)
        kernel.age(50)
        assert kernel.meet(frame).verdict == REDIRECT


@both_families
def test_a_stale_path_is_none(frame: Frame) -> None:
    """If the sockets have not replied for so long, all datagrams are for them."""
    with Kernel(declaration(fresh_seconds=100.0, stale_seconds=1000.0)) as kernel:
        kernel.note(frame.reply)
        kernel.age(900)
        wait_until(lambda: kernel.meet(frame).verdict == REDIRECT, "one was replied to")  # not those that renew
        kernel.age(101)
        assert [is_passed(kernel.meet(frame)) for _ in range(3)] == [True] * 3


@both_families
def test_a_path_that_was_forgotten_is_none_until_it_is_noted_again(frame: Frame) -> None:
    """All that were noted before are forgotten at once, and none that is noted later."""
    with Kernel() as kernel:
        kernel.note(frame.reply)
        assert kernel.meet(frame).verdict == REDIRECT
        kernel.datapath.forget(monotonic())
        assert is_passed(kernel.meet(frame))
        kernel.note(frame.reply)
        assert kernel.meet(frame).verdict == REDIRECT


# -- refusals

REFUSED = [
    ({"source_port": 0}, "source_port_zero"),
    ({"source_port": 7}, "source_port_own"),
    ({"source_port": 53}, "source_port_low"),
    ({"source_port": 1900}, "source_port_refused"),
    ({"source": "127.0.0.1"}, "source_invalid"),
    ({"source": "224.0.0.1"}, "source_invalid"),
    ({"source": OTHER_LOCAL}, "source_is_self"),
    ({"source": "10.66.1.1"}, "access"),
    ({"source": "192.0.2.1"}, "access"),
]
REFUSED6 = [
    ({"source_port": 53}, "source_port_low"),
    ({"source": "::2"}, "source_invalid"),
    ({"source": OTHER_LOCAL6}, "source_is_self"),
    ({"source": "fd00:66::1"}, "access"),
    ({"source": "2001:db8::1"}, "access"),
]


@pytest.mark.parametrize(
    ("make", "fields", "reason"),
    [*((Frame, fields, reason) for fields, reason in REFUSED), *((over_ipv6, *each) for each in REFUSED6)],
)
def test_who_is_refused_is_dropped_for_the_reason_of_the_rules(
    make: Callable[..., Frame], fields: dict[str, str], reason: str
) -> None:
    """A port before an address, and of addresses the first level that contains it."""
    with Kernel() as kernel:
        assert is_dropped(kernel.meet(make(**fields)), reason)
        assert is_dropped(kernel.meet(make(**fields, to_port=7007)), reason)


@both_drivers
def test_who_is_refused_is_charged_to_no_limit(hook: Hook) -> None:
    """Where there is one it is dropped as well, and who is admitted is for the sockets."""
    with Kernel(declaration(limits=Limits(per_source=1, burst=1)), hook) as kernel:
        for _ in range(3):
            assert is_dropped(kernel.meet(Frame(source="192.0.2.1")), "access")
        assert is_passed(kernel.meet(Frame()))


@pytest.mark.parametrize("fields", [{"source_port": 53}, {"source": "192.0.2.1"}])
@pytest.mark.parametrize(
    "to",
    [
        {"to": "10.0.0.200"},
        {"to": OTHER_LOCAL, "to_port": 7007},
        {"to": "10.255.255.255"},
    ],
)
def test_nothing_is_dropped_that_is_not_for_a_listener(fields: dict[str, str], to: dict[str, str]) -> None:
    """It may be for a host behind this one, for another service on the same port, or for all hosts of a network."""
    with Kernel() as kernel:
        assert is_passed(kernel.meet(Frame(**fields, **to)))  # type: ignore[arg-type]


def test_what_is_local_may_be_a_whole_network() -> None:
    """As `ip route add local` makes it."""
    networks = (*rules().own_addresses, ip_network("10.5.0.0/16"))
    with Kernel(declaration(rules=rules(own_addresses=networks))) as kernel:
        assert is_dropped(kernel.meet(Frame(source="192.0.2.1", to="10.5.77.1")), "access")
        assert is_passed(kernel.meet(Frame(source="192.0.2.1", to="10.6.77.1")))


def test_a_listener_that_is_bound_to_an_interface_is_left_to_the_sockets() -> None:
    """The same port of another interface may be another's: who sends from it is not known here."""
    listeners = (listener(ANY, 7, zone="eth0"), listener(LOCAL, 8, zone="eth0"))
    with Kernel(declaration(listeners=listeners)) as kernel:
        for port in (7, 8):
            assert is_passed(kernel.meet(Frame(to_port=port, source_port=53)))
            kernel.note(Frame(to_port=port).reply)
            assert kernel.paths() == 0
            assert is_passed(kernel.meet(Frame(to_port=port)))


def test_on_loopback_the_sockets_refuse_addresses() -> None:
    """There the rules are others: the host itself is a client. A refused port is refused all the same."""
    with Kernel(hook=Hook(LinkKind.LOOPBACK)) as kernel:
        assert is_passed(kernel.meet(Frame(source="127.0.0.1", to="127.0.0.1")))
        assert is_passed(kernel.meet(Frame(source="192.0.2.1", to="127.0.0.5")))
        assert is_dropped(kernel.meet(Frame(source="127.0.0.1", source_port=53, to="127.0.0.5")), "source_port_low")
        assert is_dropped(kernel.meet(over_ipv6(source="::1", source_port=53, to="::1")), "source_port_low")


def test_a_program_without_a_link_header_loads() -> None:
    """Its replies have no stations; `tests/netns` has one at work."""
    with Kernel(hook=Hook(LinkKind.BARE)) as kernel:
        assert kernel.programs.ingress > 0
