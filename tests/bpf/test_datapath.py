"""echod.bpf.datapath: a declaration at interfaces, changed and forgotten without a loss; its counters only grow."""

import gc
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from time import monotonic

import pytest
from support.bpf import (
    DROP,
    ETHERNET,
    NEXT,
    REDIRECT,
    Frame,
    Kernel,
    declaration,
    needs_bpf,
    over_ipv6,
    rules,
    two_capabilities,
)
from support.loopback import ip, listener, namespace
from support.processes import descriptors

from echod.bpf.datapath import Datapath, possible_cpus
from echod.bpf.layout import Hook, LinkKind
from echod.bpf.link import DriverRefusedError
from echod.bpf.maps import KernelTraffic
from echod.bpf.options import Limits
from echod.linux.bpf import ProgramRefusedError, run_program

pytestmark = needs_bpf

CONTEXT = bytes(36) + bytes(4) + b"\1\0\0\0" + bytes(148)
"""A `struct __sk_buff` of a packet that came in on `lo`, and of one that leaves there."""


@pytest.fixture
def link() -> Iterator[tuple[int, int]]:
    """Be in a network of our own; give the index of `lo` and of an Ethernet interface."""
    with namespace():
        ip("link", "add", "near", "type", "veth", "peer", "name", "far")
        yield 1, socket.if_nametoindex("near")


def open_descriptors() -> int:
    """Return how many descriptors this process has, without those that nothing refers to."""
    gc.collect()
    return descriptors(os.getpid())


def see(datapath: Datapath, frame: Frame) -> int:
    """Have the program of an Ethernet interface see a frame; return its verdict."""
    return run_program(datapath._programs[ETHERNET].ingress, bytes(frame), context=CONTEXT)[0]


def note(datapath: Datapath, frame: Frame) -> None:
    """Have the program see the reply to a frame, twice: it notes no newcomer."""
    for _ in range(2):
        run_program(datapath._programs[ETHERNET].egress, bytes(frame.reply), context=CONTEXT)


def test_nothing_is_left_when_it_is_closed(link: tuple[int, int]) -> None:
    """Not a map, program or link, whatever was done with it; and closing is for good."""
    before = open_descriptors()
    with two_capabilities(), Datapath(declaration()) as datapath:
        for ifindex, kind in zip(link, (LinkKind.LOOPBACK, LinkKind.ETHERNET), strict=True):
            datapath.attach(ifindex, Hook(kind))
        datapath.declare(declaration(listeners=(listener("::", 9),)))
        datapath.attach(link[1], ETHERNET)
        assert datapath.attached == {1: Hook(LinkKind.LOOPBACK), link[1]: ETHERNET}
        views = len(datapath._pages)
        datapath._pages.clear()
    assert views == 2
    assert open_descriptors() == before
    assert datapath.attached == {}
    datapath.close()


def test_it_is_attached_where_it_was_told_to_be(link: tuple[int, int]) -> None:
    """And nowhere where it was detached, or where the interface is gone."""
    with two_capabilities(), Datapath(declaration()) as datapath:
        assert datapath.attached == {}
        for ifindex, kind in zip(link, (LinkKind.LOOPBACK, LinkKind.ETHERNET), strict=True):
            datapath.attach(ifindex, Hook(kind))
        datapath.detach(1)
        datapath.detach(1)
        assert datapath.attached == {link[1]: ETHERNET}
        ip("link", "delete", "near")
        assert datapath.attached == {}
        datapath.declare(declaration())
        assert datapath.attached == {}


def test_an_interface_has_the_hook_that_it_was_told_last(link: tuple[int, int]) -> None:
    """By the stack, in the driver, or in that for another station; the programs of none stay loaded."""
    near = link[1]
    hooks = [Hook(LinkKind.ETHERNET, bytes([0, 0, 0, 0, 0, station])) for station in (1, 2)]
    with two_capabilities(), Datapath(declaration()) as datapath:
        datapath.attach(link[0], Hook(LinkKind.LOOPBACK))
        for hook in (ETHERNET, *hooks, ETHERNET):
            datapath.attach(near, hook)
            datapath.attach(near, hook)
            assert datapath.attached == {1: Hook(LinkKind.LOOPBACK), near: hook}
            assert datapath._programs.keys() == {Hook(LinkKind.LOOPBACK), hook}
            before = open_descriptors()
            datapath.declare(declaration())
            assert (open_descriptors(), datapath.attached[near]) == (before, hook)
        with pytest.raises(DriverRefusedError, match="not supported"):
            datapath.attach(1, hooks[0])
        assert datapath.attached == {near: ETHERNET}


def test_another_declaration_holds_at_once(link: tuple[int, int]) -> None:
    """Its ports, its rules and its listeners; a path of before is none."""
    with two_capabilities(), Datapath(declaration()) as datapath:
        datapath.attach(link[1], ETHERNET)
        note(datapath, Frame())
        assert see(datapath, Frame()) == REDIRECT
        datapath.declare(declaration(rules=rules(deny=(ip_network("10.0.0.0/24"),))))
        assert see(datapath, Frame()) == DROP
        datapath.declare(declaration(listeners=(listener("::", 9),)))
        assert see(datapath, Frame()) == NEXT
        assert datapath.traffic()[4, 7] == KernelTraffic(replied=1, replied_bytes=7, dropped={"access": 1})


