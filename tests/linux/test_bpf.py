"""echod.linux.bpf: maps, programs and links, with the kernel's own answers."""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support.bpf import needs_bpf, two_capabilities
from support.loopback import ip, namespace

from echod.linux import bpf
from echod.linux.bpf import EGRESS, INGRESS, XDP, Map, ProgramRefusedError

pytestmark = needs_bpf

ARRAY, HASH, LRU_HASH, PREFIXES = 2, 1, 9, 11
NO_PREALLOC, MMAPABLE = 1, 1 << 10

# mov r0, -1; exit: a packet goes on. mov r0, 2; exit: it is dropped.
GO_ON, DROP = (struct.pack("<BBhiBBhi", 0xB7, 0, 0, number, 0x95, 0, 0, 0) for number in (-1, 2))
# exit, without a result.
NO_RESULT = struct.pack("<BBhi", 0x95, 0, 0, 0)

NEXT = 0xFFFF_FFFF
FRAME = bytes(12) + b"\x08\0" + bytes(40)


@pytest.fixture
def table() -> Iterator[Map]:
    """Make a hash of 32-bit keys and 64-bit values."""
    table = Map(HASH, key_bytes=4, value_bytes=8, entries=100, name="table")
    yield table
    table.close()


def number(value: int) -> bytes:
    """Return a value."""
    return value.to_bytes(8, "little")


def test_a_map_keeps_what_it_is_given(table: Map) -> None:
    """A key that it does not have is none; one that is removed is none again."""
    assert table.lookup(b"key1") is None
    table.update(b"key1", number(1))
    table.update(b"key1", number(2))
    table.update(b"key2", number(3))
    assert (table.lookup(b"key1"), table.lookup(b"key2")) == (number(2), number(3))
    assert table.delete(b"key1") is True
    assert table.delete(b"key1") is False
    assert dict(table.items()) == {b"key2": number(3)}


def test_a_map_that_is_full_says_so(table: Map) -> None:
    """And keeps what it has."""
    table.update_all((n.to_bytes(4, "little"), number(n)) for n in range(100))
    with pytest.raises(OSError, match="Argument list too long"):
        table.update(b"more", number(0))
    assert len(dict(table.items())) == 100


@pytest.mark.parametrize(("key", "value"), [(b"key", number(1)), (b"longer", number(1)), (b"key1", b"1")])
def test_a_key_or_value_of_another_size_does_not_reach_the_kernel(table: Map, key: bytes, value: bytes) -> None:
    """It would read, or write, beside it."""
    with pytest.raises(ValueError, match="do not go into this map"):
        table.update(key, value)
    with pytest.raises(ValueError, match="do not go into this map"):
        table.update_all([(key, value)])
    if len(key) != 4:
        for call in (table.lookup, table.delete):
            with pytest.raises(ValueError, match="do not go into this map"):
                call(key)


@pytest.mark.parametrize("kind", [HASH, LRU_HASH])
def test_many_entries_are_written_and_read_at_once(kind: int) -> None:
    """More than one call takes."""
    table = Map(kind, key_bytes=4, value_bytes=8, entries=20_000)
    expected = {n.to_bytes(4, "little"): number(n) for n in range(10_000)}
    table.update_all(expected.items())
    assert dict(table.items()) == expected
    table.close()


def test_the_longest_prefix_is_found() -> None:
    """As the kernel does it."""
    table = Map(PREFIXES, key_bytes=8, value_bytes=8, entries=10, flags=NO_PREALLOC)
    for length, address, value in ((0, "0.0.0.0", 1), (8, "10.0.0.0", 2), (24, "10.1.2.0", 3)):  # noqa: S104
        table.update(struct.pack("<I", length) + socket.inet_aton(address), number(value))
    found = [
        table.lookup(struct.pack("<I", 32) + socket.inet_aton(each)) for each in ("10.1.2.3", "10.1.3.3", "11.0.0.1")
    ]
    assert found == [number(3), number(2), number(1)]
    table.close()


def test_a_view_shows_what_is_in_an_array_now() -> None:
    """Also when the descriptor of the map is closed."""
    table = Map(ARRAY, key_bytes=4, value_bytes=16, entries=1, flags=MMAPABLE)
    view = table.view()
    assert view[:16] == bytes(16)
    table.update(bytes(4), number(5) + number(6))
    assert view[:16] == number(5) + number(6)
    table.close()
    assert view[:16] == number(5) + number(6)


def test_what_the_kernel_does_not_make_is_an_error() -> None:
    """A map of no kind; prefixes whose entries are allocated in advance."""
    with pytest.raises(OSError, match="Invalid argument"):
        Map(9999, key_bytes=4, value_bytes=8, entries=1)
    with pytest.raises(OSError, match="Invalid argument"):
        Map(PREFIXES, key_bytes=8, value_bytes=8, entries=1)


