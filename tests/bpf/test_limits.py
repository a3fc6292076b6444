"""echod.bpf.limits: GCRA in the kernel, for each source and for all, charged before anything is left to the sockets."""

import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import ip_network
from time import monotonic

import pytest
from support.bpf import (
    ANY,
    ETHERNET,
    LOCAL,
    PEER6,
    REDIRECT,
    Frame,
    Kernel,
    both_drivers,
    declaration,
    needs_bpf,
    over_ipv6,
    rules,
)
from support.loopback import ip, listener, namespace

from echod.bpf.asm import R0, Assembler, Register
from echod.bpf.layout import Hook
from echod.bpf.maps import Declaration, KernelTraffic
from echod.bpf.options import Limits

pytestmark = needs_bpf

BURST = 10


def limited(**fields: int | bool | None) -> Declaration:
    """Return a declaration with a limit of one datagram a second, after a burst, but for these fields."""
    return declaration(limits=Limits(**({"per_source": 1, "burst": BURST} | fields)))  # type: ignore[arg-type]


def counted(kernel: Kernel, *frames: Frame, **options: int) -> Counter[str]:
    """Have the program see frames; return what it counted, of all accounts."""
    total: Counter[str] = Counter()
    for frame in frames:
        for traffic in kernel.meet(frame, **options).counted.values():
            total.update(replied=traffic.replied, passed=traffic.passed, slipped=traffic.slipped, **traffic.dropped)
    return +total


def within(seconds: float, found: Counter[str], expected: dict[str, int]) -> bool:
    """Tell whether the counts are these, if at most one datagram a second was let through in place of a refusal."""
    more = found["replied"] + found["passed"] - expected.get("replied", 0) - expected.get("passed", 0)
    moved = {name: found[name] - expected.get(name, 0) for name in found | Counter(expected) if name != "slipped"}
    return 0 <= more <= seconds and sum(moved.values()) == 0 and found["slipped"] == expected.get("slipped", 0)


@pytest.mark.parametrize("frame", [Frame(), over_ipv6()], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("known", [True, False])
def test_a_source_gets_its_burst_and_no_more(frame: Frame, *, known: bool) -> None:
    """Also what is left to the sockets is charged; a second source has an account of its own."""
    with Kernel(limited()) as kernel:
        begin = monotonic()
        if known:
            kernel.note(frame.reply)
        name = "replied" if known else "passed"
        found = counted(kernel, *[frame] * 25)
        assert within(monotonic() - begin, found, {name: 10, "rate": 15})
        other = replace(frame, source="10.0.0.3" if frame.version == 4 else "fd00:0:0:1::2")
        assert counted(kernel, *[other] * 10) == {"passed": 10}


def test_an_account_is_balanced_by_time() -> None:
    """A burst is there again when the account was balanced; half of one after half of that time."""
    with Kernel(limited()) as kernel:
        begin = monotonic()
        found = counted(kernel, *[Frame()] * 12)
        kernel.balance_accounts(0.0)
        found += counted(kernel, *[Frame()] * 12)
        kernel.balance_accounts(-5.5)
        found += counted(kernel, *[Frame()] * 12)
        assert within(monotonic() - begin, found, {"passed": 24, "rate": 12})


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("fd00::2", "fd00::ffff:3", True),
        ("fd00::2", "fd00:0:0:1::2", False),
        ("fe80::2", "fe80::3", False),
        ("fe80::2", "fe80::2", True),
        ("::2", "::3", False),
        ("10.0.0.2", "10.0.0.3", False),
        ("10.0.0.2", "a00:2::", False),
    ],
)
def test_a_source_is_what_one_host_can_send_from(one: str, other: str, *, same: bool) -> None:
    """In IPv6 a /64, but an address where hosts share one."""
    frames = [(over_ipv6 if ":" in source else Frame)(source=source) for source in (one, other)]
    admitted = rules(allow=(ip_network("0.0.0.0/0"), ip_network("::/0")))
    with Kernel(replace(limited(), rules=admitted, listeners=(listener(ANY, 7), listener("::", 7)))) as kernel:
        for frame in frames:  # ::/96 is no valid source, so that only a path brings it to its account
            kernel.note(frame.reply)
        begin = monotonic()
        found = counted(kernel, *[frames[0]] * 10, *[frames[1]] * 10)
        expected = {"replied": 10, "rate": 10} if same else {"replied": 20}
        assert within(monotonic() - begin, found, expected)


