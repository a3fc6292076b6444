"""The programs of the kernel, run on frames by hand (BPF_PROG_TEST_RUN), with exactly the two capabilities.

Owns the declaration that the tests share, frames as bytes, and what became of one. Nothing is sent, and nothing is
attached. Frames are for `lo`: the kernel takes those without addresses in the link header for its own.
"""

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from time import monotonic, monotonic_ns
from typing import Any, Final, Self

import pytest
from support.loopback import listener

from echod.admission.rules import RuleSet
from echod.bpf.datapath import Datapath
from echod.bpf.layout import ROW_COUNTS, Count, Driver, Hook, LinkKind
from echod.bpf.link import Programs
from echod.bpf.maps import Declaration, KernelTraffic
from echod.linux.bpf import run_program
from echod.net.listener import Listener
from echod.stats.outcomes import Drop

PORT: Final = 7
SPECIFIC_PORT: Final = 7007
"""Where only LOCAL and LOCAL6 listen."""
LOCAL, LOCAL6 = "10.0.0.1", "fd00::1"
OTHER_LOCAL, OTHER_LOCAL6 = "10.0.0.9", "fd00::9"
PEER, PEER6 = "10.0.0.2", "fd00::2"
ANY, ANY6 = "0.0.0.0", "::"  # noqa: S104 - nothing is bound

ETHERNET: Final = Hook(LinkKind.ETHERNET)
XDP: Final = Hook(LinkKind.ETHERNET, station=bytes(6))
"""In the driver of an interface whose station is that of `lo`."""

both_drivers = pytest.mark.parametrize("hook", [ETHERNET, XDP], ids=["tcx", "xdp"])

NEXT, DROP, REDIRECT = 0xFFFF_FFFF, 2, 7
_AS_TCX: Final = {1: DROP, 2: NEXT, 3: REDIRECT}
"""What XDP_DROP, XDP_PASS and XDP_TX of linux/bpf.h are at tcx."""
LOOPBACK: Final = 1
"""The index of `lo`."""
HOPS: Final = 61
"""Of the replies of the sockets: no kernel has that by itself."""

STATIONS: Final = bytes.fromhex("02000000aa0102000000aa02")
"""Of the next hop and of this host, as in the replies of the sockets."""

_CAPABILITIES: Final = 1 << 12 | 1 << 39  # CAP_NET_ADMIN, CAP_BPF
_VERSION_3: Final = 0x2008_0522
_libc = ctypes.CDLL(None, use_errno=True)

needs_bpf = pytest.mark.skipif(os.geteuid() != 0, reason="BPF needs CAP_BPF and CAP_NET_ADMIN")


@contextmanager
def two_capabilities() -> Iterator[None]:
    """Have CAP_BPF and CAP_NET_ADMIN in effect and nothing else, as the verifier sees it (capabilities(7))."""
    lines = Path("/proc/thread-self/status").read_text().splitlines()
    inheritable, permitted, effective = (
        int(line.split()[1], 16) for line in lines if line.startswith(("CapInh:", "CapPrm:", "CapEff:"))
    )
    _set_capabilities(_CAPABILITIES, permitted, inheritable)
    try:
        yield
    finally:
        _set_capabilities(effective, permitted, inheritable)


def _set_capabilities(*masks: int) -> None:
    low, high = ([mask >> shift & 0xFFFF_FFFF for mask in masks] for shift in (0, 32))
    header = struct.pack("=Ii", _VERSION_3, 0)
    assert _libc.capset(header, struct.pack("=6I", *low, *high)) == 0, os.strerror(ctypes.get_errno())


def verified_steps(program: int) -> int:
    """Return how many steps the verifier took for a loaded program (proc_pid_fdinfo(5))."""
    lines = Path(f"/proc/self/fdinfo/{program}").read_text().splitlines()
    return int(dict(line.split(":") for line in lines)["verified_insns"])


# -- what is declared


def rules(**fields: Any) -> RuleSet:  # noqa: ANN401 - as those of RuleSet are
    """Return rules that admit private networks but for one, on a host with two addresses of each family."""
    declared = RuleSet(
        allow=tuple(map(ip_network, ("10.0.0.0/8", "fd00::/8", "fe80::/10", "127.0.0.0/8", "::1/128"))),
        deny=tuple(map(ip_network, ("10.66.0.0/16", "fd00:66::/32"))),
        own_ports=frozenset({PORT, SPECIFIC_PORT}),
        min_source_port=1024,
        refuse_source_ports=frozenset({1900}),
        own_addresses=tuple(map(ip_network, (LOCAL, OTHER_LOCAL, LOCAL6, OTHER_LOCAL6))),
    )
    return replace(declared, **fields)


