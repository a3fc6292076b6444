"""echod.bpf.layout: sizes, and the stack of the programs, on which nothing may overlap."""

import pytest

from echod.bpf import egress, layout
from echod.bpf.layout import Driver, Hook, LinkKind, Stack


def test_keys_and_values_have_no_gap() -> None:
    """The kernel compares keys byte by byte, so each byte of them must be one that the program writes."""
    structs = (layout.PATH_KEY, layout.PATH, layout.PREFIX, layout.SOURCE_KEY, layout.PEER_KEY)
    assert [each.size for each in structs] == [40, 40, 24, 24, 24]
    assert layout.SAMPLE_BYTES == 32
    fields = layout.PATH.pack(1, 2, 3, b"next-1", b"self-1", 61)
    places = (layout.PATH_UNTIL, layout.PATH_IFINDEX, layout.PATH_STATIONS, layout.PATH_HOPS)
    assert [fields[at] for at in places] == [2, 3, ord("n"), 61]


@pytest.mark.parametrize(("kind", "expected"), [("ethernet", 14), ("loopback", 14), ("bare", 0)])
def test_a_kind_of_link_has_its_header(kind: str, expected: int) -> None:
    """That of Ethernet, `lo` too, or none."""
    assert LinkKind(kind).header_bytes == expected


def test_a_hook_with_a_station_is_in_a_driver() -> None:
    """Each place has its own numbers for the same things (linux/bpf.h)."""
    tcx, xdp = Hook(LinkKind.ETHERNET), Hook(LinkKind.ETHERNET, bytes(6))
    assert (tcx.driver, xdp.driver) == (Driver.TCX, Driver.XDP)
    assert (tcx.abi.data, tcx.abi.data_end, tcx.abi.ifindex, tcx.abi.leave, tcx.abi.drop) == (76, 80, 40, -1, 2)
    assert (xdp.abi.data, xdp.abi.data_end, xdp.abi.ifindex, xdp.abi.leave, xdp.abi.drop) == (0, 4, 12, 2, 1)
    assert (tcx.abi.load_bytes, tcx.abi.store_bytes, xdp.abi.load_bytes, xdp.abi.store_bytes) == (26, 9, 189, 190)


def test_nothing_overlaps_on_the_stack() -> None:
    """Each value ends where the next begins, or before; the stack of program and callback has 512 bytes."""
    sizes = {
        Stack.LOOP: 32,
        Stack.SAMPLE: layout.SAMPLE_BYTES,
        Stack.HOPS: 8,
        Stack.NUMBER: 8,
        Stack.PAYLOAD: 8,
        Stack.ENTRY: 8,
        Stack.SOURCE: layout.SOURCE_KEY.size,
        Stack.PREFIX: layout.PREFIX.size,
        Stack.PATH_KEY: layout.PATH_KEY.size,
        Stack.IP: 40 + 8,
        Stack.CHANCE: 8,
        Stack.NOW: 8,
    }
    parts = {Stack.LOCAL: Stack.PATH_KEY + 16, Stack.VERSION: Stack.PATH_KEY + 34}
    parts |= {Stack.PEER_PORT: Stack.SAMPLE + 16, Stack.HASH: Stack.SAMPLE + 24}
    assert set(sizes) | set(parts) == set(Stack)
    assert all(place == expected for place, expected in parts.items())
    places = sorted(sizes)
    starts = [*(place - (14 if place is Stack.IP else 0) for place in places), 0]
    assert all(place + sizes[place] <= starts[n + 1] for n, place in enumerate(places))
    assert all(place % 8 == 0 for place in sizes)
    assert -min(places) + 128 <= 512
    assert egress.Stack.PREFIX + layout.PREFIX.size <= egress.Stack.PATH
    assert egress.Stack.PATH + layout.PATH.size <= egress.Stack.KEY == -layout.PATH_KEY.size