def test_without_the_capabilities_there_is_no_map() -> None:
    """The kernel says that it is not permitted."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with suppress(OSError):
            os.setuid(65_534)
            try:
                Map(HASH, key_bytes=4, value_bytes=8, entries=1)
            except PermissionError:
                os.write(write, b"not permitted")
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == b"not permitted"
    os.waitpid(child, 0)


# -- programs


@pytest.mark.parametrize(("code", "expected"), [(GO_ON, NEXT), (DROP, 2)])
def test_a_program_runs_on_a_frame(code: bytes, expected: int) -> None:
    """Once, or often; the frame is sent nowhere, and returned."""
    with two_capabilities():
        program = bpf.load_program(code, INGRESS, name="test")
    assert bpf.run_program(program, FRAME)[:2] == (expected, FRAME)
    context = bytes(8) + number(5)[:4] + bytes(180)  # with a mark
    verdict, frame, left, nanoseconds = bpf.run_program(program, FRAME, context=context, repeat=1000)
    assert (verdict, frame, left[8:12]) == (expected, FRAME, number(5)[:4])
    assert nanoseconds >= 0
    os.close(program)


def test_a_program_that_the_verifier_refuses_has_its_log() -> None:
    """All of it, with the instruction and the reason."""
    with pytest.raises(ProgramRefusedError) as caught:
        bpf.load_program(NO_RESULT, INGRESS)
    assert caught.value.errno == errno.EACCES
    assert "R0 !read_ok" in caught.value.log
    assert "processed 1 insns" in caught.value.log


def test_a_long_log_is_whole() -> None:
    """Of a program of thousands of instructions, from the first to the reason at the end."""
    moves = b"".join(struct.pack("<BBhi", 0xB7, 1, 0, n) for n in range(4000))
    with pytest.raises(ProgramRefusedError) as caught:
        bpf.load_program(moves + NO_RESULT, EGRESS)
    assert "0: (b7) r1 = 0 " in caught.value.log
    assert "R0 !read_ok" in caught.value.log


def test_a_program_that_is_none_is_an_error_without_a_log() -> None:
    """The kernel refuses it before the verifier sees it."""
    with pytest.raises(OSError, match="Argument list too long") as caught:
        bpf.load_program(b"", INGRESS)
    assert not isinstance(caught.value, ProgramRefusedError)


def test_types_that_are_none_are_an_error() -> None:
    """Nothing is left open."""
    before = set(Path("/proc/self/fd").iterdir())
    with pytest.raises(OSError, match="Invalid argument"):
        bpf.load_program(GO_ON, INGRESS, btf=b"no BTF")
    assert set(Path("/proc/self/fd").iterdir()) == before


# -- links


@pytest.fixture
def interface() -> Iterator[int]:
    """Be in a network of our own with a pair of interfaces; give the index of one."""
    with namespace():
        ip("link", "add", "near", "type", "veth", "peer", "name", "far")
        for name in ("near", "far"):
            ip("link", "set", name, "up")
        yield socket.if_nametoindex("near")


def test_a_link_attaches_a_program_and_may_change_it(interface: int) -> None:
    """What arrives is dropped, or goes on, as the program says; a link whose descriptor is closed is detached."""
    go_on, drop = (bpf.load_program(code, INGRESS) for code in (GO_ON, DROP))
    hears = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    hears.bind(("near", 0))
    link = bpf.create_link(drop, interface, INGRESS)
    assert bpf.linked_interface(link) == interface
    bpf.update_link(link, go_on)
    assert bpf.linked_interface(link) == interface
    bpf.detach_link(link)
    assert bpf.linked_interface(link) == 0
    with pytest.raises(OSError, match="Link has been severed"):
        bpf.update_link(link, drop)
    for descriptor in (link, go_on, drop):
        os.close(descriptor)
    hears.close()


def test_a_link_attaches_a_program_in_the_driver_of_an_interface(interface: int) -> None:
    """Or not at all: no other place takes what `lo` does not."""
    pass_ = bpf.load_program(struct.pack("<BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0), XDP)
    link = bpf.create_link(pass_, interface, XDP)
    assert bpf.linked_interface(link) == interface
    bpf.update_link(link, pass_)
    shown = ip("link", "show", "near")
    assert " xdp " in shown
    assert "xdpgeneric" not in shown
    with pytest.raises(OSError, match="Operation not supported"):
        bpf.create_link(pass_, 1, XDP)
    for descriptor in (link, pass_):
        os.close(descriptor)


def test_a_program_for_a_driver_may_meet_a_frame_in_parts() -> None:
    """The driver of a card has those of a large MTU; a program that is not fit for them meets none."""
    pass_ = bpf.load_program(struct.pack("<BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0), XDP)
    long = bytes(9000)
    assert bpf.run_program(pass_, long, context=struct.pack("<6I", 0, 9000, 0, 0, 0, 0))[:2] == (2, long)
    os.close(pass_)


def test_a_link_says_when_its_interface_is_gone(interface: int) -> None:
    """A name may change, and the interface be down."""
    program = bpf.load_program(GO_ON, EGRESS)
    link = bpf.create_link(program, interface, EGRESS)
    ip("link", "set", "near", "down")
    ip("link", "set", "near", "name", "other")
    ip("link", "set", "other", "up")
    assert bpf.linked_interface(link) == interface
    ip("link", "delete", "other")
    assert bpf.linked_interface(link) == 0
    os.close(link)
    os.close(program)


def test_an_interface_that_is_none_has_no_link() -> None:
    """The kernel has no such device."""
    program = bpf.load_program(GO_ON, INGRESS)
    with namespace(), pytest.raises(OSError, match="No such device"):
        bpf.create_link(program, 999, INGRESS)
    os.close(program)
