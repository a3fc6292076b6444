"""The two programs of an interface, as tables of their steps.

At ingress, datagrams to our ports are replied to as the sockets did last, or refused as they would be, or left to them.
At egress, the replies of the sockets are noted. Owns the order of the steps; each says in its docstring what it does,
and its module what it needs. Invariant: a datagram is replied to only if the sockets of this host replied to that peer,
from that address and port and by that interface, less than `stale_ns` ago.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

from echod.bpf import checks, counting, decisions, egress, limits, loops, reply
from echod.bpf.asm import R1, R2, R6, R7, Assembler, Code
from echod.bpf.layout import IPV4, IPV6, Headers
from echod.bpf.options import Build

Step: TypeAlias = Callable[[Assembler, Build], None]
FamilyStep: TypeAlias = Callable[[Assembler, Build, Headers], None]

FAMILIES: Final = (IPV4, IPV6)

INGRESS_OF_EACH_FAMILY: Final[tuple[FamilyStep, ...]] = (
    checks.leave_what_is_not_ours,
    checks.copy_headers,
    checks.leave_other_stations,
    checks.pass_odd_headers,
    checks.pass_odd_frames,
    checks.count_train,
    checks.judge_source_port,
    checks.write_key,
)

INGRESS: Final[tuple[Step, ...]] = (
    decisions.find_path,
    decisions.refuse_ports,
    decisions.refuse_addresses,
    limits.charge,
    loops.sample,
    reply.choose_family,
)

REPLY_OF_EACH_FAMILY: Final[tuple[FamilyStep, ...]] = (reply.turn_round,)

ENDS: Final[tuple[Step, ...]] = (
    counting.send,
    counting.drop,
    counting.drop_over_limit,
    counting.drop_loop,
    counting.leave_to_the_sockets,
    counting.leave,
    loops.hash_a_chunk,
)

EGRESS_OF_EACH_FAMILY: Final[tuple[FamilyStep, ...]] = (egress.leave_what_is_no_reply, egress.write_path)

EGRESS: Final[tuple[Step, ...]] = (
    egress.leave_other_addresses,
    egress.leave_newcomers,
    egress.note_path,
    egress.leave,
)


def assemble_ingress(build: Build) -> Code:
    """Return the program that replies."""
    code = _begin()
    checks.load_protocol(code, build)
    _find_family(code)
    _write_for_each_family(code, build, INGRESS_OF_EACH_FAMILY)
    for step in INGRESS:
        step(code, build)
    _write_for_each_family(code, build, REPLY_OF_EACH_FAMILY)
    for step in ENDS:
        step(code, build)
    return code.assemble()


def assemble_egress(build: Build) -> Code:
    """Return the program that notes the paths."""
    code = _begin()
    egress.leave_what_others_send(code, build)
    egress.load_protocol(code, build)
    _find_family(code)
    _write_for_each_family(code, build, EGRESS_OF_EACH_FAMILY)
    for step in EGRESS:
        step(code, build)
    return code.assemble()


def _begin() -> Assembler:
    """Begin a program: R6 is the context, and until it is known to be a train, a packet is one datagram, R7."""
    code = Assembler()
    code.compute(R6, "=", R1)
    code.compute(R7, "=", 1)
    return code


def _find_family(code: Assembler) -> None:
    """Go on with the steps of the family of the protocol in R2; all that is not IP goes on untouched."""
    for headers in FAMILIES:
        code.jump_if(R2, "==", headers.protocol, checks.at("family", headers))
    code.jump("next")


def _write_for_each_family(code: Assembler, build: Build, steps: tuple[FamilyStep, ...]) -> None:
    for headers in FAMILIES:
        for step in steps:
            step(code, build, headers)