@both_drivers
def test_a_link_local_source_is_another_one_on_another_link(hook: Hook) -> None:
    """Its address says nothing without its interface."""
    with namespace(), Kernel(limited(), hook) as kernel:
        ip("link", "add", "near", "address", "02:00:00:00:00:07", "type", "veth", "peer", "name", "far")
        near, station = socket.if_nametoindex("near"), bytes.fromhex("020000000007")
        frame = over_ipv6(source="fe80::2")
        begin = monotonic()
        found = counted(kernel, *[frame] * 12)
        to_near = station if hook is ETHERNET else hook.station
        found += counted(kernel, *[replace(frame, stations=to_near + bytes(6))] * 12, ifindex=near)
        assert within(2 * (monotonic() - begin), found, {"passed": 20, "rate": 4})


def test_one_over_the_limit_slips_on_credit_up_to_a_second_burst() -> None:
    """With a slip of 1 each has the chance: then a source gets two bursts, and the second is counted as slipped."""
    with Kernel(limited(slip=1)) as kernel:
        begin = monotonic()
        found = counted(kernel, *[Frame()] * 30)
        assert within(monotonic() - begin, found, {"passed": 20, "slipped": 10, "rate": 10})


def test_the_chance_to_slip_is_one_in_so_many() -> None:
    """Of 2,000 over a limit about 250 slip; the odds against less than 150 or more than 350 are astronomic."""
    with Kernel(limited(slip=8, burst=1000)) as kernel:
        assert counted(kernel, *[Frame()] * 1000) == {"passed": 1000}
        assert 150 < counted(kernel, *[Frame()] * 2000)["slipped"] < 350


def test_all_together_have_a_limit_too() -> None:
    """Each source is within its own, and yet only the burst of all is let through; nothing slips there."""
    with Kernel(limited(total=4, per_source=None, slip=1)) as kernel:
        begin = monotonic()
        found = counted(kernel, *(Frame(source=f"10.0.1.{n}") for n in range(30)))
        assert within(4 * (monotonic() - begin), found, {"passed": 10, "rate": 20})


def test_the_burst_of_all_is_a_tenth_of_a_second_at_least() -> None:
    """As in the sockets: 100 of 1,000 a second, however small the burst of a source is."""
    with Kernel(limited(total=1000, per_source=None, burst=1)) as kernel:
        begin = monotonic()
        found = counted(kernel, *(Frame(source=f"10.0.1.{n % 250}") for n in range(300)))
        assert 100 <= found["passed"] <= 100 + 1000 * (monotonic() - begin) + 1


def test_a_dry_run_counts_and_refuses_nothing() -> None:
    """What is over a limit has slipped."""
    with Kernel(limited(dry_run=True, slip=1)) as kernel:
        kernel.note(Frame().reply)
        found = counted(kernel, *[Frame()] * 25)
        assert found["replied"] == 25
        assert "rate" not in found
        assert 10 <= found["slipped"] <= 15


@pytest.mark.parametrize("total", [None, 1])
def test_a_train_is_let_through_or_refused_whole(total: int | None) -> None:
    """It costs as many datagrams as it has."""
    with Kernel(limited(total=total)) as kernel:
        kernel.note(Frame().reply)
        train = {"gso_size": 10, "segments": 4}
        frame = Frame(payload=bytes(40))
        begin = monotonic()
        found = counted(kernel, *[frame] * 5, **train)
        assert monotonic() - begin > 1 or found == {"replied": 8, "rate": 12}


@pytest.mark.parametrize("limits", [{"per_source": 1}, {"per_source": None, "total": 1}])
def test_a_train_above_the_burst_is_for_the_sockets(limits: dict[str, int | None]) -> None:
    """They reply to a part of it. It takes the whole burst, so that both together keep the limit."""
    with Kernel(limited(**limits)) as kernel:
        kernel.note(Frame().reply)
        begin = monotonic()
        found = counted(kernel, *[Frame(payload=bytes(200))] * 2, gso_size=10, segments=20)
        assert monotonic() - begin > 1 or found == {"passed": 20, "rate": 20}


def account(kernel: Kernel) -> int:
    """Return when the only account of a source will be balanced, in nanoseconds."""
    ((_, balanced),) = kernel.datapath._maps["rates"].items()
    return int.from_bytes(balanced, "little")