LISTENERS: Final[tuple[Listener, ...]] = (
    *(listener(host, PORT) for host in (ANY, ANY6)),
    *(listener(host, SPECIFIC_PORT) for host in (LOCAL, LOCAL6)),
)


def declaration(**fields: Any) -> Declaration:  # noqa: ANN401 - as those of Declaration are
    """Return a declaration without limits and loop breaker, whose paths do not age while a test runs."""
    given: dict[str, Any] = {"rules": rules(), "listeners": LISTENERS, "sources": 1024, "loop_breaker": False}
    given |= {"fresh_seconds": 1000.0, "stale_seconds": 2000.0}
    return Declaration(**(given | fields))


# -- frames


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A UDP datagram as a frame: every field that a program looks at, by default right."""

    source: str = PEER
    source_port: int = 40_000
    to: str = LOCAL
    to_port: int = PORT
    payload: bytes = b"payload"
    stations: bytes = bytes(12)
    hops: int = 64
    tos: int = 0
    identification: int = 0x1234
    flags: int = 0
    udp_checksum: int = 0xBEEF

    @property
    def version(self) -> int:
        """Tell its family."""
        return 6 if ":" in self.to else 4

    def __bytes__(self) -> bytes:
        """Build it. The UDP checksum is any: no program looks whether it is right."""
        source, to = ip_address(self.source).packed, ip_address(self.to).packed
        length = 8 + len(self.payload)
        if self.version == 6:
            head = struct.pack("!LHBB", 6 << 28 | self.tos << 20, length, 17, self.hops) + source + to
        else:
            fields = (0x45, self.tos, 20 + length, self.identification, self.flags, self.hops, 17, 0)
            head = with_checksum(struct.pack("!BBHHHBBH", *fields) + source + to)
        udp = struct.pack("!4H", self.source_port, self.to_port, length, self.udp_checksum)
        return self.stations + (b"\x86\xdd" if self.version == 6 else b"\x08\0") + head + udp + self.payload

    @property
    def reply(self) -> "Frame":
        """Return what the sockets of this host would send, to the station that they know."""
        ends = {"source": self.to, "source_port": self.to_port, "to": self.source, "to_port": self.source_port}
        return replace(self, **ends, stations=STATIONS, hops=HOPS, tos=0)  # type: ignore[arg-type]


def over_ipv6(**fields: Any) -> Frame:  # noqa: ANN401 - as those of Frame are
    """Return a datagram over IPv6, but for these fields."""
    return Frame(**({"source": PEER6, "to": LOCAL6} | fields))


def with_checksum(header: bytes) -> bytes:
    """Return an IPv4 header with its checksum right (RFC 791): the complement of the sum of all words."""
    words = struct.unpack(f"!{len(header) // 2}H", header[:10] + bytes(2) + header[12:])
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return header[:10] + struct.pack("!H", total ^ 0xFFFF) + header[12:]


# -- what became of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the ingress program did with a frame: its verdict, the frame that it left, and what it counted."""

    verdict: int
    frame: bytes
    counted: dict[tuple[int, int], KernelTraffic]
    """By account; without those that counted nothing."""


