"""Virtual interfaces as network cards: settings of their drivers, and programs of XDP at their other ends.

Owns what a test needs to have frames that no socket has sent, and to see what comes back before any socket does.
Invariant: a program is detached with the `with` statement.
"""

import array
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from support.system.network import entered

from echod.bpf.asm import R0, R1, R2, R3, R4, R6, R10, Assembler
from echod.bpf.layout import Helper, XdpVerdict
from echod.linux import bpf
from echod.linux.bpf import Map

_SIOCETHTOOL: Final = 0x8946
_GET_FLAGS, _SET_FLAGS, _FLAG_VLAN = 0x25, 0x26, 1 << 8  # linux/ethtool.h
_TEST_RUN: Final = 10
_LIVE_FRAMES: Final = 1 << 1  # linux/bpf.h: BPF_F_TEST_XDP_LIVE_FRAMES
_ARRAY, _MMAPABLE = 2, 1 << 10
MOST_AT_ONCE: Final = 64


def strip_vlan_tags(name: str, *, wanted: bool) -> None:
    """Have an interface take the tags of VLANs off, or not, as `ethtool -K NAME rxvlan on` does."""
    value = array.array("I", (_GET_FLAGS, 0))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        request = struct.pack("=16sQ16x", name.encode(), value.buffer_info()[0])
        fcntl.ioctl(sock, _SIOCETHTOOL, request)
        value[:] = array.array("I", (_SET_FLAGS, value[1] & ~_FLAG_VLAN | wanted * _FLAG_VLAN))
        fcntl.ioctl(sock, _SIOCETHTOOL, request)


class Card:
    """The other end of a cable: it sends frames that no socket has sent, and counts those that come.

    Needed also where nothing is counted: a veth gets what XDP sends only if it has a program of its own.
    """

    def __init__(self, namespace: str, name: str, verdict: XdpVerdict = XdpVerdict.PASS) -> None:
        """Attach a program that counts, and lets go on or drops, to an interface of a namespace."""
        self._namespace = namespace
        with entered(namespace):
            self._ifindex = socket.if_nametoindex(name)
            self._counter = Map(_ARRAY, key_bytes=4, value_bytes=8, entries=1, flags=_MMAPABLE)
            self._view = self._counter.view().cast("Q")
            self._programs = [bpf.load_program(self._counting(verdict), bpf.XDP)]
            self._link = bpf.create_link(self._programs[0], self._ifindex, bpf.XDP)

    def close(self) -> None:
        """Detach it."""
        self._view.release()
        for descriptor in (*self._programs, self._link, self._counter.descriptor):
            os.close(descriptor)

    @property
    def received(self) -> int:
        """Return how many frames have come."""
        return int(self._view[0])

    def _counting(self, verdict: XdpVerdict) -> bytes:
        code = Assembler()
        code.map_value(R1, self._counter.descriptor)
        code.compute(R2, "=", 1)
        code.add_atomically(R1, 0, R2)
        code.compute(R0, "=", verdict)
        code.exit()
        return code.assemble().instructions

    def load(self, frame: bytes) -> int:
        """Load the program that `send` runs: it makes each frame anew, for a frame that was sent comes again."""
        head = frame[:62].ljust(64, b"\0")
        code = Assembler()
        code.compute(R6, "=", R1)
        for at in range(0, 64, 4):
            code.store(4, R10, at - 64, int.from_bytes(head[at : at + 4], "little", signed=True))
        code.compute(R1, "=", R6)
        code.compute(R2, "=", 0)
        code.stack(R3, -64)
        code.compute(R4, "=", min(len(frame), 62))
        code.call(Helper.XDP_STORE_BYTES)
        code.compute(R0, "=", XdpVerdict.SEND)
        code.exit()
        program = bpf.load_program(code.assemble().instructions, bpf.XDP)
        self._programs.append(program)
        return program

    def send(self, program: int, frame: bytes, number: int) -> None:
        """Send frames that no socket has made, out of the interface."""
        data = array.array("B", frame)
        context = array.array("B", struct.pack("<6I", 0, len(frame), 0, self._ifindex, 0, 0))
        fields = (program, 0, len(frame), 0, data.buffer_info()[0], 0, number, 0, len(context), 0)
        attributes = struct.pack(
            "<4I2Q4I2Q3I", *fields, context.buffer_info()[0], 0, _LIVE_FRAMES, 0, min(number, MOST_AT_ONCE)
        )
        with entered(self._namespace):
            bpf._bpf(_TEST_RUN, attributes)


@contextmanager
def card(namespace: str, name: str, verdict: XdpVerdict = XdpVerdict.PASS) -> Iterator[Card]:
    """Give one."""
    with ExitStack() as stack:
        made = Card(namespace, name, verdict)
        stack.callback(made.close)
        yield made
