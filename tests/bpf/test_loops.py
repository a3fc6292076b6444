"""echod.bpf.loops: what circulates is dropped by samples; a prober loses nothing.

No test has a payload that cannot be read, which would be left to the sockets: the length of the frame was compared.
"""

import struct
from collections.abc import Callable, Iterable
from dataclasses import replace
from ipaddress import ip_address

import pytest
from support.bpf import (
    ETHERNET,
    LOCAL,
    LOCAL6,
    REDIRECT,
    XDP,
    Frame,
    Kernel,
    both_drivers,
    declaration,
    needs_bpf,
    over_ipv6,
    rules,
)
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
    """Chance is the same where an account is charged before: each costs 1,024 ns, so that the account tells nothing."""
    with Kernel(looped(limits=Limits(per_source=976_562, burst=1_000_000))) as kernel:
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


# -- where each datagram is a sample


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each datagram sampled."""
    monkeypatch.setattr("echod.bpf.loops.PERIOD", 1)


def hashed(seed: int, payload: bytes) -> int:
    """Hash a payload in words of 64 bits, filled up to whole chunks of 128 bytes; key and length come first."""
    number = seed ^ len(payload)
    for (word,) in struct.iter_unpack("<Q", payload + bytes(-len(payload) % 128)):
        number = (number ^ word) * 0xD6E8_FEB8_6659_FD93 % 2**64
        number ^= number >> 32
    return number


def samples(kernel: Kernel) -> list[tuple[bytes, int, int]]:
    """Return peer, version of IP and hash of each sample; all are from one port."""
    keys = (struct.unpack("<16s2sHIQ", key) for key, _ in kernel.datapath._maps["samples"].items())
    found = sorted((peer, version, number, port, zero) for peer, port, version, zero, number in keys)
    assert all((port, zero) == (bytes([0x9C, 0x40]), 0) for *_, port, zero in found)
    return [each[:3] for each in found]


def meet_all(kernel: Kernel, frame: Frame, payloads: Iterable[bytes], **train: int) -> None:
    """Have the program see a datagram with each payload; it is replied to."""
    kernel.note(frame.reply)
    for payload in payloads:
        assert kernel.meet(replace(frame, payload=payload), **train).verdict == REDIRECT


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("make", [Frame, over_ipv6])
@pytest.mark.parametrize(
    ("hook", "sizes"),
    [
        (ETHERNET, (0, 1, 7, 8, 127, 128, 129)),
        (ETHERNET, (256, 1000, 1400)),
        (XDP, (0, 1, 7, 128, 129, 1400)),
        (XDP, (1, 30_000, 65_408, 65_409, 65_507)),
    ],
)
def test_every_byte_is_hashed(make: Callable[..., Frame], hook: Hook, sizes: tuple[int, ...]) -> None:
    """And the length, with a key that nobody knows; a frame of the largest datagram comes in many parts."""
    with Kernel(declaration(loop_breaker=True), hook) as kernel:
        payloads = [bytes(n % 251 for n in range(size)) for size in sizes]
        meet_all(kernel, make(), payloads)
        peer = ip_address(make().source).packed.ljust(16, b"\0")
        seed = kernel.datapath._seed
        version = 4 if make is Frame else 6
        assert samples(kernel) == sorted((peer, version, hashed(seed, payload)) for payload in payloads)


@pytest.mark.usefixtures("always")
def test_of_a_train_the_first_datagram_is_hashed() -> None:
    """A train of one is none."""
    payload = bytes(range(200))
    for size, segments, expected in ((60, 4, payload[:60]), (200, 1, payload), (201, 1, payload)):
        with Kernel(declaration(loop_breaker=True)) as kernel:
            meet_all(kernel, Frame(), [payload], gso_size=size, segments=segments)
            ((_, _, number),) = samples(kernel)
            assert number == hashed(kernel.datapath._seed, expected)


@pytest.mark.usefixtures("always")
@both_drivers
def test_the_ninth_sample_of_a_peer_may_be_a_loop(hook: Hook) -> None:
    """Then what was seen before is dropped, and what was not is replied to; of another peer that is the first."""
    with Kernel(declaration(loop_breaker=True), hook) as kernel:
        kernel.note(Frame().reply)

        def replied(frame: Frame) -> bool:
            return kernel.meet(frame).verdict == REDIRECT

        assert [replied(Frame()) for _ in range(10)] == [True] * 8 + [False] * 2
        assert [replied(Frame(payload=b"another")) for _ in range(2)] == [True, False]
        assert [replied(Frame(source_port=40_001)) for _ in range(9)] == [True] * 8 + [False]
        assert kernel.datapath.traffic()[4, 7].dropped == {"loop": 4}
