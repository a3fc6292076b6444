"""echod.bpf.counting: each datagram is in one number of its account, and the reply leaves without a mark."""

import pytest
from support.bpf import ANY, LOCAL, Frame, Kernel, both_drivers, context, declaration, needs_bpf, over_ipv6, rules
from support.loopback import listener

from echod.bpf.layout import ROW_BYTES, Count, Hook
from echod.bpf.maps import KernelTraffic
from echod.bpf.options import Limits
from echod.linux.bpf import run_program

pytestmark = needs_bpf


@both_drivers
def test_each_family_and_port_counts_for_itself(hook: Hook) -> None:
    """Replies with their bytes, what is left to the sockets, and drops by their reason."""
    with Kernel(hook=hook) as kernel:
        kernel.note(Frame().reply)
        kernel.note(over_ipv6().reply)
        for frame in [Frame(payload=bytes(100))] * 3 + [over_ipv6(payload=b"")] * 2:
            kernel.meet(frame)
        kernel.meet(Frame(source_port=53))
        kernel.meet(Frame(source_port=53))
        kernel.meet(over_ipv6(source="2001:db8::1"))
        kernel.meet(Frame(to_port=7007))
        kernel.meet(over_ipv6(to_port=7007, source_port=1900))
        assert kernel.datapath.traffic() == {
            (4, 7): KernelTraffic(replied=3, replied_bytes=300, dropped={"source_port_low": 2}),
            (4, 7007): KernelTraffic(passed=1),
            (6, 7): KernelTraffic(replied=2, dropped={"access": 1}),
            (6, 7007): KernelTraffic(dropped={"source_port_refused": 1}),
        }


def test_a_single_account_has_a_row_of_its_own() -> None:
    """Also there the verifier takes the programs: the number of the row is not constant to it."""
    with Kernel(declaration(listeners=(listener(ANY, 7),))) as kernel:
        kernel.meet(Frame())
        kernel.meet(over_ipv6())
        assert kernel.datapath.traffic() == {(4, 7): KernelTraffic(passed=1)}
        assert kernel.declared.rows == 2


def test_a_thousand_ports_each_have_a_row() -> None:
    """The first and the last of a range count for themselves."""
    ports = range(7000, 8000)
    declared = declaration(rules=rules(), listeners=tuple(listener(LOCAL, port) for port in ports))
    with Kernel(declared) as kernel:
        for port in (7000, 7512, 7999):
            kernel.meet(Frame(to_port=port))
        found = {account: each for account, each in kernel.datapath.traffic().items() if each != KernelTraffic()}
        assert found == {(4, port): KernelTraffic(passed=1) for port in (7000, 7512, 7999)}


def test_the_number_of_every_reason_fits_its_row() -> None:
    """Rows have room for 24 reasons."""
    assert 8 * (Count.DROPPED + 16) <= ROW_BYTES


@pytest.mark.parametrize("dry_run", [True, False])
def test_the_ways_out_are_there_that_are_needed(*, dry_run: bool) -> None:
    """An instruction that nothing reaches is refused by the verifier: each declaration has its own ways out."""
    for loop_breaker in (True, False):
        limits = Limits(per_source=10, burst=5, dry_run=dry_run)
        with Kernel(declaration(limits=limits, loop_breaker=loop_breaker)) as kernel:
            assert kernel.programs.ingress > 0


@pytest.mark.parametrize("known", [True, False])
def test_a_reply_has_no_mark_and_no_priority(*, known: bool) -> None:
    """Nor has a reply of the sockets; what is left to them keeps what it had."""
    with Kernel() as kernel:
        if known:
            kernel.note(Frame().reply)
        given = bytearray(context())
        given[8:12], given[32:36] = b"mark", b"\7\0\0\0"
        _, _, left, _ = run_program(kernel.programs.ingress, bytes(Frame()), context=bytes(given))
        assert (left[8:12], left[32:36]) == ((bytes(4), bytes(4)) if known else (b"mark", b"\7\0\0\0"))
