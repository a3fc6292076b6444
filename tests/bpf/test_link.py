"""echod.bpf.link: both programs at an interface, or none."""

import gc
import os
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest
from support.bpf import ETHERNET, LOOPBACK, XDP, Kernel, declaration, needs_bpf, two_capabilities
from support.loopback import ip, namespace
from support.processes import descriptors

from echod.bpf.layout import Hook, LinkKind
from echod.bpf.link import Attachment, DriverRefusedError, Programs
from echod.bpf.options import Limits

pytestmark = needs_bpf

NO_DESCRIPTOR = 1 << 20


@pytest.fixture
def interface() -> Iterator[int]:
    """Be in a network of our own with a pair of interfaces; give the index of one."""
    with namespace():
        ip("link", "add", "near", "type", "veth", "peer", "name", "far")
        yield socket.if_nametoindex("near")


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    """Give loaded programs."""
    with Kernel() as kernel:
        yield kernel


def open_descriptors() -> int:
    """Return how many descriptors this process has, without those that nothing refers to."""
    gc.collect()
    return descriptors(os.getpid())


def test_an_attachment_is_alive_while_its_interface_is(kernel: Kernel, interface: int) -> None:
    """It is replaced without being detached; when the interface is gone, it says so."""
    with two_capabilities():
        attachment = Attachment(interface, ETHERNET, kernel.programs)
    assert attachment.is_alive
    for _ in range(2):
        attachment.replace_ingress(kernel.programs)
        attachment.replace_egress(kernel.programs)
        if attachment.is_alive:
            ip("link", "delete", "near")
        assert not attachment.is_alive
    attachment.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        attachment.replace_ingress(kernel.programs)


def test_an_interface_that_is_gone_has_no_attachment(kernel: Kernel, interface: int) -> None:
    """Nothing stays open."""
    ip("link", "delete", "near")
    before = open_descriptors()
    with pytest.raises(OSError, match="No such device"):
        Attachment(interface, ETHERNET, kernel.programs)
    assert open_descriptors() == before


def test_a_driver_gets_a_program_too_or_refuses(interface: int) -> None:
    """One that has a program already, has no XDP, or is gone."""
    with Kernel(hook=XDP) as kernel:
        attachment = Attachment(interface, XDP, kernel.programs)
        assert attachment.is_alive
        before = open_descriptors()
        for ifindex in (interface, LOOPBACK):
            with pytest.raises(DriverRefusedError):
                Attachment(ifindex, XDP, kernel.programs)
        ip("link", "set", "near", "name", "other")
        assert attachment.is_alive
        ip("link", "delete", "other")
        assert not attachment.is_alive
        attachment.replace_ingress(kernel.programs)
        with pytest.raises(DriverRefusedError):
            Attachment(interface, XDP, kernel.programs)
        assert open_descriptors() == before
        attachment.close()


def test_what_the_stack_refuses_no_driver_has_refused(kernel: Kernel) -> None:
    """It is an error of another kind."""
    with pytest.raises(OSError, match="No such device") as caught:
        Attachment(1 << 20, ETHERNET, kernel.programs)
    assert not isinstance(caught.value, DriverRefusedError)


def test_an_interface_has_both_programs_or_none(kernel: Kernel, interface: int) -> None:
    """If the second cannot be attached, the first is detached."""
    before = open_descriptors()
    sound = kernel.programs.egress
    kernel.programs.egress = NO_DESCRIPTOR
    try:
        with pytest.raises(OSError, match="Bad file descriptor"):
            Attachment(interface, ETHERNET, kernel.programs)
    finally:
        kernel.programs.egress = sound
    assert open_descriptors() == before


def test_programs_that_cannot_be_loaded_leave_nothing_open(kernel: Kernel) -> None:
    """If the second is refused, the first is closed."""
    build = kernel.datapath._build(ETHERNET, kernel.datapath._maps, kernel.declared)
    tables = replace(build.tables, local=NO_DESCRIPTOR)
    before = open_descriptors()
    with pytest.raises(OSError, match="Bad file descriptor"):
        Programs(replace(build, tables=tables))
    assert open_descriptors() == before


def test_programs_with_a_callback_are_loaded_too(kernel: Kernel) -> None:
    """Their functions are described to the kernel, and the description is closed."""
    declared = declaration(limits=Limits(per_source=1, burst=1), loop_breaker=True)
    build = kernel.datapath._build(Hook(LinkKind.LOOPBACK), kernel.datapath._maps, declared)
    before = open_descriptors()
    programs = Programs(build)
    assert open_descriptors() == before + 2
    programs.close()