def test_a_declaration_that_is_not_possible_leaves_all_as_it_was(link: tuple[int, int]) -> None:
    """More memory than there is, and no descriptor more than before."""
    with two_capabilities(), Datapath(declaration()) as datapath:
        datapath.attach(link[1], ETHERNET)
        note(datapath, Frame())
        before = open_descriptors()
        with pytest.raises(OSError, match="Argument list too long"):
            datapath.declare(declaration(sources=2**31))
        assert open_descriptors() == before
        assert datapath.declared == declaration()
        assert see(datapath, Frame()) == REDIRECT


def test_a_program_that_is_not_possible_leaves_all_as_it_was(
    link: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the verifier refused it, no interface would have it."""
    with two_capabilities(), Datapath(declaration()) as datapath:
        datapath.attach(link[1], ETHERNET)
        note(datapath, Frame())
        before = open_descriptors()
        monkeypatch.setattr("echod.bpf.counting.ROW_BYTES", 1 << 20)  # counters behind the end of the map
        with pytest.raises(ProgramRefusedError):
            datapath.declare(declaration(limits=Limits(per_source=1, burst=1)))
        assert open_descriptors() == before
        assert see(datapath, Frame()) == REDIRECT


def program_of(descriptor: int) -> str:
    """Return the number of a program, or of that of a link (bpf_link_show_fdinfo and bpf_prog_show_fdinfo)."""
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("prog_id:"))


def test_a_link_that_cannot_be_changed_leaves_all_as_it_was(link: tuple[int, int]) -> None:
    """Those that were changed before it have their program back."""
    with two_capabilities(), Datapath(declaration()) as datapath:
        for ifindex, kind in zip(link, (LinkKind.LOOPBACK, LinkKind.ETHERNET), strict=True):
            datapath.attach(ifindex, Hook(kind))
        attachments = list(datapath._attachments.values())
        before = [program_of(each._ingress) for each in attachments]
        assert before == [program_of(datapath._programs[each.hook].ingress) for each in attachments]
        broken, sound = attachments[1], attachments[1]._egress
        broken._egress = datapath._maps["ports"].descriptor
        try:
            with pytest.raises(OSError, match="Invalid argument"):
                datapath.declare(declaration(rules=rules(deny=())))
        finally:
            broken._egress = sound
        assert [program_of(each._ingress) for each in attachments] == before
        datapath.declare(declaration(rules=rules(deny=())))
        after = [program_of(each._ingress) for each in attachments]
        assert after == [program_of(datapath._programs[each.hook].ingress) for each in attachments] != before


def test_what_cannot_be_attached_again_stays_attached(link: tuple[int, int]) -> None:
    """A kind whose programs cannot be loaded, say."""
    with two_capabilities(), Datapath(declaration()) as datapath:
        datapath.attach(link[1], ETHERNET)
        datapath._maps["local"].descriptor, sound = 1 << 20, datapath._maps["local"].descriptor
        try:
            with pytest.raises(OSError, match="Bad file descriptor"):
                datapath.attach(link[1], Hook(LinkKind.BARE))
        finally:
            datapath._maps["local"].descriptor = sound
        assert datapath.attached == {link[1]: ETHERNET}


def test_what_must_not_be_forgotten_is_kept_over_a_declaration(link: tuple[int, int]) -> None:
    """The accounts of sources, while their limits are the same; and all counters."""
    limits = Limits(per_source=1, burst=10, total=1)
    declared = declaration(limits=limits, loop_breaker=True)
    with two_capabilities(), Datapath(declared) as datapath:
        datapath.attach(link[1], ETHERNET)
        begin = monotonic()
        for _ in range(20):
            see(datapath, Frame())
        datapath.declare(replace(declared, rules=rules(deny=())))
        for _ in range(5):
            see(datapath, Frame())
        found = datapath.traffic()[4, 7]
        assert 10 <= found.passed <= 10 + 2 * (monotonic() - begin)
        assert found.passed + found.dropped["rate"] == 25
        datapath.declare(replace(declared, limits=replace(limits, burst=11)))
        for _ in range(5):
            see(datapath, Frame())
        assert datapath.traffic()[4, 7].passed == found.passed + 5


def test_counters_of_all_declarations_add_up(link: tuple[int, int]) -> None:
    """Also of accounts that no declaration has any more, over many."""
    with two_capabilities(), Datapath(declaration()) as datapath:
        datapath.attach(link[1], ETHERNET)
        for number in range(6):
            see(datapath, Frame())
            see(datapath, over_ipv6())
            version = ("0.0.0.0", "::")[number % 2]  # noqa: S104 - nothing is bound
            datapath.declare(declaration(listeners=(listener(version, 7),)))
        traffic = datapath.traffic()
        assert traffic[4, 7] == KernelTraffic(passed=4)
        assert traffic[6, 7] == KernelTraffic(passed=3)
        assert traffic == datapath.traffic()


def test_paths_are_counted_that_hold(link: tuple[int, int]) -> None:
    """Not those that were forgotten, or have ended."""
    declared = declaration(fresh_seconds=10.0, stale_seconds=20.0)
    with Kernel(declared) as kernel, ExitStack() as stack:
        stack.enter_context(two_capabilities())
        for number in range(300):
            kernel.note(Frame(source=f"10.0.{number // 250}.{number % 250}").reply)
        now = monotonic()
        assert kernel.datapath.count_paths(now) == 300
        assert kernel.datapath.count_paths(now + 19) == 300
        assert kernel.datapath.count_paths(now + 21) == 0
        kernel.datapath.forget(now)
        assert kernel.datapath.count_paths(now) == 0
        kernel.note(Frame().reply)
        assert kernel.datapath.count_paths(monotonic()) == 1


def test_every_cpu_has_rows() -> None:
    """As many as there may be, which os.cpu_count() does not exceed."""
    assert possible_cpus() >= (os.cpu_count() or 1)