class Kernel:
    """The maps and the programs of one declaration."""

    def __init__(self, declared: Declaration | None = None, hook: Hook = ETHERNET) -> None:
        """Make and load them with the two capabilities."""
        self.declared, self.hook = declared or declaration(), hook
        with two_capabilities():
            self.datapath = Datapath(self.declared)
            build = self.datapath._build(hook, self.datapath._maps, self.declared)
            self.programs = self.datapath._programs[hook] = Programs(build)
        self._counters = self.datapath._pages[0].view.cast("Q")

    def __enter__(self) -> Self:
        """Go on."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close them."""
        self.datapath.close()

    def note(self, reply: Frame | bytes, *, ifindex: int = LOOPBACK, came_in_by: int = 0) -> None:
        """Have the egress program see a frame twice: the path of a newcomer is noted at the second reply."""
        for _ in range(2):
            self.note_once(reply, ifindex=ifindex, came_in_by=came_in_by)

    def note_once(self, reply: Frame | bytes, *, ifindex: int = LOOPBACK, came_in_by: int = 0) -> None:
        """Have it see a frame once."""
        frame = bytes(reply)
        verdict, left, *_ = run_program(self.programs.egress, frame, context=context(ifindex, came_in_by))
        assert (verdict, left) == (NEXT, frame)

    def paths(self) -> int:
        """Return how many paths there are, of whatever age."""
        return len(list(self.datapath._maps["paths"].items()))

    def meet(self, frame: Frame | bytes, *, ifindex: int = LOOPBACK, gso_size: int = 0, segments: int = 0) -> Outcome:
        """Have the ingress program see a frame."""
        before = self.datapath.traffic()
        verdict, left = self.run(bytes(frame), ifindex=ifindex, gso_size=gso_size, segments=segments)
        after = self.datapath.traffic()
        counted = {account: _difference(after[account], before[account]) for account in after}
        nothing = KernelTraffic()
        return Outcome(verdict=verdict, frame=left, counted={a: each for a, each in counted.items() if each != nothing})

    def meet_quickly(self, frame: bytes) -> tuple[int, str, bytes]:
        """Do the same; return the verdict, the name of the one number that counted the frame, and the frame."""
        before = self._counters.tolist()
        verdict, left = self.run(frame)
        after = self._counters.tolist()
        if before == after:
            return verdict, "", left
        places = (index for index, (old, new) in enumerate(zip(before, after, strict=True)) if new != old)
        grown = {index % ROW_COUNTS: after[index] - before[index] for index in places}
        grown.pop(Count.REPLIED_BYTES, None)
        assert list(grown.values()) == [1], grown
        names = {int(count): count.name.lower() for count in Count}
        names |= {Count.DROPPED + drop: drop.name.lower() for drop in Drop}
        return verdict, names[next(iter(grown))], left

    def forget(self) -> None:
        """Forget all paths."""
        self.datapath.forget(monotonic())

    def run(
        self, frame: bytes, *, ifindex: int = LOOPBACK, gso_size: int = 0, segments: int = 0, repeat: int = 1
    ) -> tuple[int, bytes]:
        """Have the ingress program see a frame, and do not look at the counters. Verdicts are those of tcx."""
        is_xdp = self.hook.driver is Driver.XDP
        given = xdp_context(len(frame), ifindex) if is_xdp else context(ifindex, 0, gso_size, segments)
        verdict, left, *_ = run_program(self.programs.ingress, frame, context=given, repeat=repeat)
        return _AS_TCX[verdict] if is_xdp else verdict, left

    def age(self, seconds: float) -> None:
        """Make all paths so much older."""
        paths = self.datapath._maps["paths"]
        for key, path in list(paths.items()):
            renew, until = struct.unpack_from("<2Q", path)
            older = (max(0, each - int(seconds * 1e9)) for each in (renew, until))
            paths.update(key, struct.pack("<2Q", *older) + path[16:])

    def balance_accounts(self, seconds_ago: float) -> None:
        """Have all accounts of sources be balanced that long ago."""
        rates = self.datapath._maps["rates"]
        for key, _ in list(rates.items()):
            rates.update(key, struct.pack("<Q", monotonic_ns() - int(seconds_ago * 1e9)))


def context(ifindex: int = LOOPBACK, came_in_by: int = 0, gso_size: int = 0, segments: int = 0) -> bytes:
    """Return a `struct __sk_buff` with these fields."""
    packed = bytearray(192)
    struct.pack_into("<2I", packed, 36, came_in_by, ifindex)
    struct.pack_into("<I", packed, 164, segments)
    struct.pack_into("<I", packed, 176, gso_size)
    return bytes(packed)


def xdp_context(length: int, ifindex: int = LOOPBACK) -> bytes:
    """Return a `struct xdp_md` of a frame of this length."""
    return struct.pack("<6I", 0, length, 0, ifindex, 0, 0)


def _difference(after: KernelTraffic, before: KernelTraffic) -> KernelTraffic:
    dropped = {name: number - before.dropped.get(name, 0) for name, number in after.dropped.items()}
    return KernelTraffic(
        replied=after.replied - before.replied,
        replied_bytes=after.replied_bytes - before.replied_bytes,
        passed=after.passed - before.passed,
        slipped=after.slipped - before.slipped,
        dropped={name: number for name, number in dropped.items() if number},
    )