def test_two_cpus_at_once_keep_one_limit() -> None:
    """No datagram is let through without being charged, whichever CPU was faster; and the whole burst is let through.

    Both ends of the datagram are this host and its two ports, so that the reply is again a datagram to be replied to.
    The burst is longer than the test, so that nothing is lost of what is due while it has no CPU.
    """
    rate, burst = 100_000, 100_000
    ports = (5000, 6000)
    declared = declaration(
        rules=rules(own_ports=frozenset()),
        listeners=tuple(listener(LOCAL, port) for port in ports),
        limits=Limits(per_source=rate, burst=burst),
    )
    with Kernel(declared) as kernel:
        frame = Frame(source=LOCAL, source_port=5000, to=LOCAL, to_port=6000)
        for port in ports:
            kernel.note(replace(frame, source_port=port, to_port=40_000))
        kernel.run(bytes(frame))  # the account begins
        begin, before = monotonic(), account(kernel)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda _: kernel.run(bytes(frame), repeat=600_000), range(2)))
        most = burst + rate * (monotonic() - begin) + 2
        traffic = kernel.datapath.traffic().values()
        replied = sum(each.replied for each in traffic)
        assert replied + sum(each.dropped.get("rate", 0) for each in traffic) == 1_200_001
        assert burst <= replied <= most
        assert account(kernel) - before >= (replied - 1) * 1_000_000_000 // rate


def test_without_a_limit_nothing_is_charged() -> None:
    """A declaration whose limits are both unlimited has none."""
    with Kernel(limited(per_source=None)) as kernel:
        kernel.note(Frame().reply)
        assert kernel.meet(Frame()).verdict == REDIRECT
        assert kernel.meet(over_ipv6(source=PEER6)).counted == {(6, 7): KernelTraffic(passed=1)}
        assert list(kernel.datapath._maps["rates"].items()) == []


def test_an_account_that_other_cpus_charge_all_the_time_is_charged_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a further look at the limit. Four attempts fail hardly ever: here each finds another number."""

    def fail(self: Assembler, base: Register, offset: int, new: Register) -> None:
        del new
        self.load(R0, 8, base, offset)
        self.compute(R0, "+", 1)

    monkeypatch.setattr(Assembler, "compare_exchange", fail)
    with Kernel(limited(per_source=1000, burst=25)) as kernel:
        kernel.note(Frame().reply)
        assert kernel.meet(Frame()).verdict == REDIRECT
        before = account(kernel)
        assert counted(kernel, *[Frame()] * 10) == {"replied": 10}
        assert account(kernel) - before == 10 * 1_000_000


def test_what_slips_is_sampled_no_more_often_than_anything_else() -> None:
    """Both are chances of 1 in 1,024: were they one, each that slips would be sampled, and most of these be dropped."""
    ports = (5000, 6000)
    declared = declaration(
        rules=rules(own_ports=frozenset()),
        listeners=tuple(listener(LOCAL, port) for port in ports),
        limits=Limits(per_source=1, burst=60, slip=1024),
        loop_breaker=True,
    )
    with Kernel(declared) as kernel:
        frame = Frame(source=LOCAL, source_port=5000, to=LOCAL, to_port=6000)
        for port in ports:
            kernel.note(replace(frame, source_port=port, to_port=40_000))
        kernel.run(bytes(frame), repeat=60_000)
        traffic = kernel.datapath.traffic().values()
        assert sum(each.slipped for each in traffic) > 25
        assert [each.dropped.get("loop", 0) for each in traffic] == [0, 0]


def test_what_is_not_plain_is_charged_by_the_sockets_alone() -> None:
    """The account of a source that sends fragments has not been begun here."""
    with Kernel(limited()) as kernel:
        assert counted(kernel, *[Frame(flags=0x2000)] * 25) == {"passed": 25}
        assert list(kernel.datapath._maps["rates"].items()) == []


def test_limits_and_samples_share_one_random_number() -> None:
    """With both, a datagram that is not sampled has the same chance to slip: nothing else of it differs."""
    with Kernel(replace(limited(slip=1), loop_breaker=True)) as kernel:
        begin = monotonic()
        kernel.note(Frame().reply)
        found = counted(kernel, *(Frame(payload=b"%d" % n) for n in range(30)))
        assert within(monotonic() - begin, found, {"replied": 20, "slipped": 10, "rate": 10})
