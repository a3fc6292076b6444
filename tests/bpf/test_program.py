"""echod.bpf.program: the verifier takes every form of the programs from a process with exactly two capabilities."""

from collections.abc import Iterator

import pytest
from support.bpf import (
    ANY,
    ETHERNET,
    XDP,
    Frame,
    Kernel,
    both_drivers,
    declaration,
    needs_bpf,
    two_capabilities,
    verified_steps,
)
from support.loopback import listener

from echod.bpf.layout import Hook, LinkKind
from echod.bpf.link import Programs
from echod.bpf.maps import Declaration, KernelTraffic
from echod.bpf.options import Limits
from echod.bpf.program import assemble_egress, assemble_ingress

pytestmark = needs_bpf

LIMITS = {
    "no limit": None,
    "each source": Limits(per_source=1000, burst=100),
    "each source, with slip": Limits(per_source=1000, burst=100, slip=8),
    "all together": Limits(per_source=None, burst=100, total=10_000),
    "both": Limits(per_source=1000, burst=100, total=10_000, slip=8),
    "a dry run": Limits(per_source=1000, burst=100, total=10_000, slip=8, dry_run=True),
    "the least": Limits(per_source=1, burst=1, total=1, slip=1),
    "the most": Limits(per_source=10_000_000, burst=1_000_000, total=100_000_000, slip=1000),
}


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    """Give maps for all forms."""
    with Kernel(declaration(limits=LIMITS["both"], loop_breaker=True)) as kernel:
        yield kernel


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
@pytest.mark.parametrize("hook", [*map(Hook, LinkKind), XDP])
def test_the_verifier_takes_the_programs(kernel: Kernel, hook: Hook, limits: Limits | None) -> None:
    """With CAP_BPF and CAP_NET_ADMIN alone, for each kind of interface; as root too, where it is another one."""
    for loop_breaker in (True, False):
        declared: Declaration = declaration(limits=limits, loop_breaker=loop_breaker)
        build = kernel.datapath._build(hook, kernel.datapath._maps, declared)
        with two_capabilities():
            Programs(build).close()
        Programs(build).close()


@pytest.mark.parametrize("cpus", [1, 2, 64, 256])
@pytest.mark.parametrize("ports", [1, 2, 1000])
def test_the_verifier_takes_any_number_of_cpus_and_ports(
    monkeypatch: pytest.MonkeyPatch, cpus: int, ports: int
) -> None:
    """Rows and CPUs are masks in the program: with one CPU too, the offset of a counter is not constant to it."""
    monkeypatch.setattr("echod.bpf.datapath.possible_cpus", lambda: cpus)
    listeners = tuple(listener(ANY, 7000 + port) for port in range(ports))
    declared = declaration(listeners=listeners, limits=LIMITS["both"], loop_breaker=True)
    with Kernel(declared) as kernel:
        outcome = kernel.meet(Frame(source_port=53, to_port=7000))
        assert outcome.counted == {(4, 7000): KernelTraffic(dropped={"source_port_low": 1})}


@both_drivers
def test_the_verifier_is_far_from_its_limit(kernel: Kernel, hook: Hook) -> None:
    """Of the million steps that it takes, the longest form needs 80,000 on Linux 6.12, and the other program few."""
    build = kernel.datapath._build(hook, kernel.datapath._maps, kernel.declared)
    with two_capabilities():
        programs = Programs(build)
    assert 1000 < verified_steps(programs.ingress) < 200_000
    assert 100 < verified_steps(programs.egress) < 1000
    programs.close()


def test_a_program_is_short(kernel: Kernel) -> None:
    """Far from the 4,096 instructions that are allowed to a process without more capabilities (BPF_MAXINSNS)."""
    build = kernel.datapath._build(ETHERNET, kernel.datapath._maps, kernel.declared)
    sizes = [len(code.instructions) // 8 for code in (assemble_ingress(build), assemble_egress(build))]
    assert sizes[0] < 1000
    assert sizes[1] < 200


def test_a_kind_of_link_without_a_header_is_shorter(kernel: Kernel) -> None:
    """There is no station to check, to note, or to write."""
    lengths = {}
    for kind in LinkKind:
        build = kernel.datapath._build(Hook(kind), kernel.datapath._maps, kernel.declared)
        lengths[kind] = [len(assemble(build).instructions) for assemble in (assemble_ingress, assemble_egress)]
    assert lengths[LinkKind.BARE][0] < lengths[LinkKind.LOOPBACK][0] < lengths[LinkKind.ETHERNET][0]
    assert lengths[LinkKind.BARE][1] < lengths[LinkKind.LOOPBACK][1] == lengths[LinkKind.ETHERNET][1]
