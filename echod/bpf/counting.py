"""The steps that count, and the ways out of the ingress program.

Owns the rows of the counters as a program sees them. Invariant: every datagram that reached `pass`, `drop` or
`replied` is counted there, in one number of the row of its CPU.
"""

from typing import Final

from echod.bpf.asm import R0, R1, R2, R6, R7, R8, R9, R10, Assembler, Register
from echod.bpf.layout import MOST_DROPS, ROW_BYTES, Context, Count, Helper, Stack, XdpVerdict
from echod.bpf.options import Build
from echod.stats.outcomes import Drop

_ROW_SHIFT: Final = ROW_BYTES.bit_length() - 1


def count(code: Assembler, build: Build, number: int, by_reason: Register | None = None) -> None:
    """Add the datagrams, R7; afterwards R1 is the place of the number. With a register, that reason's is meant.

    The whole offset is computed before it is added to the address of the map, and its bounds must be the same on every
    way there (without CAP_PERFMON the verifier refuses anything else): so a reason that is constant has its own steps.
    """
    code.call(Helper.CPU)
    code.compute(R0, "&", build.options.cpus - 1)  # an older verifier knows no bound of it
    code.compute(R0, "*", build.options.rows * ROW_BYTES)
    code.load(R2, 8, R10, Stack.ENTRY)
    code.compute(R2, "&", build.options.rows - 1)
    code.compute(R2, "<<", _ROW_SHIFT)
    code.compute(R0, "+", R2)
    code.compute(R0, "+", 8 * number)
    if by_reason is not None:
        code.compute(by_reason, "&", MOST_DROPS - 1)
        code.compute(by_reason, "<<", 3)
        code.compute(R0, "+", by_reason)
    code.map_value(R1, build.tables.counts)
    code.compute(R1, "+", R0)
    code.add_atomically(R1, 0, R7)


def leave(code: Assembler, build: Build) -> None:
    """Let go on what is not ours, as if the program were not there."""
    code.label("next")
    code.compute(R0, "=", build.abi.leave)
    code.exit()


def leave_to_the_sockets(code: Assembler, build: Build) -> None:
    """Leave to the sockets what is ours."""
    code.label("pass")
    count(code, build, Count.PASSED)
    code.jump("next")


def drop(code: Assembler, build: Build) -> None:
    """Drop what is refused for the reason in R9."""
    code.label("drop")
    count(code, build, Count.DROPPED, R9)
    _drop(code, build)


def drop_over_limit(code: Assembler, build: Build) -> None:
    """Drop what is over a limit; a dry run does not come here."""
    limits = build.options.limits
    if limits is not None and not limits.dry_run:
        code.label("over")
        count(code, build, Count.DROPPED + Drop.RATE)
        _drop(code, build)


def drop_loop(code: Assembler, build: Build) -> None:
    """Drop what circulates."""
    if build.options.loop_breaker:
        code.label("loop")
        count(code, build, Count.DROPPED + Drop.LOOP)
        _drop(code, build)


def _drop(code: Assembler, build: Build) -> None:
    code.compute(R0, "=", build.abi.drop)
    code.exit()


def send(code: Assembler, build: Build) -> None:
    """Send the frame, which is the reply by now, out by the interface that it came in by."""
    code.label("replied")
    count(code, build, Count.REPLIED)
    code.add_atomically(R1, 8 * (Count.REPLIED_BYTES - Count.REPLIED), R8)
    if build.is_xdp:
        code.compute(R0, "=", XdpVerdict.SEND)
        code.exit()
        return
    code.compute(R2, "=", 0)
    code.store(4, R6, Context.MARK, R2)
    code.store(4, R6, Context.PRIORITY, R2)
    code.load(R1, 4, R6, Context.IFINDEX)
    code.call(Helper.REDIRECT)  # R2, the flags, is 0
    code.exit()
