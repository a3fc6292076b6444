"""echod.bpf.loops: what circulates is dropped by samples; a prober loses nothing."""

import pytest
from support.bpf import LOCAL, LOCAL6, Frame, Kernel, both_drivers, declaration, needs_bpf, over_ipv6, rules
from support.loopback import listener

from echod.bpf.layout import Hook
from echod.bpf.maps import Declaration, KernelTraffic
from echod.bpf.options import Limits

pytestmark = needs_bpf

MANY = 60_000
"""Of so many, about 59 are sampled; the odds against more than 8 of each of two peers are astronomic."""


def looped(*, loop_breaker: bool = True, limits: Limits | None = None) -> Declaration:
    """Return a declaration with two ports on each of two addresses, so that a reply is a datagram to be replied to."""
    return declaration(
        rules=rules(own_ports=frozenset()),
        listeners=tuple(listener(host, port) for host in (LOCAL, LOCAL6) for port in (5000, 6000)),
        loop_breaker=loop_breaker,
        limits=limits,
    )


def circulating(kernel: Kernel, local: str, payload: bytes) -> bytes:
    """Return a datagram that circulates where it meets the program again and again; there is a path each way."""
    make = over_ipv6 if ":" in local else Frame
    frame = make(source=local, source_port=5000, to=local, to_port=6000, payload=payload)
    for port in (5000, 6000):
        kernel.note(make(source=local, source_port=port, to=local, to_port=40_000))
    return bytes(frame)


def totals(kernel: Kernel) -> dict[str, int]:
    """Return what was replied to and dropped, of all accounts."""
    traffic = kernel.datapath.traffic().values()
    dropped: dict[str, int] = {}
    for each in traffic:
        for name, number in each.dropped.items():
            dropped[name] = dropped.get(name, 0) + number
    return {"replied": sum(each.replied for each in traffic)} | dropped


@both_drivers
@pytest.mark.parametrize("local", [LOCAL, LOCAL6])
@pytest.mark.parametrize("payload", [b"", b"x", bytes(128), bytes(1400)])
def test_what_circulates_is_dropped(hook: Hook, local: str, payload: bytes) -> None:
    """About one in 1,024 of the same bytes from the same peer, of each length; it is counted as a loop."""
    with Kernel(looped(), hook) as kernel:
        kernel.run(circulating(kernel, local, payload), repeat=MANY)
        found = totals(kernel)
        assert 1 <= found["loop"] <= 150
        assert found["replied"] + found["loop"] == MANY


def test_within_a_limit_what_circulates_is_dropped_too() -> None:
    """Chance is the same where an account is charged before."""
    with Kernel(looped(limits=Limits(per_source=10_000_000, burst=1_000_000))) as kernel:
        kernel.run(circulating(kernel, LOCAL, b"x"), repeat=MANY)
        found = totals(kernel)
        assert 1 <= found["loop"] <= 150
        assert found["replied"] + found["loop"] == MANY


def test_a_train_that_circulates_is_dropped_whole() -> None:
    """It counts as its datagrams; it is recognised by the first of them."""
    with Kernel(looped()) as kernel:
        kernel.run(circulating(kernel, LOCAL, bytes(60)), gso_size=20, segments=3, repeat=MANY)
        found = totals(kernel)
        assert found["loop"] % 3 == 0
        assert found["replied"] + found["loop"] == 3 * MANY


def test_what_is_told_apart_by_its_last_byte_does_not_circulate() -> None:
    """The whole payload is hashed: a prober that numbers its datagrams at the end loses none."""
    with Kernel(declaration(loop_breaker=True)) as kernel:
        kernel.note(Frame().reply)
        begin = bytes(Frame(payload=bytes(303)))[:-3]
        for number in range(MANY // 2):
            kernel.run(begin + number.to_bytes(3, "big"))
        assert totals(kernel) == {"replied": MANY // 2}


def test_a_thousand_equal_datagrams_all_come_back() -> None:
    """Hardly ever are nine of them sampled: less than once in 800,000 such tests."""
    with Kernel(declaration(loop_breaker=True)) as kernel:
        kernel.note(Frame().reply)
        for _ in range(1000):
            kernel.run(bytes(Frame()))
        assert kernel.datapath.traffic()[4, 7] == KernelTraffic(replied=1000, replied_bytes=7000)


def test_each_peer_has_its_own_samples() -> None:
    """The same bytes from many peers are no loop: each peer has less than nine samples."""
    with Kernel(declaration(loop_breaker=True)) as kernel:
        kernel.note(Frame().reply)
        frames = [bytes(Frame(source_port=30_000 + number)) for number in range(5000)]
        for number in range(MANY // 2):
            kernel.run(frames[number % 5000])
        assert totals(kernel) == {"replied": MANY // 2}


def test_without_the_loop_breaker_nothing_is_sampled() -> None:
    """What circulates goes on."""
    with Kernel(looped(loop_breaker=False)) as kernel:
        kernel.run(circulating(kernel, LOCAL, b"x"), repeat=MANY)
        assert totals(kernel) == {"replied": MANY}
