"""What the kernel replies to and refuses in the driver of an interface, in datagrams/s.

As root, with the Python of the tests: PYTHONPATH=tests python -m tests.bench.xdp

A pair of veth stands for two network cards and the cable between them: one end has the program of echod, as
kernel.driver: xdp has it, the other makes the frames, which no socket has sent, and counts the replies. All of it, the
generator too, runs on one CPU. It is a figure of what is possible, not a comparison: no pairs, and no medians.
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import perf_counter

from support.netns.cards import Card, card
from support.netns.datagrams import CLIENT, PORT, SERVER, SERVER_MAC, Datagram
from support.netns.kernel import attached, declared, total
from support.netns.wire import LINK, Wire
from support.waiting import wait_until

from echod.bpf.layout import Hook, LinkKind, XdpVerdict
from echod.bpf.maps import KernelTraffic

FRAMES = 2_000_000
PAYLOAD = b"x" * 22
"""So that a frame has 64 bytes, without the check sequence of Ethernet."""


def main(arguments: Sequence[str]) -> int:
    """Measure, and print a line for each kind of datagram."""
    frames = int(arguments[0]) if arguments else FRAMES
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    native = Hook(LinkKind.ETHERNET, bytes.fromhex(SERVER_MAC.replace(":", "")))
    known = Datagram(source=CLIENT, payload=PAYLOAD)
    kinds = {
        "replied to": known,
        "refused for the port": replace(known, source_port=53),
        "refused for the address": replace(known, source="192.0.2.7"),
    }
    with (
        Wire() as wire,
        attached(wire.server, declared(), {LINK: native}) as datapath,
        wire.listen(SERVER, PORT) as echo,
        card(wire.client, LINK, XdpVerdict.DROP) as client,
    ):
        for _ in range(2):  # the path is noted at the second reply
            wire.inject(known.frame())
            data, peer = echo.recvfrom(65_536)
            echo.sendto(data, peer)
        for name, datagram in kinds.items():
            _measure(name, client, datagram, frames, lambda: _done(total(datapath)))
        print(f"replies that came back: {client.received - 2:,}; {total(datapath)}")
    return 0


def _done(traffic: KernelTraffic) -> int:
    """Return what is done with; what seems to be a loop is among it, as the same is sent all the time."""
    return traffic.replied + sum(traffic.dropped.values())


def _measure(name: str, client: Card, datagram: Datagram, frames: int, count: Callable[[], int]) -> None:
    """Send so many of a datagram, and print how many were counted in a second."""
    program, before, begin = client.load(datagram.frame()), count(), perf_counter()
    client.send(program, datagram.frame(), frames)
    wait_until(lambda: count() - before >= frames, "the frames were counted")
    seconds = perf_counter() - begin
    print(f"{name}: {frames:,} in {seconds:.2f} s, {frames / seconds:,.0f} datagrams/s")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
