"""The steps of the ingress program that keep the rate limits: GCRA, as in `admission.ratelimit`.

An account is one number of 64 bits: when it will be balanced, in ns. It is charged without a lock, by comparing and
exchanging. What is left to the sockets is charged before, so kernel and sockets together keep each limit. Invariant: a
train is let through or refused whole; one above the burst takes a whole burst, and the sockets reply to a part of it.
"""

from typing import Final

from echod.admission.loops import PERIOD
from echod.bpf.asm import R0, R1, R2, R3, R4, R5, R6, R7, R9, R10, Assembler
from echod.bpf.counting import count
from echod.bpf.layout import Count, Helper, Stack
from echod.bpf.options import NANOSECONDS, Build, Limits

_BURST_SECONDS: Final = 0.1
_ROUNDING: Final = 16
"""As in `admission.ratelimit`: the burst of all sources, and the part of an interval that is allowed for rounding."""

_TRIES: Final = 4
"""Attempts to charge an account that other CPUs charge at the same time."""

_NO_EXIST: Final = 1  # BPF_NOEXIST


def charge(code: Assembler, build: Build) -> None:
    """Charge the source, and all sources together; then leave to the sockets what the kernel may not reply to."""
    limits, options = build.options.limits, build.options
    code.label("charge")
    if limits is None:
        code.jump_if(R9, "==", 0, "pass")
    if options.loop_breaker or (limits is not None and limits.slip):
        code.call(Helper.RANDOM)
        code.store(8, R10, Stack.CHANCE, R0)
    if limits is not None:
        if limits.per_source is not None:
            _charge_source(code, build, limits, limits.per_source)
        if limits.total is not None:
            _charge_total(code, build, limits.burst, limits.total)
        if limits.dry_run:
            code.jump("within")
            code.label("over")
            count(code, build, Count.SLIPPED)
            code.label("within")
        code.jump_if(R9, "==", 0, "pass")


def _charge_source(code: Assembler, build: Build, limits: Limits, rate: int) -> None:
    """Charge the account of the source; one in `slip` datagrams may be on credit."""
    interval = round(NANOSECONDS / rate)
    tolerance = limits.burst * interval + interval // _ROUNDING
    _write_source(code, build)
    code.map(R1, build.tables.rates)
    code.stack(R2, Stack.SOURCE)
    code.call(Helper.MAP_LOOKUP)
    _price(code, limits.burst, interval, "burst")
    code.jump_if(R0, "!=", 0, "account")
    code.load(R2, 8, R10, Stack.NOW)
    code.compute(R2, "+", R3)
    code.store(8, R10, Stack.NUMBER, R2)
    code.map(R1, build.tables.rates)
    code.stack(R2, Stack.SOURCE)
    code.stack(R3, Stack.NUMBER)
    code.compute(R4, "=", _NO_EXIST)
    code.call(Helper.MAP_UPDATE)
    code.jump("source charged")
    code.label("account")
    code.compute(R1, "=", R0)
    _load_latest(code, tolerance)
    slip = limits.slip if not limits.dry_run else 0
    if slip:
        code.load(R0, 8, R10, Stack.CHANCE)
        code.compute(R0, ">>", PERIOD.bit_length() - 1)  # the bits that a sample does not use
        code.compute(R0, "%", slip)
        code.jump_if(R0, "!=", 0, "no credit")
        code.constant(R0, limits.burst * interval)
        code.compute(R5, "+", R0)
        code.label("no credit")
    _charge_account(code, "source charged")
    if slip:
        _load_latest(code, tolerance)
        code.jump_if(R2, "<=", R5, "source charged")
        count(code, build, Count.SLIPPED)
    code.label("source charged")


def _charge_total(code: Assembler, build: Build, burst: int, rate: int) -> None:
    """Charge the account of all sources together."""
    interval = round(NANOSECONDS / rate)
    most = max(burst, int(rate * _BURST_SECONDS))
    code.map_value(R1, build.tables.total)
    _price(code, most, interval, "total burst")
    _load_latest(code, most * interval + interval // _ROUNDING)
    _charge_account(code, "total charged")


def _write_source(code: Assembler, build: Build) -> None:
    """Write the source, as `net.peers` has it: an address, a /64, or an address whose /64 is not that of one host.

    (An IPv4 address that begins like such a one is no valid source; the zeros behind it would change nothing.)
    """
    code.load(R2, 8, R10, Stack.PATH_KEY)
    code.store(8, R10, Stack.SOURCE, R2)
    code.store(8, R10, Stack.SOURCE + 8, 0)
    code.load(R2, 2, R10, Stack.VERSION)
    code.store(8, R10, Stack.SOURCE + 16, R2)
    code.load(R2, 1, R10, Stack.PATH_KEY)
    code.jump_if(R2, "==", 0, "address")
    code.jump_if(R2, "!=", 0xFE, "prefix")
    code.load(R2, 4, R6, build.abi.ifindex)
    code.store(4, R10, Stack.SOURCE + 20, R2)
    code.label("address")
    code.load(R2, 8, R10, Stack.PATH_KEY + 8)
    code.store(8, R10, Stack.SOURCE + 8, R2)
    code.label("prefix")


def _price(code: Assembler, most: int, interval: int, name: str) -> None:
    """Load the price of the datagrams, in ns, into R3. Of a train above the burst the sockets reply to a part."""
    code.compute(R3, "=", R7)
    code.jump_if(R3, "<=", most, name)
    code.compute(R3, "=", most)
    code.compute(R9, "=", 0)
    code.label(name)
    code.compute(R3, "*", interval)


def _load_latest(code: Assembler, tolerance: int) -> None:
    """Load into R5 when an account has to be balanced at the latest. Changes R4."""
    code.load(R5, 8, R10, Stack.NOW)
    code.constant(R4, tolerance)
    code.compute(R5, "+", R4)


def _charge_account(code: Assembler, done: str) -> None:
    """Charge the account at R1 with R3, unless it would be balanced after R5; R2 is when it will be."""
    slipped = f"{done}?"
    for attempt in range(_TRIES):
        code.load(R0, 8, R1, 0)
        code.load(R2, 8, R10, Stack.NOW)
        code.jump_if(R2, ">=", R0, f"{done} {attempt}")
        code.compute(R2, "=", R0)
        code.label(f"{done} {attempt}")
        code.compute(R2, "+", R3)
        code.jump_if(R2, ">", R5, "over")
        code.compute(R4, "=", R0)
        code.compare_exchange(R1, 0, R2)
        code.jump_if(R0, "==", R4, slipped)
    code.add_atomically(R1, 0, R3)  # many CPUs at once: charge it anyhow
    code.label(slipped)
